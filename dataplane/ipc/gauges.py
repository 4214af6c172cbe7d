"""What a worker shows of its storage in its slot: sizes of group commits, and the threads of each file system.

Part of a slot (slots.py), in words:

    GROUPS_WORD   group commits by the number of writes in them: at most 1, 2, 4, 8, 16, 32, 64, and more. Totals,
                  written as each group ends. Their count and sum are Counter.COMMITS and COMMITTED_WRITES.
    STORAGE_WORD  rows of ROW_WORDS, one for each file system of the worker: its device number (st_dev), then for its
                  metadata and its data threads how many there are, calls that wait, calls that run, and since how many
                  nanoseconds the oldest of these runs; then commits in flight. A device of 0 ends the table. Gauges,
                  brought up to date with every heartbeat, and cleared when a process begins with the slot (Slot.begin).

All work that touches several file systems at once is one row, SEVERAL. A file system that is one too many for the table
is counted there as well, so sums are right.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dataplane.ipc.slots import GROUPS_WORD, SERIES_WORD, STORAGE_WORD, Counter, Slot

#: Upper bounds of the histogram of group sizes, inclusive; a group is at most 64 writes (store/commit.py).
GROUP_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64)
SEVERAL: Final = 2**64 - 1

ROW_WORDS: Final = 16
_USED_WORDS: Final = 10
ROWS_COUNT_MAX: Final = (SERIES_WORD - STORAGE_WORD) // ROW_WORDS

assert GROUPS_WORD + len(GROUP_BOUNDS) + 1 <= STORAGE_WORD


class GroupSizes:
    """The writer's end, for the one thread that owns the slot."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot

    def observe(self, writes: int) -> None:
        """Count a group of so many writes."""
        slot = self._slot
        slot.add(Counter.COMMITS)
        slot.add(Counter.COMMITTED_WRITES, writes)
        slot.words[GROUPS_WORD + min((writes - 1).bit_length(), len(GROUP_BOUNDS))] += 1


@dataclass(frozen=True, slots=True)
class PoolGauges:
    """One kind of threads: how many were made, calls that wait and that run, nanoseconds since the oldest one runs."""

    threads: int = 0
    queued: int = 0
    running: int = 0
    oldest_ns: int = 0

    def plus(self, other: "PoolGauges") -> "PoolGauges":
        """Both together; the older of the oldest."""
        return PoolGauges(
            self.threads + other.threads,
            self.queued + other.queued,
            self.running + other.running,
            max(self.oldest_ns, other.oldest_ns),
        )


@dataclass(frozen=True, slots=True)
class FileSystemGauges:
    """One file system, by its device number (st_dev), or SEVERAL."""

    device: int
    metadata: PoolGauges = PoolGauges()
    data: PoolGauges = PoolGauges()
    commits_in_flight: int = 0

    def plus(self, other: "FileSystemGauges") -> "FileSystemGauges":
        """Both together, under this one's device."""
        return FileSystemGauges(
            self.device,
            self.metadata.plus(other.metadata),
            self.data.plus(other.data),
            self.commits_in_flight + other.commits_in_flight,
        )


def show(slot: Slot, file_systems: Iterable[FileSystemGauges]) -> None:
    """Write the table. A reader that comes in between may see a mixture of this one and the one before."""
    rows: dict[int, FileSystemGauges] = {}
    for each in file_systems:
        full = len(rows) >= ROWS_COUNT_MAX - 1 and each.device not in rows
        key = SEVERAL if full else each.device
        rows[key] = rows.get(key, FileSystemGauges(key)).plus(each)
    words = slot.words
    for number, row in enumerate(rows.values()):
        at = STORAGE_WORD + number * ROW_WORDS
        for offset, value in enumerate(_values(row)):
            words[at + offset] = value


def _values(row: FileSystemGauges) -> tuple[int, ...]:
    kinds = (row.metadata, row.data)
    figures = (value for each in kinds for value in (each.threads, each.queued, each.running, each.oldest_ns))
    return (row.device, *figures, row.commits_in_flight)


def group_sizes(slot: Slot) -> list[int]:
    """How many groups had at most each of GROUP_BOUNDS writes and more than the bound before; last, those with more."""
    return slot.words[GROUPS_WORD : GROUPS_WORD + len(GROUP_BOUNDS) + 1].tolist()


def file_systems(slot: Slot) -> Sequence[FileSystemGauges]:
    """The table as it is now."""
    found = []
    for at in range(STORAGE_WORD, STORAGE_WORD + ROWS_COUNT_MAX * ROW_WORDS, ROW_WORDS):
        device, *rest, in_flight = slot.words[at : at + _USED_WORDS].tolist()
        if not device:
            break
        found.append(FileSystemGauges(device, PoolGauges(*rest[:4]), PoolGauges(*rest[4:]), in_flight))
    return found
