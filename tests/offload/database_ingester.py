"""A process that ingests until it is killed or its disk is gone.

    python -m tests.offload.database_ingester PATH SEED SYNCHRONOUS

It writes a line after each batch: how many records are acknowledged, and since when (monotonic seconds). Record n is
the change number n of blob n % BLOBS, so whoever reads the queue knows from an offset what every row must be.
SYNCHRONOUS is the setting of SQLite: FULL is the product's.
"""

import random
import sys
import time
from pathlib import Path

from agent.offload.database import Queue
from agent.offload.opening import QueueError
from agent.offload.rows import Change

from .database_support import everything

SEGMENT = "w0.journal"
BLOBS = 97
EXIT_DISK_GONE = 3


def record(number: int) -> Change:
    return Change("a", f"c{number % BLOBS % 3}", f"blob {number % BLOBS:03d}", number, number, 0, number)


def check(path: Path, acknowledged: int) -> int:
    """Open what is left, and compare every row with the offset. Returns the offset."""
    with Queue(path) as queue:
        queue.verify()
        offset = queue.offsets().get(SEGMENT, 0)
        assert offset >= acknowledged, f"{acknowledged} were acknowledged, {offset} are there"
        expected = {(change.container, change.name): change.when_ns for change in map(record, range(offset))}
        assert {(row.container, row.name): row.modified_ns for row in everything(queue)} == expected
        return offset


def main() -> None:
    path, seed, synchronous = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    chance = random.Random(seed)
    try:
        with Queue(path) as queue:
            queue._connection.execute(f"PRAGMA synchronous = {synchronous}")
            offset = queue.offsets().get(SEGMENT, 0)
            while True:
                end = offset + chance.randrange(1, 60)
                queue.ingest(SEGMENT, end, map(record, range(offset, end)))
                offset = end
                print(offset, time.monotonic(), flush=True)
    except QueueError:
        sys.exit(EXIT_DISK_GONE)


if __name__ == "__main__":
    main()
