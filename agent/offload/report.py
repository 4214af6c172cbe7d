"""What is said of the offload: one document for `status`, the metrics, the alerts and `blobedge queue`. Pure.

    unprotected   what was changed here and is not in the cloud as it is now: QUEUED
    lag           its bytes, and the age of the oldest change in it
    containers    of each where its bytes are, by residency
    forecast      seconds until what is due is all sent at the speed of the last minutes; null when nothing moves: while
                  paused, closed by the schedule or the budget, or offline, and when all of it is held or waits

Sizes of blobs that were not looked at yet are not known: such bytes are missing from the lag until they are.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agent.offload.engine import Engine
from agent.offload.link import Link
from agent.offload.queries import Total
from agent.offload.reconcile.course import Course
from agent.offload.rounds import Rounds
from agent.offload.states import Hold, Residency

CONTAINERS_MAX: Final = 100  # in the document, those with most unprotected bytes first: it goes in one datagram
_NS: Final = 1e9
_RATE_SECONDS: Final = 60.0  # over which the speed is averaged
RATE_MIN: Final = 1.0  # bytes per second; what is slower does not move
RUNNING: Final = "running"


@dataclass(slots=True)
class Speed:
    """An exponentially weighted mean of bytes per second. `now` is seconds of a monotonic clock."""

    bytes_per_second: float = 0.0
    _bytes: int = 0
    _at: float = field(default_factory=time.monotonic)

    def see(self, total: int, now: float) -> None:
        """`total` bytes were sent so far."""
        seconds = now - self._at
        if seconds <= 0:
            return
        weight = min(1.0, seconds / _RATE_SECONDS) if self.bytes_per_second else 1.0
        self.bytes_per_second += weight * ((total - self._bytes) / seconds - self.bytes_per_second)
        self._bytes, self._at = total, now


def document(
    engine: Engine, rounds: Rounds, totals: Sequence[Total], failed: dict[str, int], speed: Speed, now: int
) -> dict[str, Any]:
    """The document. `now`: ns since 1970; `failed`: rows by the class of their last failure."""
    queued = [each for each in totals if each.residency is Residency.QUEUED]
    lag = sum(each.bytes for each in queued)
    oldest = min((each.oldest for each in queued), default=0)
    link, place = engine.watch.state, rounds.scanner.place
    state = _state(engine)
    moving = state == RUNNING and link.link is not Link.OFFLINE
    return {
        "state": state,
        "link": {"state": link.link, "seconds": time.monotonic() - link.since},
        "uploads": {"under_way": len(engine.running), "width": engine.crowd.width, "most": engine.crowd.most},
        "unprotected_blobs": sum(each.blobs for each in queued),
        "unprotected_bytes": lag,
        "oldest_unprotected_seconds": max(0.0, (now - oldest) / _NS) if queued else 0.0,
        "sent_bytes": engine.sent_bytes,
        "delivered_blobs": engine.delivered_count,
        "bytes_per_second": speed.bytes_per_second,
        "drain_seconds": forecast(queued, moving, speed.bytes_per_second),
        "totals": _totals(totals),
        "containers": _containers(totals, now),
        "failed_rows": failed,
        "failures": dict(engine.failures),
        "conflicts": dict(engine.conflicts),
        "last_failure": engine.last_failure and {"at": engine.last_failure[0], "text": engine.last_failure[1]},
        "blocked": {name: fault.text for name, fault in list(engine.gate.blocked.items())[:CONTAINERS_MAX]},
        "scan": {
            "at": rounds.scanned_at / _NS,
            "running": place and {"account": place.account, "container": place.container, "blobs": place.blobs},
            "problem": rounds.problem,
        },
    }


def reconciled(last: Course | None) -> dict[str, Any]:
    """When the reconciliation that ended last began, ns since 1970, and what of it nobody has mended, by its words."""
    if last is None:
        return {}
    return {"began": last.began, "left": {word: n - last.mended.get(word, 0) for word, n in last.found.items()}}


def forecast(queued: Sequence[Total], moving: bool, bytes_per_second: float) -> float | None:
    """Seconds until what is due is sent, 0 when nothing is unprotected; None when that cannot be said. `moving`:
    whether blobs may be sent now. Due blobs without known bytes say nothing of the time."""
    if not any(each.blobs for each in queued):
        return 0.0
    due = sum(each.bytes for each in queued if each.hold is Hold.NONE)
    return due / bytes_per_second if moving and due and bytes_per_second >= RATE_MIN else None


def _state(engine: Engine) -> str:
    if engine.paused:
        return "paused"
    return engine.closed_reason if time.monotonic() < engine.closed_until else RUNNING


def _totals(totals: Sequence[Total]) -> list[dict[str, Any]]:
    """Per residency and hold."""
    sums: dict[tuple[str, str], list[int]] = {}
    for each in totals:
        found = sums.setdefault((each.residency, each.hold), [0, 0])
        found[0] += each.blobs
        found[1] += each.bytes
    return [
        {"residency": residency, "hold": hold, "blobs": blobs, "bytes": size}
        for (residency, hold), (blobs, size) in sorted(sums.items())
    ]


def _containers(totals: Sequence[Total], now: int) -> list[dict[str, Any]]:
    """Per container where its bytes are, and what is not in the cloud: the most bytes of that first."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for each in totals:
        at = found.setdefault(
            (each.account, each.container),
            {"account": each.account, "container": each.container, "blobs": 0, "unprotected_blobs": 0,
             "unprotected_bytes": 0, "oldest_unprotected_seconds": 0.0, "residency": {}},
        )  # fmt: skip
        at["blobs"] += each.blobs
        there = at["residency"].setdefault(each.residency, {"blobs": 0, "bytes": 0})
        there["blobs"] += each.blobs
        there["bytes"] += each.bytes
        if each.residency is Residency.QUEUED:
            at["unprotected_blobs"] += each.blobs
            at["unprotected_bytes"] += each.bytes
            age = max(0.0, (now - each.oldest) / _NS)
            at["oldest_unprotected_seconds"] = max(at["oldest_unprotected_seconds"], age)
    ordered = sorted(found.values(), key=lambda each: (-each["unprotected_bytes"], -each["unprotected_blobs"]))
    return ordered[:CONTAINERS_MAX]
