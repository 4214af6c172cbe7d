"""The units as systemd-analyze sees them: no mistakes, and the exposure that the project promises."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.systemd.machine import CHECKOUT

# 1.1, not the 1.0 that was aimed at: RestrictSUIDSGID is worth more than what is left, and forbids openat2(2).
LIMITS = {"blobedge.service": 1.1, "blobedge-tune.service": 2.5}

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def analyze(unit: str, tmp_path: Path, *arguments: str) -> str:
    """What systemd-analyze says of a unit; the program that it starts is not on this machine, so it gets another."""
    copy = tmp_path / unit
    text = (CHECKOUT / "systemd" / unit).read_text()
    copy.write_text(text.replace("/opt/blobedge/current/bin/blobedge", "/bin/true"))
    done = subprocess.run(["systemd-analyze", *arguments, copy], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("unit", LIMITS)
def test_verify_finds_nothing(unit: str, tmp_path: Path) -> None:
    assert analyze(unit, tmp_path, "verify") == ""


@pytest.mark.parametrize("unit", LIMITS)
def test_exposure(unit: str, tmp_path: Path) -> None:
    said = analyze(unit, tmp_path, "security", "--no-pager", "--offline=true")
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert level is not None
    assert float(level[1]) <= LIMITS[unit], said
