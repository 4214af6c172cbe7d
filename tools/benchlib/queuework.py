"""The work that `tools/bench queue` measures, in processes that hold nothing but the queue.

Run as `python -m benchlib.queuework fill|ask|evict DIRECTORY ORDER ROWS`; prints its figures as JSON. Nothing is
imported here that the queue does not need, as the memory of the process is a figure.
"""

import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from agent.offload.database import Queue
from agent.offload.queries import Filter
from agent.offload.rows import Adopted, Change, Copy, Failure, Seen
from agent.offload.states import Hold, Residency

BATCH_RECORDS: Final = 10_000
CONTAINERS: Final = 8
POISON_EVERY: Final = 100  # one row in so many fails for good
POISON_ROWS: Final = 1_000  # in one transaction
PAGE_ROWS: Final = 1_000
TAKEN_ROWS: Final = 32
FILE: Final = "queue.db"


def names(order: str, rows: int) -> Iterator[tuple[str, str]]:
    """Containers and names, the same ones at each call."""
    chance = random.Random(4)
    for number in range(rows):
        container = f"line-{number % CONTAINERS}"
        if order == "named":
            yield container, f"2026/11/23/camera-{number % 4}/frame-{number:09d}.jpg"
        else:
            yield container, f"models/{chance.getrandbits(128):032x}/shard-{number % 16:05d}"


def ingest(queue: Queue, order: str, rows: int) -> tuple[float, float, float]:
    """Records a second, records a second of CPU time, seconds of the longest batch."""
    changes = (Change("bench", *blob, number, number, 0, number) for number, blob in enumerate(names(order, rows)))
    began_s, began_cpu_s, longest_s = time.monotonic(), time.process_time(), 0.0
    while batch := list(itertools.islice(changes, BATCH_RECORDS)):
        batch_s = time.monotonic()
        queue.ingest("bench.journal", len(batch), batch)
        longest_s = max(longest_s, time.monotonic() - batch_s)
    return rows / (time.monotonic() - began_s), rows / (time.process_time() - began_cpu_s), longest_s


def poison(queue: Queue, rows: int) -> None:
    """One row in POISON_EVERY fails for good."""
    for _ in range(rows // POISON_EVERY // POISON_ROWS):
        with queue.transaction():
            for row in queue.take(rows, POISON_ROWS, ()):
                queue.failed(row, Failure("poison", "it never goes", Hold.POISON))


def seconds(work: Callable[[], object]) -> float:
    began_s = time.monotonic()
    work()
    return time.monotonic() - began_s


def fill(directory: Path, order: str, rows: int) -> dict[str, float]:
    """Everything new, then everything changed."""
    with Queue(directory / FILE) as queue:
        new_rate, new_cpu_rate, new_batch_s = ingest(queue, order, rows)
        changed_rate, changed_cpu_rate, changed_batch_s = ingest(queue, order, rows)
        poison(queue, rows)
        return {
            "new_rate": new_rate,
            "new_cpu_rate": new_cpu_rate,
            "changed_rate": changed_rate,
            "changed_cpu_rate": changed_cpu_rate,
            "batch_s_max": max(new_batch_s, changed_batch_s),
            "fill_memory_mib": memory_peak_mib(),
        }


def ask(directory: Path, order: str, rows: int) -> dict[str, float]:
    """What the engine and an operator ask of the full queue; each first answer of a process counts."""
    began_s = time.monotonic()
    with Queue(directory / FILE) as queue:
        open_s = time.monotonic() - began_s
        queued, nothing = frozenset({Residency.QUEUED}), Filter(prefix="no such name", holds=frozenset({Hold.NONE}))
        return {
            "open_s": open_s,
            "take_s": seconds(lambda: queue.take(rows, TAKEN_ROWS, ())),
            "page_s": seconds(lambda: queue.rows(Filter(residencies=queued), None, PAGE_ROWS)),
            "empty_page_s": seconds(lambda: queue.rows(nothing, None, PAGE_ROWS)),
            "counts_s": seconds(queue.counts),
            "ask_memory_mib": memory_peak_mib(),
            "file_mib": queue.path.stat().st_size / 2**20,
        }


def evict(directory: Path, order: str, rows: int) -> dict[str, float]:
    """A lost database that is made again, as if the cloud had every blob; and what an eviction asks of it."""
    blobs = enumerate(names(order, rows))
    with Queue(directory / f"adopted-{FILE}") as queue:
        began_s = time.monotonic()
        while page := list(itertools.islice(blobs, PAGE_ROWS)):
            queue.adopt([_adopted(number, *blob) for number, blob in page])
        adopt_rate = rows / (time.monotonic() - began_s)
        return {
            "adopt_rate": adopt_rate,
            "cold_page_s": seconds(lambda: queue.candidates(PAGE_ROWS)),
            "cold_totals_s": seconds(queue.evictable),
        }


def _adopted(number: int, container: str, name: str) -> Adopted:
    etag = f"0x{number:016X}"
    return Adopted(
        "bench", container, name, Residency.COPIED, Seen(etag, 4096, number), Copy(etag, etag, container, name, number)
    )


def memory_peak_mib(process: int | str = "self") -> float:
    """The most memory that a process ever had resident (VmHWM of proc(5), which an exec resets)."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) / 1024


if __name__ == "__main__":
    part = {"fill": fill, "ask": ask, "evict": evict}[sys.argv[1]]
    print(json.dumps(part(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))))
