"""Blobs are evicted and recalled while the process is killed, or the power goes: each is a whole blob or a whole stub,
and what was acknowledged is there."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dataplane.store.mount import RecordsOption
from dataplane.store.store import BlobRef, Store
from dataplane.store.swap import SWAP_SECONDS_MAX, sweep

from .disk import Disk
from .mover import CONTAINER, NAMES, content_of, fill, properties_of, remote_of

CHECKOUT = Path(__file__).resolve().parents[2]
CUTS = int(os.environ.get("BLOBEDGE_POWER_CUTS", "3"))
KILLS = 5
LINES = range(1, 60)  # of the process, before it ends


@contextmanager
def opened(root: Path, records: RecordsOption) -> Iterator[Store]:
    store = Store(str(root), records=records)
    try:
        yield store
    finally:
        store.close()


def stubs(store: Store) -> dict[str, bool]:
    """Which blobs are stubs. Every one is whole, in the one form or the other."""
    found = {}
    for name in NAMES:
        blob = store.open_blob(BlobRef(CONTAINER, name))
        assert blob is not None, f"{name} is gone"
        with os.fdopen(blob.fd, "rb") as file:
            content = file.read()
        remote = blob.state.properties.remote
        found[name] = remote is not None
        assert blob.state.properties.etag == properties_of(name).etag
        assert blob.state.properties.metadata == {"name": name}
        assert blob.state.size == len(content_of(name))
        assert content == (b"" if remote else content_of(name)), name
        assert remote is None or remote.md5 == remote_of(name).md5
    return found


def crash_after_some(root: Path, records: str, seed: str, crash: Callable[[], object], before: dict[str, bool]) -> str:
    """Let a process move blobs and crash it. Returns the name that it was about to move, "" for none; `before` is
    brought up to what it acknowledged."""
    command = [sys.executable, "-m", "tests.durability.mover", str(root), records, seed]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=CHECKOUT)
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline() for _ in range(random.Random(seed).choice(LINES))]
        crash()
    finally:
        process.kill()
    lines += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    moving = ""
    for line in lines:
        what, _, name = line.strip().partition(" ")
        if what == "end":
            before[name] = not before[name]
        moving = name if what == "begin" else ""
    assert lines, "the process did nothing"
    return moving


def check(root: Path, records: RecordsOption, known: dict[str, bool], moving: str) -> dict[str, bool]:
    with opened(root, records) as store:
        found = stubs(store)
        assert {**found, moving: None} == {**known, moving: None}
        sweep(store.mount, time.time() + SWAP_SECONDS_MAX + 1)
        assert os.listdir(root / ".blobedge/swaps") == []
        assert stubs(store) == found
        return found


@pytest.mark.parametrize("records", ["xattr", "sidecar"])
def test_a_kill_leaves_whole_blobs_or_whole_stubs(records: RecordsOption, tmp_path: Path, seed: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with opened(root, records) as store:
        fill(store)
        known = stubs(store)
    for i in range(KILLS):
        moving = crash_after_some(root, records, f"{seed}-{i}", lambda: None, known)
        known = check(root, records, known, moving)


@pytest.mark.parametrize("records", ["xattr", "sidecar"])
def test_a_power_cut_leaves_whole_blobs_or_whole_stubs(
    power: Disk, records: RecordsOption, tmp_path: Path, seed: str
) -> None:
    root = power.mount / "root"
    root.mkdir()
    with opened(root, records) as store:
        fill(store)
        known = stubs(store)
    for i in range(CUTS):
        moving = crash_after_some(root, records, f"{seed}-{i}", power.cut_power, known)
        power.detach()
        power.attach()
        known = check(root, records, known, moving)
