"""A mount without room opens, serves and deletes, and keeps its records where they were."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dataplane.blobapi.model import Remote
from dataplane.store import remembered
from dataplane.store.errors import NoSpace
from dataplane.store.mount import DIRECTORY, LANE_CHARS, Mount, RecordsOption
from dataplane.store.probe import Capabilities, probe
from dataplane.store.store import BlobRef, Store
from tests.observability.faults import filled, small_disk
from tests.store.support import delete, make, put, read

BLOCK_BYTES = 4096
LONG = {"long": "x" * 5000}  # a record that no attribute holds


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path) as disk:
        yield disk


@contextmanager
def no_inodes(directory: Path) -> Iterator[None]:
    """Take all the inodes of the directory's file system, and give them back."""
    taken = directory / "taken"
    taken.mkdir()
    made: list[Path] = []
    try:
        while os.statvfs(directory).f_ffree:
            made.append(taken / str(len(made)))
            made[-1].touch()
        yield
    finally:
        for each in made:
            each.unlink(missing_ok=True)
        taken.rmdir()


def with_blobs(root: Path, records: RecordsOption = "auto") -> Capabilities:
    """Fill a tree with three blobs; what its mount can do."""
    store = Store(str(root), records=records)
    make(store)
    put(store, "a", metadata={"k": "v"})
    put(store, "b", metadata=LONG)
    put(store, "dir/c")
    store.close()
    return store.mount.capabilities


def serves_and_deletes(root: Path, expected: Capabilities) -> None:
    """A tree that `with_blobs` filled."""
    store = Store(str(root))
    try:
        assert store.mount.capabilities == expected
        assert store.mount.records.backend == "xattr"
        first, second = read(store, "a"), read(store, "b")
        assert first is not None
        assert second is not None
        assert (first[0], first[1].properties.metadata) == (b"data", {"k": "v"})
        assert second[1].properties.metadata == LONG
        for name in ("a", "b", "dir/c"):
            delete(store, name)
            assert read(store, name) is None
    finally:
        store.close()


@pytest.mark.parametrize("free_blocks", [0, 1])
def test_without_room(root: Path, free_blocks: int) -> None:
    """One block is taken by the probe's content, so that its attribute finds none."""
    expected = with_blobs(root)
    assert expected.xattr
    spare = root / "spare"
    spare.write_bytes(bytes(free_blocks * BLOCK_BYTES))
    with filled(root):
        spare.unlink()
        serves_and_deletes(root, expected)


def test_without_inodes(root: Path) -> None:
    expected = with_blobs(root)
    with no_inodes(root):
        serves_and_deletes(root, expected)


def test_without_room_and_without_a_memory(root: Path) -> None:
    """A local file system is expected to have attributes, and no clones."""
    expected = with_blobs(root)
    (root / ".blobedge" / remembered.FILE).unlink()
    assert not expected.reflink
    with filled(root):
        serves_and_deletes(root, expected)


def test_what_has_no_room_says_so_and_goes_on_later(root: Path) -> None:
    with_blobs(root)
    with filled(root):
        store = Store(str(root))
        with pytest.raises(NoSpace):
            put(store, "new", bytes(1 << 20))
    put(store, "new", bytes(1 << 20))
    assert read(store, "new") is not None
    store.close()


def test_a_remote_mount_that_nothing_is_known_of_is_not_guessed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may refuse characters, and its blobs would be looked for under other names; what is remembered will do."""
    known = with_blobs(root)
    far = Capabilities("nfs4", False, False, False, 1000, ":")
    monkeypatch.setattr(remembered, "unprobed", lambda fd: Capabilities("nfs4", False, True, False, 1, ""))
    private_fd = os.open(root / ".blobedge", DIRECTORY)
    staging_fd = os.open(root / ".blobedge/staging", DIRECTORY)
    try:
        monkeypatch.setattr(remembered, "probe", lambda fd: far)
        assert remembered.probed(private_fd, staging_fd) == far
        monkeypatch.setattr(remembered, "probe", probe)
        with filled(root):
            assert remembered.probed(private_fd, staging_fd) == far
        (root / ".blobedge" / remembered.FILE).write_bytes(b"")  # as a crash may leave it
        os.fsync(private_fd)  # its block is free now, not while the disk is to be full
        with filled(root):
            assert not os.statvfs(root).f_bavail
            with pytest.raises(OSError, match="No space left"):
                remembered.probed(private_fd, staging_fd)
        assert remembered.probed(private_fd, staging_fd) == known  # what could be tried
        assert all(len(each) == LANE_CHARS for each in os.listdir(staging_fd))  # nothing is left behind
    finally:
        os.close(private_fd)
        os.close(staging_fd)


@pytest.mark.parametrize(
    ("number", "xattr"),
    [
        (errno.ENOTSUP, False), (errno.ENOSYS, False), (errno.EPERM, False),
        (errno.ENOSPC, True), (errno.EDQUOT, True), (errno.E2BIG, True), (errno.ERANGE, True),
        (errno.EIO, None), (errno.ESTALE, None),
    ],
)  # fmt: skip
def test_only_a_plain_no_means_no_attributes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, xattr: bool | None
) -> None:
    """None: the mount fails, and says so."""

    def fails(fd: int, name: str, value: bytes) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "setxattr", fails)
    fd = os.open(tmp_path, DIRECTORY)
    try:
        if xattr is None:
            with pytest.raises(OSError, match=os.strerror(number)):
                probe(fd)
        else:
            assert probe(fd).xattr is xattr
        assert os.listdir(tmp_path) == []
    finally:
        os.close(fd)


@pytest.mark.parametrize(("before", "after"), [("xattr", "sidecar"), ("sidecar", "xattr")])
def test_a_tree_whose_mode_was_changed_is_read_whole(root: Path, before: RecordsOption, after: RecordsOption) -> None:
    """By its operator: metadata, ETags and stubs of the other mode are found."""
    store = Store(str(root), records=before)
    make(store)
    put(store, "a", metadata={"k": "v"})
    stubbed = put(store, "stub")
    etag = stubbed.properties.etag
    remote = Remote(len(b"data"), hashlib.md5(b"data").digest(), "0x8DCLOUD", "cloud", "there", etag, 0, 0)
    store.run(store.evict(BlobRef("box", "stub"), etag, remote))
    found = [store.stat_blob(BlobRef("box", name)) for name in ("a", "stub")]
    store.close()
    store = Store(str(root), records=after)
    try:
        assert [store.stat_blob(BlobRef("box", name)) for name in ("a", "stub")] == found
        with (root / "box/a").open("ab") as file:
            file.write(b" by another writer")
        changed = store.stat_blob(BlobRef("box", "a"))
        assert changed is not None
        assert changed.properties.metadata == {"k": "v"}  # carried on from the last record
    finally:
        store.close()


def test_a_mount_is_opened_twice_with_one_memory(tmp_path: Path) -> None:
    """It is written when it says something new, by whoever comes first."""
    Mount(str(tmp_path)).close()
    file = tmp_path / ".blobedge" / remembered.FILE
    before = file.stat().st_ino
    Mount(str(tmp_path)).close()
    assert file.stat().st_ino == before
