"""A running endpoint to attack: `blobedge serve` with two workers and two accounts, started as an operator would.

Every key is a canary made for this run, and a file of the operator's that no client may see lies beside the root, so
that a leak anywhere can be told by its text.
"""

import base64
import os
import re
import secrets
import select
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

from tests.security.client import Stranger

CHECKOUT: Final = Path(__file__).resolve().parents[2]
START_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 60.0
WORKERS: Final = 2
ACCOUNT: Final = "victim"
OTHER_ACCOUNT: Final = "bystander"
OUTSIDE_TEXT: Final = "the operator's own file, outside of every root"
#: What the supervisor says of a worker that died or had to be killed.
WORKER_LOST: Final = " ended: signal "

_CONFIG: Final = """
listen = ["http://127.0.0.1:0", "https://127.0.0.1:0"]
workers = {workers}
host_suffixes = ["blob.core.windows.net"]

[tls]
cert = "{scratch}/localhost.pem"
key = "{scratch}/localhost.pem"

[log]
level = "debug"
access = true

[limits]
head_read_seconds_max = 2.0
body_idle_seconds_max = 3.0

[[accounts]]
name = "victim"
root = "{scratch}/root"
key1_file = "{scratch}/key1"
key2_file = "{scratch}/key2"
durability = "relaxed"

[[accounts.containers]]
name = "readonly"
path = "{scratch}/mapped"
read_only = true

[[accounts]]
name = "bystander"
root = "{scratch}/bystander"
key1_file = "{scratch}/key3"
durability = "relaxed"
"""


def _unprivileged() -> list[str]:
    """What to put before a command that must not have root's capabilities, as the product has none in production: then
    files of other users are closed to it."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    assert setpriv is not None, "setpriv is part of util-linux"
    return [setpriv, "--bounding-set=-all", "--inh-caps=-all"]


class Endpoint:
    """The running product. `secrets` are texts that nothing but a configuration file may hold."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.root = scratch / "root"
        self.mapped = scratch / "mapped"
        self.log_path = scratch / "log"
        self.keys = [base64.b64encode(secrets.token_bytes(64)).decode() for _ in range(3)]
        for directory in (self.root, self.mapped, scratch / "bystander"):
            directory.mkdir()
        for number, key in enumerate(self.keys, 1):
            (scratch / f"key{number}").write_text(key + "\n")
            (scratch / f"key{number}").chmod(0o600)
        (scratch / "outside.txt").write_text(OUTSIDE_TEXT)
        (self.mapped / "shown.txt").write_text("mapped")
        config = scratch / "blobedge.toml"
        config.write_text(_CONFIG.format(scratch=scratch, workers=WORKERS))
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*_unprivileged(), sys.executable, "-m", "agent", "serve", "--config", str(config)],
                cwd=CHECKOUT,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,  # so that select tells the truth about what can be read
            )
        ports: dict[str, int] = {}
        try:
            while len(ports) < 2:
                match = re.match(r"blobedge ready: (https?)://[^:]+:(\d+)", self._ready_line())
                assert match is not None
                ports[match[1]] = int(match[2])
        except BaseException:
            self.stop()
            raise
        self.port, self.tls_port = ports["http"], ports["https"]
        self.output = b""
        self._reader = threading.Thread(target=self._read_output, daemon=True)
        self._reader.start()

    def _ready_line(self) -> str:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], START_SECONDS_MAX)[0]:
            raise AssertionError(f"not ready: {self.log()}")
        line = self.process.stdout.readline().decode()
        assert line, self.log()
        return line

    def _read_output(self) -> None:
        """Standard output has the access log; somebody has to read it, or it would stop."""
        assert self.process.stdout is not None
        while data := self.process.stdout.read(1 << 16):
            self.output += data

    def stranger(self, account: str = ACCOUNT) -> Stranger:
        """A client that can sign for an account, when an attack needs somebody inside."""
        return Stranger(self.port, account, self.keys[0] if account == ACCOUNT else self.keys[2])

    def workers(self) -> list[int]:
        """The pids of the workers, from the kernel."""
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()  # any of them may have spawned one
        return sorted(int(pid) for thread in threads for pid in (thread / "children").read_text().split())

    def rss_bytes(self) -> dict[int, int]:
        """Resident memory of each worker."""
        found = {}
        for pid in self.workers():
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            found[pid] = pages * os.sysconf("SC_PAGE_SIZE")
        return found

    def log(self) -> str:
        """Everything that the endpoint wrote so far."""
        return self.log_path.read_text(errors="replace") + self.output.decode(errors="replace")

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS_MAX)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if "_reader" in self.__dict__:
                self._reader.join()
            assert self.process.stdout is not None
            self.process.stdout.close()
