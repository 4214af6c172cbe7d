"""The proofs can fail: a server that syncs too little is caught, one that syncs rightly is not.

Without this a green power-cut test says nothing: the cut might not lose anything, the load might not be
running, the checker might be blind.
"""

import contextlib
from functools import partial
from pathlib import Path

import pytest

from .disk import Disk
from .load import Plan
from .rounds import Scenario, crash_rounds, cut_power
from .server import fake

CUTS = 4
CUTS_UNTIL_CAUGHT_MAX = 25


def scenario(power: Disk, mode: str, log: Path, clients: int) -> Scenario:
    """Power cuts over the fake server."""
    # No metadata that ext4's xattrs cannot hold: the fake has no other place for it.
    plan = partial(
        Plan, clients=clients, kinds=("put", "metadata", "delete"), metadata_pad_bytes=(0,), stage_blocks=False
    )
    return Scenario(
        start=partial(fake, power.mount, mode, log),
        crash=partial(cut_power, power),
        plan=plan,
        acknowledged=range(30, 120),
        directory=None,
    )


def test_a_server_that_syncs_file_and_directory_passes(power: Disk, tmp_path: Path, seed: str) -> None:
    with contextlib.closing(crash_rounds(scenario(power, "full", tmp_path / "log", clients=6), seed)) as rounds:
        assert [next(rounds) for _ in range(CUTS)] == [[]] * CUTS


@pytest.mark.parametrize(
    ("mode", "clients"),
    # A lone client for "file": among several, the next one's fsync would commit the rename in passing.
    [("none", 6), ("file", 1)],
)
def test_a_server_that_syncs_too_little_is_caught(
    power: Disk, mode: str, clients: int, tmp_path: Path, seed: str
) -> None:
    with contextlib.closing(crash_rounds(scenario(power, mode, tmp_path / "log", clients), seed)) as rounds:
        caught = any(next(rounds) for _ in range(CUTS_UNTIL_CAUGHT_MAX))
    assert caught, f"{CUTS_UNTIL_CAUGHT_MAX} power cuts found nothing wrong with a server that syncs {mode}"
