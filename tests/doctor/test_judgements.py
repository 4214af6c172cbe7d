"""Every finding that is made of facts alone."""

import datetime
import io
import ipaddress
from dataclasses import replace

import pytest
from rich.console import Console

from agent.doctor import (
    addresses,
    certificates,
    checks,
    clock,
    cloud_advice,
    kernel,
    mounts,
    names,
    ports,
    render,
    stores,
    tcp,
    tuned,
)
from agent.doctor.cloud import CloudFacts
from agent.doctor.findings import Finding, document, exit_code
from agent.listen import Listen
from agent.tuning.report import DriftEntry
from dataplane.store.probe import Capabilities

NFS = "36 27 0:55 / /mnt/a\\040b rw,noatime shared:1 - nfs4 vast:/v rw,vers=4.1,rsize=1048576,wsize=1048576,hard,"
GOOD = NFS + "proto=tcp,nconnect=16,lookupcache=pos,local_lock=none"
NOW = datetime.datetime(2026, 5, 1, tzinfo=datetime.UTC)


def statuses(findings: list[Finding]) -> list[str]:
    assert all(finding.mend for finding in findings if finding.status != "ok")
    return [finding.status for finding in findings]


def test_exit_codes_and_the_document() -> None:
    note, warning, problem = (Finding("x", status, "y", "z") for status in ("note", "warning", "problem"))
    assert [exit_code(each) for each in ([], [note], [note, warning], [problem, warning])] == [0, 0, 1, 2]
    told = document([note, problem])
    assert told["status"] == "problem"
    assert told["counts"] == {"ok": 0, "note": 1, "warning": 0, "problem": 1}
    assert document([])["status"] == "ok"


# --- mounts ---


def test_mountinfo_is_read_with_its_escapes_and_optional_fields() -> None:
    entries = mounts.parse_mountinfo("1 0 8:1 / / rw - ext4 /dev/sda1 rw,data=ordered\nbroken\n" + GOOD + "\n")
    assert [entry.point for entry in entries] == ["/", "/mnt/a b"]
    assert entries[0].options["data"] == "ordered"
    assert entries[1].source == "vast:/v"
    assert mounts.mount_of("/mnt/a b/c", entries) is entries[1]
    assert mounts.mount_of("/mnt/a bc", entries) is entries[0]
    assert mounts.mount_of("/", entries) is entries[0]


def test_of_two_mounts_on_one_point_the_later_counts() -> None:
    entries = mounts.parse_mountinfo("1 0 8:1 / /d rw - ext4 a rw\n2 1 8:2 / /d rw - xfs b rw")
    assert mounts.mount_of("/d/e", entries) is entries[1]
    assert mounts.mount_of("/f", entries) is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (GOOD, ["ok"]),
        (GOOD.replace("hard", "soft"), ["problem"]),
        (GOOD.replace("proto=tcp", "proto=udp"), ["problem"]),
        (GOOD.replace("vers=4.1", "vers=4.0"), ["warning"]),
        (GOOD.replace("local_lock=none", "local_lock=all"), ["warning"]),
        (GOOD.replace(",lookupcache=pos", ""), ["warning"]),
        (GOOD.replace("lookupcache=pos", "lookupcache=none"), ["note"]),
        (GOOD.replace("wsize=1048576", "wsize=65536"), ["warning"]),
        (GOOD.replace("nconnect=16,", ""), ["warning"]),
        (GOOD.replace("rw,noatime", "ro,noatime"), ["problem"]),
        ("1 0 8:1 / / rw,relatime - ext4 /dev/sda1 rw", ["ok"]),
        ("1 0 8:1 / / rw - ext4 /dev/sda1 rw,nobarrier", ["problem"]),
        ("1 0 8:1 / / rw,strictatime - xfs /dev/sda1 rw", ["warning"]),
        ("1 0 8:1 / / rw - tmpfs tmpfs rw", ["warning"]),
        ("1 0 8:1 / / rw - overlay overlay rw", ["warning"]),
    ],
)
def test_mount_advice(line: str, expected: list[str]) -> None:
    assert statuses(mounts.judge("/d", mounts.parse_mountinfo(line)[0], writable=True, vast=True)) == expected


def test_a_read_only_mount_is_right_for_what_is_only_read() -> None:
    entry = mounts.parse_mountinfo(GOOD.replace("rw,noatime", "ro,noatime"))[0]
    assert statuses(mounts.judge("/d", entry, writable=False, vast=True)) == ["ok"]
    assert statuses(mounts.judge("/d", None, writable=True, vast=False)) == ["warning"]


# --- ports and names ---

TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2710 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1
   1: 0100007F:D431 0200000A:01BB 06 00000000:00000000 00:00000000 00000000     0        0 0 1
"""
TABLE6 = """  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:2710 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 77 1
   1: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 78 1
"""


def test_the_kernels_tables() -> None:
    listener, waiting = tcp.parse(TABLE, "little")
    assert (str(listener.local), listener.local_port, listener.state, listener.inode) == (
        "127.0.0.1",
        10000,
        tcp.LISTEN,
        4242,
    )
    assert (str(waiting.remote), waiting.remote_port, waiting.state) == ("10.0.0.2", 443, tcp.TIME_WAIT)


def test_a_port_is_taken_by_the_same_address_or_a_wildcard() -> None:
    listener = tcp.parse(TABLE, "little")[0]
    wildcard, mapped = tcp.parse(TABLE6, "little")
    assert str(mapped.local) == "127.0.0.1"
    assert ports.overlaps(listener, "127.0.0.1", 10000)
    assert ports.overlaps(listener, "0.0.0.0", 10000)
    assert ports.overlaps(wildcard, "10.1.2.3", 10000)
    assert not ports.overlaps(listener, "127.0.0.2", 10000)
    assert not ports.overlaps(listener, "::", 10000)
    assert not ports.overlaps(listener, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "ok"),
        ({"addresses": ()}, "problem"),
        ({"own": False}, "problem"),
        ({"holders": (tcp.Holder(7, "/usr/sbin/nginx -g daemon"),)}, "problem"),
        ({"holders": (None,)}, "warning"),
        ({"holders": (tcp.Holder(7, "python -m agent serve"),)}, "ok"),
        ({"holders": (tcp.Holder(1, "/sbin/init"),)}, "ok"),
        ({"unprivileged_start": 20000}, "warning"),
    ],
)
def test_ports(change: dict[str, object], expected: str) -> None:
    facts = ports.PortFacts(Listen("http", "127.0.0.1", 10000), ("127.0.0.1",), True, (), 1024)
    assert statuses(ports.judge(replace(facts, **change))) == [expected]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        ("/opt/blobedge/bin/python /opt/blobedge/bin/blobedge serve", True),
        ("/opt/blobedge/bin/blobedge serve", True),
        ("python -I -m dataplane", True),
        ("/usr/lib/systemd/systemd --system", True),
        ("/usr/bin/python3 -m http.server", False),
        ("nginx: master process /usr/sbin/nginx", False),
        ("vi /etc/blobedge.toml", False),
    ],
)
def test_who_is_ours(command: str, ours: bool) -> None:
    assert ports.is_ours(command) is ours


@pytest.mark.parametrize(
    ("explicit", "facts", "expected"),
    [
        (True, names.NameFacts(("10.0.0.4",), ("10.0.0.4",), ""), "ok"),
        (True, names.NameFacts((), (), "Name or service not known"), "warning"),
        (False, names.NameFacts((), (), "Name or service not known"), "note"),
        (True, names.NameFacts(("20.1.2.3",), (), ""), "warning"),
        (True, names.NameFacts(("10.0.0.9",), ("10.0.0.9",), ""), "problem"),
    ],
)
def test_split_horizon(explicit: bool, facts: names.NameFacts, expected: str) -> None:
    name = names.Name("acc.blob.edge", "acc", explicit)
    assert statuses([names.judge(name, facts, [Listen("http", "10.0.0.4", 80)], "")]) == [expected]


def test_the_clouds_own_name_leads_to_the_cloud() -> None:
    facts = names.NameFacts(("20.1.2.3",), (), "")
    assert names.judge(names.Name("a.example", "a", True), facts, [], "a.example").status == "ok"


def test_a_cloud_endpoint_that_is_this_node() -> None:
    facts = names.NameFacts(("127.0.0.1",), ("127.0.0.1",), "")
    listens = [Listen("https", "0.0.0.0", 443)]
    found = names.judge_cloud("https://a.blob.core.windows.net", facts, listens)
    assert found is not None
    assert statuses([found]) == ["problem"]
    assert names.judge_cloud("http://127.0.0.1:10000/a", facts, listens) is None


def test_which_addresses_a_listener_serves() -> None:
    assert addresses.covers("0.0.0.0", "10.0.0.4")
    assert addresses.covers("localhost", "127.0.0.1")
    assert not addresses.covers("::", "10.0.0.4")
    assert not addresses.covers("127.0.0.1", "10.0.0.4")
    assert addresses.is_own("127.0.0.1")
    assert not addresses.is_own("192.0.2.1")  # TEST-NET-1


# --- certificate and clock ---

CERTIFICATE = certificates.CertificateFacts(
    ("*.blob.edge", "edge"), NOW - datetime.timedelta(1), NOW + datetime.timedelta(90), "CN=ca", 2, False, -1, "", 0o640
)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"not_after": NOW}, ["problem"]),
        ({"not_before": NOW + datetime.timedelta(1)}, ["problem"]),
        ({"not_after": NOW + datetime.timedelta(13)}, ["warning"]),
        ({"names": ("other",)}, ["warning"]),
        ({"broken_at": 0}, ["problem"]),
        ({"self_signed": True, "count": 1}, ["note"]),
        ({"key_error": "KEY_VALUES_MISMATCH"}, ["problem"]),
        ({"key_mode": 0o644}, ["warning"]),
    ],
)
def test_certificate(change: dict[str, object], expected: list[str]) -> None:
    facts = replace(CERTIFICATE, **change)  # type: ignore[arg-type]
    found = statuses(certificates.judge(facts, ["acc.blob.edge", "edge"], 14, NOW))
    assert [status for status in found if status != "ok"] == expected


def test_a_wildcard_stands_for_one_label() -> None:
    assert certificates.matches("*.blob.edge", "a.blob.edge")
    assert not certificates.matches("*.blob.edge", "a.b.blob.edge")
    assert not certificates.matches("*.blob.edge", "blob.edge")


def test_clock() -> None:
    assert clock.judge(clock.ClockFacts(True, 0.01)).status == "ok"
    assert statuses([clock.judge(clock.ClockFacts(False, 16.0))]) == ["warning"]
    assert [clock.judge_skew(skew, 60).status for skew in (0, 61, -61, 900, -900)] == [
        "ok",
        "warning",
        "warning",
        "problem",
        "problem",
    ]
    assert clock.observe().error_seconds_max >= 0


# --- limits, file systems, address translation ---

KERNEL = kernel.KernelFacts(1 << 20, "this shell", 4096, (32768, 60999), frozenset(), 1, 1, 120, 10, 1000)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ["ok"]),
        ({"files_max": 1024}, ["warning"]),
        ({"somaxconn": 128}, ["warning"]),
        ({"ports": (1024, 65535)}, ["warning"]),
        ({"ports": (1024, 65535), "reserved": frozenset({10000})}, ["ok"]),
        ({"ports": (60000, 60999)}, ["warning"]),
        ({"window_scaling": 0, "sack": 0}, ["warning", "warning"]),
        ({"conntrack_count": 800}, ["warning"]),
        ({"conntrack_count": 1000}, ["problem"]),
        ({"somaxconn": None, "ports": None, "conntrack_max": None}, ["ok"]),
    ],
)
def test_limits(change: dict[str, object], expected: list[str]) -> None:
    assert statuses(kernel.judge(replace(KERNEL, **change), [10000], 4096)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("drift", "expected", "says"),
    [
        (None, "note", "not tuned"),
        ([], "ok", "profile wan-azure"),
        ([("net.core.somaxconn", "32768", "4096")], "warning", "net.core.somaxconn is 4096, was set to 32768"),
        ([("qdisc:eth0", "fq", None)], "warning", "qdisc:eth0 is gone"),
        ([("a", "1", "0")] * 4, "warning", "4 settings are not as applied: a is 0, was set to 1; a is"),
    ],
)
def test_tuning(drift: list[tuple[str, str, str | None]] | None, expected: str, says: str) -> None:
    entries = [DriftEntry(key=key, expected=value, found=found) for key, value, found in drift or []]
    finding = tuned.judge({"applied": drift is not None, "profile": "wan-azure", "drift": entries})
    assert finding.status == expected
    assert says in finding.what
    assert finding.mend or expected == "ok"


def test_limits_are_those_of_the_service_and_not_of_its_manager() -> None:
    """systemd keeps the sockets of a service that is down."""
    url = "http://127.0.0.1:10000"
    held = ports.PortFacts(
        Listen("http", "127.0.0.1", 10000), ("127.0.0.1",), True, (tcp.Holder(1, "/lib/systemd/systemd"),), 1024
    )
    assert checks.service_pid({(ports.CHECK, url): held}) == 0
    both = replace(held, holders=(*held.holders, None, tcp.Holder(77, "/opt/blobedge/current/bin/blobedge serve")))
    assert checks.service_pid({(ports.CHECK, url): both}) == 77


XFS = stores.StoreFacts(Capabilities("xfs", True, True, True, 1, ""), True, 50.0, 50.0)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (XFS, ["ok"]),
        (replace(XFS, probed=False), ["ok"]),
        (replace(XFS, free_percent=4.0), ["warning", "ok"]),
        (replace(XFS, free_percent=0.5, free_inodes_percent=0.0), ["problem", "problem", "ok"]),
        (replace(XFS, capabilities=Capabilities("nfs4", False, False, False, 1, "<>")), ["problem", "note", "ok"]),
    ],
)
def test_stores(facts: stores.StoreFacts, expected: list[str]) -> None:
    assert statuses(stores.judge("/d", facts, records="xattr", free_percent_min=5)) == expected


def test_translated_ports() -> None:
    cloud = CloudFacts((), ("20.60.1.1",))
    remote = ipaddress.ip_address("20.60.1.1")
    one = tcp.Connection(ipaddress.ip_address("10.0.0.4"), 40000, remote, 443, tcp.TIME_WAIT, 0)
    assert cloud_advice.judge_snat([one] * 10, cloud, 443).status == "ok"
    assert statuses([cloud_advice.judge_snat([one] * 512, cloud, 443)]) == ["warning"]
    assert cloud_advice.judge_snat([one] * 512, CloudFacts((), ("10.1.1.1",)), 443).status == "ok"


def test_a_terminal_gets_a_table_and_a_pipe_gets_whole_lines() -> None:
    findings = [Finding("ports", "problem", "[red]not markup[/red] " + "x" * 100, "do this"), Finding("dns", "ok", "y")]
    shown = {}
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=60, color_system=None)
        render.show(findings, console)
        assert isinstance(console.file, io.StringIO)
        shown[terminal] = console.file.getvalue()
    assert all("[red]not markup[/red]" in text and "-> do this" in text for text in shown.values())
    assert "finding" in shown[True].splitlines()[1]
    assert "x" * 100 in shown[False]
    assert shown[False].endswith("1 ok, 0 note, 0 warning, 1 problem\n")
