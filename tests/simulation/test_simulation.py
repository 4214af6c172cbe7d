"""Some weeks of an edge node's life, or as many days as BLOBEDGE_SIMULATION_DAYS says, of BLOBEDGE_SIMULATION_SEED.

A seed that breaks a guarantee is in the failure's text, and `python -m tests.simulation` replays it.
"""

import os
from typing import Final

import pytest

from tests.simulation.checks import Broken
from tests.simulation.cloud import Copy
from tests.simulation.run import simulate

DAYS: Final = int(os.environ.get("BLOBEDGE_SIMULATION_DAYS", "14"))
SEED: Final = int(os.environ.get("BLOBEDGE_SIMULATION_SEED", "1"))


def test_weeks_of_faults_keep_every_guarantee_and_drain() -> None:
    try:
        result = simulate(SEED, DAYS)
    except Exception as error:
        what = str(error) if isinstance(error, Broken) else f"not a guarantee: {error!r}"
        pytest.fail(f"python -m tests.simulation --seed {SEED} --days {DAYS}: {what}")
    assert result.events["delivered"] > DAYS
    assert result.events["evicted"] > 0
    assert result.events["recalled"] > 0


def test_a_seed_is_the_same_life_again() -> None:
    first, again = (simulate(SEED + 1, 2) for _ in range(2))
    assert (first.digest, first.events) == (again.digest, again.events)


def test_a_broken_guarantee_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cloud that forgets what it has taken is caught: the checks are not blind."""

    def forgets(*_: object) -> Copy:
        return Copy("0x1", -1, 1, "ours")

    monkeypatch.setattr("tests.simulation.sending._copy", forgets)
    with pytest.raises(Broken):
        simulate(SEED, 2)
