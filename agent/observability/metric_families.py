"""Every metric of the node, in one table: the collector makes no other, and docs/metrics.md is generated from it.

`python -m agent.observability.metric_families` rewrites the tables of docs/metrics.md; a test compares.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from agent.observability.azure_metrics import DERIVED

BEGIN: Final = "<!-- tables: made by python -m agent.observability.metric_families -->"
END: Final = "<!-- end of tables -->"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its name as Prometheus shows it, labels, and meaning with its unit."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str


_PROCESS: Final = ("role", "number")
_ONE_PROCESS: Final = ("role", "number", "pid")
_MOUNT: Final = ("account", "container")
_DEVICE: Final = ("device",)  # major:minor of the file system, or what touches several
_POOL: Final = ("device", "pool")
_OF_DISK: Final = ("of",)  # the accounts and mapped containers on it
_QUEUED: Final = ("residency", "hold")
_ANSWER: Final = ("operation", "response_type")

_TABLE: Final = (
    Family("blobedge_build_info", "gauge", ("version", "python"), "1, with what runs in its labels."),
    Family("blobedge_start_time_seconds", "gauge", (), "Unix time at which the supervisor started."),
    Family("blobedge_state", "gauge", ("state",), "1 for the state that the service is in, 0 for the others."),
    Family("blobedge_ready", "gauge", (), "1 if /health/ready answers 200."),
    Family("blobedge_health_check", "gauge", ("check",), "A check of /health/ready: 0 ok, 1 degraded, 2 failing."),
    Family(
        "blobedge_requests_total",
        "counter",
        ("operation", "status", "error_code", "auth", "response_type"),
        "Requests answered; status 499: the client went away first.",
    ),
    Family(
        "blobedge_request_duration_seconds",
        "histogram",
        ("operation",),
        "Seconds from the end of the head until the answer is made; sending it is not in it.",
    ),
    Family("blobedge_request_seconds_total", "counter", _ANSWER, "Sum of the requests' durations."),
    Family(
        "blobedge_request_phase_seconds_total",
        "counter",
        (*_ANSWER, "phase"),
        "Where the requests' time went: queue (waiting for a thread, a group commit or room), disk (in file system "
        "calls), send (waiting for the client's body). What is left of the duration is computing and turns of the "
        "event loop.",
    ),
    Family("blobedge_received_bytes_total", "counter", _ANSWER, "Bytes of requests' bodies."),
    Family("blobedge_sent_bytes_total", "counter", _ANSWER, "Bytes of answers' bodies."),
    Family("blobedge_connections_accepted_total", "counter", (), "Connections accepted."),
    Family("blobedge_connections_open", "gauge", (), "Connections open now."),
    Family("blobedge_requests_shed_total", "counter", (), "Requests answered 503 because a pool of threads was full."),
    Family("blobedge_commits_total", "counter", (), "Groups of writes that were synced together."),
    Family("blobedge_committed_writes_total", "counter", (), "Writes in those groups."),
    Family(
        "blobedge_journal_lost_total",
        "counter",
        (),
        "Entries that the journal of changes could not take; the whole mount is then looked at.",
    ),
    Family(
        "blobedge_recalled_answers_total", "counter", (), "Reads and copies whose bytes came from the cloud."
    ),
    Family("blobedge_commit_group_writes", "histogram", (), "Writes that a group had."),
    Family("blobedge_commits_in_flight", "gauge", _DEVICE, "Writes that wait to be prepared, synced or published."),
    Family("blobedge_disk_pool_threads", "gauge", _POOL, "Threads for a file system that were made so far."),
    Family("blobedge_disk_pool_queued", "gauge", _POOL, "Calls that wait for one of them."),
    Family("blobedge_disk_pool_running", "gauge", _POOL, "Calls that one of them carries out."),
    Family("blobedge_disk_pool_oldest_call_seconds", "gauge", _POOL,
           "Seconds since the oldest of these began, 0 without one; more than a few: the file system hangs."),
    Family("blobedge_process_up", "gauge", _PROCESS, "1 if the worker or sidecar runs and is ready."),
    Family("blobedge_process_state", "gauge", (*_PROCESS, "state"), "1 for the state that the supervisor sees it in."),
    Family("blobedge_process_restarts_total", "counter", _PROCESS, "Starts after the first one."),
    Family("blobedge_process_recycles_total", "counter", (*_PROCESS, "outcome"),
           "Processes beyond limits.memory_mib_max that a new one replaced (done), or none could (failed)."),
    Family("blobedge_process_heartbeat_age_seconds", "gauge", _PROCESS, "Seconds since its event loop last turned."),
    Family("blobedge_processes_draining", "gauge", (), "Processes that were replaced and finish what they have."),
    Family("blobedge_process_resident_memory_bytes", "gauge", _ONE_PROCESS, "Memory in RAM, shared pages included."),
    Family("blobedge_process_cpu_seconds_total", "counter", _ONE_PROCESS, "CPU time, user and system."),
    Family("blobedge_process_open_fds", "gauge", _ONE_PROCESS, "Open file descriptors."),
    Family("blobedge_process_threads", "gauge", _ONE_PROCESS, "Threads; a worker's pools grow to their limits."),
    Family("blobedge_mount_up", "gauge", _MOUNT, "1 if the mount answers; 0 while it hangs or refuses."),
    Family("blobedge_mount_free_bytes", "gauge", _MOUNT, "Bytes that the service may still write."),
    Family("blobedge_mount_size_bytes", "gauge", _MOUNT, "Size of the file system."),
    Family("blobedge_mount_free_inodes", "gauge", _MOUNT, "Files that may still be made."),
    Family("blobedge_mount_inodes", "gauge", _MOUNT, "Files that the file system has room for; 0 if it has no limit."),
    Family("blobedge_mount_read_only", "gauge", (*_MOUNT, "path"), "1 if writes to the mount are refused."),
    Family("blobedge_mount_info", "gauge", (*_MOUNT, "path", "device"), "1, with the file system that a mount is on."),
    Family("blobedge_reloads_total", "counter", (), "Reloads asked for."),
    Family("blobedge_last_reload_state", "gauge", ("state",), "1 for how the last reload went."),
    Family("blobedge_last_reload_timestamp_seconds", "gauge", (), "Unix time at which the last reload ended."),
    Family("blobedge_tuning_drift_settings", "gauge", (), "Kernel settings that are no longer as they were applied."),
    Family("blobedge_offload_up", "gauge", (), "1 if the queue of the offload is open; absent without rules."),
    Family("blobedge_offload_blobs", "gauge", _QUEUED, "Blobs in the queue, by where they are and what holds them."),
    Family("blobedge_offload_bytes", "gauge", _QUEUED, "Their bytes, of those that were looked at."),
    Family("blobedge_offload_unprotected_blobs", "gauge", _MOUNT, "Blobs whose present version the cloud lacks; of the "
           "100 containers with most."),
    Family("blobedge_offload_unprotected_bytes", "gauge", _MOUNT, "Their bytes: the lag. Without a link, "
           "what is new counts from the next look at everything on."),
    Family("blobedge_offload_oldest_unprotected_seconds", "gauge", _MOUNT, "Age of the oldest change that the cloud "
           "lacks, 0 when it has all."),
    Family("blobedge_offload_link", "gauge", ("state",), "1 for how the link to the cloud is, 0 for the others."),
    Family("blobedge_offload_paused", "gauge", (), "1 after blobedge queue pause."),
    Family("blobedge_offload_uploads", "gauge", (), "Blobs that are being sent or deleted."),
    Family("blobedge_offload_sent_bytes_total", "counter", (), "Bytes of contents sent, repeated ones too."),
    Family("blobedge_offload_delivered_blobs_total", "counter", (),
           "Blobs sent and verified, or deleted, in the cloud."),
    Family("blobedge_offload_failures_total", "counter", ("class",), "Tries that failed; the classes are in "
           "docs/offload/queue.md."),
    Family("blobedge_offload_conflicts_total", "counter", ("policy",), "Versions of somebody else in the cloud that "
           "ours took the place of; keep-both keeps them beside it."),
    Family("blobedge_offload_failed_blobs", "gauge", ("class",), "Blobs whose last try failed."),
    Family("blobedge_offload_drain_seconds", "gauge", (), "Until all is sent at the speed of the last minute; absent "
           "while nothing moves."),
    Family("blobedge_offload_container_blobs", "gauge", (*_MOUNT, "residency"), "Blobs by where their bytes are; of "
           "the 100 containers with most unprotected bytes."),
    Family("blobedge_offload_container_bytes", "gauge", (*_MOUNT, "residency"), "Their bytes, also of stubs."),
    Family("blobedge_offload_recalls_total", "counter", (), "Files that were begun with bytes from the cloud."),
    Family("blobedge_offload_recall_windows_total", "counter", (), "Of these, parts of a blob that were not kept."),
    Family("blobedge_offload_recall_bytes_total", "counter", (), "Bytes that came from the cloud."),
    Family("blobedge_offload_recalled_blobs_total", "counter", (), "Blobs that are here again, verified."),
    Family("blobedge_offload_recall_readers", "gauge", (), "Requests that read bytes as they come."),
    Family("blobedge_offload_recall_failures_total", "counter", ("reason",), "Recalls that did not come: offline, "
           "archived, missing, space, changed, failed."),
    Family("blobedge_offload_evicted_blobs_total", "counter", (), "Blobs whose bytes left the node."),
    Family("blobedge_offload_evicted_bytes_total", "counter", (), "Their bytes."),
    Family("blobedge_offload_expired_blobs_total", "counter", (), "Blobs that rules deleted here, by "
           "delete_after_upload or ttl_days."),
    Family("blobedge_offload_lost_copies_total", "counter", (), "Copies that the cloud did not have any more when a "
           "blob was to leave; such a blob stays, and is sent again."),
    Family("blobedge_offload_disk_mode", "gauge", (*_OF_DISK, "mode"), "1 for how full a disk is: normal, evict, "
           "low-space."),
    Family("blobedge_offload_disk_bytes_percent", "gauge", _OF_DISK, "Use of a disk's bytes, as eviction counts it."),
    Family("blobedge_offload_disk_inodes_percent", "gauge", _OF_DISK, "Use of its inodes."),
    Family("blobedge_offload_disk_to_free_bytes", "gauge", _OF_DISK, "Bytes that have to leave it."),
    Family("blobedge_offload_disk_stuck", "gauge", _OF_DISK, "1 if bytes have to leave it and nothing may."),
    Family("blobedge_offload_disk_stays_blobs", "gauge", (*_OF_DISK, "reason"), "Blobs that could not leave it at the "
           "last try, by reason."),
    Family("blobedge_offload_stubs_without_copy", "gauge", (), "Stubs whose bytes the cloud does not have, as the last "
           "reconciliation found."),
    Family("blobedge_offload_lost_stubs", "gauge", (), "Stubs that do not say any more what they stand for, as it "
           "found."),
    Family("blobedge_report_age_seconds", "gauge", ("kind",), "Seconds since the sidecar's newest report of a kind."),
)  # fmt: skip

FAMILIES: Final[Mapping[str, Family]] = {family.name: family for family in _TABLE}


def tables() -> str:
    """Return the two tables of docs/metrics.md."""
    ours = _table(
        ("metric", "kind", "labels", "meaning"),
        (
            (f"`{each.name}`", each.kind, ", ".join(f"`{label}`" for label in each.labels), each.help)
            for each in FAMILIES.values()
        ),
    )
    azure = _table(
        ("Azure Monitor", "unit", "PromQL", "remark"),
        ((each.name, each.unit, f"`{each.promql}`".replace("|", r"\|"), each.remark) for each in DERIVED),
    )
    return f"## Metrics\n\n{ours}\n\n## Azure Monitor's metrics\n\n{azure}\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def documented(page: str) -> str:
    """The page with the part between its marks replaced by the tables. Raises ValueError without the marks."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError("docs/metrics.md has lost its marks")
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


def main() -> None:
    """Rewrite the page of this checkout."""
    page = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
    page.write_text(documented(page.read_text()))


if __name__ == "__main__":
    main()
