"""What this version reads of trees that others wrote: one of version 1, damaged ones, and ones of a later version."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dataplane.blobapi.dates import iso_ticks
from dataplane.blobapi.model import AccessPolicy, AccessTier, Block, ContainerProperties, PublicAccess
from dataplane.store import leasefiles, mount, records
from dataplane.store.errors import FormatTooNew
from dataplane.store.mount import RecordsOption
from dataplane.store.records import Record, Seal
from dataplane.store.store import BlobRef, Store
from tests.store import scenarios
from tests.store.golden import LONG_LIST, TICKS, Golden
from tests.store.scenarios import LEASE, SNAPSHOT, commit, lease, prop, put_block, snapshot, view
from tests.store.support import make, names, put, read


@pytest.mark.parametrize("text", ['{"version": 3}', '{"version": 0}', "{", '{"version": "x"}', "[]"])
def test_a_tree_of_an_unknown_layout_is_refused_and_left_alone(root: Path, text: str) -> None:
    private = root / ".blobedge"
    private.mkdir()
    (private / "format").write_text(text)
    with pytest.raises(FormatTooNew):
        Store(str(root))
    assert [p.name for p in private.iterdir()] == ["format"]
    assert (private / "format").read_text() == text


def test_a_format_file_that_a_crash_left_empty_is_written_again(root: Path) -> None:
    (root / ".blobedge").mkdir()
    (root / ".blobedge/format").touch()
    Store(str(root)).close()
    assert json.loads((root / ".blobedge/format").read_bytes())["version"] == 1


def test_the_first_stub_keeps_older_programs_away(store: Store, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would serve empty blobs. A tree without stubs stays theirs."""
    path = root / ".blobedge/format"
    scenarios.one_blob(store)
    before = json.loads(path.read_bytes())
    scenarios.evict(store, "a", "old")
    assert json.loads(path.read_bytes()) == {**before, "version": 2}
    assert before["version"] == 1
    again = Store(str(root), records=store.mount.records.backend)
    assert again.stat_blob(BlobRef("box", "a")) == store.stat_blob(BlobRef("box", "a"))
    again.close()
    monkeypatch.setattr(mount, "FORMAT_VERSION", 1)
    with pytest.raises(FormatTooNew):
        Store(str(root))


def test_a_record_with_any_bit_flipped_is_none_or_the_same() -> None:
    record = Record(Seal(7, 40, 123456789), "abc", prop("one", tags={"a": "b"}, cache_control="x\u00e4"))
    line = records.encode(record)
    for i in range(len(line)):
        for bit in range(8):
            damaged = bytearray(line)
            damaged[i] ^= 1 << bit
            assert records.decode(bytes(damaged)) in ([], [record]), (i, bit)
    for end in range(len(line) - 1):
        assert records.decode(line[:end]) == []


def test_a_damaged_lease_is_held_by_nobody_known(store: Store, root: Path) -> None:
    make(store)
    put(store, "a")
    lease(store, "a", LEASE)
    (path,) = (root / ".blobedge/containers/box/leases").iterdir()
    whole = path.read_bytes()
    for i in range(len(whole) - 1):
        damaged = bytearray(whole)
        damaged[i] ^= 1
        path.write_bytes(damaged)
        state = store.stat_blob(BlobRef("box", "a"))
        assert state is not None
        assert state.lease == leasefiles.UNREADABLE
    for text in (b"", whole[: len(whole) // 2], whole.replace(b"lease1", b"lease2")):
        path.write_bytes(text)
        state = store.stat_blob(BlobRef("box", "a"))
        assert state is not None
        assert state.lease == leasefiles.UNREADABLE
    lease(store, "a", replace(LEASE, released=True))
    assert read(store, "a") is not None


def test_a_damaged_container_is_closed(store: Store, root: Path) -> None:
    new = ContainerProperties("0x8D1", 5, {"a": "b"}, public_access=PublicAccess.CONTAINER)
    store.run(store.create_container("box", new))
    path = root / ".blobedge/containers/box/properties"
    whole = path.read_bytes()
    for i in range(len(whole) - 1):
        damaged = bytearray(whole)
        damaged[i] ^= 1
        path.write_bytes(damaged)
        state = store.container("box")
        assert state is not None
        assert state.properties.public_access is PublicAccess.NONE
        assert state.properties.lease == leasefiles.UNREADABLE
    path.write_bytes(whole)
    state = store.container("box")
    assert state is not None
    assert state.properties == new


def test_a_damaged_block_list_is_lost_and_never_wrong(store: Store, root: Path) -> None:
    make(store)
    for i in range(60):
        put_block(store, i, b"12345")
    commit(store, list(range(60)), "old")
    ref = BlobRef("box", "blocks")
    whole_list = store.block_list(ref)
    (path,) = (root / ".blobedge/containers/box/blocklists").iterdir()
    whole = path.read_bytes()
    for i in range(len(whole)):
        damaged = bytearray(whole)
        damaged[i] ^= 1
        path.write_bytes(damaged)
        assert store.block_list(ref) in (((), ()), whole_list), i


def test_a_damaged_meta_of_an_upload_loses_no_block(store: Store, root: Path) -> None:
    make(store)
    for i in range(3):
        put_block(store, i, b"12345")
    (path,) = (root / ".blobedge/containers/box/blocks").glob("*/meta")
    for text in (b"", b"{", b"[]", b"\xff\xfe"):
        path.write_bytes(text)
        put_block(store, 3, b"4")
        listed = store.block_list(BlobRef("box", "blocks"))
        assert listed is not None
        assert [b.size for b in listed[1]] == [5, 5, 5, 1]
    commit(store, [0, 1, 2, 3], "new")
    found = read(store, "blocks")
    assert found is not None
    assert found[0] == b"123451234512345" + b"4"


def test_any_damage_in_a_small_tree_is_survived(store: Store, root: Path) -> None:
    """Every private file cut off, emptied or filled with noise: the store answers, and contents stay what they are."""
    make(store)
    put(store, "a", b"data", tags={"k": "v"})
    snapshot(store, "a", SNAPSHOT)
    lease(store, "a", LEASE)
    put_block(store, 0, b"x")
    private = root / ".blobedge"
    kept = {p: p.read_bytes() for p in private.rglob("*") if p.is_file() and p.name not in ("format", "lock")}
    snapshots = [p for p in kept if "/snapshots/" in str(p)]
    for path, data in kept.items():
        if path in snapshots:
            continue
        for damage in (b"", data[: len(data) // 2], b"\xff" * 100, b"\0" * len(data)):
            path.write_bytes(damage)
            fresh = Store(str(root), records=store.mount.records.backend)
            assert view(fresh)["box"][1]["a", "", False][0] == b"data"
            fresh.close()
        path.write_bytes(data)


def test_a_tree_of_version_1_is_read(root: Path, records: RecordsOption) -> None:
    Golden(root, attributes=records == "xattr")
    store = Store(str(root), records=records)
    box = store.container("box")
    assert box is not None
    assert box.properties.etag == "0x8DC"
    assert box.properties.public_access is PublicAccess.CONTAINER
    assert box.properties.policies == (AccessPolicy("p", "2026-01-01", None, "r"),)
    assert box.properties.lease == LEASE
    assert store.service_properties() == b"<service/>"
    assert names(store, snapshots=True, uncommitted=True) == ["coming", "dir", "dir/plain", "long", "made", "made"]
    shown = {name: read(store, name) for name in ("dir", "dir/plain", "long", "made")}
    assert {name: found[0] for name, found in shown.items() if found} == {
        "dir": b"beside", "dir/plain": b"plain", "long": b"abc" * 100, "made": b"onetwo",
    }  # fmt: skip
    plain, beside = shown["dir/plain"], shown["dir"]
    assert plain is not None
    assert beside is not None
    assert plain[1].lease == LEASE
    assert (plain[1].properties.content_type, plain[1].properties.content_md5) == ("text/plain", bytes(16))
    assert beside[1].properties.metadata == {"hdi_isfolder": "true"}
    assert beside[1].properties.tags == {"k": "v"}
    assert beside[1].properties.access_tier is AccessTier.COOL
    assert [(c, s.name) for c, s in store.tagged_blobs(None)] == [("box", "dir")]
    before = read(store, "made", snapshot=iso_ticks(TICKS))
    assert before is not None
    assert (before[0], before[1].properties.etag) == (b"before", "0x8D5")
    store.close()


def test_blocks_of_version_1_are_committed(root: Path, records: RecordsOption) -> None:
    Golden(root, attributes=records == "xattr")
    store = Store(str(root), records=records)
    long_list = tuple(Block(block_id, size) for block_id, size in LONG_LIST)
    assert store.block_list(BlobRef("box", "long")) == (long_list, ())
    assert store.block_list(BlobRef("box", "made")) == ((Block("QQ==", 3), Block("Qg==", 3)), ())
    coming = BlobRef("box", "coming")
    assert store.block_list(coming) == ((), (Block("Q/+=", 8), Block("QQ==", 4)))
    store.run(store.commit_blocks(coming, [("Latest", "QQ=="), ("Latest", "Q/+=")], lambda _: prop("new")))
    store.run(store.commit_blocks(BlobRef("box", "made"), [("Committed", "Qg==")], lambda _: prop("new")))
    for name, content in (("coming", b"slotown file"), ("made", b"two")):
        found = read(store, name)
        assert found is not None
        assert found[0] == content
    store.close()
