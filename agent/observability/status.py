"""`/status`: all that the supervisor knows, as one JSON document, and its form for a terminal.

The document is what scripts read: keys are only ever added. `version` of it changes if that promise is ever broken.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final

from agent.observability.health import Health, Verdict
from agent.observability.http import Response, Routes, json_response
from agent.supervision.snapshot import Service, ServiceSnapshot
from dataplane.ipc.slots import Counter, Slot, SlotError

DOCUMENT_VERSION: Final = 1


def status_route(service: Service, health: Health) -> Routes:
    """Return the page of status."""

    async def page(_query: Mapping[str, str]) -> Response:
        counters = read_counters(service.slot_fds())
        return json_response(document(service.snapshot(), health.verdict(), counters, time.time()))

    return {"/status": page}


def read_counters(fds: Iterable[int]) -> Mapping[str, int]:
    """Add up the counters of slots, by their names in small letters. A slot of another layout is left out."""
    totals = dict.fromkeys(Counter, 0)
    for fd in fds:
        try:
            slot = Slot(fd)
        except (SlotError, OSError):
            continue
        for counter in Counter:
            totals[counter] += slot.get(counter)
        slot.close()
    return {counter.name.lower(): total for counter, total in totals.items()}


def document(snapshot: ServiceSnapshot, verdict: Verdict, counters: Mapping[str, int], now: float) -> dict[str, Any]:
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
        "counters": dict(counters),
        "reports": [{"kind": each.kind, "at": each.at, **each.document} for each in snapshot.reports],
        "last_reload": asdict(snapshot.last_reload) if snapshot.last_reload is not None else None,
    }
