"""What an upload may hold, and for how long."""

import os
import resource
import time
from collections.abc import Set
from pathlib import Path

import pytest

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.store import blocks
from dataplane.store.store import BlobRef, Store
from tests.store.scenarios import block_id, put_block
from tests.store.support import make, properties, read

REF = BlobRef("box", "blocks")


def test_a_blob_has_a_limited_number_of_uncommitted_blocks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "blocks_uncommitted_max", 20)
    make(store)
    for i in range(20):
        put_block(store, i, b"x")
    put_block(store, 7, b"y")
    with pytest.raises(BlobError) as refused:
        put_block(store, 20, b"x")
    assert refused.value.code is ErrorCode.BLOCK_COUNT_EXCEEDS_LIMIT
    put_block(store, 20, b"x", name="another")
    entries = [("Latest", block_id(i)) for i in range(20)]
    store.run(store.commit_blocks(REF, entries, lambda _: properties()))
    put_block(store, 20, b"x")


def test_counting_costs_little(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "blocks_uncommitted_max", 200)
    counted = []

    def present(fd: int, path: str) -> Set[str]:
        counted.append(path)
        return really(fd, path)

    really = blocks._present
    monkeypatch.setattr(blocks, "_present", present)
    make(store)
    for i in range(200):
        put_block(store, i, b"x")
    assert len(counted) <= 40


def test_a_list_of_more_blocks_than_descriptors_is_committed(store: Store) -> None:
    make(store)
    ids = [f"{i:08d}" for i in range(300)]
    for each in ids:
        store.run(store.put_block(REF, each, each.encode(), lambda _: None))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 60, hard))
    try:
        store.run(store.commit_blocks(REF, [("Latest", each) for each in ids], lambda _: properties()))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    found = read(store, "blocks")
    assert found is not None
    assert found[0] == "".join(ids).encode()


def test_blocks_are_kept_for_a_week(store: Store, root: Path) -> None:
    make(store)
    put_block(store, 0, b"x")
    trash = store._main.trash
    assert trash is not None
    now = time.time()
    blocks.sweep(store.mount, trash, now + limits.uncommitted_seconds_max - 60)
    assert store.block_list(REF) is not None
    blocks.sweep(store.mount, trash, now + limits.uncommitted_seconds_max + 60)
    assert store.block_list(REF) is None
    assert not list((root / ".blobedge/containers/box/blocks").iterdir())
