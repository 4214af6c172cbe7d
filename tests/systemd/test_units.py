"""The units as systemd-analyze sees them: no mistakes, and the exposure that the project promises."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.systemd.dropins import drop_in_of
from tests.systemd.machine import CHECKOUT

SERVICE: Final = "blobedge.service"
TUNE: Final = "blobedge-tune.service"

#: What a configuration says beyond the sample, and the exposure that the unit then has with its drop-in.
LOCAL: Final = "http://127.0.0.1:10000"
NODES: Final = {
    "loopback": (LOCAL, 0.9),
    "every-address": ("http://0.0.0.0:10000", 1.0),
    # PrivateUsers= and a capability that counts outside of it exclude each other.
    "privileged-port": ("https://0.0.0.0:443", 1.3),
}
TUNE_EXPOSURE_MAX: Final = 2.0

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def analyze(unit: str, tmp_path: Path, *arguments: str, drop_in: str = "") -> str:
    """What systemd-analyze says of a unit; the program that it starts is not on this machine, so it gets another."""
    copy = tmp_path / unit
    text = (CHECKOUT / "systemd" / unit).read_text()
    copy.write_text(text.replace("/opt/blobedge/current/bin/blobedge", "/bin/true") + drop_in)
    done = subprocess.run(["systemd-analyze", *arguments, copy], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def exposure(unit: str, tmp_path: Path, drop_in: str = "") -> float:
    """Of 10, as a node with this drop-in has it."""
    said = analyze(unit, tmp_path, "security", "--no-pager", "--offline=true", drop_in=drop_in)
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert level is not None, said
    return float(level[1])


@pytest.mark.parametrize("unit", [SERVICE, TUNE])
def test_verify_finds_nothing(unit: str, tmp_path: Path) -> None:
    assert analyze(unit, tmp_path, "verify") == ""


@pytest.mark.parametrize("node", NODES)
def test_exposure_of_the_service(node: str, tmp_path: Path) -> None:
    listen, expected = NODES[node]
    assert exposure(SERVICE, tmp_path, "\n" + drop_in_of(listen, tmp_path)) <= expected


def test_exposure_of_tune(tmp_path: Path) -> None:
    assert exposure(TUNE, tmp_path) <= TUNE_EXPOSURE_MAX
