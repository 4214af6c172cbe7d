"""The metrics page: the workers' slots, the supervisor's snapshot and the kernel's facts of our processes, as text.

Guarantees: totals never fall while the supervisor lives (totals.py); making the page touches no mount and sends nothing
to a worker, so it is answered while mounts hang and workers die. What takes a moment (the slots, the processes' files
in /proc, some hundred kilobytes of text) runs in threads.

Rejected: prometheus-client's global registry and its multiprocess mode: the collector below is made for each page from
values, so two services in one process (tests) cannot meet, and no files are left behind.
"""

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import psutil
import trio
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from agent.observability import offload_metrics
from agent.observability.azure_metrics import response_type
from agent.observability.checks import SEVERITY
from agent.observability.health import Verdict
from agent.observability.metric_families import FAMILIES
from agent.observability.totals import read_totals
from agent.supervision.policy import State
from agent.supervision.snapshot import ProcessSnapshot, Service, ServiceSnapshot
from dataplane.blobapi.operations import api_name
from dataplane.ipc.gauges import GROUP_BOUNDS, SEVERAL
from dataplane.ipc.series import BOUNDS_SECONDS, Reading, Sums
from dataplane.ipc.slots import Counter

NANOSECONDS: Final = 1e9
SERVICE_STATES: Final = ("starting", "ready", "reloading", "stopping")
RELOAD_STATES: Final = ("running", "done", "refused", "failed")
NO_AUTH: Final = "None"  # refused before the caller was known

Sample = tuple[tuple[str, ...], float]

_COUNTERS: Final = {
    "blobedge_connections_accepted_total": Counter.CONNECTIONS_ACCEPTED,
    "blobedge_connections_open": Counter.CONNECTIONS_OPEN,
    "blobedge_requests_shed_total": Counter.REQUESTS_SHED,
    "blobedge_commits_total": Counter.COMMITS,
    "blobedge_committed_writes_total": Counter.COMMITTED_WRITES,
    "blobedge_journal_lost_total": Counter.JOURNAL_LOST,
    "blobedge_recalled_answers_total": Counter.RECALLED,
}


@dataclass(frozen=True, slots=True)
class MountUsage:
    """What health found out about a mount; the figures are None while it does not answer."""

    account: str
    container: str  # "" for the account's root
    free_bytes: int | None = None
    size_bytes: int | None = None
    free_inodes: int | None = None
    inodes: int | None = None


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What the kernel says of one of our processes."""

    role: str  # supervisor, worker or sidecar
    number: int
    pid: int
    resident_bytes: int
    cpu_seconds: float
    open_fds: int
    threads: int


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that a page is made of."""

    snapshot: ServiceSnapshot
    totals: Reading
    processes: Sequence[ProcessFacts]
    mounts: Sequence[MountUsage]
    now: float  # Unix time
    verdict: Verdict | None = None  # of health


async def page(
    service: Service, mounts: Sequence[MountUsage] = (), verdict: Verdict | None = None
) -> tuple[bytes, str]:
    """Return the metrics of the service, and their content type (Prometheus' text format, version 0.0.4).

    `mounts` and `verdict` are health's. Raises SlotError for a descriptor that is no slot, OSError.
    """
    snapshot, totals = service.snapshot(), await read_totals(service)

    def make() -> bytes:
        return text(Observed(snapshot, totals, look_at_processes(snapshot), mounts, time.time(), verdict))

    return await trio.to_thread.run_sync(make), CONTENT_TYPE_PLAIN_0_0_4


def text(observed: Observed) -> bytes:
    """Return the page for these observations."""
    return generate_latest(_Observations(observed))


def look_at_processes(snapshot: ServiceSnapshot) -> list[ProcessFacts]:
    """Ask the kernel for the supervisor and its children; who ended meanwhile, or is not ours to see, is left out."""
    found = []
    wanted = [("supervisor", 0, snapshot.pid), *((each.role, each.number, each.pid) for each in snapshot.processes)]
    for role, number, pid in wanted:
        if pid <= 0:
            continue
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                memory, fds, threads = process.memory_info().rss, process.num_fds(), process.num_threads()
        except psutil.Error:
            continue
        found.append(ProcessFacts(role, number, pid, memory, times.user + times.system, fds, threads))
    return found


class _Observations(Collector):
    """A collector of one page."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def collect(self) -> Iterator[Metric]:
        observed = self._observed
        for samples in (
            _service, _health, _requests, _answers, _file_systems, _processes, _process_facts, _mounts, _reports,
        ):  # fmt: skip
            yield from samples(observed)
        yield _durations(observed.totals)
        yield _group_sizes(observed.totals)


def _family(name: str, samples: Iterable[Sample]) -> Metric:
    """A family of the table with its samples (label values, value). Raises KeyError for a name that has no entry."""
    spec = FAMILIES[name]
    make: Callable[..., CounterMetricFamily | GaugeMetricFamily]
    make = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
    family = make(name, spec.help, labels=spec.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _service(observed: Observed) -> Iterator[Metric]:
    snapshot = observed.snapshot
    yield _family("blobedge_build_info", [((snapshot.version, platform.python_version()), 1)])
    yield _family("blobedge_start_time_seconds", [((), snapshot.started_at)])
    yield _family("blobedge_state", (((state,), float(state == snapshot.state)) for state in SERVICE_STATES))
    for name, counter in _COUNTERS.items():
        yield _family(name, [((), observed.totals.counters[counter])])
    reload = snapshot.last_reload
    yield _family("blobedge_reloads_total", [((), reload.number if reload else 0)])
    if reload is not None:
        states = (((state,), float(state == reload.state)) for state in RELOAD_STATES)
        yield _family("blobedge_last_reload_state", states)
        yield _family("blobedge_last_reload_timestamp_seconds", [((), reload.at)])


def _health(observed: Observed) -> Iterator[Metric]:
    """What /health/ready says, so that every check of it can be alerted on."""
    if observed.verdict is not None:
        yield _family("blobedge_ready", [((), float(observed.verdict.ready))])
        checks = (((check.name,), SEVERITY[check.status]) for check in observed.verdict.checks)
        yield _family("blobedge_health_check", checks)


def _requests(observed: Observed) -> Iterator[Metric]:
    def samples() -> Iterator[Sample]:
        for labels, sums in observed.totals.requests.items():
            kind = response_type(labels.status, labels.error_code)
            name = api_name(labels.operation)
            yield (name, str(labels.status), labels.error_code, labels.auth or NO_AUTH, kind), sums.count

    yield _family("blobedge_requests_total", samples())


def _answers(observed: Observed) -> Iterator[Metric]:
    """Sums by operation and kind of answer: finer labels would multiply the page for what nobody asks."""
    answers: dict[tuple[str, str], Sums] = {}
    for labels, sums in observed.totals.requests.items():
        answer = (api_name(labels.operation), response_type(labels.status, labels.error_code))
        answers.setdefault(answer, Sums()).add(sums)
    yield _family("blobedge_request_seconds_total", ((at, each.total_ns / NANOSECONDS) for at, each in answers.items()))
    phases = (
        ((*at, phase), nanoseconds / NANOSECONDS)
        for at, each in answers.items()
        for phase, nanoseconds in (("queue", each.queue_ns), ("disk", each.disk_ns), ("send", each.send_ns))
    )
    yield _family("blobedge_request_phase_seconds_total", phases)
    yield _family("blobedge_received_bytes_total", ((at, each.bytes_in) for at, each in answers.items()))
    yield _family("blobedge_sent_bytes_total", ((at, each.bytes_out) for at, each in answers.items()))


def _durations(totals: Reading) -> Metric:
    """The histograms; their sums are those of the rows. Operations that were never asked for are left out."""
    spec = FAMILIES["blobedge_request_duration_seconds"]
    family = HistogramMetricFamily(spec.name, spec.help, labels=spec.labels)
    seconds: dict[str, float] = {}
    for labels, sums in totals.requests.items():
        seconds[labels.operation] = seconds.get(labels.operation, 0.0) + sums.total_ns / NANOSECONDS
    bounds = [*map(str, BOUNDS_SECONDS), "+Inf"]
    for operation, counts in totals.histograms.items():
        buckets = list(zip(bounds, accumulate(counts), strict=True))
        family.add_metric((api_name(operation),), buckets, seconds.get(operation, 0.0))
    return family


def _group_sizes(totals: Reading) -> Metric:
    spec = FAMILIES["blobedge_commit_group_writes"]
    family = HistogramMetricFamily(spec.name, spec.help, labels=spec.labels)
    buckets = list(zip([*map(str, GROUP_BOUNDS), "+Inf"], accumulate(totals.group_sizes), strict=True))
    family.add_metric((), buckets, totals.counters[Counter.COMMITTED_WRITES])
    return family


def _file_systems(observed: Observed) -> Iterator[Metric]:
    """All workers' threads for a file system together."""
    found = [(_device(each.device), each) for each in observed.totals.file_systems.values()]
    pools = [
        ((device, name), pool)
        for device, each in found
        for name, pool in (("metadata", each.metadata), ("data", each.data))
    ]
    yield _family("blobedge_commits_in_flight", (((device,), each.commits_in_flight) for device, each in found))
    yield _family("blobedge_disk_pool_threads", ((at, pool.threads) for at, pool in pools))
    yield _family("blobedge_disk_pool_queued", ((at, pool.queued) for at, pool in pools))
    yield _family("blobedge_disk_pool_running", ((at, pool.running) for at, pool in pools))
    oldest = ((at, pool.oldest_ns / NANOSECONDS) for at, pool in pools)
    yield _family("blobedge_disk_pool_oldest_call_seconds", oldest)


def _device(number: int) -> str:
    return "several" if number == SEVERAL else f"{os.major(number)}:{os.minor(number)}"


def _processes(observed: Observed) -> Iterator[Metric]:
    """One series for each place of a process: those that drain share their place's number, and are only counted."""
    processes = [each for each in observed.snapshot.processes if not each.draining]
    up, restarts, ages, states = [], [], [], []
    for each in processes:
        place = _place(each)
        up.append((place, float(each.pid > 0 and each.state == State.RUNNING.value)))
        restarts.append((place, float(max(0, each.starts_count - 1))))
        states += [((*place, state.value), float(state.value == each.state)) for state in State]
        if each.heartbeat_age_seconds is not None:
            ages.append((place, each.heartbeat_age_seconds))
    yield _family("blobedge_process_up", up)
    yield _family("blobedge_process_state", states)
    yield _family("blobedge_process_restarts_total", restarts)
    yield _family("blobedge_process_recycles_total", _recycles(observed.snapshot))
    yield _family("blobedge_process_heartbeat_age_seconds", ages)
    draining = len(observed.snapshot.processes) - len(processes)
    yield _family("blobedge_processes_draining", [((), draining)])


def _recycles(snapshot: ServiceSnapshot) -> Iterator[tuple[tuple[str, ...], float]]:
    for each in snapshot.recycles:
        yield (each.role, str(each.number), "done"), each.done_count
        yield (each.role, str(each.number), "failed"), each.failed_count


def _place(process: ProcessSnapshot) -> tuple[str, str]:
    return (process.role, str(process.number))


def _process_facts(observed: Observed) -> Iterator[Metric]:
    facts = [((each.role, str(each.number), str(each.pid)), each) for each in observed.processes]
    yield _family("blobedge_process_resident_memory_bytes", ((at, each.resident_bytes) for at, each in facts))
    yield _family("blobedge_process_cpu_seconds_total", ((at, each.cpu_seconds) for at, each in facts))
    yield _family("blobedge_process_open_fds", ((at, each.open_fds) for at, each in facts))
    yield _family("blobedge_process_threads", ((at, each.threads) for at, each in facts))


def _mounts(observed: Observed) -> Iterator[Metric]:
    snapshot, mounts = observed.snapshot, [((each.account, each.container), each) for each in observed.mounts]
    answered = [(at, each) for at, each in mounts if each.free_bytes is not None]
    yield _family("blobedge_mount_up", ((at, float(each.free_bytes is not None)) for at, each in mounts))
    yield _family("blobedge_mount_free_bytes", ((at, each.free_bytes or 0) for at, each in answered))
    yield _family("blobedge_mount_size_bytes", ((at, each.size_bytes or 0) for at, each in answered))
    yield _family("blobedge_mount_free_inodes", ((at, each.free_inodes or 0) for at, each in answered))
    yield _family("blobedge_mount_inodes", ((at, each.inodes or 0) for at, each in answered))
    probed = (((each.account, each.container, each.path), float(each.read_only)) for each in snapshot.mounts)
    yield _family("blobedge_mount_read_only", probed)
    infos = ((each.account, each.container, each.path, each.capabilities.get("device")) for each in snapshot.mounts)
    yield _family("blobedge_mount_info", ((tuple(map(str, info)), 1) for info in infos if info[-1]))


def _reports(observed: Observed) -> Iterator[Metric]:
    reports = observed.snapshot.reports
    ages = (((each.kind,), max(0.0, observed.now - each.at)) for each in reports)
    yield _family("blobedge_report_age_seconds", ages)
    for each in reports:
        if each.kind == "tuning":
            drift = each.document.get("drift", ())
            yield _family("blobedge_tuning_drift_settings", [((), len(drift))])
        if each.kind == "offload":
            for name, samples in offload_metrics.samples(each.document):
                yield _family(name, samples)
