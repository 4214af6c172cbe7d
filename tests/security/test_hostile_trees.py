"""A tree that another writer of the mount made hostile (attack input 7): links, pipes, devices, swaps, sizes, twins.

Nothing but regular files below the container is a blob; no request waits for a pipe, follows a link or reads a device,
also when the tree changes under it; what cannot be read is refused, and the worker goes on.
"""

import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.security.client import Answer, Stranger
from tests.security.endpoint import OUTSIDE_TEXT, Endpoint

PUT: Final = {"x-ms-blob-type": "BlockBlob"}
SWAP_SECONDS: Final = 4.0
LIST: Final = "restype=container&comp=list&include=metadata,tags,copy,snapshots,uncommittedblobs"


def every_use(stranger: Stranger, target: str) -> Iterator[Answer]:
    """All operations on a blob, those that end it last."""
    asked = stranger.signed
    here = f"http://127.0.0.1:{stranger.port}/{stranger.account}{target}"
    lease = {"x-ms-lease-action": "acquire", "x-ms-lease-duration": "15"}
    yield asked("HEAD", target)
    yield asked("GET", target)
    for comp in ("metadata", "tags", "blocklist"):
        yield asked("GET", target, f"comp={comp}")
    yield asked("PUT", target, "comp=metadata", {"x-ms-meta-a": "b"})
    yield asked("PUT", target, "comp=properties", {"x-ms-blob-content-type": "a/b"})
    yield asked("PUT", target, "comp=snapshot")
    yield asked("PUT", target, "comp=tier", {"x-ms-access-tier": "Cool"})
    yield asked("PUT", target, "comp=lease", lease)
    yield asked("PUT", target, "comp=lease", {"x-ms-lease-action": "break", "x-ms-lease-break-period": "0"})
    yield asked("PUT", target + ".copy", "", {"x-ms-copy-source": here, "x-ms-requires-sync": "true"})
    yield asked("DELETE", target, "", {"x-ms-delete-snapshots": "include"})


def _fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path, outside: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name)


def _device(major: int, minor: int, kind: int = stat.S_IFCHR) -> Callable[[Path, Path], None]:
    def make(path: Path, outside: Path) -> None:
        try:
            os.mknod(path, kind | 0o666, os.makedev(major, minor))
        except PermissionError:
            pytest.skip("no device nodes here")

    return make


ODD_FILES: Final[dict[str, Callable[[Path, Path], None]]] = {
    "link-to-a-file": lambda path, outside: path.symlink_to(outside),
    "link-to-passwd": lambda path, outside: path.symlink_to("/etc/passwd"),
    "relative-link": lambda path, outside: path.symlink_to(os.path.relpath(outside, path.parent)),
    "link-within": lambda path, outside: path.symlink_to("neighbour"),
    "link-to-itself": lambda path, outside: path.symlink_to(path.name),
    "link-to-nothing": lambda path, outside: path.symlink_to("absent"),
    "link-to-a-descriptor": lambda path, outside: path.symlink_to("/proc/self/fd/0"),
    "link-to-the-environment": lambda path, outside: path.symlink_to("/proc/self/environ"),
    "fifo": _fifo,
    "socket": _socket,
    "null": _device(1, 3),
    "zero": _device(1, 5),
    "random": _device(1, 8),
    "terminal": _device(5, 0),
    "full": _device(1, 7),
    "block-device": _device(7, 0, stat.S_IFBLK),
}


@pytest.mark.parametrize("kind", ODD_FILES)
def test_only_regular_files_are_blobs(
    endpoint: Endpoint, stranger: Stranger, container: str, directory: Path, kind: str
) -> None:
    outside = endpoint.scratch / "outside.txt"
    (directory / "neighbour").write_text("neighbour")
    path = directory / "odd"
    ODD_FILES[kind](path, outside)
    started = time.monotonic()
    for answer in every_use(stranger, f"/{container}/odd"):
        assert answer.status in (400, 404, 409), answer
    names = stranger.signed("GET", f"/{container}", LIST).body
    assert b"<Name>neighbour</Name>" in names
    assert b"<Name>odd</Name>" not in names
    # A name that is taken by such a file may be written, which replaces the link or pipe and never writes through it.
    answer = stranger.signed("PUT", f"/{container}/odd", headers=PUT, body=b"new")
    assert answer.status in (201, 400, 409), answer
    if answer.status == 201:
        assert path.is_file()
        assert not path.is_symlink()
    assert outside.read_text() == OUTSIDE_TEXT
    assert (directory / "neighbour").read_text() == "neighbour"
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("place", ["container", "directory", "deep", "loop", "private", "proc"])
def test_linked_directories_lead_nowhere(
    endpoint: Endpoint, stranger: Stranger, container: str, directory: Path, place: str
) -> None:
    inner = {
        "container": endpoint.scratch, "directory": endpoint.scratch / "bystander", "deep": Path("/"), "loop":
        directory, "private": endpoint.root / ".blobedge", "proc": Path("/proc/self"),
    }[place]  # fmt: skip
    (directory / "link").symlink_to(inner, target_is_directory=True)
    names = ["outside.txt", "etc/passwd", "format", "environ", "link/link/x", "x", "cwd/README.md", "new/deep/file"]
    for name in names:
        target = f"/{container}/link/{name}"
        for answer in every_use(stranger, target):
            assert answer.status in (400, 404, 409), (name, answer)
        assert stranger.signed("PUT", target, headers=PUT, body=b"new").status in (400, 409), name
        assert stranger.signed("PUT", target, "comp=block&blockid=MQ%3D%3D", body=b"x").status in (201, 400, 409)
        answer = stranger.signed("PUT", target, "comp=blocklist", body=b"<BlockList><Latest>MQ==</Latest></BlockList>")
        assert answer.status in (400, 409), answer
    assert b"<Name>link" not in stranger.signed("GET", f"/{container}", LIST.replace(",uncommittedblobs", "")).body
    assert (directory / "link").is_symlink()
    assert not (inner / "new").exists()
    assert not (inner / "x").exists()


def test_a_linked_container_is_none(endpoint: Endpoint, stranger: Stranger) -> None:
    (endpoint.root / "linkedcontainer").symlink_to(endpoint.scratch / "bystander", target_is_directory=True)
    (endpoint.root / "filecontainer").write_text("x")
    os.mkfifo(endpoint.root / "pipecontainer")
    try:
        for name in ("linkedcontainer", "filecontainer", "pipecontainer"):
            assert stranger.signed("GET", f"/{name}", "restype=container").status == 404
            assert stranger.signed("GET", f"/{name}", "restype=container&comp=list").status == 404
            assert stranger.signed("PUT", f"/{name}", "restype=container").status == 409
            assert stranger.signed("PUT", f"/{name}/b", headers=PUT, body=b"x").status in (400, 404)
            assert stranger.signed("DELETE", f"/{name}", "restype=container").status == 404
            assert name.encode() not in stranger.signed("GET", "/", "comp=list").body
    finally:
        for name in ("linkedcontainer", "filecontainer", "pipecontainer"):
            (endpoint.root / name).unlink()


def put_back(directory: Path) -> None:
    """Go on from a swap that failed half-way, because a request made a directory of the missing name."""
    if (directory / "real").exists():
        made = directory / f"made{len(os.listdir(directory))}"
        with contextlib.suppress(OSError):
            os.rename(directory / "dir", directory / ("away" if (directory / "dir").is_symlink() else made))
        with contextlib.suppress(OSError):
            os.rename(directory / "real", directory / "dir")


def test_a_directory_that_turns_into_a_link_under_requests(
    endpoint: Endpoint, stranger: Stranger, container: str, directory: Path
) -> None:
    """Between any check and any open: `dir` is now a directory, now a link to the outside."""
    (directory / "real").mkdir()
    (directory / "real" / "outside.txt").write_text("inside")
    (directory / "away").symlink_to(endpoint.scratch, target_is_directory=True)
    (directory / "real").rename(directory / "dir")
    before = sorted(os.listdir(endpoint.scratch))
    stop = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set():
            with contextlib.suppress(OSError):
                os.rename(directory / "dir", directory / "real")
                os.rename(directory / "away", directory / "dir")
                os.rename(directory / "dir", directory / "away")
                os.rename(directory / "real", directory / "dir")
                swaps += 1
                continue
            put_back(directory)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        end = time.monotonic() + SWAP_SECONDS
        count = 0
        while time.monotonic() < end:
            count += 1
            got = stranger.signed("GET", f"/{container}/dir/outside.txt")
            assert got.status in (200, 404), got
            assert got.body == b"inside" or got.status == 404
            for target, body in ((f"dir/new{count}", b"x"), (f"dir/a/b/c{count}", b"y")):
                answer = stranger.signed("PUT", f"/{container}/{target}", headers=PUT, body=body)
                assert answer.status in (201, 400, 404, 409, 503), answer
                assert stranger.signed("DELETE", f"/{container}/{target}").status in (202, 404, 400, 503)
            listing = stranger.signed("GET", f"/{container}", "restype=container&comp=list")
            assert listing.status == 200
            assert b"blobedge.toml" not in listing.body
    finally:
        stop.set()
        swapping.join()
    assert swaps > 10
    assert sorted(os.listdir(endpoint.scratch)) == before
    assert (endpoint.scratch / "outside.txt").read_text() == OUTSIDE_TEXT


def test_a_sparse_file_of_many_terabytes(stranger: Stranger, container: str, directory: Path) -> None:
    with (directory / "sparse").open("wb") as file:
        for exponent in range(62, 40, -1):
            with contextlib.suppress(OSError):
                file.truncate(1 << exponent)
                break
    size = (directory / "sparse").stat().st_size
    target = f"/{container}/sparse"
    assert stranger.signed("HEAD", target).headers["content-length"] == str(size)
    for first in (0, size // 2, size - 10):
        got = stranger.signed("GET", target, "", {"x-ms-range": f"bytes={first}-{first + 9}"})
        assert (got.status, got.body) == (206, bytes(10))
    got = stranger.signed("GET", target, "", {"x-ms-range": f"bytes={size - 5}-{2**64 - 1}"})
    assert (got.status, len(got.body)) == (206, 5)
    checked = {"x-ms-range": f"bytes=0-{size}", "x-ms-range-get-content-md5": "true"}
    assert stranger.signed("GET", target, "", checked).status == 400
    here = {"x-ms-copy-source": f"http://127.0.0.1:{stranger.port}/victim{target}"}
    for more in ({"x-ms-requires-sync": "true"}, PUT):
        assert stranger.signed("PUT", target + "2", "", {**here, **more}).status in (400, 409, 413)
    os.truncate(directory / "sparse", 0)


def test_a_file_that_shrinks_while_it_is_sent(stranger: Stranger, container: str, directory: Path) -> None:
    """Content-Length is out: the answer must end with a broken connection, never with bytes of something else."""
    size = 64 << 20
    path = directory / "shrinking"
    with path.open("wb") as file:
        file.truncate(size)
    token = stranger.account_sas("r")
    with socket.create_connection(("127.0.0.1", stranger.port), 20) as connected:
        connected.sendall(f"GET /victim/{container}/shrinking?{token} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += connected.recv(4096)
        os.truncate(path, 1 << 20)
        received = len(head.partition(b"\r\n\r\n")[2])
        with contextlib.suppress(ConnectionError):
            while data := connected.recv(1 << 20):
                assert data.strip(b"\0") == b""
                received += len(data)
    assert received < size
    assert stranger.signed("HEAD", f"/{container}/shrinking").headers["content-length"] == str(1 << 20)


def test_hard_links_stay_apart_when_one_is_written(stranger: Stranger, container: str, directory: Path) -> None:
    assert stranger.signed("PUT", f"/{container}/one", headers=PUT, body=b"shared").status == 201
    os.link(directory / "one", directory / "other")
    assert stranger.signed("PUT", f"/{container}/other", headers=PUT, body=b"changed").status == 201
    assert stranger.signed("GET", f"/{container}/one").body == b"shared"
    assert stranger.signed("DELETE", f"/{container}/one").status == 202
    assert stranger.signed("GET", f"/{container}/other").body == b"changed"


def test_names_that_no_client_could_send(stranger: Stranger, container: str, directory: Path) -> None:
    """Raw bytes that are not UTF-8, hand-made escapes, XML's forbidden characters, line ends, thousands of levels."""
    raw = os.fsencode(directory)
    names = [b"\xff\xfe", b"a\xc3", b"\xed\xa0\x80", b"%~2E%~2E", b"%~2F", b"%~00", b"%~", b"%~e%~f", b"%~c", b"a%~c",
    b"%~41",
             b"a%~f", b"\x01\x02", b"\xef\xbf\xbf", b"a\nb", b"a\rb", b"a\tb", b"]]>", b"&amp;", b"<script>", b'"',
             b"'", b"\\", b"\x7f", b"\xc2\x85", b"\xe2\x80\xa8", b" ", b"...", b"-rf", b".nfs1", b".snapshot", b"~",
             b"*", b"con", b"\xe2\x80\xae"]  # fmt: skip
    for name in names:
        with contextlib.suppress(OSError), open(raw + b"/" + name, "wb") as file:
            file.write(b"x")
    deep = os.open(directory, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=deep)
        deeper = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = deeper
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=deep))
    os.close(deep)
    for query in (
        LIST,
        LIST + "&delimiter=/",
        LIST + "&maxresults=1",
        LIST + "&prefix=d/d/",
        LIST + "&startFrom=d/d/d",
    ):
        answer = stranger.signed("GET", f"/{container}", query)
        assert answer.status == 200, answer
        assert "\n" not in "".join(answer.headers.values())
    assert stranger.signed("DELETE", f"/{container}", "restype=container").status == 202


def test_files_of_other_users_are_refused(stranger: Stranger, container: str, directory: Path) -> None:
    """Another user's private files: 403, never a 500, and listings go on. (The endpoint runs without capabilities.)"""
    (directory / "closed").mkdir()
    for name in ("locked", "closed/b", "open", "readonly"):
        (directory / name).write_text("theirs")
    (directory / "locked").chmod(0o600)
    (directory / "readonly").chmod(0o444)
    (directory / "closed").chmod(0o700)
    if os.geteuid() != 0:
        (directory / "locked").chmod(0)
        (directory / "closed").chmod(0)
    else:
        for name in ("locked", "closed", "readonly"):
            os.chown(directory / name, 12345, 12345)
    for name in ("locked", "closed/b", "closed/new"):
        for answer in every_use(stranger, f"/{container}/{name}"):
            assert answer.status in (202, 400, 403, 404, 409), (name, answer)
        answer = stranger.signed("PUT", f"/{container}/{name}", headers=PUT, body=b"x")
        assert answer.status in (201, 400, 403, 409), (name, answer)
    assert stranger.signed("PUT", f"/{container}/readonly", "comp=metadata", {"x-ms-meta-a": "b"}).status == 200
    assert stranger.signed("GET", f"/{container}/readonly").body == b"theirs"
    answer = stranger.signed("GET", f"/{container}", LIST)
    assert answer.status == 200
    assert b"<Name>open</Name>" in answer.body
    (directory / "closed").chmod(0o755)


def test_a_listing_shows_what_cannot_be_read(stranger: Stranger, container: str, directory: Path) -> None:
    (directory / "locked").write_text("theirs")
    (directory / "open").write_text("x")
    (directory / "locked").chmod(0o600 if os.geteuid() == 0 else 0)
    if os.geteuid() == 0:
        os.chown(directory / "locked", 12345, 12345)
    body = stranger.signed("GET", f"/{container}", LIST).body
    assert b"<Name>locked</Name>" in body
    assert b"<Name>open</Name>" in body
    assert stranger.signed("GET", f"/{container}/locked").status == 403
    assert stranger.signed("HEAD", f"/{container}/locked").status == 403
