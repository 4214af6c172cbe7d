"""A power cut under load: what was answered with success is there, whole, and nothing else is.

Concurrent clients put, overwrite, commit blocks, set metadata and delete over HTTP while the power of the
file system goes; then journal recovery, a fresh start, and every blob is compared with what was sent and
acknowledged: content, Content-Type, metadata, ETag, listing, plain file, uncommitted blocks.
"""

import contextlib
import os
from functools import partial
from pathlib import Path

import pytest

from .disk import Disk
from .load import Plan
from .rounds import CONTAINER, Scenario, crash_rounds, cut_power
from .server import Options, product

# 3 keep the suite short; a release is worth some hundreds.
CUTS = int(os.environ.get("BLOBEDGE_POWER_CUTS", "3"))
CUTS_UNTIL_CAUGHT_MAX = 10


def scenario(power: Disk, options: Options, log: Path) -> Scenario:
    """Power cuts over the product, its root in a directory of the mount."""
    root = power.mount / "root"
    root.mkdir()
    os.sync()  # the operator's directory is old; all that is younger is the product's to keep
    return Scenario(
        start=partial(product, root, options, log),
        crash=partial(cut_power, power),
        plan=Plan,
        acknowledged=range(20, 400),
        directory=root / CONTAINER,
    )


@pytest.mark.parametrize("records", ["xattr", "sidecar"])
def test_acknowledged_writes_survive(power: Disk, records: str, tmp_path: Path, seed: str) -> None:
    strict = scenario(power, Options(records=records), tmp_path / "log")
    with contextlib.closing(crash_rounds(strict, seed)) as rounds:
        assert [next(rounds) for _ in range(CUTS)] == [[]] * CUTS


def test_relaxed_durability_is_caught(power: Disk, tmp_path: Path, seed: str) -> None:
    """The negative control with the product itself: what is not synced is lost, and this proof sees it."""
    relaxed = scenario(power, Options(durability="relaxed"), tmp_path / "log")
    with contextlib.closing(crash_rounds(relaxed, seed)) as rounds:
        assert any(next(rounds) for _ in range(CUTS_UNTIL_CAUGHT_MAX))
