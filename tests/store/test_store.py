"""The store's contract, the same for both record backends."""

import os
from pathlib import Path

import pytest

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import AccessTier, Block, ContainerProperties, CopyState, CopyStatus, Lease
from dataplane.store.errors import StorageUnavailable
from dataplane.store.store import BlobRef, DeleteScope, MappedDirectory, Store
from tests.store.support import changed, delete, make, names, properties, put, read

SNAPSHOT = "2026-11-23T06:55:00.1234567Z"


def test_a_blob_is_a_plain_file_and_its_properties_come_back(store: Store, root: Path) -> None:
    make(store)
    copy = CopyState("id", "http://x/y", CopyStatus.SUCCESS, 4, 4, 1001, "")
    written = put(
        store, "a/b.txt", b"hello", content_type="text/plain", content_md5=b"x" * 16, metadata={"K": "v"},
        tags={"t": "1"}, access_tier=AccessTier.COOL, copy=copy, cache_control="no-cache",
    )  # fmt: skip
    assert (root / "box/a/b.txt").read_bytes() == b"hello"
    found = read(store, "a/b.txt")
    assert found == (b"hello", written)
    again = Store(str(root), records=store.mount.records.backend)
    assert read(again, "a/b.txt") == (b"hello", written)
    again.close()


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a/",
        "a//b",
        "/a",
        "////a",
        "..",
        "../x",
        "./a",
        "x" * 300,
        "\u00e4" * 400,
        ".snapshot/x",
        ".nfs1",
        "%~e",
        "a b+%41",
    ],
)
def test_every_name_round_trips(store: Store, name: str) -> None:
    make(store)
    put(store, name, b"1")
    put(store, name, b"2")
    found = read(store, name)
    assert found is not None
    assert found[0] == b"2"
    assert names(store) == [name]
    delete(store, name)
    assert read(store, name) is None
    assert names(store) == []


def test_names_that_fight_over_a_path_coexist(store: Store, root: Path) -> None:
    make(store)
    fighting = ["a", "a/b", "a/", "a//b", "a/b/c", "a/b/c/d", "x/y", "x", "x/", "\u00fc" * 200 + "/a", "\u00fc" * 200]
    for name in fighting:
        put(store, name, name.encode())
    for name in fighting:
        found = read(store, name)
        assert found is not None, name
        assert found[0] == name.encode()
    assert names(store) == sorted(fighting)
    for name in fighting:
        put(store, name, b"new" + name.encode())
    for name in fighting:
        delete(store, name)
        assert read(store, name) is None
    assert os.listdir(root / "box") == []


def test_update_keeps_the_content_and_is_seen_by_another_store(store: Store, root: Path) -> None:
    make(store)
    put(store, "a", b"data", metadata={"k": "1"})
    state = store.run(store.update(BlobRef("box", "a"), changed(metadata={"k": "2"})))
    assert read(store, "a") == (b"data", state)
    other = Store(str(root), records=store.mount.records.backend)
    assert read(other, "a") == (b"data", state)
    for i in range(5):
        state = other.run(other.update(BlobRef("box", "a"), changed(metadata={"k": str(i)})))
        assert read(store, "a") == (b"data", state)
    other.close()


def test_metadata_of_eight_kibibytes_fits_everywhere(store: Store) -> None:
    make(store)
    large = {f"key{i}": "v" * 1000 for i in range(8)}
    state = put(store, "a", b"x", metadata=large)
    assert read(store, "a") == (b"x", state)
    state = store.run(store.update(BlobRef("box", "a"), changed(metadata=large | {"more": "1"})))
    assert read(store, "a") == (b"x", state)


def test_foreign_files_are_served_and_changed_ones_noticed(store: Store, root: Path) -> None:
    make(store)
    (root / "box/dir").mkdir()
    (root / "box/dir/page.html").write_bytes(b"<html>")
    found = read(store, "dir/page.html")
    assert found is not None
    assert found[1].properties.foreign
    assert found[1].properties.content_type == "text/html"
    state = put(store, "mine", b"12345", metadata={"k": "v"}, content_md5=b"m" * 16)
    (root / "box/mine").write_bytes(b"changed")
    after = read(store, "mine")
    assert after is not None
    assert after[1].properties.etag != state.properties.etag
    assert after[1].properties.content_md5 is None
    assert after[1].properties.metadata == {"k": "v"}
    updated = store.run(store.update(BlobRef("box", "dir/page.html"), changed(metadata={"a": "b"}, foreign=False)))
    assert read(store, "dir/page.html") == (b"<html>", updated)
    os.rename(root / "box/dir/page.html", root / "box/moved.html")
    moved = read(store, "moved.html")
    assert moved is not None
    assert moved[1].properties == updated.properties


def test_a_tree_made_by_cp_is_a_container(store: Store, root: Path) -> None:
    (root / "tree/sub/deep").mkdir(parents=True)
    (root / "tree/sub/deep/file.bin").write_bytes(b"1")
    (root / "tree/top").write_bytes(b"2")
    os.symlink("/etc/passwd", root / "tree/link")
    os.symlink("/etc", root / "tree/etc")
    os.mkfifo(root / "tree/fifo")
    assert store.container("tree") is not None
    assert names(store, "tree") == ["sub/deep/file.bin", "top"]
    for hostile in ("link", "etc/passwd", "fifo", "../box/x"):
        assert read(store, hostile, "tree") is None
    put(store, "link", b"mine", "tree")
    assert (root / "tree/link").read_bytes() == b"mine"
    assert Path("/etc/passwd").read_bytes() != b"mine"
    delete(store, "sub/deep/file.bin", "tree")
    assert not (root / "tree/sub").exists()


def test_listing_pages_prefixes_and_delimiters(store: Store) -> None:
    make(store)
    all_names = sorted(
        [
            "a",
            "a-b",
            "a.txt",
            "a/1",
            "a/2/x",
            "a/2/y",
            "a0",
            "b/",
            "b//c",
            "b/c/d",
            "c" * 300,
            "c" * 300 + "/x",
            "c" * 249,
            "z/z/z",
        ]
    )
    for name in all_names:
        put(store, name)
    assert names(store) == all_names
    for limit in (1, 2, 3):
        assert names(store, limit=limit) == all_names
    for start in all_names:
        page = store.list_blobs("box", prefix="", delimiter="", start=start, limit=100)
        assert [i.state.name for i in page.items if i.state] == [n for n in all_names if n >= start]
    for prefix in ["a", "a/", "a/2", "b/", "c" * 250, "nope", "z/z"]:
        assert names(store, prefix=prefix) == [n for n in all_names if n.startswith(prefix)]
        assert names(store, prefix=prefix, limit=1) == [n for n in all_names if n.startswith(prefix)]
    for limit in (1, 100):
        assert names(store, delimiter="/", limit=limit) == sorted(
            {n.split("/")[0] + "/" if "/" in n else n for n in all_names}
        )
        assert names(store, delimiter="/", prefix="a/", limit=limit) == ["a/1", "a/2/"]
        assert names(store, delimiter="-", limit=limit)[:2] == ["a", "a-"]


def test_an_empty_directory_is_no_prefix(store: Store, root: Path) -> None:
    make(store)
    (root / "box/empty/deeper").mkdir(parents=True)
    put(store, "full/x")
    assert names(store, delimiter="/") == ["full/"]


def test_snapshots_stay_as_they_were(store: Store) -> None:
    make(store)
    first = put(store, "a", b"one", metadata={"v": "1"})
    taken = store.run(store.snapshot(BlobRef("box", "a"), lambda s: s.properties, SNAPSHOT))  # type: ignore[union-attr]
    assert taken.snapshot == SNAPSHOT
    put(store, "a", b"two")
    found = read(store, "a", snapshot=SNAPSHOT)
    assert found is not None
    assert found[0] == b"one"
    assert found[1].properties == first.properties
    page = store.list_blobs("box", prefix="", delimiter="", start="", limit=10, snapshots=True)
    assert [(i.state.name, i.state.snapshot) for i in page.items if i.state] == [("a", SNAPSHOT), ("a", "")]
    delete(store, "a", scope=DeleteScope.BLOB_AND_SNAPSHOTS)
    assert read(store, "a", snapshot=SNAPSHOT) is None


def test_blocks_are_committed_in_any_order_and_from_the_old_blob(store: Store) -> None:
    make(store)
    ref = BlobRef("box", "blob")
    for block_id, data in (("AAA=", b"1" * 10), ("BBB=", b"2" * 20), ("CCC=", b"3" * 5)):
        store.run(store.put_block(ref, block_id, data, lambda _: None))
    assert store.block_list(ref) == ((), (Block("AAA=", 10), Block("BBB=", 20), Block("CCC=", 5)))
    assert read(store, "blob") is None
    page = store.list_blobs("box", prefix="", delimiter="", start="", limit=10, uncommitted=True)
    assert [i.uncommitted for i in page.items] == [True]
    store.run(store.commit_blocks(ref, [("Latest", "BBB="), ("Uncommitted", "AAA=")], lambda _: properties()))
    found = read(store, "blob")
    assert found is not None
    assert found[0] == b"2" * 20 + b"1" * 10
    assert store.block_list(ref) == ((Block("BBB=", 20), Block("AAA=", 10)), ())
    store.run(store.put_block(ref, "AAA=", b"new", lambda _: None))
    entries = [("Latest", "AAA="), ("Committed", "AAA="), ("Committed", "BBB="), ("Latest", "BBB=")]
    store.run(store.commit_blocks(ref, entries, lambda _: properties()))
    found = read(store, "blob")
    assert found is not None
    assert found[0] == b"new" + b"1" * 10 + b"2" * 40
    with pytest.raises(BlobError) as caught:
        store.run(store.commit_blocks(ref, [("Uncommitted", "AAA=")], lambda _: properties()))
    assert caught.value.code is ErrorCode.INVALID_BLOCK_LIST
    store.run(store.put_block(ref, "DDDD", b"x", lambda _: None))
    with pytest.raises(BlobError) as caught:
        store.run(store.put_block(ref, "DDDDDDD=", b"x", lambda _: None))
    assert caught.value.code is ErrorCode.INVALID_BLOB_OR_BLOCK


def test_a_block_list_of_thousands_comes_back(store: Store) -> None:
    make(store)
    ref = BlobRef("box", "blob")
    ids = [f"{i:08d}" for i in range(300)]
    for block_id in ids:
        store.run(store.put_block(ref, block_id, block_id.encode(), lambda _: None))
    store.run(store.commit_blocks(ref, [("Latest", i) for i in reversed(ids)], lambda _: properties()))
    found = store.block_list(ref)
    assert found is not None
    assert [b.block_id for b in found[0]] == ids[::-1]


def test_blocks_alone_can_be_deleted(store: Store) -> None:
    make(store)
    ref = BlobRef("box", "a")
    store.run(store.put_block(ref, "QQ==", b"1", lambda state: None))
    delete(store, "a")
    assert store.block_list(ref) is None
    with pytest.raises(BlobError) as refused:
        delete(store, "a")
    assert refused.value.code is ErrorCode.BLOB_NOT_FOUND


def test_leases_survive_an_overwrite_and_go_with_the_blob(store: Store) -> None:
    make(store)
    put(store, "a")
    lease = Lease("id", -1, None)
    assert store.run(store.set_lease(BlobRef("box", "a"), lambda _: lease)).lease == lease
    put(store, "a", b"new")
    state = store.stat_blob(BlobRef("box", "a"))
    assert state is not None
    assert state.lease == lease
    delete(store, "a")
    put(store, "a")
    state = store.stat_blob(BlobRef("box", "a"))
    assert state is not None
    assert state.lease is None


def test_containers(store: Store, root: Path) -> None:
    new = ContainerProperties("0x8D1", 5, {"a": "b"})
    assert store.run(store.create_container("one", new))
    assert not store.run(store.create_container("one", new))
    (root / "two").mkdir()
    (root / "Not-A-Container").mkdir()
    found, marker = store.list_containers("", "", 1)
    assert [c.name for c in found] == ["one"]
    assert marker == "two"
    assert found[0].properties == new
    put(store, "blob", container="one", tags={"k": "v"})
    store.run(store.put_block(BlobRef("one", "b"), "AAAA", b"x", lambda _: None))
    assert [(c, s.name) for c, s in store.tagged_blobs(None)] == [("one", "blob")]
    store.run(store.delete_container("one", lambda _: None))
    assert store.container("one") is None
    assert read(store, "blob", "one") is None
    assert store.run(store.create_container("one", ContainerProperties("0x8D2", 6)))
    assert names(store, "one", uncommitted=True) == []
    with pytest.raises(BlobError) as caught:
        put(store, "x", container="three")
    assert caught.value.code is ErrorCode.CONTAINER_NOT_FOUND


def test_mapped_directories(root: Path, tmp_path: Path) -> None:
    for name in ("shared", "frozen"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub/file").write_bytes(b"x")
    mapped = [
        MappedDirectory("data", str(tmp_path / "shared")),
        MappedDirectory("old", str(tmp_path / "frozen"), read_only=True),
    ]
    store = Store(str(root), mapped=mapped)
    assert [c.name for c in store.list_containers("", "", 10)[0]] == ["data", "old"]
    assert names(store, "data") == names(store, "old") == ["sub/file"]
    put(store, "new/blob", b"1", "data")
    assert (tmp_path / "shared/new/blob").read_bytes() == b"1"
    assert names(store, "data") == ["new/blob", "sub/file"]
    with pytest.raises(BlobError):
        put(store, "new", container="old")
    assert not (tmp_path / "frozen/.blobedge").exists()
    found = read(store, "sub/file", "old")
    assert found is not None
    assert found[0] == b"x"
    store.close()


def test_a_large_directory_is_indexed_once(store: Store, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(store)
    monkeypatch.setattr("dataplane.store.index.LARGE_ENTRIES_MIN", 50)
    monkeypatch.setattr("dataplane.store.index._RUN_ENTRIES", 64)
    all_names = sorted([f"f{i:04d}" for i in range(300)] + [f"d{i}/x" for i in range(40)] + ["f0100/deep", "f%~c"])
    odd = ["f0100", "f0100/deep", "f%~c"]
    for name in set(all_names) - set(odd):
        target = root / "box" / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(b"")
    for name in odd:
        put(store, name)
    assert names(store) == all_names
    assert names(store, limit=7) == all_names
    os.utime(root / "box", ns=(10**18, 10**18))
    assert names(store, limit=7) == all_names
    assert names(store, prefix="f01", limit=7) == [n for n in all_names if n.startswith("f01")]
    assert names(store, delimiter="/", limit=7) == sorted({n.split("/")[0] + "/" if "/" in n else n for n in all_names})


def test_an_index_that_was_cut_short_is_made_again(store: Store, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(store)
    monkeypatch.setattr("dataplane.store.index.LARGE_ENTRIES_MIN", 50)
    all_names = [f"f{i:04d}" for i in range(300)]
    for name in all_names:
        (root / "box" / name).write_bytes(b"")
    os.utime(root / "box", ns=(10**18, 10**18))
    while not list((root / ".blobedge/index").iterdir()):  # not kept while the directory's stamp is fresh
        assert names(store) == all_names
    (index,) = (root / ".blobedge/index").iterdir()
    os.truncate(index, 1000)
    with pytest.raises(StorageUnavailable):
        names(store)
    assert names(store) == all_names
