"""The installed service on a machine, as an operator and the tests see it."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tests.systemd.machine import CHECKOUT, POLL_SECONDS, Machine

UNIT: Final = "blobedge.service"
INSTALL: Final = "/mnt/shared/tools/install"
CONFIGURATION: Final = "/etc/blobedge/blobedge.toml"
URL: Final = "http://127.0.0.1:10000/plant7"
DATA: Final = "/srv/blobedge/plant7"
RECOVERY_SECONDS_MAX: Final = 60.0  # the longest way back, watchdog and abort, takes 20 s on an idle machine
WORKER: Final = "python -P -m dataplane"
SIDECAR: Final = "agent.sidecar"


def until(true: Callable[[], object], what: str) -> None:
    """Wait for a condition; AssertionError with `what` when it does not come true."""
    deadline = time.monotonic() + RECOVERY_SECONDS_MAX
    while not true():
        assert time.monotonic() < deadline, f"not within {RECOVERY_SECONDS_MAX} s: {what}"
        time.sleep(POLL_SECONDS)


class Service:
    """blobedge.service of one machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    @property
    def supervisor(self) -> str:
        """The main process, "0" if there is none."""
        return self.shown("MainPID")

    @property
    def workers(self) -> list[str]:
        """The process ids of all workers, also of those that drain and of orphans."""
        return self._matching(WORKER)

    @property
    def sidecar(self) -> str:
        """The process id of the sidecar, "" if there is none."""
        return "".join(self._matching(SIDECAR))

    @property
    def processes(self) -> set[str]:
        """Every process of the service's user."""
        return set(self.machine.says("pgrep", "-u", "blobedge").split())

    @property
    def key(self) -> str:
        """The account's key."""
        return self.machine.path("/etc/blobedge/secrets/plant7.key1").read_text()

    def _matching(self, pattern: str) -> list[str]:
        return self.machine.says("pgrep", "-u", "blobedge", "-f", pattern).split()

    def shown(self, name: str) -> str:
        """A property of the unit."""
        return self.machine.shown(UNIT, name)

    def settle(self) -> None:
        """Wait until systemd calls the unit active, all workers have said that they serve, and there is a sidecar."""
        until(
            lambda: self.shown("ActiveState") == "active" and self.shown("StatusText").startswith("serving"), "active"
        )
        until(lambda: self.sidecar, "a sidecar")

    def exchange(self, name: str) -> None:
        """Write and read a blob with the SDK, over the machine's loopback."""
        program = [sys.executable, str(CHECKOUT / "tests/systemd/client.py"), self.key, name]
        done = subprocess.run(self.machine.in_network(*program), capture_output=True, text=True, timeout=120)
        assert done.stdout.strip() == f"content of {name}", done.stderr + self.journal()

    def journal(self) -> str:
        """What the service, and systemd about it, logged."""
        return self.machine.says("journalctl", "--no-pager", "-u", UNIT)

    def signal(self, name: str, *pids: str) -> None:
        """Send a signal to processes of the machine."""
        self.machine.run("kill", f"-{name}", *pids)

    def gone(self, *pids: str) -> bool:
        """Whether none of these processes exists any more."""
        return not any(self.machine.path(f"/proc/{pid}").exists() for pid in pids)

    @contextmanager
    def configuration(self, change: Callable[[str], str]) -> Iterator[None]:
        """The configuration file is changed in this context, and is as before after it."""
        file = self.machine.path(CONFIGURATION)
        before = file.read_text()
        file.write_text(change(before))
        try:
            yield
        finally:
            file.write_text(before)
