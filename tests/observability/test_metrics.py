"""The metrics page: what a service's slots and snapshot hold is on it, and promtool accepts it."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from agent.config import Account, Config
from agent.observability import metric_families, offload_metrics
from agent.observability.checks import Check
from agent.observability.health import Verdict
from agent.observability.metrics import MountUsage, look_at_processes, page
from agent.supervision.snapshot import (
    MountSnapshot,
    ProcessSnapshot,
    RecycleSnapshot,
    ReloadSnapshot,
    ReportSnapshot,
    ServiceSnapshot,
)
from dataplane.blobapi.operations import Operation
from dataplane.ipc.gauges import SEVERAL, FileSystemGauges, GroupSizes, PoolGauges, show
from dataplane.ipc.series import RequestSeries, series_key
from dataplane.ipc.slots import Counter, Slot, create

CHECKOUT = Path(__file__).resolve().parents[2]
GET = series_key(Operation.GET_BLOB, 200, "", "SAS")
DEAD_PID = 2**22 + 1  # above pid_max

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def worker(number: int, pid: int, state: str = "running", draining: bool = False) -> ProcessSnapshot:
    return ProcessSnapshot("worker", number, pid, state, draining, 3, "SIGKILL", 0.25, 60.0)


OFFLOAD: Final = {
    "configured": True, "socket": "/run/queue.sock", "state": "paused", "link": {"state": "offline", "seconds": 9.0},
    "uploads": {"under_way": 0, "width": 4, "most": 16}, "sent_bytes": 5000, "delivered_blobs": 3,
    "totals": [{"residency": "queued", "hold": "poison", "blobs": 2, "bytes": 700}], "drain_seconds": 60.0,
    "containers": [{"account": "plant7", "container": "c", "blobs": 9, "unprotected_blobs": 2,
                    "unprotected_bytes": 700, "oldest_unprotected_seconds": 30.0,
                    "residency": {"remote": {"blobs": 4, "bytes": 4000}}}],
    "recalls": {"recalls": 8, "windows": 2, "downloads": 9, "bytes": 800, "arrived": 6, "failures": {"missing": 1},
                "open": 1, "readers": 3, "outstanding_bytes": 0},
    "eviction": {"evicted_blobs": 5, "evicted_bytes": 500, "expired_blobs": 4, "lost_copies": 1,
                 "low_space": True, "disks": [
        {"of": ["plant7", "plant7/fast"], "mode": "low-space", "since": 1e9, "bytes_percent": 93.5,
         "inodes_percent": 1.0, "to_free_bytes": 70, "stuck": True, "stays": {"pinned": 12}}]},
    "reconcile": {"left": {"stub-without-copy": 2}},
    "failures": {"poison": 5}, "failed_rows": {"poison": 2}, "conflicts": {"keep-both": 3},
}  # fmt: skip
SNAPSHOT = ServiceSnapshot(
    version="1.2.3",
    pid=os.getpid(),
    state="ready",
    started_at=1e9,
    config_file="",
    urls=(),
    processes=(worker(0, os.getpid()), worker(1, 0, "starting"), worker(0, DEAD_PID, "stopping", draining=True)),
    mounts=(MountSnapshot("plant7", "", "/mnt/plant7", True, {"device": "0:45"}),),
    reports=(
        ReportSnapshot("tuning", 1e9, {"drift": ["net.core.somaxconn", "net.core.rmem_max"]}),
        ReportSnapshot("offload", 1e9, OFFLOAD),
    ),
    last_reload=ReloadSnapshot(4, "refused", 1.5e9, ("no",)),
    recycles=(RecycleSnapshot("worker", 0, 3, 1, 1.5e9, ""),),
)


VERDICT = Verdict("degraded", True, (Check("mount:plant7", "ok"), Check("cloud", "degraded", "tcp: refused")))


class RunningService:
    """A Service of values, with real slots."""

    def __init__(self, slot_fds: tuple[int, ...], retired_slot_fds: tuple[int, ...] = ()) -> None:
        self._slot_fds = slot_fds
        self._retired_slot_fds = retired_slot_fds

    @property
    def config(self) -> Config:
        return Config(accounts=[Account(name="plant7", root="/mnt/plant7")])

    def snapshot(self) -> ServiceSnapshot:
        return SNAPSHOT

    def slot_fds(self) -> tuple[int, ...]:
        return self._slot_fds

    def retired_slot_fds(self) -> tuple[int, ...]:
        return self._retired_slot_fds


@pytest.fixture
def slot_fds() -> Iterator[tuple[int, ...]]:
    fds = (create("one"), create("two"))
    yield fds
    for fd in fds:
        os.close(fd)


def observe(fd: int, key: int, times: int = 1) -> None:
    slot = Slot(fd)
    requests = RequestSeries(slot)
    for _ in range(times):
        requests.observe(key, 20_000_000, 10, 4096, 1_000_000, 2_000_000, 5_000_000)
    slot.add(Counter.CONNECTIONS_OPEN, 2)
    slot.close()


async def samples(service: RunningService, *mounts: MountUsage) -> Samples:
    body, content_type = await page(service, mounts, VERDICT)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    found: Samples = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            at = (sample.name, frozenset(sample.labels.items()))
            assert at not in found, "a series twice"
            found[at] = sample.value
    return found


def labelled(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


@pytest.mark.trio
async def test_requests_of_all_slots_are_added_up(slot_fds: tuple[int, ...]) -> None:
    observe(slot_fds[0], GET, 3)
    observe(slot_fds[1], GET, 4)
    observe(slot_fds[1], series_key(None, 400, "InvalidUri"))
    found = await samples(RunningService(slot_fds))
    answer = {"operation": "GetBlob", "response_type": "Success"}
    request = {"status": "200", "error_code": "", "auth": "SAS", **answer}
    assert found[labelled("blobedge_requests_total", **request)] == 7
    assert found[labelled("blobedge_sent_bytes_total", **answer)] == 7 * 4096
    assert found[labelled("blobedge_received_bytes_total", **answer)] == 70
    assert found[labelled("blobedge_request_seconds_total", **answer)] == pytest.approx(0.14)
    assert found[labelled("blobedge_request_phase_seconds_total", phase="send", **answer)] == pytest.approx(0.035)
    refused = {"operation": "Unknown", "status": "400", "error_code": "InvalidUri", "auth": "None"}
    assert found[labelled("blobedge_requests_total", response_type="ClientOtherError", **refused)] == 1
    assert found[labelled("blobedge_connections_open")] == 6


@pytest.mark.trio
async def test_the_histogram_is_cumulative_and_has_its_sum(slot_fds: tuple[int, ...]) -> None:
    observe(slot_fds[0], GET, 3)
    found = await samples(RunningService(slot_fds))
    name = "blobedge_request_duration_seconds"
    buckets = {le: found[labelled(f"{name}_bucket", operation="GetBlob", le=le)] for le in ("0.01", "0.025", "+Inf")}
    assert buckets == {"0.01": 0, "0.025": 3, "+Inf": 3}
    assert found[labelled(f"{name}_count", operation="GetBlob")] == 3
    assert found[labelled(f"{name}_sum", operation="GetBlob")] == pytest.approx(0.06)


@pytest.mark.trio
async def test_storage_of_all_workers_is_added_up(slot_fds: tuple[int, ...]) -> None:
    for fd in slot_fds:
        slot = Slot(fd)
        for writes in (1, 3, 64):
            GroupSizes(slot).observe(writes)
        hung = FileSystemGauges(os.makedev(0, 45), PoolGauges(8, 2, 8, 31_000_000_000), PoolGauges(1, 0, 0), 5)
        show(slot, [hung, FileSystemGauges(SEVERAL, data=PoolGauges(queued=1))])
        slot.close()
    found = await samples(RunningService(slot_fds))
    metadata = {"device": "0:45", "pool": "metadata"}
    pool = "blobedge_disk_pool"
    assert [found[labelled(f"{pool}_{name}", **metadata)] for name in ("threads", "queued", "running")] == [16, 4, 16]
    assert found[labelled(f"{pool}_oldest_call_seconds", **metadata)] == 31
    assert found[labelled(f"{pool}_queued", device="several", pool="data")] == 2
    assert found[labelled("blobedge_commits_in_flight", device="0:45")] == 10
    sizes = "blobedge_commit_group_writes"
    assert [found[labelled(f"{sizes}_bucket", le=le)] for le in ("1", "2", "4", "64", "+Inf")] == [2, 2, 4, 6, 6]
    assert (found[labelled(f"{sizes}_count")], found[labelled(f"{sizes}_sum")]) == (6, 136)
    assert (
        found[labelled("blobedge_mount_info", account="plant7", container="", path="/mnt/plant7", device="0:45")] == 1
    )


@pytest.mark.trio
async def test_totals_go_on_when_a_slot_is_retired(slot_fds: tuple[int, ...]) -> None:
    observe(slot_fds[0], GET, 3)
    before = await samples(RunningService(slot_fds))
    slot = Slot(slot_fds[0])
    slot.begin(0)
    slot.close()
    after = await samples(RunningService(slot_fds[1:], slot_fds[:1]))
    counted = {at: value for at, value in before.items() if at[0].startswith("blobedge_request")}
    assert {at: after[at] for at in counted} == counted
    assert (before[labelled("blobedge_connections_open")], after[labelled("blobedge_connections_open")]) == (2, 0)


@pytest.mark.trio
async def test_processes_reloads_and_reports(slot_fds: tuple[int, ...]) -> None:
    found = await samples(RunningService(slot_fds))
    place = {"role": "worker", "number": "0"}
    assert found[labelled("blobedge_process_up", **place)] == 1
    assert found[labelled("blobedge_process_up", role="worker", number="1")] == 0
    assert found[labelled("blobedge_process_restarts_total", **place)] == 2
    for outcome, count in (("done", 3), ("failed", 1)):
        assert found[labelled("blobedge_process_recycles_total", **place, outcome=outcome)] == count
    assert found[labelled("blobedge_process_heartbeat_age_seconds", **place)] == 0.25
    assert found[labelled("blobedge_processes_draining")] == 1
    assert found[labelled("blobedge_process_resident_memory_bytes", pid=str(os.getpid()), **place)] > 1e6
    assert found[labelled("blobedge_last_reload_state", state="refused")] == 1
    assert found[labelled("blobedge_last_reload_state", state="done")] == 0
    assert found[labelled("blobedge_reloads_total")] == 4
    assert found[labelled("blobedge_tuning_drift_settings")] == 2
    assert found[labelled("blobedge_state", state="ready")] == 1


@pytest.mark.trio
async def test_the_offload_says_what_is_not_in_the_cloud(slot_fds: tuple[int, ...]) -> None:
    found = await samples(RunningService(slot_fds))
    assert found[labelled("blobedge_offload_up")] == 1
    assert found[labelled("blobedge_offload_blobs", residency="queued", hold="poison")] == 2
    assert found[labelled("blobedge_offload_unprotected_bytes", account="plant7", container="c")] == 700
    assert found[labelled("blobedge_offload_oldest_unprotected_seconds", account="plant7", container="c")] == 30
    assert found[labelled("blobedge_offload_link", state="offline")] == 1
    assert found[labelled("blobedge_offload_link", state="online")] == 0
    assert found[labelled("blobedge_offload_failures_total", **{"class": "poison"})] == 5
    assert found[labelled("blobedge_offload_conflicts_total", policy="keep-both")] == 3
    assert found[labelled("blobedge_offload_paused")] == 1
    remote = {"account": "plant7", "container": "c", "residency": "remote"}
    assert found[labelled("blobedge_offload_container_bytes", **remote)] == 4000


@pytest.mark.trio
async def test_the_offload_says_what_came_back_and_what_may_go(slot_fds: tuple[int, ...]) -> None:
    found = await samples(RunningService(slot_fds))
    assert found[labelled("blobedge_offload_recall_bytes_total")] == 800
    assert found[labelled("blobedge_offload_recall_failures_total", reason="missing")] == 1
    assert found[labelled("blobedge_offload_recall_readers")] == 3
    assert found[labelled("blobedge_offload_evicted_bytes_total")] == 500
    disk = "plant7,plant7/fast"
    assert found[labelled("blobedge_offload_disk_mode", of=disk, mode="low-space")] == 1
    assert found[labelled("blobedge_offload_disk_mode", of=disk, mode="normal")] == 0
    assert found[labelled("blobedge_offload_disk_stuck", of=disk)] == 1
    assert found[labelled("blobedge_offload_disk_stays_blobs", of=disk, reason="pinned")] == 12
    assert found[labelled("blobedge_offload_stubs_without_copy")] == 2
    assert found[labelled("blobedge_offload_lost_stubs")] == 0


@pytest.mark.parametrize(("document", "up"), [({"configured": False}, None), ({"configured": True, "socket": ""}, 0.0)])
def test_an_offload_that_is_off_or_not_open_has_no_figures(document: dict[str, Any], up: float | None) -> None:
    assert dict(offload_metrics.samples(document)) == ({} if up is None else {"blobedge_offload_up": [((), up)]})


@pytest.mark.trio
async def test_a_mount_that_does_not_answer_has_no_figures(slot_fds: tuple[int, ...]) -> None:
    mounts = MountUsage("plant7", "", 5, 100, 7, 0), MountUsage("plant7", "hung")
    found = await samples(RunningService(slot_fds), *mounts)
    assert found[labelled("blobedge_mount_free_bytes", account="plant7", container="")] == 5
    assert found[labelled("blobedge_mount_up", account="plant7", container="hung")] == 0
    assert labelled("blobedge_mount_free_bytes", account="plant7", container="hung") not in found


def test_a_process_that_is_gone_is_left_out() -> None:
    facts = look_at_processes(replace(SNAPSHOT, processes=(worker(5, DEAD_PID),)))
    assert [(each.role, each.pid) for each in facts] == [("supervisor", os.getpid())]


@pytest.mark.trio
async def test_a_full_page_has_every_metric_of_the_table(slot_fds: tuple[int, ...]) -> None:
    observe(slot_fds[0], GET)
    slot = Slot(slot_fds[0])
    show(slot, [FileSystemGauges(os.makedev(0, 45))])
    slot.close()
    found = await samples(RunningService(slot_fds), MountUsage("plant7", "", 5, 100, 7, 9))
    names = {re.sub(r"(seconds|writes)_(bucket|count|sum)$", r"\1", name) for name, _ in found}
    assert names == set(metric_families.FAMILIES)


def test_the_page_of_the_documentation_is_up_to_date() -> None:
    """Mend with: python -m agent.observability.metric_families"""
    text = (CHECKOUT / "docs" / "metrics.md").read_text()
    assert metric_families.documented(text) == text


@pytest.mark.trio
async def test_promtool_accepts_the_page(slot_fds: tuple[int, ...]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    observe(slot_fds[0], GET)
    observe(slot_fds[0], series_key(Operation.PUT_BLOB, 503, "ServerBusy", "AccountKey"))
    body, _ = await page(RunningService(slot_fds), [MountUsage("plant7", "", 5, 100, 7, 9)], VERDICT)
    assert b'blobedge_health_check{check="cloud"} 1.0' in body
    command = [promtool, "check", "metrics"]
    checked = await trio.run_process(command, stdin=body, capture_stdout=True, capture_stderr=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
