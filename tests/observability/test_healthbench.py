"""`tools/bench health`: its arithmetic, and one short run in which every probe has to be answered 200."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tools"))

from benchlib.healthbench import Waits, met, percentile  # noqa: E402


def test_percentiles_are_of_the_nearest_rank() -> None:
    waits = [float(k) for k in range(1, 201)]
    assert [percentile(waits, percent) for percent in (50, 99, 100)] == [100.0, 198.0, 200.0]
    assert percentile([7.0], 99) == 7.0


def test_what_meets_the_target() -> None:
    assert met(Waits(100, 1.0, 50.0, 90.0, 0, 1.0))
    assert not met(Waits(100, 1.0, 50.1, 90.0, 0, 1.0))
    assert not met(Waits(100, 1.0, 2.0, 3.0, 1, 1.0))


def test_a_short_run(tmp_path: Path) -> None:
    """Its times are nobody's business: the machine runs other tests."""
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed: the load of the benchmark")
    command = [str(REPOSITORY / "tools" / "bench"), "health", "--seconds", "1", "--json", str(tmp_path / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert list(found) == ["idle", "GET 4 KiB", "PUT 4 KiB durable"]
    for waits in found.values():
        assert waits["not_ok"] == 0
        assert 0 < waits["p50_ms"] <= waits["p99_ms"] <= waits["max_ms"]
        assert waits["probes"] > 0
