"""A process that appends to a journal, and reading all that a journal has."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from dataplane.journal.reader import segments
from dataplane.journal.record import Record

CHECKOUT: Final = Path(__file__).resolve().parents[2]
SEGMENT_BYTES: Final = 4096  # many segments out of few entries
APPENDER: Final = """
import sys
from pathlib import Path
from dataplane.journal.record import Kind
from dataplane.journal.writer import Journal

journal = Journal(Path(sys.argv[1]), int(sys.argv[2]), segment_bytes_max=int(sys.argv[3]))
for number in range(int(sys.argv[4])):
    journal.append([(Kind.DONE, "account", f"worker-{sys.argv[2]}", f"{number:08d}-{part}") for part in "ab"])
    print(number, flush=True)
sys.stdin.read()
journal.close()
"""


def appender(directory: Path, worker: int, count: int) -> "subprocess.Popen[bytes]":
    """A process that appends so many times, prints each number when it is in the journal, and closes the journal at the
    end of its input."""
    command = [sys.executable, "-c", APPENDER, str(directory), str(worker), str(SEGMENT_BYTES), str(count)]
    return subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def read_all(directory: Path) -> list[Record]:
    """All records of all segments, in their order."""
    found: list[Record] = []
    for segment in segments(directory):
        offset = 0
        while True:
            records, after = segment.read(offset)
            if after == offset:
                break
            found += records
            offset = after
    return found


def numbers(records: list[Record], worker: int) -> list[str]:
    """The names that one appender wrote."""
    return [record.name for record in records if record.container == f"worker-{worker}"]


def expected(count: int) -> list[str]:
    """What it wrote with so many appends."""
    return [f"{number:08d}-{part}" for number in range(count) for part in "ab"]


def flipped(path: Path, offset: int) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        os.pwrite(file.fileno(), bytes([byte ^ 4]), offset)
