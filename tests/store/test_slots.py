"""Blocks at their final place: whatever happens, the blob is the list; where it can be, it is the upload's own file."""

import base64
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataplane.blobapi.model import Block
from dataplane.store import blocks, slots
from dataplane.store.store import BlobRef, Store
from tests.store.support import make, properties, read

REF = BlobRef("box", "blob")


def counted(i: int) -> str:
    return base64.b64encode(f"block-{i:05d}".encode()).decode()


def random_id(i: int) -> str:
    return base64.b64encode(f"{i:05d}-rndm".encode()).decode()


def content(i: int, size: int) -> bytes:
    return bytes([i % 251]) * size


def stage(store: Store, block_id: str, data: bytes) -> bool:
    """Put a block; whether it got a slot."""
    staged = store.stage_block(REF, block_id, len(data))
    staged.write(data)
    store.run(store.put_block(REF, block_id, staged, lambda _: None))
    return isinstance(staged, slots.StagedSlot)


def commit(store: Store, ids: Sequence[str]) -> bytes:
    store.run(store.commit_blocks(REF, [("Latest", i) for i in ids], lambda _: properties()))
    found = read(store, "blob")
    assert found is not None
    return found[0]


@pytest.fixture(autouse=True)
def small_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SLOT_BYTES_MIN", 100)


@pytest.fixture
def data_inode(root: Path) -> "list[int]":
    """The inode of the shared file of the one upload there is, put here by `note`."""
    return []


def shared_inode(root: Path) -> int:
    (path,) = (root / ".blobedge/containers/box/blocks").glob("*/data")
    return path.stat().st_ino


@pytest.mark.parametrize("make_id", [counted, random_id])
def test_an_upload_in_order_becomes_the_blob_without_a_copy(store: Store, root: Path, make_id: object) -> None:
    make(store)
    ids = [make_id(i) for i in range(9)]  # type: ignore[operator]
    for i, block_id in enumerate(ids):
        assert stage(store, block_id, content(i, 1000 if i < 8 else 77))
    inode = shared_inode(root)
    listed = store.block_list(REF)
    assert listed is not None
    assert {b.block_id: b.size for b in listed[1]} == {b: 1000 if n < 8 else 77 for n, b in enumerate(ids)}
    assert commit(store, ids) == b"".join(content(i, 1000 if i < 8 else 77) for i in range(9))
    assert (root / "box/blob").stat().st_ino == inode
    assert store.block_list(REF) == (tuple(Block(b, 1000 if n < 8 else 77) for n, b in enumerate(ids)), ())


def test_counted_ids_may_arrive_in_any_order(store: Store, root: Path) -> None:
    make(store)
    for i in [3, 0, 5, 1, 4, 2]:
        stage(store, counted(i), content(i, 500))
    inode = shared_inode(root)
    assert commit(store, [counted(i) for i in range(6)]) == b"".join(content(i, 500) for i in range(6))
    assert (root / "box/blob").stat().st_ino == inode


def test_a_short_last_block_that_came_first_costs_a_copy_only(store: Store) -> None:
    make(store)
    stage(store, counted(2), content(2, 150))
    for i in (0, 1):
        assert not stage(store, counted(i), content(i, 500))
    assert commit(store, [counted(i) for i in range(3)]) == content(0, 500) + content(1, 500) + content(2, 150)


def test_a_block_staged_again_counts_and_the_first_one_stays_whole(store: Store) -> None:
    make(store)
    stage(store, counted(0), content(0, 500))
    stage(store, counted(1), content(1, 500))
    assert not stage(store, counted(0), b"new" * 100)
    assert commit(store, [counted(0), counted(1)]) == b"new" * 100 + content(1, 500)


def test_a_request_that_was_cut_off_spoils_nothing(store: Store) -> None:
    make(store)
    stage(store, counted(0), content(0, 500))
    broken = store.stage_block(REF, counted(1), 500)
    broken.write(b"half")
    broken.discard()
    assert not stage(store, counted(1), content(1, 500))
    late = store.stage_block(REF, counted(2), 500)
    assert commit(store, [counted(0), counted(1)]) == content(0, 500) + content(1, 500)
    late.write(b"LATE" * 100)
    late.discard()
    found = read(store, "blob")
    assert found is not None
    assert found[0] == content(0, 500) + content(1, 500)


def test_a_block_whose_upload_was_committed_meanwhile_is_kept(store: Store) -> None:
    make(store)
    stage(store, counted(0), content(0, 500))
    late = store.stage_block(REF, counted(1), 500)
    late.write(content(1, 500))
    assert commit(store, [counted(0)]) == content(0, 500)
    store.run(store.put_block(REF, counted(1), late, lambda _: None))
    listed = store.block_list(REF)
    assert listed is not None
    assert listed[1] == (Block(counted(1), 500),)
    found = read(store, "blob")
    assert found is not None
    assert found[0] == content(0, 500)
    assert commit(store, [counted(0), counted(1)]) == content(0, 500) + content(1, 500)


def test_a_crash_between_publishing_and_clearing_up_leaves_no_ghosts(store: Store, root: Path) -> None:
    make(store)
    stage(store, counted(0), content(0, 500))
    (directory,) = (root / ".blobedge/containers/box/blocks").glob("*")
    (directory / slots.DATA).unlink()
    assert store.block_list(REF) is None
    assert blocks.uncommitted_names(store._require("box")[1]) == []
    other = base64.b64encode(b"another length of id").decode()
    store.run(store.put_block(REF, other, b"x", lambda _: None))
    assert commit(store, [other]) == b"x"


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_upload_commits_to_its_list(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    store = Store(str(tmp_path_factory.mktemp("s")), durable=False)
    make(store)
    ids = [data.draw(st.sampled_from([counted, random_id])) for _ in range(1)] * 6
    known: dict[str, bytes] = {}
    for _ in range(data.draw(st.integers(1, 14))):
        i = data.draw(st.integers(0, 5))
        size = data.draw(st.sampled_from([500, 500, 500, 120, 700]))
        body = os.urandom(1) * size
        if data.draw(st.booleans()) or data.draw(st.booleans()):
            stage(store, ids[i](i), body)
            known[ids[i](i)] = body
        else:
            broken = store.stage_block(REF, ids[i](i), size)
            broken.write(body[:50])
            broken.discard()
    if known:
        listed = data.draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=8))
        if data.draw(st.booleans()):
            listed = sorted(known)
        assert commit(store, listed) == b"".join(known[b] for b in listed)
        assert store.block_list(REF) == (tuple(Block(b, len(known[b])) for b in listed), ())
    store.close()
