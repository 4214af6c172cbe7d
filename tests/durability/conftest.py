"""Fixtures of the durability proofs."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from .disk import FILE_SYSTEMS, Disk, disk, unavailable


@pytest.fixture(params=FILE_SYSTEMS)
def power(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """A mounted disk whose power can be cut, once for each file system; skipped with the reason if this
    machine cannot do it."""
    reason = unavailable()
    if reason is not None:
        pytest.skip(f"NO POWER-CUT PROOF ON THIS MACHINE: {reason}")
    with disk(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def seed() -> str:
    """A seed for the load's choices, printed by pytest on failure; BLOBEDGE_SEED repeats one."""
    chosen = os.environ.get("BLOBEDGE_SEED") or f"{random.SystemRandom().randrange(1 << 32):08x}"
    print(f"BLOBEDGE_SEED={chosen}")
    return chosen
