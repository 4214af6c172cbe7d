"""A simulation from its seed to its result."""

import hashlib
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.simulation.checks import Checks
from tests.simulation.cloud import Cloud
from tests.simulation.edge import Edge
from tests.simulation.life import MIB, TICK_SECONDS, Life
from tests.simulation.world import Clock, Disk

SHARED_MEMORY: Final = "/dev/shm"
DISK_BYTES: Final = 3_000 * MIB  # about half of what the applications keep
TICKS_A_DAY: Final = int(86_400 / TICK_SECONDS)
EVERYTHING_DAYS: Final = 3  # between two looks at every blob
DRAIN_DAYS_MAX: Final = 40


@dataclass(frozen=True, slots=True)
class Result:
    """What happened. `digest` is the same for the same seed, whatever machine it ran on."""

    seed: int
    days: int
    drained_days: int
    events: dict[str, int]
    digest: str
    seconds: float


@contextmanager
def memory() -> Iterator[Path]:
    """A directory in memory where there is one: no power is cut here, and syncs of a disk would take most of it all."""
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None) as directory:
        yield Path(directory)


def simulate(seed: int, days: int) -> Result:
    """Live so many days, then drain. Raises Broken."""
    with memory() as directory:
        return _simulate(seed, days, directory)


def _simulate(seed: int, days: int, directory: Path) -> Result:
    began = time.perf_counter()
    chance, clock, disk = random.Random(seed), Clock(), Disk(DISK_BYTES)
    cloud = Cloud(random.Random(seed + 1))
    checks = Checks(clock, disk, cloud)
    edge = Edge(
        directory, clock, disk, cloud, random.Random(seed + 2), lambda row: checks.taken(row, edge), checks.took_over
    )
    life = Life(chance, clock, disk, cloud, edge, checks)
    try:
        for day in range(days):
            for tick in range(TICKS_A_DAY):
                life.tick()
                _step(edge, checks, clock, day * TICKS_A_DAY + tick + 1)
            life.midnight()
            checks.after_step(edge)
            if day % EVERYTHING_DAYS == 0:
                checks.everything()
        drained = _drain(life, edge, checks, clock, days)
        checks.converged(edge)
        events = _events(life, edge, checks)
    finally:
        edge.close()
    told = (sorted(events.items()), sorted(cloud.blobs.items(), key=lambda each: each[0]), clock.seconds)
    digest = hashlib.blake2b(repr(told).encode(), digest_size=8).hexdigest()
    return Result(seed, days, drained, events, digest, time.perf_counter() - began)


def _step(edge: Edge, checks: Checks, clock: Clock, tick: int) -> None:
    until = tick * TICK_SECONDS
    edge.step(until)
    clock.on(until)
    checks.after_step(edge)


def _drain(life: Life, edge: Edge, checks: Checks, clock: Clock, days: int) -> int:
    """Days until nothing waits any more, once nothing goes wrong."""
    for day in range(DRAIN_DAYS_MAX):
        life.end()
        life.people()
        for tick in range(TICKS_A_DAY):
            _step(edge, checks, clock, (days + day) * TICKS_A_DAY + tick + 1)
        if not edge.changes and not any(each.residency in ("queued", "going") for each in edge.queue.counts()):
            return day + 1
    return DRAIN_DAYS_MAX


def _events(life: Life, edge: Edge, checks: Checks) -> dict[str, int]:
    """Counts of everything, for people and for the digest."""
    return {
        **life.log,
        **{f"failures, {kind}": count for kind, count in edge.told.failures.items()},
        **{f"conflicts, {policy}": count for policy, count in edge.told.conflicts.items()},
        **{f"reads, {what}": count for what, count in checks.reads.items()},
        **{f"stayed: {why}": count for why, count in edge.freed.stays.items()},
        **{f"not recalled: {why}": count for why, count in edge.freed.refused.items()},
        "delivered": edge.told.delivered,
        "evicted": len(edge.freed.evicted),
        "evicted offline": sum(not each.asked for each in edge.freed.evicted),
        "recalled": edge.freed.recalled,
        "sidecars": 1 + edge.kills,
        "MiB sent": sum(edge.told.sent_by_day.values()) // MIB,
        "MiB not sent again": edge.told.resumed_bytes // MIB,
        "blobs here": len(edge.freer.sender.disk.files),
        "requests": edge.freer.sender.cloud.requests,
    }
