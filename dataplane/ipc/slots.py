"""One shared-memory slot per worker: its heartbeat and its counters, read by the supervisor without asking.

A slot is a memfd that the supervisor creates and the child inherits. It outlives the child, so the totals of a dead
worker are still there to be added up. Rejected: counters over the control channel (a hung worker could not be told
from an idle one, and a report per second per worker costs wake-ups), a file (a full or hung disk would stop the
heartbeat), multiprocessing.shared_memory (its resource tracker is one more process).

Layout, version 3, native byte order, every field an aligned unsigned 64-bit word:

    word 0      magic and layout version (MAGIC)
    word 1      pid of the child that writes
    word 2      heartbeat: CLOCK_MONOTONIC in nanoseconds, 0 before the first; the clock is the same in all processes
    word 3..15  reserved, 0
    word 16..   counters, in the order of Counter
    word 64..   sizes of group commits: gauges.py
    word 80..   threads and commits of each file system: gauges.py
    word 512..  requests by operation, answer and caller: series.py. Pages that no row reached take no memory.

Each word has one writer, the worker's event loop thread, and is stored at once, so a reader sees an old value or the
new one. Two words are not read together atomically: a reader may see a request counted whose bytes are not yet.
"""

import mmap
import os
import struct
from enum import IntEnum, auto, unique
from typing import Final

MAGIC: Final = struct.unpack("=Q", b"bedge\0\0\x03")[0]
SLOT_BYTES: Final = 256 * 1024
WORD_BYTES: Final = 8
GROUPS_WORD: Final = 64  # where gauges.py's totals begin
STORAGE_WORD: Final = 80  # where its gauges begin
SERIES_WORD: Final = 512  # where series.py's part begins

_PID: Final = 1
_HEARTBEAT: Final = 2
_COUNTERS: Final = 16


@unique
class Counter(IntEnum):
    """What a worker counts besides requests (series.py). The order is the layout."""

    CONNECTIONS_ACCEPTED = 0
    CONNECTIONS_OPEN = auto()  # a gauge
    REQUESTS_SHED = auto()  # answered 503 because a pool was full
    COMMITS = auto()  # groups synced together
    COMMITTED_WRITES = auto()  # writes in them
    JOURNAL_LOST = auto()  # entries that the journal could not be given
    RECALLED = auto()  # answers and copies whose bytes came from the cloud


assert _COUNTERS + len(Counter) <= GROUPS_WORD


class SlotError(Exception):
    """A descriptor that is no slot of this layout."""


class Slot:
    """A slot mapped into this process; either end."""

    def __init__(self, fd: int) -> None:
        """Map the slot behind a descriptor, which stays the caller's. Raises SlotError, OSError."""
        if os.fstat(fd).st_size != SLOT_BYTES:
            raise SlotError("not a slot: wrong size")
        self._map = mmap.mmap(fd, SLOT_BYTES)
        self._words = memoryview(self._map).cast("Q")
        if self._words[0] != MAGIC:
            self.close()
            raise SlotError("not a slot of this version")

    def close(self) -> None:
        """Unmap; the memory lives on as long as anybody has its descriptor."""
        self._words.release()
        self._map.close()

    @property
    def words(self) -> memoryview:
        """All words of the slot, for series.py; invalid after `close`."""
        return self._words

    @property
    def pid(self) -> int:
        return self._words[_PID]

    @property
    def heartbeat_ns(self) -> int:
        """CLOCK_MONOTONIC of the last beat in nanoseconds, 0 if there was none since `begin`."""
        return self._words[_HEARTBEAT]

    def begin(self, pid: int) -> None:
        """Make the slot a new child's: no heartbeat yet, gauges at 0. Counters go on, so that totals survive a restart.

        The supervisor calls it with 0 before it spawns, the child with its own pid when it has read Start.
        """
        self._words[_PID] = pid
        self._words[_HEARTBEAT] = 0
        self._words[_COUNTERS + Counter.CONNECTIONS_OPEN] = 0
        for at in range(STORAGE_WORD, SERIES_WORD):
            self._words[at] = 0

    def beat(self, now_ns: int) -> None:
        """Record a heartbeat; `now_ns` is time.monotonic_ns()."""
        self._words[_HEARTBEAT] = now_ns

    def add(self, counter: Counter, amount: int = 1) -> None:
        """Add to a counter, wrapping at 2**64. Only from the writer's one thread. `amount` may be negative (gauges)."""
        index = _COUNTERS + counter
        self._words[index] = (self._words[index] + amount) & 0xFFFF_FFFF_FFFF_FFFF

    def get(self, counter: Counter) -> int:
        return self._words[_COUNTERS + counter]

    def counters(self) -> dict[Counter, int]:
        """Return all counters as they are now."""
        return {counter: self._words[_COUNTERS + counter] for counter in Counter}


def create(name: str) -> int:
    """Return the descriptor of a new, zeroed slot; `name` shows in /proc. The caller closes it. Raises OSError."""
    fd = os.memfd_create(name)
    os.ftruncate(fd, SLOT_BYTES)
    os.pwrite(fd, struct.pack("=Q", MAGIC), 0)
    return fd
