"""What `tools/bench offline` makes of its phases; pure.

One phase says little on a machine that does other things too, so each offline phase is compared with the online one
beside it, and the median of all these ratios counts. The order within the pairs alternates (on off, off on, ...): what
drifts over the run, as a directory that grows, then favours neither.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

RATIO_MAX: Final = 1.05  # p99 offline to p99 online
MEMORY_MIB_MAX: Final = 128.0  # of the sidecar
_FLOOR: Final = 1e-9  # no division by zero

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Phase:
    """What was seen in the measured part of a phase."""

    online: bool
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    worker_us: float  # CPU time of all workers for each request
    sidecar_cores: float  # CPU time of the sidecar a second
    sent: int  # blobs that came to be in the cloud
    failed: int  # requests


def order(pairs: int) -> Iterator[bool]:
    """Whether the link is there, phase by phase."""
    for number in range(pairs):
        first = number % 2 == 0
        yield from (first, not first)


def in_pairs(phases: Sequence[Phase]) -> list[tuple[Phase, Phase]]:
    """Neighbours, the online one first. Raises ValueError for phases that are not in the order of `order`."""
    found = []
    for one, other in zip(phases[::2], phases[1::2], strict=True):
        if one.online is other.online:
            raise ValueError("a pair needs a phase of each kind")
        found.append((one, other) if one.online else (other, one))
    return found


def compared(phases: Sequence[Phase]) -> Figures:
    """The medians of both kinds, and of the ratios of the pairs."""
    pairs = in_pairs(phases)

    def ratio(value: Callable[[Phase], float]) -> list[float]:
        return sorted(value(offline) / max(value(online), _FLOOR) for online, offline in pairs)

    p99 = ratio(lambda phase: phase.p99_ms)
    return {
        "p99_ratio": statistics.median(p99),
        "p99_ratio_lowest": p99[0],
        "p99_ratio_highest": p99[-1],
        "p50_ratio": statistics.median(ratio(lambda phase: phase.p50_ms)),
        "worker_cpu_ratio": statistics.median(ratio(lambda phase: phase.worker_us)),
        **_medians("online", [online for online, _ in pairs]),
        **_medians("offline", [offline for _, offline in pairs]),
        "failed": float(sum(phase.failed for phase in phases)),
    }


def _medians(name: str, phases: Sequence[Phase]) -> Figures:
    return {
        f"{name}_p50_ms": statistics.median(phase.p50_ms for phase in phases),
        f"{name}_p99_ms": statistics.median(phase.p99_ms for phase in phases),
        f"{name}_requests_per_s": statistics.median(phase.requests_per_s for phase in phases),
        f"{name}_worker_us_per_request": statistics.median(phase.worker_us for phase in phases),
        f"{name}_sidecar_cores": statistics.median(phase.sidecar_cores for phase in phases),
        f"{name}_sent": float(sum(phase.sent for phase in phases)),
    }


def missed(figures: Figures) -> list[str]:
    """What is worse than it has to be."""
    found = []
    if figures["p99_ratio"] > RATIO_MAX:
        found.append(f"p99_ratio: at most {RATIO_MAX:g}")
    if figures["sidecar_memory_mib"] > MEMORY_MIB_MAX:
        found.append(f"sidecar_memory_mib: at most {MEMORY_MIB_MAX:g}")
    if figures["offline_sent"]:
        found.append("offline_sent: the link was not cut")
    if figures["failed"]:
        found.append("failed: every request has to succeed")
    return found
