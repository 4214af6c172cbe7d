"""Bytes that arrive from the cloud, on their way to a client: order, windows, memory, and every way it can end."""

import contextlib
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dataplane.blobapi.errors import BlobError
from dataplane.blobapi.message import RecallBody, Response
from dataplane.blobapi.model import BlobProperties, BlobState, Remote
from dataplane.ipc.recalls import WINDOW_BYTES_MAX, Failed, Why
from dataplane.server import recalls
from dataplane.server.answer import refusal
from dataplane.server.body import BodyReader
from dataplane.server.head import RawRequest
from dataplane.server.options import ServerOptions
from dataplane.server.recalls import BlobChanged, Recalls, Stub
from dataplane.server.sidecarlink import connected
from dataplane.store.store import BlobRef, OpenBlob
from tests.server.certificate import self_signed
from tests.server.fakesidecar import FakeSidecar
from tests.server.wire import LoopServer, serving

MIB = 1024 * 1024
ETAG = "0x1"
LONG = os.urandom(MIB) * 40  # more than two windows


def stub_properties(etag: str, md5: bytes = b"m" * 16) -> BlobProperties:
    return BlobProperties(etag, 1, 1, remote=Remote(len(LONG), md5, "0x8", "cloud", "there", etag, 1, 0o644))


class App:
    """`/name?offset=n&length=n`: that range of a stub."""

    def __init__(self, recalls: Recalls) -> None:
        self.recalls = recalls
        self.now: OpenBlob | None = None  # what a second look finds

    def stub(self, name: str) -> Stub:
        return Stub("a", BlobRef("c", name), BlobState(name, len(LONG), stub_properties(ETAG)), self.look, self.run)

    def look(self, ref: BlobRef) -> OpenBlob | None:
        return self.now

    async def run(self, function: Callable[..., OpenBlob | None], *args: object) -> OpenBlob | None:
        return function(*args)

    async def __call__(self, request: RawRequest, body: BodyReader) -> Response:
        path, _, query = request.target.partition("?")
        offset, length = (int(part.partition("=")[2]) for part in query.split("&"))
        try:
            recalled = await self.recalls.open(self.stub(path[1:]), offset, offset + length)
        except BlobError as error:
            return refusal(error, lambda: 0.0)
        except BlobChanged:
            return Response(409, [], b"changed")
        return Response(200, [], RecallBody(recalled, offset, length))


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[FakeSidecar]:
    fake = FakeSidecar(tmp_path / ("long" * 30))  # longer than a Unix address
    fake.blobs["a", "c", "long"] = ETAG, LONG
    fake.blobs["a", "c", "short"] = ETAG, b"hello world"
    yield fake
    fake.close()


@pytest.fixture
def app(sidecar: FakeSidecar) -> App:
    return App(Recalls(str(sidecar.journal)))


@pytest.fixture
def server(sidecar: FakeSidecar, app: App) -> Iterator[LoopServer]:
    with serving(app) as started:
        yield started
        started.until(lambda: not sidecar.connections)
        assert not open_files(sidecar.directory)
        assert started.server.counters.bugs == 0


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return self_signed(tmp_path_factory.mktemp("tls"))


def get(name: str, offset: int, length: int, method: str = "GET") -> bytes:
    return f"{method} /{name}?offset={offset}&length={length} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def open_files(directory: Path) -> list[str]:
    """Files below a directory that this process has open."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{fd}")
            if target.startswith(str(directory)):
                found.append(target)
    return found


def test_short_ones_on_one_connection(server: LoopServer, sidecar: FakeSidecar) -> None:
    wire = server.connect()
    for offset, length in ((0, 11), (6, 5), (0, 1)):
        wire.send(get("short", offset, length))
        answer = wire.answer()
        assert (answer.status, answer.body) == (200, b"hello world"[offset : offset + length])
    assert [(want.offset, want.length, want.until) for want in sidecar.wants] == [(0, 11, 11), (6, 5, 11), (0, 1, 1)]


def test_a_long_one_window_after_window(server: LoopServer, sidecar: FakeSidecar) -> None:
    sidecar.step = 3 * MIB + 1
    wire = server.connect()
    wire.send(get("long", 0, len(LONG)) + get("short", 0, 5))
    assert wire.answer().body == LONG
    assert wire.answer().body == b"hello"
    wants = [want for want in sidecar.wants if want.name == "long"]
    assert [want.offset for want in wants] == [0, WINDOW_BYTES_MAX, 2 * WINDOW_BYTES_MAX]
    assert {want.until for want in wants} == {len(LONG)}


def test_a_range_asks_for_its_range_only(server: LoopServer, sidecar: FakeSidecar) -> None:
    wire = server.connect()
    wire.send(get("long", 5 * MIB + 3, MIB))
    assert wire.answer().body == LONG[5 * MIB + 3 : 6 * MIB + 3]
    (want,) = sidecar.wants
    assert (want.offset, want.length, want.until) == (5 * MIB + 3, MIB, 6 * MIB + 3)


def test_tls(sidecar: FakeSidecar, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    with serving(App(Recalls(str(sidecar.journal))), tls=tls[0]) as server:
        wire = server.connect_tls(tls[1])
        wire.send(get("long", 1, len(LONG) - 1))
        assert wire.answer().body == LONG[1:]
        server.until(lambda: not sidecar.connections)


def test_head_sends_no_byte(server: LoopServer, sidecar: FakeSidecar) -> None:
    wire = server.connect()
    wire.send(get("short", 0, 11, "HEAD") + get("short", 0, 11))
    assert wire.answer(head_only=True).headers["content-length"] == "11"
    assert wire.answer().body == b"hello world"


def test_bytes_go_on_as_they_come(server: LoopServer, sidecar: FakeSidecar) -> None:
    """The first bytes reach the client while the rest is still in the cloud."""
    sidecar.fail_at = MIB, b""
    sidecar.step = 4096
    wire = server.connect()
    wire.send(get("long", 0, len(LONG)))
    head, _, body = wire.everything().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert f"Content-Length: {len(LONG)}".encode() in head
    assert 0 < len(body) <= MIB
    assert body == LONG[: len(body)]


def test_a_reader_that_does_not_read_holds_the_recall(server: LoopServer, sidecar: FakeSidecar) -> None:
    wire = server.connect(receive_bytes=16 * 1024)
    wire.send(get("long", 0, len(LONG)))
    connections = server.server._context.connections
    server.until(lambda: any(each._sender.paused for each in connections))
    assert next(iter(connections))._transport.get_write_buffer_size() < MIB
    assert len(sidecar.wants) == 1
    assert wire.answer().body == LONG


@pytest.mark.parametrize("abrupt", [True, False])
def test_a_client_that_goes_away_ends_the_recall(server: LoopServer, sidecar: FakeSidecar, abrupt: bool) -> None:
    wire = server.connect()
    wire.send(get("long", 0, len(LONG)))
    server.until(lambda: bool(sidecar.wants))
    if abrupt:
        wire.reset()
    else:
        wire.close()
    server.until(lambda: not sidecar.connections)
    assert len(sidecar.wants) < 3


def test_a_client_that_goes_away_before_the_first_byte(server: LoopServer, sidecar: FakeSidecar) -> None:
    sidecar.gate.clear()
    wire = server.connect()
    wire.send(get("long", 0, len(LONG)))
    server.until(lambda: bool(sidecar.wants))
    wire.reset()
    server.until(lambda: not sidecar.connections)


@pytest.mark.parametrize("said", [b"", Failed("offline", "No link."), b"no message", Failed("changed", "")])
def test_what_ends_in_the_middle_is_cut_short(server: LoopServer, sidecar: FakeSidecar, said: Failed | bytes) -> None:
    sidecar.fail_at = 20 * MIB, said
    wire = server.connect()
    wire.send(get("long", 0, len(LONG)))
    body = wire.everything().partition(b"\r\n\r\n")[2]
    assert body == LONG[: len(body)]
    assert len(body) < len(LONG)


@pytest.mark.parametrize(
    ("why", "status", "code"),
    [
        ("offline", 503, "ServerBusy"),
        ("space", 503, "ServerBusy"),
        ("failed", 503, "ServerBusy"),
        ("archived", 409, "BlobArchived"),
        ("missing", 500, "InternalError"),
    ],
)
def test_every_reason_has_its_answer(
    server: LoopServer, sidecar: FakeSidecar, why: Why, status: int, code: str
) -> None:
    sidecar.failures.append(Failed(why, "It is so.", 17))
    wire = server.connect()
    wire.send(get("short", 0, 11))
    answer = wire.answer()
    assert (answer.status, answer.headers["x-ms-error-code"]) == (status, code)
    assert answer.headers.get("retry-after") == ("17" if status == 503 else None)
    assert (b"It is so." in answer.body) is (why != "archived")
    wire.send(get("short", 0, 11))
    assert wire.answer().body == b"hello world"


def opened(sidecar: FakeSidecar, etag: str, md5: bytes = b"m" * 16, *, here: bool = False) -> OpenBlob:
    """What a second look finds: the stub with another ETag, or the blob itself."""
    path = sidecar.directory / "here"
    path.write_bytes(LONG if here else b"")
    properties = stub_properties(etag, md5)
    if here:
        properties = replace(properties, remote=None, content_md5=md5)
    return OpenBlob(os.open(path, os.O_RDONLY), BlobState("long", len(LONG), properties))


@pytest.mark.parametrize(("here", "etag"), [(True, ETAG), (False, ETAG), (False, "0x2")])
def test_the_same_content_is_read_on(server: LoopServer, sidecar: FakeSidecar, app: App, here: bool, etag: str) -> None:
    """Its metadata was set in the middle of the read, or its bytes came back."""
    sidecar.fail_at = 20 * MIB, Failed("changed", "")
    app.now = opened(sidecar, etag, here=here)
    sidecar.then["a", "c", "long"] = etag, LONG
    wire = server.connect()
    wire.send(get("long", 0, len(LONG)))
    assert wire.answer().body == LONG
    assert (sidecar.wants[-1].etag == etag) is (not here or etag == ETAG)


@pytest.mark.parametrize(("here", "md5"), [(False, b"n" * 16), (True, b"m" * 16)])
def test_another_content_is_not(server: LoopServer, sidecar: FakeSidecar, app: App, here: bool, md5: bytes) -> None:
    """Another MD5 in the cloud; or another version here, of which nobody compared the bytes with its Content-MD5."""
    sidecar.fail_at = 20 * MIB, Failed("changed", "")
    app.now = opened(sidecar, "0x2", md5, here=here)
    wire = server.connect()
    wire.send(get("long", 0, len(LONG)))
    body = wire.everything().partition(b"\r\n\r\n")[2]
    assert body == LONG[: len(body)]
    assert len(body) < len(LONG)


def test_another_version_is_the_callers_to_look_at(server: LoopServer, sidecar: FakeSidecar) -> None:
    sidecar.blobs["a", "c", "short"] = "0x2", b"other"
    wire = server.connect()
    wire.send(get("short", 0, 11))
    assert wire.answer().body == b"changed"


def test_no_sidecar(server: LoopServer, sidecar: FakeSidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recalls, "CONNECT_SECONDS_MAX", 0.1)
    sidecar.close()
    wire = server.connect()
    wire.send(get("short", 0, 11))
    answer = wire.answer()
    assert (answer.status, answer.headers["x-ms-error-code"]) == (503, "ServerBusy")
    assert int(answer.headers["retry-after"]) > 0


def test_a_sidecar_that_comes_a_moment_later_is_waited_for(
    tmp_path: Path, server: LoopServer, sidecar: FakeSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar.close()
    (tmp_path / ("long" * 30) / "recall.sock").unlink(missing_ok=True)
    asked = threading.Event()

    def noted(*arguments: Any) -> Any:
        try:
            return connected(*arguments)
        finally:
            asked.set()

    monkeypatch.setattr(recalls, "connected", noted)
    wire = server.connect()
    wire.send(get("short", 0, 11))
    assert asked.wait(10.0)
    later = FakeSidecar(sidecar.directory)
    later.blobs.update(sidecar.blobs)
    try:
        assert wire.answer().body == b"hello world"
    finally:
        later.close()


def test_a_node_without_offload() -> None:
    with serving(App(Recalls(""))) as server:
        wire = server.connect()
        wire.send(get("short", 0, 11))
        answer = wire.answer()
        assert (answer.status, answer.headers["x-ms-error-code"]) == (503, "ServerBusy")
        assert b"no rule" in answer.body


def test_a_silent_sidecar(server: LoopServer, sidecar: FakeSidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recalls, "SILENCE_SECONDS_MAX", 0.05)
    sidecar.gate.clear()
    wire = server.connect()
    wire.send(get("short", 0, 11))
    answer = wire.answer()
    assert (answer.status, answer.headers["x-ms-error-code"]) == (503, "ServerBusy")


def test_a_cloud_that_is_slow_is_not_a_client_that_is(
    sidecar: FakeSidecar, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for the cloud is not cut off because the client took nothing: there was nothing to take."""
    monkeypatch.setattr(recalls, "SILENCE_SECONDS_MAX", 0.5)
    sidecar.fail_at = MIB, None
    with serving(app, ServerOptions(send_idle_seconds_max=0.05)) as server:
        wire = server.connect()
        wire.send(get("long", 0, len(LONG)))
        body = wire.everything().partition(b"\r\n\r\n")[2]
        assert body == LONG[:MIB]
        assert server.server.counters.timeouts == 0
        server.until(lambda: not sidecar.connections)


def test_sixty_four_readers(server: LoopServer, sidecar: FakeSidecar) -> None:
    wrong: list[int] = []

    def read(number: int) -> None:
        wire = server.connect()
        wire.send(get("long", number, 2 * MIB))
        if wire.answer().body != LONG[number : number + 2 * MIB]:
            wrong.append(number)

    run_all([partial(read, number) for number in range(64)])
    assert not wrong
    assert len(sidecar.wants) == 64


def run_all(calls: list[Callable[[], None]]) -> None:
    """Side by side; each is over, and none raised."""
    failed: list[BaseException] = []

    def guarded(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(each,)) for each in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not failed, failed[0]
