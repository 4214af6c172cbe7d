"""Parts of tools/install that need neither root nor systemd."""

import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
MAKE_CONFIG = """set -eu
tool=tools/install root=$1 opt=$1/opt etc=$1/etc work=$1/work release=r
. tools/lib/install-common.sh
. tools/lib/install-service.sh
make_config
"""


@pytest.mark.parametrize("runs", [True, False])
def test_a_first_configuration_is_whole_or_not_there(tmp_path: Path, runs: bool) -> None:
    """What lies there is never overwritten by a later installation: half of one would stay."""
    program = tmp_path / "opt/versions/r/bin/blobedge"
    for directory in (program.parent, tmp_path / "etc/secrets", tmp_path / "work"):
        directory.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 'key1_file = \"k\"'\n" + ("" if runs else "exit 1\n"))
    program.chmod(0o755)
    done = subprocess.run(["sh", "-c", MAKE_CONFIG, "sh", tmp_path], cwd=CHECKOUT, capture_output=True, text=True)
    written = tmp_path / "etc/blobedge.toml"
    assert (done.returncode == 0) is runs, done.stderr
    assert written.exists() is runs
    assert "Traceback" not in done.stderr
    if runs:
        assert "/run/credentials/blobedge.service/secrets_plant7.key1" in written.read_text()
        key = tmp_path / "etc/secrets/plant7.key1"
        assert len(key.read_text()) == 88
        assert key.stat().st_mode & 0o077 == 0
