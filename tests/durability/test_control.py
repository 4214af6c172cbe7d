"""The proofs can fail: a server that syncs too little is caught, one that syncs rightly is not.

Without this a green power-cut test says nothing: the cut might not lose anything, the load might not be
running, the checker might be blind.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from .disk import Disk
from .history import Found, faults, standing
from .load import Load, Plan
from .recovery import observe
from .server import fake
from .transport import Transport

KINDS = ("put", "metadata", "delete")
CUTS = 4
CUTS_UNTIL_CAUGHT_MAX = 25
ACKNOWLEDGED_TIMEOUT_S = 60.0
CONTAINER = "fake"


def cuts(power: Disk, mode: str, log: Path, seed: str, clients: int) -> Iterator[list[str]]:
    """Cut the power of a working fake server again and again; yield the faults found after each cut."""
    found: dict[str, Found] = {}
    rng = random.Random(seed)
    while True:
        # No metadata that ext4's xattrs cannot hold: the fake has no other place for it.
        plan = Plan(f"{rng.getrandbits(32):08x}", clients, KINDS, metadata_pad_bytes=(0,), stage_blocks=False)
        process, target = fake(power.mount, mode, log)
        try:
            with Transport(target, CONTAINER) as transport:
                transport.create_container()
            load = Load(target, CONTAINER, plan, found)
            load.start()
            load.await_acknowledged(rng.randrange(30, 120), ACKNOWLEDGED_TIMEOUT_S)
            crash = power.cut_power()
            load.stop()
        finally:
            process.kill_all()
        power.detach()
        power.attach()
        process, target = fake(power.mount, mode, log)
        try:
            names = {write.blob for write in load.writes} | found.keys()
            writes = [standing(name, found.get(name)) for name in names] + load.writes
            found = observe(target, CONTAINER, names, listed=False)
        finally:
            process.kill_all()
        yield faults(writes, crash, found)


def test_a_server_that_syncs_file_and_directory_passes(power: Disk, tmp_path: Path, seed: str) -> None:
    each_cut = cuts(power, "full", tmp_path / "log", seed, clients=6)
    assert [next(each_cut) for _ in range(CUTS)] == [[]] * CUTS


@pytest.mark.parametrize(
    ("mode", "clients"),
    # A lone client for "file": among several, the next one's fsync would commit the rename in passing.
    [("none", 6), ("file", 1)],
)
def test_a_server_that_syncs_too_little_is_caught(
    power: Disk, mode: str, clients: int, tmp_path: Path, seed: str
) -> None:
    each_cut = cuts(power, mode, tmp_path / "log", seed, clients)
    for number in range(CUTS_UNTIL_CAUGHT_MAX):
        if next(each_cut):
            print(f"caught by cut {number + 1}")
            return
    pytest.fail(f"{CUTS_UNTIL_CAUGHT_MAX} power cuts found nothing wrong with a server that syncs {mode}")
