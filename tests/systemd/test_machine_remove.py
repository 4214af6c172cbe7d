"""Removal leaves configuration, keys and data, and a kernel whose network settings are as they were before."""

import json
import re

from tests.systemd.conftest import BUNDLE
from tests.systemd.machine import Machine
from tests.systemd.service import CONFIGURATION, DATA, INSTALL, Service

DEVICE = "edge0"
BLOBEDGE = "/usr/local/bin/blobedge"
# Counters, what other programs of the host move, and keys that the kernel draws: none of them is a setting.
VOLATILE = re.compile(
    r"fs\.(dentry-state|file-nr|inode-nr|inode-state|aio-nr|quota\.)|net\.netfilter\.nf_conntrack_count"
)


def kernel(machine: Machine) -> tuple[list[str], str]:
    """Every setting of the network and of the file systems, and every qdisc."""
    settings = machine.says("sysctl", "--all", "--pattern", "^(net|fs)[.]").splitlines()
    assert len(settings) > 100
    return sorted(line for line in settings if not VOLATILE.match(line)), machine.says("tc", "qdisc", "show")


def files(machine: Machine) -> set[str]:
    """Every file that an installation could leave behind."""
    listed = machine.says("find", "/etc", "/opt", "/usr", "/var/lib", "/srv", "-not", "-path", "*/__pycache__*")
    return set(listed.splitlines())


def with_qdisc(recorded: str) -> str:
    """A record of an apply that also set the device's qdisc, as on a kernel with fq, which not every machine has."""
    document = json.loads(recorded)
    own = {"old": "pfifo_fast", "new": "pfifo", "reason": "for the test"}
    document["entries"] = {f"qdisc:{DEVICE}": own, **document["entries"]}
    return json.dumps(document)


def test_stop_and_remove_leave_only_configuration_keys_and_data(machine: Machine) -> None:
    before, settings = files(machine), kernel(machine)
    machine.run(INSTALL, "--bundle", f"/mnt/shared/{BUNDLE}")
    Service(machine).exchange("left.txt")
    removed = machine.run(INSTALL, "--remove").stderr
    assert f"{DATA} (data)" in removed
    assert machine.says("pgrep", "-u", "blobedge") == ""
    own = ("/etc/blobedge", "/srv/blobedge", "/var/lib/blobedge")
    users = {f"/etc/{name}{end}" for name in ("passwd", "group", "shadow", "gshadow") for end in ("", "-")}
    left = {path for path in files(machine) - before - users if not path.startswith(own)}
    assert left == {"/etc/.pwd.lock"} - before
    assert machine.path(f"{DATA}/tested/left.txt").read_text() == "content of left.txt"
    assert kernel(machine) == settings


def test_removal_undoes_the_tuning(machine: Machine) -> None:
    machine.run("ip", "link", "add", DEVICE, "type", "ifb")
    machine.run("ip", "link", "set", DEVICE, "up")
    before = kernel(machine)
    machine.run(INSTALL, "--bundle", f"/mnt/shared/{BUNDLE}")
    configuration = machine.path(CONFIGURATION)
    configuration.write_text(configuration.read_text() + '\n[tune]\nprofile = "wan-azure"\nrtt_milliseconds = 40.0\n')
    machine.run(BLOBEDGE, "tune", "apply")
    record = machine.path("/var/lib/blobedge-tune/state.json")
    recorded = with_qdisc(record.read_text())
    record.write_text(recorded)
    machine.run("systemctl", "enable", "--now", "blobedge-tune.service")
    assert machine.says("systemctl", "is-active", "blobedge-tune.service") == "active"
    settings, qdiscs = kernel(machine)
    assert settings != before[0]
    assert qdiscs != before[1]
    assert machine.path("/etc/sysctl.d/60-blobedge.conf").exists()

    record.write_text("damaged")  # the only one who knows the old values: removal must not go on without it
    refused = machine.run(INSTALL, "--remove", check=False)
    assert (refused.returncode, "nothing was removed" in refused.stderr) == (1, True)
    assert machine.says("systemctl", "is-active", "blobedge.service") == "active"
    record.write_text(recorded)

    machine.run(INSTALL, "--remove")
    assert kernel(machine) == before
    assert not machine.path("/etc/sysctl.d/60-blobedge.conf").exists()
    assert not machine.path("/var/lib/blobedge-tune").exists()
