"""`/status`: all that the supervisor knows, as one JSON document, and its form for a terminal.

The document is what scripts read: keys are only ever added. `version` of it changes if that promise is ever broken.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any, Final

from agent.observability.health import Health, Verdict
from agent.observability.http import Response, Routes, json_response
from agent.observability.totals import read_totals
from agent.supervision.snapshot import Service, ServiceSnapshot
from dataplane.ipc.series import Reading

DOCUMENT_VERSION: Final = 1
_CLASSES: Final = {n: f"responses_{n}xx" for n in (2, 3, 4, 5)}


def status_route(service: Service, health: Health) -> Routes:
    """Return the page of status."""

    async def page(_query: Mapping[str, str]) -> Response:
        totals = await read_totals(service)
        return json_response(document(service.snapshot(), health.verdict(), totals, time.time()))

    return {"/status": page}


def traffic(reading: Reading) -> Mapping[str, int]:
    """Add up what workers counted since the start. Pure."""
    totals = dict.fromkeys(("requests", *_CLASSES.values(), "bytes_in", "bytes_out"), 0)
    for labels, sums in reading.requests.items():
        totals["requests"] += sums.count
        if labels.status:  # 0: rows beyond the table's end
            totals[_CLASSES[labels.status // 100]] += sums.count
        totals["bytes_in"] += sums.bytes_in
        totals["bytes_out"] += sums.bytes_out
    return {**totals, **{counter.name.lower(): total for counter, total in reading.counters.items()}}


def errors(reading: Reading) -> list[dict[str, Any]]:
    """Return how often each error was answered, the most frequent first. Pure."""
    counts: dict[tuple[int, str], int] = {}
    for labels, sums in reading.requests.items():
        if labels.status >= HTTPStatus.BAD_REQUEST:
            at = (labels.status, labels.error_code)
            counts[at] = counts.get(at, 0) + sums.count
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"status": status, "error_code": code, "count": count} for (status, code), count in ordered]


def document(snapshot: ServiceSnapshot, verdict: Verdict, totals: Reading, now: float) -> dict[str, Any]:
    """Make the document. Pure; `now` is Unix time."""
    return {
        "document_version": DOCUMENT_VERSION,
        "version": snapshot.version,
        "pid": snapshot.pid,
        "state": snapshot.state,
        "at": now,
        "started_at": snapshot.started_at,
        "uptime_seconds": max(0.0, now - snapshot.started_at),
        "config_file": snapshot.config_file,
        "urls": list(snapshot.urls),
        "health": verdict.document(),
        "processes": [asdict(each) for each in snapshot.processes],
        "mounts": [
            {
                "account": each.account,
                "container": each.container,
                "path": each.path,
                "read_only": each.read_only,
                "capabilities": dict(each.capabilities),
            }
            for each in snapshot.mounts
        ],
        "counters": dict(traffic(totals)),
        "errors": errors(totals),
        "reports": [{"kind": each.kind, "at": each.at, **each.document} for each in snapshot.reports],
        "recycles": [asdict(each) for each in snapshot.recycles],
        "last_reload": asdict(snapshot.last_reload) if snapshot.last_reload is not None else None,
    }
