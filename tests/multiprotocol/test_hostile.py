"""A tree whose owner means harm: whatever lies in it or changes under our hands, nothing outside the root is served."""

import ctypes
import http.client
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.multiprotocol.conftest import Door
from tests.wire.product import ACCOUNT, Product

SWAPS = 300  # of a directory for a symbolic link, while it is read
BIG_BYTES = 64 * 1024 * 1024  # more than the kernel and the client's socket hold
FIRST_BYTES = 64 * 1024
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
WAIT_SECONDS = 30.0
PUBLIC = {"x-ms-blob-public-access": "blob"}


@pytest.fixture
def secret(tmp_path: Path) -> tuple[Path, bytes]:
    """A file outside the root that no answer may contain."""
    content = secrets.token_hex(32).encode()
    (tmp_path / "outside").mkdir()
    path = tmp_path / "outside/file"
    path.write_bytes(content)
    return path, content


def test_links_and_special_files_are_no_blobs(door: Door, secret: tuple[Path, bytes]) -> None:
    path, content = secret
    directory = door.directory
    (directory / "real").write_bytes(b"real")
    (directory / "link").symlink_to(path)
    (directory / "relative").symlink_to(os.path.relpath(path, directory))
    (directory / "inside").symlink_to("real")
    (directory / "dir").symlink_to(path.parent)
    (directory / "loop").symlink_to("loop")
    os.mkfifo(directory / "fifo")
    assert door.names() == ["real"]
    for name in ("link", "relative", "inside", "dir/file", "dir", "loop", "fifo", "real/x"):
        for method in ("GET", "HEAD"):
            answer = door.blob(method, name)
            assert (answer.status, answer.code) == (404, "BlobNotFound"), name
            assert content not in answer.body
        assert door.blob("DELETE", name).status == 404
    assert path.read_bytes() == content


def test_writes_do_not_go_through_links(door: Door, secret: tuple[Path, bytes]) -> None:
    path, content = secret
    (door.directory / "link").symlink_to(path)
    (door.directory / "dir").symlink_to(path.parent)
    (door.directory / "dangling").symlink_to(path.parent / "new")
    assert door.blob("PUT", "link", b"mine").status == 201
    assert door.blob("GET", "link").body == b"mine"
    assert door.blob("PUT", "dangling", b"mine").status == 201
    assert door.blob("PUT", "dir/file", b"mine").status in (201, 400)
    assert door.blob("PUT", "dir/new", b"mine").status in (201, 400)
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["file"]


def test_targets_that_climb_stay_inside(product: Product, door: Door, secret: tuple[Path, bytes]) -> None:
    path, content = secret
    up = "../" * 12
    for target in (
        f"{up}etc/passwd",
        f"%2e%2e/%2e%2e/%2e%2e/%2e%2e{path}",
        f"..%2f..%2f..%2f..%2f..%2f..{str(path).replace('/', '%2f')}",
        f"..%5c..%5c..%5c..%5c{path}",
        "/etc/passwd",
        "//etc/passwd",
        "..//../.blobedge/",
        "../.blobedge/marker",
    ):
        answer = door.blob("GET", target)
        assert answer.status in (400, 404), target
        assert content not in answer.body
        assert b"root:" not in answer.body
    client = product.client()
    for container in (".blobedge", "..", ".", "%2e%2e", ".snapshot"):
        answer = client.request("GET", f"/{container}/x")
        assert answer.status in (400, 404), container
    client.close()


def _exchange(one: Path, other: Path) -> None:
    """Swap two names in one step (rename(2), RENAME_EXCHANGE); the library of Python has no name for it."""
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


@pytest.fixture
def swapping(door: Door, secret: tuple[Path, bytes]) -> Iterator[None]:
    """A thread that swaps a directory for a link to the outside and back, as fast as it can."""
    directory, over = door.directory, threading.Event()
    (directory / "dir").mkdir()
    (directory / "dir/file").write_bytes(b"inside")
    (directory / "trap").symlink_to(secret[0].parent)

    def swap() -> None:
        while not over.is_set():
            _exchange(directory / "dir", directory / "trap")

    thread = threading.Thread(target=swap)
    thread.start()
    yield
    over.set()
    thread.join()


def test_a_directory_swapped_for_a_link_leads_nowhere(door: Door, swapping: None, secret: tuple[Path, bytes]) -> None:
    seen: set[int] = set()
    for _ in range(SWAPS):
        answer = door.blob("GET", "dir/file")
        seen.add(answer.status)
        assert answer.status in (200, 404), answer.body
        assert answer.status == 404 or answer.body == b"inside"
        assert set(door.names(prefix="dir/")) <= {"dir/file", "dir/written"}
        assert door.blob("PUT", "dir/written", b"x").status in (201, 400, 503)
    assert seen <= {200, 404}
    assert os.listdir(secret[0].parent) == ["file"]


def test_a_file_that_shrinks_during_its_download_ends_the_connection(product: Product, door: Door) -> None:
    """The length is promised already, so the only honest end is a short body. What was on its way to the socket is the
    kernel's: it may show zeros there for what the other writer cut off, as any sendfile does, but no other bytes."""
    path = door.directory / "big"
    path.write_bytes(b"A" * BIG_BYTES)
    assert door.client.request("PUT", door.path, {"restype": "container", "comp": "acl"}, PUBLIC).status == 200
    link = http.client.HTTPConnection("127.0.0.1", product.port, timeout=WAIT_SECONDS)
    link.request("GET", f"/{ACCOUNT}{door.path}/big")
    answer = link.getresponse()
    assert (answer.status, answer.length) == (200, BIG_BYTES)
    first = answer.read(FIRST_BYTES)
    os.truncate(path, FIRST_BYTES)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)) as cut:
        answer.read()
    rest = cut.value.partial if isinstance(cut.value, http.client.IncompleteRead) else b""
    assert set(first) == {ord("A")}
    assert set(rest) <= {ord("A"), 0}
    link.close()
    assert door.blob("HEAD", "big").headers["content-length"] == str(FIRST_BYTES)


def test_a_blob_that_is_replaced_during_its_download_is_one_version(product: Product, door: Door) -> None:
    """A blob that is overwritten through the endpoint is another file: who reads the old one gets all of it."""
    assert door.blob("PUT", "blob", b"A" * BIG_BYTES).status == 201
    assert door.client.request("PUT", door.path, {"restype": "container", "comp": "acl"}, PUBLIC).status == 200
    link = http.client.HTTPConnection("127.0.0.1", product.port, timeout=WAIT_SECONDS)
    link.request("GET", f"/{ACCOUNT}{door.path}/blob")
    answer = link.getresponse()
    first = answer.read(FIRST_BYTES)
    assert door.blob("PUT", "blob", b"B" * BIG_BYTES).status == 201
    assert set(first + answer.read()) == {ord("A")}
    link.close()
    assert set(door.blob("GET", "blob").body) == {ord("B")}
