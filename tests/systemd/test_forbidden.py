"""The sandboxes of both units, from the inside: what is refused, and that what they are for still works."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd import forbidden_acts, needed_acts, sandbox
from tests.systemd.conftest import BUNDLE
from tests.systemd.dropins import drop_in_of
from tests.systemd.machine import POLL_SECONDS, Machine, booted

UNIT = "blobedge.service"
TUNE = "blobedge-tune.service"
EDGE = "edge.service"
FORBIDDEN = "tests.systemd.forbidden_acts"
NEEDED = "tests.systemd.needed_acts"
ACTS_COUNT_MIN = 20  # of the issue

EDGE_MAY = {
    "listen on a privileged port",
    "connect beyond the loopback",
    "send a datagram beyond the loopback",
}
# Root, though with one capability: it may set the kernel's settings, by file and by netlink. It sees processes and may
# signal them because they are root's too.
TUNE_MAY = {
    "open a kernel setting for writing",
    "open a netlink socket",
    "read the symbols of the kernel",
    "see another process",
    "signal a process of another user",
}
RECORD = "/var/lib/blobedge-tune/state.json"
DROP_IN = "/etc/sysctl.d/60-blobedge.conf"
# A sysfs of this network namespace that can be written, and a device with queues that has the default route.
NETWORK = """
mount -o remount,rw /sys
ip link add tuned numtxqueues 2 numrxqueues 2 type veth peer name far
ip link set tuned up
ip link set far up
ip route add default dev tuned
"""
SETTINGS = {
    "net.core.somaxconn": "32768",
    "net.ipv4.tcp_keepalive_time": "120",
    "/sys/class/net/tuned/queues/tx-0/xps_cpus": "1",
}
REPORT_POLLS_MAX = 50  # each starts a program: half a minute at the least
BLOBEDGE = ("/usr/local/bin/blobedge",)


@pytest.fixture(scope="module")
def node(shared: Path) -> Iterator[Machine]:
    """A machine with blobedge running and with what the acts go for."""
    with booted(shared) as machine:
        machine.run("/mnt/shared/tools/install", "--bundle", f"/mnt/shared/{BUNDLE}")
        sandbox.prepare(machine)
        yield machine


@pytest.fixture(scope="module")
def inside(node: Machine) -> dict[str, str]:
    """What each act comes to in the sandbox of the service."""
    return sandbox.outcomes_inside(node, UNIT, FORBIDDEN) | sandbox.outcomes_inside(node, UNIT, NEEDED)


@pytest.fixture(scope="module")
def outside(node: Machine) -> dict[str, str]:
    """What each act comes to for root without one."""
    return sandbox.outcomes_outside(node, FORBIDDEN) | sandbox.outcomes_outside(node, NEEDED)


def test_the_acts_are_tried_in_the_sandbox_of_the_service(node: Machine, inside: dict[str, str]) -> None:
    """systemd itself takes both units for equal in all that confines a process."""
    assert inside
    assert sandbox.confinement(node, f"probe-{UNIT}") == sandbox.confinement(node, UNIT)
    assert node.shown(UNIT, "ActiveState") == "active"


def test_there_are_enough_acts() -> None:
    assert len(forbidden_acts.ACTS) >= ACTS_COUNT_MIN


@pytest.mark.parametrize("name", forbidden_acts.ACTS)
def test_refused(name: str, inside: dict[str, str], outside: dict[str, str]) -> None:
    act = forbidden_acts.ACTS[name]
    assert outside[name] in act.outside, "root outside of the sandbox cannot do it either: it proves nothing"
    assert inside[name] in act.inside


@pytest.mark.parametrize("name", needed_acts.ACTS)
def test_allowed(name: str, inside: dict[str, str], outside: dict[str, str]) -> None:
    act = needed_acts.ACTS[name]
    assert (inside[name] in act.inside, outside[name] in act.outside) == (True, True), (inside[name], outside[name])


def test_a_node_with_clients_from_elsewhere_and_port_443_opens_no_more_than_that(node: Machine, tmp_path: Path) -> None:
    drop_in = node.path(f"{sandbox.UNITS}/{EDGE}.d/10-configuration.conf")
    drop_in.parent.mkdir()
    drop_in.write_text(drop_in_of("https://0.0.0.0:443", tmp_path))
    node.run("cp", f"{sandbox.UNITS}/{UNIT}", f"{sandbox.UNITS}/{EDGE}")
    said = sandbox.outcomes_inside(node, EDGE, FORBIDDEN)
    assert {name for name, act in forbidden_acts.ACTS.items() if said[name] not in act.inside} == EDGE_MAY


def test_tune_is_refused_all_but_its_work(node: Machine) -> None:
    said = sandbox.outcomes_inside(node, TUNE, FORBIDDEN)
    assert {name for name in said if said[name] == "done"} == TUNE_MAY
    refused = {name: act for name, act in forbidden_acts.ACTS.items() if name not in TUNE_MAY}
    # It cannot even make the files that the acts with modes and owners begin with.
    assert {name: said[name] for name, act in refused.items() if said[name] not in (*act.inside, "EROFS")} == {}


def test_tune_without_a_record_succeeds_and_does_nothing(node: Machine) -> None:
    before = node.says("sysctl", "net.core.somaxconn")
    node.run("systemctl", "start", TUNE)
    node.run("systemctl", "stop", TUNE)
    assert node.says("sysctl", "net.core.somaxconn") == before
    assert node.says(*BLOBEDGE, "tune", "verify") == "nothing is applied"


def test_tune_sets_again_at_boot_what_was_applied(node: Machine) -> None:
    node.run("sh", "-euc", NETWORK)
    before = _settings(node)
    node.run(*BLOBEDGE, "tune", "apply", "--profile", "wan-azure")
    record, drop_in = node.path(RECORD).read_text(), node.path(DROP_IN).read_text()
    for name, value in before.items():  # as a boot does
        node.run("sh", "-c", 'echo "$1" >"$2"', "sh", value, _file(name))
    assert "net.core.somaxconn" in node.says(*BLOBEDGE, "tune", "verify")

    node.run("systemctl", "start", TUNE)
    assert _settings(node) == SETTINGS
    assert node.says(*BLOBEDGE, "tune", "verify") == "as applied"
    assert (node.path(RECORD).read_text(), node.path(DROP_IN).read_text()) == (record, drop_in)

    assert _drift_that_the_service_sees(node, record) == []
    node.run(*BLOBEDGE, "tune", "rollback")
    assert _settings(node) == before
    assert not node.path(RECORD).exists()
    assert not node.path(DROP_IN).exists()


def _file(name: str) -> str:
    return name if name.startswith("/") else f"/proc/sys/{name.replace('.', '/')}"


def _settings(node: Machine) -> dict[str, str]:
    return {name: node.says("cat", _file(name)) for name in SETTINGS}


def _drift_that_the_service_sees(node: Machine, record: str) -> object:
    """Right after its start, with a qdisc in the record that nobody set: netlink is not for the service."""
    document = json.loads(record)
    document["entries"]["qdisc:tuned"] = {"old": "pfifo_fast", "new": "fq", "reason": "to be missed"}
    node.path(RECORD).write_text(json.dumps(document))
    assert "qdisc:tuned" in node.says(*BLOBEDGE, "tune", "verify")
    node.run("systemctl", "restart", UNIT)
    for _ in range(REPORT_POLLS_MAX):
        reports = json.loads(node.run(*BLOBEDGE, "status", "--json").stdout)["reports"]
        for report in reports:
            if report["kind"] == "tuning":
                node.path(RECORD).write_text(record)
                return report["drift"]
        time.sleep(POLL_SECONDS)
    raise AssertionError("the sidecar told nothing of the tuning")
