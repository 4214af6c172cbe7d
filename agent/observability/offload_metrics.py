"""The metrics of the offload, made of the document that the sidecar reports (agent/offload/report.py). Pure.

A document may be an older sidecar's, or one that only says that the queue is not open: what it lacks is left out.
Counters begin at 0 with each sidecar, as Prometheus expects of a process that was replaced.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

LINK_STATES: Final = ("online", "degraded", "offline")
DISK_MODES: Final = ("normal", "evict", "low-space")

Samples = list[tuple[tuple[str, ...], float]]


def samples(document: Mapping[str, Any]) -> Iterator[tuple[str, Samples]]:
    """The names of the families with their samples; nothing for a node without rules."""
    if not document.get("configured"):
        return
    is_open = bool(document.get("socket"))
    yield "blobedge_offload_up", [((), float(is_open))]
    if not is_open:
        return
    totals = [((each["residency"], each["hold"]), each) for each in document["totals"]]
    yield "blobedge_offload_blobs", [(at, each["blobs"]) for at, each in totals]
    yield "blobedge_offload_bytes", [(at, each["bytes"]) for at, each in totals]
    containers = [((each["account"], each["container"]), each) for each in document["containers"]]
    for what in ("blobs", "bytes"):
        yield f"blobedge_offload_unprotected_{what}", [(at, each[f"unprotected_{what}"]) for at, each in containers]
    oldest = "oldest_unprotected_seconds"
    yield f"blobedge_offload_{oldest}", [(at, each[oldest]) for at, each in containers]
    yield from _where(containers)
    yield from _work(document)
    if (recalls := document.get("recalls")) is not None:
        yield from _recalls(recalls)
    if (eviction := document.get("eviction")) is not None:
        yield from _eviction(eviction)
    if (left := document.get("reconcile", {}).get("left")) is not None:
        for word, name in _STUBS.items():
            yield name, [((), left.get(word, 0))]


#: What a reconciliation found of stubs that cannot be read, and did not mend, by its own word.
_STUBS: Final = {
    "stub-without-copy": "blobedge_offload_stubs_without_copy",
    "lost-stub": "blobedge_offload_lost_stubs",
}


def _where(containers: list[tuple[tuple[str, str], Mapping[str, Any]]]) -> Iterator[tuple[str, Samples]]:
    for what in ("blobs", "bytes"):
        yield (
            f"blobedge_offload_container_{what}",
            [
                ((*at, residency), there[what])
                for at, each in containers
                for residency, there in each.get("residency", {}).items()
            ],
        )


def _recalls(recalls: Mapping[str, Any]) -> Iterator[tuple[str, Samples]]:
    yield "blobedge_offload_recalls_total", [((), recalls["recalls"])]
    yield "blobedge_offload_recall_windows_total", [((), recalls["windows"])]
    yield "blobedge_offload_recall_bytes_total", [((), recalls["bytes"])]
    yield "blobedge_offload_recalled_blobs_total", [((), recalls["arrived"])]
    yield "blobedge_offload_recall_readers", [((), recalls["readers"])]
    yield "blobedge_offload_recall_failures_total", [((why,), count) for why, count in recalls["failures"].items()]


def _eviction(eviction: Mapping[str, Any]) -> Iterator[tuple[str, Samples]]:
    yield "blobedge_offload_evicted_blobs_total", [((), eviction["evicted_blobs"])]
    yield "blobedge_offload_evicted_bytes_total", [((), eviction["evicted_bytes"])]
    yield "blobedge_offload_expired_blobs_total", [((), eviction["expired_blobs"])]
    yield "blobedge_offload_lost_copies_total", [((), eviction["lost_copies"])]
    disks = [(",".join(each["of"]), each) for each in eviction["disks"]]
    yield (
        "blobedge_offload_disk_mode",
        [((disk, mode), float(mode == each["mode"])) for disk, each in disks for mode in DISK_MODES],
    )
    for what in ("bytes_percent", "inodes_percent", "to_free_bytes", "stuck"):
        yield f"blobedge_offload_disk_{what}", [((disk,), float(each[what])) for disk, each in disks]
    yield (
        "blobedge_offload_disk_stays_blobs",
        [((disk, reason), count) for disk, each in disks for reason, count in each["stays"].items()],
    )


def _work(document: Mapping[str, Any]) -> Iterator[tuple[str, Samples]]:
    link = document["link"]["state"]
    yield "blobedge_offload_link", [((state,), float(state == link)) for state in LINK_STATES]
    yield "blobedge_offload_paused", [((), float(document["state"] == "paused"))]
    yield "blobedge_offload_uploads", [((), document["uploads"]["under_way"])]
    yield "blobedge_offload_sent_bytes_total", [((), document["sent_bytes"])]
    yield "blobedge_offload_delivered_blobs_total", [((), document["delivered_blobs"])]
    yield "blobedge_offload_failures_total", [((kind,), count) for kind, count in document["failures"].items()]
    conflicts = document.get("conflicts", {})
    yield "blobedge_offload_conflicts_total", [((policy,), count) for policy, count in conflicts.items()]
    yield "blobedge_offload_failed_blobs", [((kind,), count) for kind, count in document["failed_rows"].items()]
    if document["drain_seconds"] is not None:
        yield "blobedge_offload_drain_seconds", [((), document["drain_seconds"])]
