"""The metrics of the offload, made of the document that the sidecar reports (agent/offload/report.py). Pure.

A document may be an older sidecar's, or one that only says that the queue is not open: what it lacks is left out.
Counters begin at 0 with each sidecar, as Prometheus expects of a process that was replaced.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

LINK_STATES: Final = ("online", "degraded", "offline")

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
    yield from _work(document)


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
