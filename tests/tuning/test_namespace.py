"""Apply, verify, drift and rollback against a real kernel, in network and mount namespaces that end with the test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tuning.scenes import SCENES

CHECKOUT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a network namespace")
@pytest.mark.parametrize("scene", SCENES)
def test_scene(scene: str, tmp_path: Path) -> None:
    command = ["unshare", "--net", "--mount", sys.executable, "-m", "tests.tuning.scenes", scene, str(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
