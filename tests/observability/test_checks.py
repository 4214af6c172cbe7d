"""Each check: where it turns, and what it says."""

import socket
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Cloud
from agent.doctor import cloud
from agent.observability import checks
from agent.observability.checks import Certificate, Check, Descriptors
from agent.observability.mounts import Facts, Place, Reading
from agent.supervision.snapshot import ReportSnapshot
from tests.observability.support import WORKER

ROOT = Place("acct", "", "/data")
FACTS = Facts(free_bytes=50, size_bytes=100, free_inodes=50, inodes=100, marked=True)
WELL = Reading(ROOT, FACTS, was_marked=True)
DAY = checks.DAY_SECONDS


@pytest.mark.parametrize(
    ("reading", "status", "reason"),
    [
        (WELL, "ok", ""),
        (replace(WELL, asked_at=99.0), "ok", ""),
        (replace(WELL, asked_at=98.5), "failing", "/data has not answered for 1.5 s: it hangs"),
        (replace(WELL, asked_at=0.0, error="old"), "failing", "/data has not answered for 100.0 s: it hangs"),
        (Reading(ROOT, error="Stale file handle"), "failing", "/data: Stale file handle"),
        (Reading(ROOT), "degraded", "/data has not been asked yet"),
        (replace(WELL, facts=replace(FACTS, marked=False)), "failing", "lost its .blobedge"),
        (Reading(ROOT, replace(FACTS, marked=False)), "ok", ""),
    ],
)
def test_mount(reading: Reading, status: str, reason: str) -> None:
    check = checks.mount(reading, now=100.0, seconds_max=1.5)
    assert check.status == status
    assert reason in check.reason


@pytest.mark.parametrize(("free", "status"), [(0, "failing"), (4, "degraded"), (5, "ok"), (100, "ok")])
def test_space_and_inodes(free: int, status: str) -> None:
    reading = Reading(ROOT, Facts(free, 100, free, 100, True))
    assert checks.space(reading, 5.0).status == status
    assert checks.inodes(reading, 5.0).status == status


def test_a_file_system_without_a_number_of_inodes_has_enough() -> None:
    assert checks.inodes(Reading(ROOT, Facts(1, 1, 0, 0, True)), 5.0).status == "ok"
    assert checks.space(Reading(ROOT, error="away"), 5.0).status == "ok"


@pytest.mark.parametrize(
    ("seen", "status", "reason"),
    [
        (Certificate(15 * DAY), "ok", ""),
        (Certificate(13 * DAY), "degraded", "expires in 13 days: renew it"),
        (Certificate(-1 * DAY), "failing", "expired 24 hours ago: renew it"),
        (Certificate(-90, renewed=True), "failing", "expired 90 seconds ago: its file has a later one: reload"),
        (Certificate(None, "No such file"), "degraded", "No such file"),
    ],
)
def test_certificate(seen: Certificate, status: str, reason: str) -> None:
    check = checks.certificate(seen, now=0.0, days_min=14)
    assert check.status == status
    assert reason in check.reason


def test_descriptors() -> None:
    assert checks.descriptors([Descriptors("supervisor", 89, 100)]).status == "ok"
    near = checks.descriptors([Descriptors("supervisor", 1, 100), Descriptors("worker:0", 90, 100)])
    assert near.status == "degraded"
    assert near.reason == "worker:0 has 90 of 100 files open: raise LimitNOFILE"


def test_workers() -> None:
    silent = replace(WORKER, number=1, heartbeat_age_seconds=7.0)
    dead = replace(WORKER, number=2, state="idle", last_exit="signal 9")
    draining = replace(WORKER, draining=True, state="stopping")
    assert checks.workers([WORKER, draining]).status == "ok"
    some = checks.workers([WORKER, silent, dead])
    assert (some.status, some.reason) == ("degraded", "worker 1 has been silent for 7.0 s, worker 2 is idle (signal 9)")
    assert some.details == {"serving": 1, "wanted": 3}
    assert checks.workers([silent, dead, draining]).status == "failing"
    assert checks.workers([]).status == "failing"


def test_crash_loops() -> None:
    looping = replace(WORKER, starts_count=5, uptime_seconds=3.0, last_exit="exit code 1")
    assert checks.crash_loops([WORKER, replace(looping, uptime_seconds=100.0)]).status == "ok"
    assert "started 5 times, the last end: exit code 1" in checks.crash_loops([looping]).reason


def test_sidecar() -> None:
    sidecar = replace(WORKER, role="sidecar")
    assert checks.sidecar([WORKER]) is None
    assert checks.sidecar([WORKER, sidecar]) == Check("sidecar", "ok", "", {"pid": 0})
    gone = checks.sidecar([replace(sidecar, state="idle")])
    assert gone is not None
    assert gone.status == "degraded"


@pytest.mark.parametrize(
    ("document", "status", "reason"),
    [
        ({"configured": False, "reachable": False}, "ok", ""),
        ({"configured": True, "reachable": True}, "ok", ""),
        (
            {"configured": True, "reachable": False, "step": "dns", "reason": "none"},
            "degraded",
            "dns: none",
        ),
        ({"drift": []}, "ok", ""),
        ({"drift": [{"key": "net.core.rmem_max"}]}, "degraded", "1 settings"),
        ({"error": "no answer within 35 s"}, "degraded", "no answer within 35 s"),
    ],
)
def test_report(document: dict[str, Any], status: str, reason: str) -> None:
    check = checks.report(ReportSnapshot("cloud", 100.0, document), now=101.0)
    assert check.status == status
    assert reason in check.reason
    assert checks.report(ReportSnapshot("cloud", 100.0, document), now=5000.0).status == "degraded"


@pytest.mark.parametrize(
    ("hold", "reason"),
    [("", ""), ("waiting", ""), ("operator", "2 blobs are held"), ("poison", "2 blobs are held")],
)
def test_an_offload_degrades_when_somebody_has_to_look(hold: str, reason: str) -> None:
    totals = [{"residency": "queued", "hold": hold, "blobs": 2, "bytes": 700}]
    document = {"configured": True, "socket": "/run/queue.sock", "state": "running", "totals": totals}
    check = checks.report(ReportSnapshot("offload", 100.0, document), now=101.0)
    assert (check.status, check.reason.partition(":")[0]) == ("degraded" if reason else "ok", reason)


@pytest.mark.parametrize(
    ("held", "lost", "reason"),
    [
        (
            3,
            2,
            "the bytes of 2 stubs are not in the cloud any more: blobedge queue ls --failure copy-lost; "
            "1 more blob is held",
        ),
        (1, 1, "the bytes of 1 stub are not in the cloud any more: blobedge queue ls --failure copy-lost"),
        (1, 0, "1 blob is held: blobedge queue ls --hold operator,poison"),
    ],
)
def test_an_offload_tells_of_lost_bytes_first(held: int, lost: int, reason: str) -> None:
    totals = [{"residency": "remote", "hold": "operator", "blobs": held, "bytes": 700}]
    document = {"configured": True, "socket": "/run/queue.sock", "state": "running", "totals": totals}
    found = document | {"failed_rows": {"operator": 9} | ({"copy-lost": lost} if lost else {})}
    assert checks.report(ReportSnapshot("offload", 100.0, found), now=101.0).reason == reason


@pytest.mark.parametrize("stuck", [False, True])
def test_an_offload_degrades_when_a_disk_fills_up_and_nothing_may_leave_it(stuck: bool) -> None:
    eviction = {"disks": [{"of": ["plant7"], "mode": "evict", "stuck": stuck}]}
    document = {"configured": True, "socket": "/run/queue.sock", "state": "running", "totals": [], "eviction": eviction}
    check = checks.report(ReportSnapshot("offload", 100.0, document), now=101.0)
    assert (check.status, "disk of plant7" in check.reason) == ("degraded" if stuck else "ok", stuck)


def test_an_offload_that_does_not_run_degrades_and_none_is_well() -> None:
    stopped = {"configured": True, "state": "does not run: the disk is full", "socket": ""}
    check = checks.report(ReportSnapshot("offload", 100.0, stopped), now=101.0)
    assert (check.status, "the disk is full" in check.reason) == ("degraded", True)
    assert checks.report(ReportSnapshot("offload", 100.0, {"configured": False}), now=101.0).status == "ok"


@pytest.mark.parametrize(("ahead", "status"), [(0.0, "ok"), (-30.0, "ok"), (61.0, "degraded"), (-900.0, "degraded")])
def test_clock(ahead: float, status: str) -> None:
    report = ReportSnapshot("cloud", 1.0, {"clock_skew_seconds": ahead})
    check = checks.clock([report], 60.0)
    assert check is not None
    assert check.status == status


def test_a_report_that_saw_no_date_says_nothing_of_the_clock() -> None:
    for document in ({}, {"clock_skew_seconds": None}):
        assert checks.clock([ReportSnapshot("cloud", 1.0, document)], 60.0) is None


def test_what_the_sidecar_reports_of_a_refused_port_degrades() -> None:
    """The reporter itself, so that the two agree on the names."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    document = cloud.report(Cloud(endpoint=f"http://127.0.0.1:{port}/acct"))
    check = checks.report(ReportSnapshot("cloud", 100.0, document), now=101.0)
    assert (check.status, check.reason.partition(":")[0]) == ("degraded", "tcp")


@given(st.lists(st.sampled_from(["ok", "degraded", "failing"])))
def test_the_worst_counts(statuses: list[checks.Status]) -> None:
    found = checks.worst(Check("x", status) for status in statuses)
    assert checks.SEVERITY[found] == max((checks.SEVERITY[status] for status in statuses), default=0)
