"""Install, upgrade, roll back and remove, and killed processes, on a machine with systemd as PID 1."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.systemd.conftest import NEXT_BUNDLE
from tests.systemd.machine import CHECKOUT, POLL_SECONDS, Machine

UNIT = "blobedge.service"
INSTALL = "/mnt/shared/tools/install"
RECOVERY_SECONDS_MAX = 40.0  # a restart on a busy machine is well below it
DATA = "/srv/blobedge/plant7/tested"


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + RECOVERY_SECONDS_MAX
    while not true():
        assert time.monotonic() < deadline, f"not within {RECOVERY_SECONDS_MAX} s: {what}"
        time.sleep(POLL_SECONDS)


def main_pid(machine: Machine) -> str:
    return machine.shown(UNIT, "MainPID")


def workers(machine: Machine) -> list[str]:
    return machine.says("pgrep", "-P", main_pid(machine)).split()


def exchange(machine: Machine, name: str) -> None:
    """Write and read a blob with the SDK, over the machine's loopback."""
    key = machine.path("/etc/blobedge/secrets/plant7.key1").read_text()
    command = machine.in_network(sys.executable, str(CHECKOUT / "tests/systemd/client.py"), key, name)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == f"content of {name}", done.stderr + machine.says("journalctl", "-u", UNIT)


def test_a_bundle_installs_without_a_network_and_serves(installed: Machine) -> None:
    assert installed.says("ip", "route") == ""
    assert installed.says("systemctl", "is-active", UNIT) == "active"
    assert installed.says("systemctl", "is-enabled", UNIT) == "enabled"
    exchange(installed, "first.txt")
    assert installed.path(f"{DATA}/first.txt").read_text() == "content of first.txt"
    assert installed.path("/etc/blobedge/secrets/plant7.key1").stat().st_mode & 0o777 == 0o600
    # The machine's restrictions are the service's: the process has no capability at all.
    status = installed.path(f"/proc/{main_pid(installed)}/status").read_text()
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


def test_upgrade_and_rollback_keep_configuration_and_data(installed: Machine) -> None:
    exchange(installed, "kept.txt")
    configuration = installed.path("/etc/blobedge/blobedge.toml")
    configuration.write_text(configuration.read_text() + "\n# an operator's own line\n")
    before, key = configuration.read_text(), installed.path("/etc/blobedge/secrets/plant7.key1").read_text()
    first = os.readlink(installed.path("/opt/blobedge/current"))

    installed.run(INSTALL, "--bundle", f"/mnt/shared/{NEXT_BUNDLE}")
    assert os.readlink(installed.path("/opt/blobedge/current")) == first.replace("versions/", "versions/next-")
    assert configuration.read_text() == before
    exchange(installed, "kept.txt")

    installed.run(INSTALL, "--rollback")
    assert os.readlink(installed.path("/opt/blobedge/current")) == first
    assert installed.path("/etc/blobedge/secrets/plant7.key1").read_text() == key
    exchange(installed, "after.txt")


def test_killed_processes_come_back(installed: Machine) -> None:
    exchange(installed, "before.txt")  # also waits for the workers
    supervisor, (worker, *_) = main_pid(installed), workers(installed)
    installed.run("kill", "-KILL", worker)
    exchange(installed, "worker.txt")
    assert main_pid(installed) == supervisor

    former = workers(installed)
    installed.run("kill", "-KILL", supervisor)
    until(lambda: main_pid(installed) not in ("0", supervisor), "a new supervisor")
    exchange(installed, "supervisor.txt")
    assert not [pid for pid in former if installed.path(f"/proc/{pid}").exists()]


def test_stop_and_remove_leave_only_configuration_keys_and_data(machine: Machine, shared: Path) -> None:
    def files() -> set[str]:
        listed = machine.says("find", "/etc", "/opt", "/usr", "/var/lib", "/srv", "-not", "-path", "*/__pycache__*")
        return set(listed.splitlines())

    before = files()
    machine.run(INSTALL, "--bundle", "/mnt/shared/bundle.tar.gz")
    exchange(machine, "left.txt")
    removed = machine.run(INSTALL, "--remove").stderr
    assert "/srv/blobedge/plant7 (data)" in removed
    assert machine.says("pgrep", "-u", "blobedge") == ""
    own = ("/etc/blobedge", "/srv/blobedge", "/var/lib/blobedge")
    users = {f"/etc/{name}{end}" for name in ("passwd", "group", "shadow", "gshadow") for end in ("", "-")}
    left = {path for path in files() - before - users if not path.startswith(own)}
    assert left == {"/etc/.pwd.lock"} - before
    assert machine.path(f"{DATA}/left.txt").read_text() == "content of left.txt"
