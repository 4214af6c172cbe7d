"""How fast the sidecar takes over a journal that waited for it: what `tools/bench queue` measures from file to row.

Run as `python -m benchlib.tailwork DIRECTORY ORDER ROWS`; prints its figures as JSON. A worker's journal is written to
its end first, so that only the reading is timed: frames, rules, rows, and the removal of what is durable.
"""

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Final

import trio

from agent.config_offload import Offload, Rule
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.rules import Rules
from agent.offload.tail import Tail
from dataplane.journal.reader import segments
from dataplane.journal.record import Kind
from dataplane.journal.writer import Journal

from .queuework import FILE, memory_peak_mib, names

ACCOUNT: Final = "bench"
GROUP_RECORDS: Final = 50  # in one append, as a busy worker's groups of commits
POLL_SECONDS: Final = 0.02


def write(directory: Path, order: str, rows: int, account: str = ACCOUNT, worker: int = 0) -> None:
    """A worker's journal with so many changes, closed. Raises SystemExit when it could not take all."""
    journal = Journal(directory, worker)
    blobs = names(order, rows)
    while group := list(itertools.islice(blobs, GROUP_RECORDS)):
        journal.append([(Kind.DONE, account, *blob) for blob in group])
    journal.close()
    if journal.lost:
        raise SystemExit(f"the journal could not take {journal.lost} entries")


async def drain(directory: Path, queue: AsyncQueue) -> None:
    """Until nothing of the journal is left."""
    rules = Rules(Offload(rules=[Rule(upload="now")]), [ACCOUNT])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Tail(directory, queue, rules, lambda _: None).run)
        while segments(directory):  # noqa: ASYNC110  (the tail tells no such event)
            await trio.sleep(POLL_SECONDS)
        nursery.cancel_scope.cancel()


def main(directory: Path, order: str, rows: int) -> dict[str, float]:
    """Write, then drain."""
    write(directory / "journal", order, rows)
    with Queue(directory / f"drained-{FILE}") as queue:
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        trio.run(drain, directory / "journal", AsyncQueue(queue))
        drained_s, drained_cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
        there = sum(total.blobs for total in queue.counts())
    if there != rows:
        raise SystemExit(f"{there} rows came of {rows} records")
    return {
        "drain_rate": rows / drained_s,
        "drain_cpu_rate": rows / drained_cpu_s,
        "drain_memory_mib": memory_peak_mib(),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
