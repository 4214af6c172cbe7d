"""The drop-in that tools/install makes, from the program that it runs for it."""

import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.systemd.machine import CHECKOUT

_PROGRAM: Final = CHECKOUT / "tools/lib/install_dropin.py"
_CONFIGURATION: Final = """\
listen = ["{listen}"]
[tls]
cert = "/etc/blobedge/tls/chain.pem"
key = "/etc/blobedge/tls/key.pem"
[[accounts]]
name = "plant7"
root = "/srv/blobedge/plant7"
key1_file = "/run/credentials/blobedge.service/secrets_plant7.key1"
"""


def drop_in_of(listen: str, place: Path) -> str:
    """The text of the drop-in of a node that listens there; `place` is a directory for its configuration."""
    configuration = place / "blobedge.toml"
    configuration.write_text(_CONFIGURATION.format(listen=listen))
    done = subprocess.run([sys.executable, _PROGRAM, configuration], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
