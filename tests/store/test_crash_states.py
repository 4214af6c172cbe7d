"""A crash after any system call of any operation, on two kinds of disk: the old state or the new one, and after an
acknowledgement the new one.

The states of a disk are worked out by crashes.py; real power cuts on real file systems are in tests/durability.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataplane.store import mount
from dataplane.store.mount import RecordsOption
from dataplane.store.store import Store
from tests.store import crashes, kernel
from tests.store.scenarios import SCENARIOS, Scenario, View, is_new_with_blocks_left, slots_are_small, view

MODELS = {"journalled": crashes.journalled, "strict": crashes.strict}


@pytest.fixture(autouse=True)
def few_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of stores are opened here."""
    monkeypatch.setattr(mount, "_LANES", 2)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory on a file system that never uses an inode number twice."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no tmpfs")
    path = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="blobedge-test-"))
    yield path
    shutil.rmtree(path)


def seen(root: Path, records: RecordsOption) -> View:
    """What a fresh store shows."""
    store = Store(str(root), records=records)
    try:
        return view(store)
    finally:
        store.close()


def recorded(directory: Path, records: RecordsOption, scenario: Scenario) -> crashes.Recorder:
    """The changes that the operation makes on a tree that was made ready."""
    root, graveyard = directory / "root", directory / "graveyard"
    root.mkdir()
    graveyard.mkdir()
    store = Store(str(root), records=records)
    scenario.ready(store)
    store.close()
    store = Store(str(root), records=records)
    recorder = crashes.Recorder(root, graveyard)
    with kernel.watched(recorder):
        scenario.operate(store)
    store.close()
    return recorder


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name.replace(" ", "-"))
def test_a_crash_leaves_the_old_state_or_the_new(
    records: RecordsOption, scenario: Scenario, model: str, memory: Path
) -> None:
    with slots_are_small():
        recorder = recorded(memory, records, scenario)
        recorder.restore(recorder.before)
        old = seen(recorder.root, records)
        whole = list(crashes.journalled(recorder, len(recorder.changes)))[-2]
        recorder.restore(whole)
        new = seen(recorder.root, records)
        assert old != new
        between = [seen_between(memory / f"between{i}", records, scenario, i) for i in range(len(scenario.between))]
        problems, known = [], set()
        for count in range(len(recorder.changes) + 1):
            acknowledged = count == len(recorder.changes)
            for disk in MODELS[model](recorder, count):
                signature = (acknowledged, disk.signature())
                if signature in known:
                    continue
                known.add(signature)
                recorder.restore(disk)
                found = seen(recorder.root, records)
                stays = scenario.blocks_may_stay and is_new_with_blocks_left(found, old, new)
                if found != new if acknowledged else found not in (old, new, *between) and not stays:
                    calls = [c.call for c in recorder.changes[:count]]
                    problems.append(f"after {count} of {len(recorder.changes)} calls {calls}: {found}")
    assert not problems, f"{len(problems)} of {len(known)}:\nold {old}\nnew {new}\n" + "\n".join(problems[:10])


def seen_between(root: Path, records: RecordsOption, scenario: Scenario, i: int) -> View:
    """A state between the steps of an operation that has several."""
    root.mkdir()
    store = Store(str(root), records=records)
    scenario.ready(store)
    scenario.between[i](store)
    store.close()
    return seen(root, records)
