"""A stub stands for its blob: what clients see of it does not change when its bytes go and when they come back."""

import errno
import hashlib
import os
import stat
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import LOST, BlobState, Block, Lease, Remote
from dataplane.store import syscalls
from dataplane.store.errors import BytesAway, NotAStub, NotEvictable
from dataplane.store.records import Record, encode, name_hash, seal_of
from dataplane.store.recordstore import XATTR
from dataplane.store.store import BlobRef, DeleteScope, Store
from dataplane.store.swap import SWAP_SECONDS_MAX, name_for, sweep
from tests.store import kernel
from tests.store.support import changed, delete, make, names, properties, put, read

REF = BlobRef("box", "a/b.txt")
DATA = b"hello, world"
SNAPSHOT = "2026-11-23T06:55:00.1234567Z"


def remote_of(state: BlobState, data: bytes = DATA) -> Remote:
    """As the sidecar makes it of a verified copy."""
    md5 = hashlib.md5(data).digest()
    return Remote(len(data), md5, "0x8DCLOUD", "cloud", "name/there", state.properties.etag, 0, 0)


def evict(store: Store, name: str = REF.name, data: bytes = DATA) -> int:
    state = store.stat_blob(BlobRef("box", name))
    assert state is not None
    return store.run(store.evict(BlobRef("box", name), state.properties.etag, remote_of(state, data)))


def recall(store: Store, etag: str, name: str = REF.name, data: bytes = DATA, md5: bytes | None = None) -> BlobState:
    staged = store.stage("box")
    os.pwrite(staged.fd, data, 0)
    staged.size = len(data)
    return store.run(store.recall(BlobRef("box", name), staged, etag, md5))


def without_remote(state: BlobState | None) -> BlobState:
    assert state is not None
    return replace(state, properties=replace(state.properties, remote=None))


def states(store: Store) -> dict[str, BlobState]:
    """What a listing shows."""
    page = store.list_blobs("box", prefix="", delimiter="", start="", limit=100)
    return {item.state.name: item.state for item in page.items if item.state is not None}


def leftovers(root: Path) -> list[str]:
    return os.listdir(root / ".blobedge/swaps")


def test_bytes_go_and_come_back_and_nothing_else_changes(store: Store, root: Path) -> None:
    make(store)
    written = put(store, REF.name, DATA, metadata={"k": "v"}, content_type="text/plain", tags={"t": "1"})
    path = root / "box" / REF.name
    path.chmod(0o640)
    store.run(store.set_lease(REF, lambda _: Lease("id", -1, None)))
    before, file = store.stat_blob(REF), path.stat()
    assert evict(store) == len(DATA)
    stub = path.stat()
    assert (stub.st_size, stat.S_IMODE(stub.st_mode), int(stub.st_mtime)) == (0, 0o1400, int(file.st_mtime))
    found = read(store, REF.name)
    assert found is not None
    assert found[0] == b""
    assert without_remote(found[1]) == before
    assert found[1].size == len(DATA)
    remote = replace(remote_of(written), mtime_ns=file.st_mtime_ns, mode=0o640)
    assert found[1].properties.remote == remote
    assert states(store)[REF.name] == found[1]
    again = Store(str(root), records=store.mount.records.backend)
    assert again.stat_blob(REF) == found[1]
    assert states(again) == {REF.name: found[1]}
    again.close()
    assert recall(store, written.properties.etag) == before
    assert read(store, REF.name) == (DATA, before)
    back = path.stat()
    assert (back.st_mtime_ns, back.st_mode) == (file.st_mtime_ns, file.st_mode)
    assert leftovers(root) == []


def test_a_reader_keeps_what_it_opened(store: Store) -> None:
    make(store)
    written = put(store, REF.name, DATA)
    whole = store.open_blob(REF)
    evict(store)
    stub = store.open_blob(REF)
    recall(store, written.properties.etag)
    assert whole is not None
    assert stub is not None
    assert (os.pread(whole.fd, 100, 0), whole.state) == (DATA, written)
    assert (os.pread(stub.fd, 100, 0), stub.state.properties.remote is None) == (b"", False)
    whole.close()
    stub.close()


def test_another_programs_file_keeps_its_etag(store: Store, root: Path) -> None:
    make(store)
    (root / "box/page.html").write_bytes(b"<html>")
    before = store.stat_blob(BlobRef("box", "page.html"))
    assert before is not None
    assert before.properties.foreign
    evict(store, "page.html", b"<html>")
    as_recorded = replace(before, properties=replace(before.properties, foreign=False))
    assert without_remote(store.stat_blob(BlobRef("box", "page.html"))) == as_recorded
    assert recall(store, before.properties.etag, "page.html", b"<html>") == as_recorded
    assert read(store, "page.html") == (b"<html>", as_recorded)


def test_what_may_not_go_stays(store: Store, root: Path) -> None:
    make(store)
    written, path = put(store, REF.name, DATA), root / "box" / REF.name
    etag, remote = written.properties.etag, remote_of(written)

    def refused(reason: str, etag: str = etag, remote: Remote = remote, ref: BlobRef = REF) -> None:
        with pytest.raises(NotEvictable, match=reason):
            store.run(store.evict(ref, etag, remote))
        found = read(store, REF.name)
        assert found == (DATA, written)
        assert leftovers(root) == []

    refused("gone", ref=BlobRef("box", "other"))
    refused("changed", etag="0x8DOTHER")
    refused("another size", remote=replace(remote, size=1))
    os.link(path, root / "box/second")
    refused("hard links")
    os.unlink(root / "box/second")
    path.chmod(0o4755)
    refused("permission bits")
    path.chmod(0o644)
    with path.open("ab"):
        refused("open for writing")
    empty = put(store, "empty", b"")
    refused("empty", empty.properties.etag, remote_of(empty, b""), BlobRef("box", "empty"))
    evict(store)
    with pytest.raises(NotEvictable, match="not here"):
        evict(store)


def test_a_mount_that_loses_the_mark_takes_no_stubs(store: Store, root: Path) -> None:
    make(store)
    written = put(store, REF.name, DATA)

    def without_modes(name: str, proceed: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        return None if name == "fchmod" else proceed()

    with kernel.watched(without_modes), pytest.raises(NotEvictable, match="does not keep the mode"):
        evict(store)
    assert read(store, REF.name) == (DATA, written)
    assert leftovers(root) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_stays(store: Store, root: Path) -> None:
    make(store)
    written, path = put(store, REF.name, DATA), root / "box" / REF.name
    os.chown(path, 12, 34)
    evict(store)
    assert (path.stat().st_uid, path.stat().st_gid) == (12, 34)
    recall(store, written.properties.etag)
    assert (path.stat().st_uid, path.stat().st_gid) == (12, 34)


# --- other hands ----------------------------------------------------------------------------------------------------


def test_a_stub_that_was_touched_or_moved_is_still_one(store: Store, root: Path) -> None:
    make(store)
    written, path = put(store, REF.name, DATA), root / "box" / REF.name
    evict(store)
    stub = store.stat_blob(REF)
    path.touch()
    path.chmod(0o1644)
    assert store.stat_blob(REF) == stub
    if store.mount.records.backend == "xattr":  # else the record may be of a file that had the same inode number
        path.chmod(0o644)
        path.touch()
        assert store.stat_blob(REF) == stub
    path.chmod(0o1644)
    assert store.stat_blob(REF) == stub
    assert states(store)[REF.name] == stub
    updated = store.run(store.update(REF, changed(metadata={"k": "v"})))
    assert updated.size == len(DATA)
    assert store.stat_blob(REF) == updated
    path.touch()
    assert without_remote(recall(store, updated.properties.etag)) == without_remote(updated)
    assert written.properties.etag != updated.properties.etag
    evict(store)
    stub = store.stat_blob(REF)
    assert stub is not None
    os.rename(path, root / "box/moved")
    moved = store.stat_blob(BlobRef("box", "moved"))
    assert moved == replace(stub, name="moved")


def test_a_stub_without_its_record_is_lost_and_never_empty(store: Store, root: Path) -> None:
    make(store)
    put(store, REF.name, DATA)
    evict(store)
    path = root / "box" / REF.name
    subprocess.run(["cp", "-a", path, root / "box/copy"], check=True)
    subprocess.run(["cp", "-a", "--no-preserve=xattr", path, root / "box/plain"], check=True)
    (root / "box/empty").touch()
    shown = states(store)
    for name in ("copy", "plain"):
        state = store.stat_blob(BlobRef("box", name))
        assert state is not None
        assert (state.properties.remote, state.size) == (LOST, 0)
        assert shown[name] == state
    assert shown["empty"].properties.remote is None
    with pytest.raises(BytesAway):
        store.run(store.update(BlobRef("box", "copy"), changed(metadata={})))
    staged = store.stage("box")
    with pytest.raises(NotAStub):
        store.run(store.recall(BlobRef("box", "copy"), staged, shown["copy"].properties.etag))


def test_a_restored_tree_has_its_stubs(root: Path, tmp_path: Path) -> None:
    """A copy with attributes: other inodes, the same names."""
    store = Store(str(root))
    if not store.mount.capabilities.xattr:
        store.close()
        pytest.skip("no user xattrs on the file system of the temporary directory")
    make(store)
    put(store, REF.name, DATA)
    evict(store)
    stub = store.stat_blob(REF)
    store.close()
    subprocess.run(["cp", "-a", root, tmp_path / "restored"], check=True)
    restored = Store(str(tmp_path / "restored"))
    assert restored.stat_blob(REF) == stub
    restored.close()


def test_a_stub_that_another_program_fills_is_its_file(store: Store, root: Path) -> None:
    make(store)
    put(store, REF.name, DATA, metadata={"k": "v"})
    evict(store)
    path = root / "box" / REF.name
    path.chmod(0o1600)
    path.write_bytes(b"theirs")
    found = read(store, REF.name)
    assert found is not None
    assert found[0] == b"theirs"
    properties = found[1].properties
    assert (properties.remote, properties.foreign, properties.metadata) == (None, True, {"k": "v"})


def test_a_forged_record_does_not_make_a_file_a_stub(root: Path) -> None:
    store = Store(str(root))
    make(store)
    state = put(store, REF.name, DATA)
    path = root / "box" / REF.name
    forged = replace(state.properties, remote=remote_of(state))
    record = Record(seal_of(path.stat()), name_hash("box", REF.name), forged)
    try:
        os.setxattr(path, XATTR, encode(record))
    except OSError:
        pytest.skip("no user xattrs on the file system of the temporary directory")
    finally:
        store.close()
    store = Store(str(root))
    found = read(store, REF.name)
    assert found is not None
    assert found[1].properties.foreign
    assert found[1].properties.remote is None
    store.close()


def test_a_forged_stub_of_a_name_that_is_no_text_says_nothing(root: Path) -> None:
    store = Store(str(root))
    make(store)
    state = put(store, "b", DATA)
    path = root / "box/forged"
    path.touch()
    path.chmod(0o1400)
    forged = replace(state.properties, remote=replace(remote_of(state), container="a\udc80"))
    try:
        os.setxattr(path, XATTR, encode(Record(seal_of(path.stat()), name_hash("box", "forged"), forged)))
    except OSError:
        pytest.skip("no user xattrs on the file system of the temporary directory")
    assert states(store)["forged"].properties.remote == LOST
    store.close()


def test_links_replace_exchanges(store: Store, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system where names cannot be exchanged."""
    make(store)
    written = put(store, REF.name, DATA)
    monkeypatch.setattr(syscalls, "exchange", lambda *_: False)
    evict(store)
    assert recall(store, written.properties.etag) == written
    with (root / "box" / REF.name).open("ab"), pytest.raises(NotEvictable):
        evict(store)
    assert read(store, REF.name) == (DATA, written)
    assert leftovers(root) == []


def test_what_a_crash_left_goes_unless_somebody_wrote_to_it(store: Store, root: Path) -> None:
    make(store)
    swaps = root / ".blobedge/swaps"
    for name in ("as-it-was", "written"):
        path = root / "box" / name
        path.write_bytes(DATA)
        os.rename(path, swaps / name_for(seal_of(path.stat())))
    (swaps / name_for(seal_of((root / "box").stat()))).touch()  # never came to its place
    kept = next(p for p in swaps.iterdir() if p.stat().st_size)
    with kept.open("ab") as file:
        file.write(b"more")
    sweep(store.mount, time.time())
    assert len(leftovers(root)) == 3, "they may be in use"
    sweep(store.mount, time.time() + SWAP_SECONDS_MAX + 1)
    assert leftovers(root) == [kept.name]


# --- what clients do meanwhile --------------------------------------------------------------------------------------


def test_properties_that_change_stay_when_the_bytes_come_back(store: Store, root: Path) -> None:
    make(store)
    written, path = put(store, REF.name, DATA, tags={"a": "1"}), root / "box" / REF.name
    seal = seal_of(path.stat())
    evict(store)
    updated = store.run(store.update(REF, changed(metadata={"k": "v"}, tags={"b": "2"})))
    assert updated.properties.remote is not None
    assert store.stat_blob(REF) == updated
    with pytest.raises(NotAStub):
        recall(store, written.properties.etag)
    back = recall(store, written.properties.etag, md5=updated.properties.remote.md5)
    assert back == without_remote(updated)
    assert read(store, REF.name) == (DATA, back)
    assert path.stat().st_mtime_ns != seal.mtime_ns, "its seal would be that of another record"


def test_only_eviction_and_recall_say_where_the_bytes_are(store: Store) -> None:
    """Whatever the other decisions return: those of a copy begin with the properties of its source."""
    make(store)
    put(store, REF.name, DATA)
    evict(store)
    stub = store.stat_blob(REF)
    assert stub is not None
    copied = store.run(store.put(BlobRef("box", "copy"), b"", lambda _: stub.properties))
    assert read(store, "copy") == (b"", copied)
    assert copied.properties.remote is None
    updated = store.run(store.update(REF, lambda _: properties()))
    assert (updated.size, store.stat_blob(REF)) == (len(DATA), updated)


def test_jobs_that_need_bytes_say_so(store: Store) -> None:
    make(store)
    for block_id, data in (("AAAA", DATA), ("BBBB", DATA)):
        store.run(store.put_block(REF, block_id, data, lambda _: None))
    store.run(store.commit_blocks(REF, [("Latest", "AAAA"), ("Latest", "BBBB")], lambda _: properties()))
    blocks = store.block_list(REF)
    evict(store, data=DATA * 2)
    assert store.block_list(REF) == blocks
    state = store.stat_blob(REF)
    assert state is not None
    with pytest.raises(BytesAway) as away:
        store.run(store.snapshot(REF, lambda s: s.properties, SNAPSHOT))  # type: ignore[union-attr]
    assert (away.value.ref, away.value.etag) == (REF, state.properties.etag)
    store.run(store.put_block(REF, "CCCC", b"new", lambda _: None))
    with pytest.raises(BytesAway):
        store.run(store.commit_blocks(REF, [("Latest", "AAAA"), ("Latest", "CCCC")], lambda _: properties()))
    assert store.block_list(REF) == (blocks[0] if blocks else None, (Block("CCCC", 3),))
    store.run(store.commit_blocks(REF, [("Latest", "CCCC")], lambda _: properties()))
    found = read(store, REF.name)
    assert found is not None
    assert found[0] == b"new"


def test_stubs_are_overwritten_and_deleted_like_blobs(store: Store, root: Path) -> None:
    make(store)
    put(store, REF.name, DATA)
    store.run(store.snapshot(REF, lambda s: s.properties, SNAPSHOT))  # type: ignore[union-attr]
    evict(store)
    old = read(store, REF.name, snapshot=SNAPSHOT)
    assert old is not None
    assert (old[0], old[1].properties.remote) == (DATA, None)
    written = put(store, REF.name, b"newer")
    assert read(store, REF.name) == (b"newer", written)
    assert stat.S_IMODE((root / "box" / REF.name).stat().st_mode) & stat.S_ISVTX == 0
    evict(store, data=b"newer")
    delete(store, REF.name, scope=DeleteScope.BLOB_AND_SNAPSHOTS)
    assert read(store, REF.name) is None
    assert names(store) == []


def test_a_delete_that_no_client_asked_for_gives_way(store: Store, root: Path) -> None:
    make(store)
    put(store, REF.name, DATA)

    def yielding() -> None:
        store.run(store.delete(REF, lambda state: DeleteScope.BLOB, yields=True))

    with (root / "box" / REF.name).open("ab"), pytest.raises(NotEvictable, match="open for writing"):
        yielding()
    store.run(store.put_block(REF, "AAAA", b"next", lambda _: None))
    with pytest.raises(NotEvictable, match="blocks"):
        yielding()
    delete(store, REF.name)
    store.run(store.put_block(REF, "AAAA", b"next", lambda _: None))

    def missing(state: BlobState | None) -> DeleteScope:
        raise BlobError(ErrorCode.BLOB_NOT_FOUND)

    with pytest.raises(BlobError):
        store.run(store.delete(REF, missing, yields=True))
    lists = store.block_list(REF)
    assert lists is not None
    assert [block.size for block in lists[1]] == [4]


def test_records_in_files_go_with_their_files(root: Path) -> None:
    store = Store(str(root), records="sidecar")
    make(store)
    written = put(store, REF.name, DATA)

    def count() -> int:
        return sum(1 for p in (root / ".blobedge/records").rglob("*") if p.is_file())

    assert count() == 1
    evict(store)
    assert count() == 1
    recall(store, written.properties.etag)
    assert count() == 1
    evict(store)
    store.run(store.retarget(REF, written.properties.etag, replace(remote_of(written), etag="0x8DLATER")))
    assert count() == 1
    delete(store, REF.name)
    assert count() == 0
    store.close()


def test_a_recall_gives_way_to_every_change(store: Store, root: Path) -> None:
    make(store)
    written = put(store, REF.name, DATA)
    with pytest.raises(NotAStub):
        recall(store, written.properties.etag)
    evict(store)
    newer = put(store, REF.name, b"newer")
    with pytest.raises(NotAStub):
        recall(store, written.properties.etag)
    assert read(store, REF.name) == (b"newer", newer)
    delete(store, REF.name)
    with pytest.raises(NotAStub):
        recall(store, written.properties.etag)
    assert read(store, REF.name) is None
    again = put(store, REF.name, DATA)
    evict(store)
    with pytest.raises(NotAStub):
        recall(store, again.properties.etag, data=DATA[1:])
    with pytest.raises(NotAStub):  # somebody else's stub by now, with the same ETag
        recall(store, again.properties.etag, data=DATA[::-1], md5=hashlib.md5(DATA[::-1]).digest())
    assert leftovers(root) == []
    assert recall(store, again.properties.etag) == again


# --- planting and pointing elsewhere ----------------------------------------------------------------------------------


def test_what_was_safe_stays_so_in_a_relaxed_container(tmp_path: Path) -> None:
    """The bytes that come back are on the disk before the stub goes, which leads to the copy."""
    store = Store(str(tmp_path), durable=False)
    make(store)
    written = put(store, REF.name, DATA)
    evict(store)
    synced: list[int] = []
    before: list[list[int]] = []

    def on_call(name: str, proceed: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        if name == "fsync":
            synced.append(os.fstat(args[0]).st_ino)
        elif name == "exchange":
            before.append(list(synced))
        return proceed()

    with kernel.watched(on_call):
        recall(store, written.properties.etag)
    assert (tmp_path / "box" / REF.name).stat().st_ino in before[0]
    store.close()


def test_a_stub_is_planted_where_nothing_is(store: Store, root: Path) -> None:
    make(store)
    planted = properties(metadata={"k": "v"}, tags={"t": "1"}, content_md5=hashlib.md5(DATA).digest())
    remote = Remote(
        len(DATA), hashlib.md5(DATA).digest(), "0x8DC", "cloud", "x", planted.etag, 1_600_000_000 * 10**9, 0
    )
    state = store.run(store.plant(BlobRef("box", "deep/er/x"), replace(planted, remote=remote)))
    assert store.stat_blob(BlobRef("box", "deep/er/x")) == state
    assert (state.size, int((root / "box/deep/er/x").stat().st_mtime)) == (len(DATA), 1_600_000_000)
    assert [(c, s.name) for c, s in store.tagged_blobs(None)] == [("box", "deep/er/x")]
    with pytest.raises(BlobError) as exists:
        store.run(store.plant(BlobRef("box", "deep/er/x"), replace(planted, remote=remote)))
    assert exists.value.code is ErrorCode.BLOB_ALREADY_EXISTS
    with pytest.raises(BlobError) as missing:
        store.run(store.plant(BlobRef("none", "x"), replace(planted, remote=remote)))
    assert missing.value.code is ErrorCode.CONTAINER_NOT_FOUND
    beside = store.run(store.plant(BlobRef("box", "deep"), replace(planted, remote=remote)))
    assert store.stat_blob(BlobRef("box", "deep")) == beside
    assert leftovers(root) == []
    assert recall(store, planted.etag, "deep/er/x") == without_remote(state)


def test_a_lost_stub_is_planted_again(store: Store, root: Path) -> None:
    make(store)
    path = root / "box/x"
    path.touch()
    path.chmod(0o1400)
    planted = properties()
    remote = Remote(4, hashlib.md5(b"1234").digest(), "0x8DC", "cloud", "x", planted.etag, 0, 0o640)
    state = store.run(store.plant(BlobRef("box", "x"), replace(planted, remote=remote)))
    assert store.stat_blob(BlobRef("box", "x")) == state
    assert state.size == 4
    assert leftovers(root) == []
    recall(store, planted.etag, "x", b"1234")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_stub_of_anothers_version_replaces_ours(store: Store) -> None:
    make(store)
    written = put(store, REF.name, DATA, tags={"ours": "1"})
    theirs = properties(content_type="text/theirs")
    remote = Remote(3, hashlib.md5(b"one").digest(), "0x8DC", "cloud", "x", theirs.etag, 0, 0)
    store.run(store.evict(REF, written.properties.etag, remote, theirs))
    state = store.stat_blob(REF)
    assert state is not None
    assert (state.size, without_remote(state).properties) == (3, theirs)
    recall(store, theirs.etag, data=b"one")
    assert read(store, REF.name) == (b"one", without_remote(state))


def test_a_stub_is_pointed_elsewhere(store: Store) -> None:
    make(store)
    written = put(store, REF.name, DATA)
    later = replace(remote_of(written), etag="0x8DLATER", name="elsewhere")
    with pytest.raises(NotAStub):
        store.run(store.retarget(REF, written.properties.etag, later))
    evict(store)
    before = store.stat_blob(REF)
    with pytest.raises(NotAStub):
        store.run(store.retarget(REF, "0x8DOTHER", later))
    store.run(store.retarget(REF, written.properties.etag, later))
    state = store.stat_blob(REF)
    assert state is not None
    assert state.properties.remote is not None
    assert (state.properties.remote.etag, state.properties.remote.name) == ("0x8DLATER", "elsewhere")
    assert without_remote(state) == without_remote(before)
    assert recall(store, written.properties.etag) == written


# --- what a change that a client made says of the stub that it met ----------------------------------------------------


def freed(store: Store, delete_it: bool) -> str:
    """Overwrite or delete the blob; which version has no stub any more."""
    if delete_it:
        job: Any = store.delete(REF, lambda state: DeleteScope.BLOB)
    else:
        job = store.put(REF, b"new", lambda state: properties())
    store.run(job)
    said: str = job.freed()
    return said


@pytest.mark.parametrize("delete_it", [False, True], ids=["overwritten", "deleted"])
def test_a_stub_that_is_nowhere_any_more_frees_its_version(store: Store, delete_it: bool) -> None:
    make(store)
    written = put(store, REF.name, DATA)
    evict(store)
    assert freed(store, delete_it) == written.properties.etag
    put(store, REF.name, DATA)
    assert freed(store, delete_it) == ""


@pytest.mark.parametrize("delete_it", [False, True], ids=["overwritten", "deleted"])
def test_a_stub_whose_end_may_not_be_on_the_disk_yet_frees_nothing(tmp_path: Path, delete_it: bool) -> None:
    """A power cut brings it back, and it leads to the copy."""
    store = Store(str(tmp_path), durable=False)
    make(store)
    put(store, REF.name, DATA)
    evict(store)
    assert freed(store, delete_it) == ""
    store.close()


def test_a_change_that_cannot_tell_whether_the_stub_has_another_name_frees_nothing(store: Store) -> None:
    """It has happened all the same: its end is not the place to fail."""
    make(store)
    put(store, REF.name, DATA)
    evict(store)
    unlinked = False

    def stale(name: str, proceed: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        nonlocal unlinked
        if name == "fstat" and unlinked:
            unlinked = False
            raise OSError(errno.ESTALE, "stale")
        unlinked |= name == "unlink"
        return proceed()

    with kernel.watched(stale):
        assert freed(store, delete_it=True) == ""
    assert store.stat_blob(REF) is None


@pytest.mark.parametrize("delete_it", [False, True], ids=["overwritten", "deleted"])
def test_a_stub_that_has_another_name_frees_nothing(store: Store, root: Path, delete_it: bool) -> None:
    make(store)
    put(store, REF.name, DATA)
    evict(store)
    os.link(root / "box" / REF.name, root / "box/other")
    assert freed(store, delete_it) == ""
