"""Processes and threads that change blobs at names which want the same path: one history, and nothing lost.

Every change that was acknowledged says which version it replaced. If the store's checks and changes are one step each,
these make a chain for each name: a version is made once, replaced or deleted once, and the one that is left is what is
there. A lost update would be a version replaced twice, a lost write one that nobody replaced and that is not there.
"""

import json
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import BlobProperties, BlobState
from dataplane.store import files
from dataplane.store.commit import Again, Job
from dataplane.store.files import Found, Missing
from dataplane.store.mount import RecordsOption
from dataplane.store.place import Place
from dataplane.store.store import BlobRef, Store
from tests.store.contender import CONTAINER, LASTING, NAMES
from tests.store.support import delete, make, names, properties, put, read

CHECKOUT = Path(__file__).resolve().parents[2]
PROCESSES = 3
THREADS = 2  # in each process
STEPS = int(os.environ.get("BLOBEDGE_CONTENTION_STEPS", "250"))  # of each thread
BUSY_SHARE_MAX = 0.01  # of the steps
FAILURES_SHOWN_MAX = 5
SECONDS_MAX = 240.0


def test_one_history(store: Store, root: Path, records: RecordsOption) -> None:
    make(store)
    for name in LASTING:
        lasting = properties(metadata={"content": name})
        put(store, name, name.encode(), metadata=lasting.metadata)
    results = contend(root, records, random.randrange(1 << 30))
    failures = [failure for result in results for failure in result["failures"]]
    assert not failures, f"{len(failures)} failures:\n" + "\n".join(failures[:FAILURES_SHOWN_MAX])
    changes: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for result in results:
        for name, before, after in result["changes"]:
            changes[name].append((before, after))
    for name in NAMES:
        check_history(store, name, changes[name])
    assert set(names(store)) == {*LASTING, *(name for name in NAMES if read(store, name) is not None)}
    assert sum(result["reads"] for result in results) > STEPS // 10
    assert sum(result["evicted"] for result in results) > STEPS // 10
    assert sum(result["recalled"] for result in results) > STEPS // 20
    assert os.listdir(root / ".blobedge/swaps") == []
    assert sum(result["busy"] for result in results) <= PROCESSES * THREADS * STEPS * BUSY_SHARE_MAX


def contend(root: Path, records: str, seed: int) -> list[dict[str, Any]]:
    """Start the contenders together and wait for what they report. The seed is in the command, so in a failure."""
    command = [sys.executable, "-m", "tests.store.contender", str(root), records]
    processes = [
        subprocess.Popen(
            [*command, *(str(n) for n in (1 + index * THREADS, THREADS, STEPS, seed + index * THREADS))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT,
        )
        for index in range(PROCESSES)
    ]  # fmt: skip
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", process.args
        outputs = []
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            output, _ = process.communicate(timeout=SECONDS_MAX)
            assert process.returncode == 0, process.args
            outputs.append(json.loads(output))
        return outputs
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


def check_history(store: Store, name: str, changes: list[tuple[str, str]]) -> None:
    """All acknowledged changes of a name make one chain that ends at what is there."""
    made = Counter(after for _, after in changes if after)
    replaced = Counter(before for before, _ in changes if before)
    assert max(made.values(), default=1) == 1
    twice = [etag for etag, count in replaced.items() if count > 1]
    assert not twice, f"{name}: versions that two changes replaced: {twice}"
    assert replaced.keys() <= made.keys(), f"{name}: replaced but never acknowledged: {replaced.keys() - made.keys()}"
    last = made.keys() - replaced.keys()
    found = read(store, name)
    there = {found[1].properties.etag} if found is not None else set()
    assert last == there, f"{name}: {last} should be there, {there} is"


def test_a_blob_that_came_at_the_other_path_is_seen(store: Store) -> None:
    """A put that found `a` taken by a directory, and publishes when that is gone and a blob is there instead."""
    make(store)
    put(store, "a/x")

    def refuse(state: BlobState | None) -> BlobProperties:
        if state is not None:
            raise BlobError(ErrorCode.BLOB_ALREADY_EXISTS)
        return properties()

    late = store.put(BlobRef("box", "a"), b"late", refuse)
    late.prepare()
    late.stage()
    delete(store, "a/x")
    first = put(store, "a", b"first")
    with pytest.raises(BlobError) as caught:
        late.publish()
    assert caught.value.code is ErrorCode.BLOB_ALREADY_EXISTS
    late.discard()
    late.close()
    assert read(store, "a") == (b"first", first)


def test_committed_blocks_are_those_of_the_version_that_is_replaced(store: Store) -> None:
    """A commit that keeps a block of the blob, which is replaced before the commit is published."""
    make(store)
    ref = BlobRef("box", "a")

    def commit(data: bytes, *entries: tuple[str, str]) -> Job[BlobState]:
        store.run(store.put_block(ref, "BBBB", data, lambda _: None))
        return store.commit_blocks(ref, entries, lambda _: properties())

    store.run(commit(b"old", ("Uncommitted", "BBBB")))
    late = commit(b"", ("Committed", "BBBB"))
    late.prepare()
    late.stage()
    store.run(commit(b"newer", ("Uncommitted", "BBBB")))
    with pytest.raises(Again):
        late.publish()
    late.close()
    assert (found := read(store, "a")) is not None
    assert found[0] == b"newer"


def test_the_record_of_a_version_that_was_replaced_is_not_guessed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader opens a file, then another version comes and takes the record along: the reader shows the new one."""
    make(store)
    put(store, "b", b"old")
    find = files.find

    def find_and_lose(place: Place, name: str) -> Found | Missing:
        found = find(place, name)
        monkeypatch.undo()
        put(store, "b", b"newer")
        return found

    monkeypatch.setattr(files, "find", find_and_lose)
    found = read(store, "b")
    assert found is not None
    assert not found[1].properties.foreign
    if store.mount.records.backend == "sidecar":  # an attribute stays with the open file
        assert found[0] == b"newer"


@pytest.mark.parametrize("changes", [[("", "1"), ("1", "2"), ("1", "3")], [("", "1"), ("", "2")], [("", "1")]])
def test_the_check_finds_lost_writes(store: Store, changes: list[tuple[str, str]]) -> None:
    make(store, CONTAINER)
    with pytest.raises(AssertionError):
        check_history(store, "a", changes)
