"""File bodies: integrity with slow readers, cold pages, TLS, truncation, and no descriptor left behind."""

import asyncio
import contextlib
import os
import ssl
import threading
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dataplane.blobapi import limits
from dataplane.blobapi.message import FileBody, Response
from dataplane.server.body import BodyReader
from dataplane.server.head import RawRequest
from dataplane.server.options import ServerOptions
from tests.server.certificate import self_signed
from tests.server.wire import Wire, serving

MIB = 1024 * 1024
SIZES = [0, 1, 4096, limits.file_inline_bytes_max, limits.file_inline_bytes_max + 1, 3 * MIB + 7, 40 * MIB + 1]


_PATTERN = array("Q", range(SIZES[-1] // 8 + 1)).tobytes()


def pattern(length: int) -> bytes:
    """Bytes that tell where they belong."""
    return _PATTERN[:length]


class Files:
    """Serves files of a directory; `/name?offset=n&length=n` a range of one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sync = False

    async def __call__(self, request: RawRequest, body: BodyReader) -> Response:
        return self.answer(request)

    def try_sync(self, request: RawRequest) -> Response | None:
        return self.answer(request) if self.sync else None

    def answer(self, request: RawRequest) -> Response:
        path, _, query = request.target.partition("?")
        fd = os.open(self.directory / path[1:], os.O_RDONLY)
        offset, length = 0, os.fstat(fd).st_size
        if query:
            offset, length = (int(part.partition("=")[2]) for part in query.split("&"))
        return Response(200, [("x-path", path)], FileBody(fd, offset, length))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    directory = tmp_path_factory.mktemp("files")
    for size in SIZES:
        (directory / str(size)).write_bytes(pattern(size))
    return Files(directory)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=["plain", "tls"])
def connect(
    request: pytest.FixtureRequest, files: Files, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> Iterator[Callable[[], Wire]]:
    secure = request.param == "tls"
    with serving(files, tls=tls[0] if secure else None) as server:
        yield lambda: server.connect_tls(tls[1]) if secure else server.connect()
        server.until(lambda: not open_files(files.directory))
        assert server.server.counters.bugs == 0


def open_files(directory: Path) -> list[str]:
    """Files of the directory that this process has open."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        if target.startswith(str(directory)):
            found.append(target)
    return found


def get(target: str, method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def evict(path: Path) -> None:
    """Drop a file from the page cache."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


@pytest.mark.parametrize("sync", [False, True])
def test_every_size_one_after_the_other(connect: Callable[[], Wire], files: Files, sync: bool) -> None:
    files.sync = sync
    wire = connect()
    for size in SIZES:
        wire.send(get(f"/{size}"))
        assert wire.answer().body == pattern(size)
    files.sync = False


def test_cold_files(connect: Callable[[], Wire], files: Files) -> None:
    wire = connect()
    for size in SIZES:
        evict(files.directory / str(size))
        wire.send(get(f"/{size}"))
        assert wire.answer().body == pattern(size)


def test_pipelined_files_and_heads(connect: Callable[[], Wire], files: Files) -> None:
    wire = connect()
    wire.send(b"".join(get(f"/{size}") + get(f"/{size}", "HEAD") for size in SIZES))
    for size in SIZES:
        assert wire.answer().body == pattern(size)
        assert wire.answer(head_only=True).headers["content-length"] == str(size)


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (7, 65536), (1, 65537), (12345, 2 * MIB), (3 * MIB, 7)])
def test_ranges(connect: Callable[[], Wire], offset: int, length: int) -> None:
    wire = connect()
    wire.send(get(f"/{3 * MIB + 7}?offset={offset}&length={length}"))
    assert wire.answer().body == pattern(3 * MIB + 7)[offset : offset + length]


def test_many_readers_at_once(connect: Callable[[], Wire]) -> None:
    outcomes: list[bool] = []

    def read() -> None:
        wire = connect()
        for _ in range(3):
            wire.send(get(f"/{3 * MIB + 7}"))
            outcomes.append(wire.answer().body == pattern(3 * MIB + 7))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 24


def test_a_slow_reader_gets_every_byte_and_does_not_hold_others_up(files: Files) -> None:
    with serving(files) as server:
        slow = server.connect(receive_bytes=4096)
        slow.send(get(f"/{40 * MIB + 1}"))
        received = bytearray()
        while len(received) < MIB:
            received += slow.socket.recv(1000)
        quick = server.connect()
        quick.send(get("/4096"))
        assert quick.answer().body == pattern(4096)
        end = received.index(b"\r\n\r\n") + 4 + 40 * MIB + 1
        while len(received) < end:
            received += slow.socket.recv(65536)
        assert received.partition(b"\r\n\r\n")[2] == pattern(40 * MIB + 1)


@pytest.mark.parametrize("secure", [False, True])
def test_a_reader_that_stops_is_cut_off(files: Files, tls: tuple[ssl.SSLContext, ssl.SSLContext], secure: bool) -> None:
    options = ServerOptions(send_idle_seconds_max=0.05)
    with serving(files, options, tls=tls[0] if secure else None) as server:
        wire = server.connect_tls(tls[1]) if secure else server.connect(receive_bytes=4096)
        wire.send(get(f"/{40 * MIB + 1}"))
        server.until(lambda: server.server.counters.timeouts == 1)
        server.until(lambda: server.server.counters.open == 0 and not open_files(files.directory))


@pytest.mark.parametrize("secure", [False, True])
def test_a_reader_that_goes_away(files: Files, tls: tuple[ssl.SSLContext, ssl.SSLContext], secure: bool) -> None:
    with serving(files, tls=tls[0] if secure else None) as server:
        for _ in range(5):
            evict(files.directory / str(40 * MIB + 1))
            wire = server.connect_tls(tls[1]) if secure else server.connect(receive_bytes=4096)
            wire.send(get(f"/{40 * MIB + 1}"))
            wire.socket.recv(100)
            wire.reset()
        server.until(lambda: server.server.counters.open == 0 and not open_files(files.directory))
        assert server.server.counters.bugs == 0


@pytest.mark.parametrize("secure", [False, True])
def test_a_file_that_is_cut_while_it_is_sent_closes_the_connection(
    tmp_path: Path, tls: tuple[ssl.SSLContext, ssl.SSLContext], secure: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cut"
    path.write_bytes(pattern(40 * MIB))
    with serving(Files(tmp_path), tls=tls[0] if secure else None) as server:
        wire = server.connect_tls(tls[1]) if secure else server.connect(receive_bytes=65536)
        wire.send(get("/cut"))
        received = wire.socket.recv(1000)
        os.truncate(path, 20 * MIB)
        body = (received + wire.everything()).partition(b"\r\n\r\n")[2]
        assert len(body) < 40 * MIB
        assert body == pattern(40 * MIB)[: len(body)], "nothing is padded"
        server.until(lambda: server.server.counters.truncated_files == 1)
        server.until(lambda: not open_files(tmp_path))
    assert "shorter" in caplog.text


@pytest.mark.parametrize("length", [100, limits.file_inline_bytes_max + 1])
@pytest.mark.parametrize("secure", [False, True])
def test_a_file_that_was_cut_before_its_first_byte(
    tmp_path: Path, tls: tuple[ssl.SSLContext, ssl.SSLContext], secure: bool, length: int
) -> None:
    """A short answer that nothing was sent of becomes a 500; none is ever padded."""
    (tmp_path / "empty").write_bytes(b"")
    with serving(Files(tmp_path), tls=tls[0] if secure else None) as server:
        wire = server.connect_tls(tls[1]) if secure else server.connect()
        wire.send(get(f"/empty?offset=0&length={length}"))
        received = wire.everything()
        assert received.startswith(b"HTTP/1.1 500 ") or received.endswith(b"\r\n\r\n") or not received
        server.until(lambda: not open_files(tmp_path))


def test_an_answer_for_a_client_that_left_closes_its_file(files: Files) -> None:
    gone = asyncio.Event()

    async def app(request: RawRequest, body: BodyReader) -> Response:
        with contextlib.suppress(asyncio.CancelledError):
            await gone.wait()
        return files.answer(request)

    with serving(app) as server:
        wire = server.connect()
        wire.send(get("/4096"))
        server.until(lambda: server.server.counters.requests == 1)
        wire.reset()
        server.until(lambda: server.server.counters.open == 0 and not open_files(files.directory))


@pytest.mark.parametrize("size", [4096, 3 * MIB + 7])
def test_a_full_pool_sheds_cold_reads_before_they_begin(files: Files, size: int) -> None:
    evict(files.directory / str(size))
    blocker = threading.Event()
    with serving(files) as server:

        async def fill() -> None:
            pool = server.pools.other.data_pool
            running = [asyncio.ensure_future(pool.run(blocker.wait)) for _ in range(10)]
            await asyncio.sleep(0)
            assert pool.full()
            waiting.extend(running)

        waiting: list[asyncio.Future[bool]] = []
        server.call(fill())
        wire = server.connect()
        wire.send(get(f"/{size}"))
        answer = wire.answer()
        assert (answer.status, answer.headers["retry-after"], answer.closes) == (503, "1", False)
        blocker.set()
        server.until(lambda: all(each.done() for each in waiting))
        wire.send(get(f"/{size}"))
        assert wire.answer().body == pattern(size)


def test_file_systems_that_do_not_tell_what_is_cached(tmp_path: Path) -> None:
    """tmpfs refuses RWF_NOWAIT: through threads, or at once when reads are declared quick."""
    directory = Path("/dev/shm") / f"blobedge-test-{os.getpid()}"
    directory.mkdir()
    try:
        for size in SIZES:
            (directory / str(size)).write_bytes(pattern(size))
        for quick in (False, True):
            with serving(Files(directory), ServerOptions(quick_reads=quick)) as server:
                wire = server.connect()
                for size in SIZES:
                    wire.send(get(f"/{size}"))
                    assert wire.answer().body == pattern(size)
                assert (server.pools.other.data_pool.statistics().done == 0) is quick
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


def test_hot_reads_need_no_thread(files: Files) -> None:
    with serving(files) as server:
        wire = server.connect()
        for size in SIZES:
            (files.directory / str(size)).read_bytes()
            wire.send(get(f"/{size}"))
            assert wire.answer().body == pattern(size)
        assert server.pools.other.data_pool.statistics().threads == 0
