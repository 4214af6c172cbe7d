"""The other side of the journal: segments as they are, whole frames of them, from any place on.

A reader keeps, for each segment, the offset up to which it has everything durable, and goes on there after any end of
its own. It reads while the worker appends: what is not there as a whole is not there yet. When the worker is gone
(`finished`), a frame that was cut off at the end will never be whole: its append did not return, so no change was
published on the strength of it. A segment that is finished and read to its end is removed.

A damaged segment (a disk's fault, or a power cut's) is read up to the damage. The caller marks the node for a look at
everything (unclean.mark), leaves the segment alone while its worker lives, and discards it then. Rejected: going on
behind the damage, which saves entries that the look finds anyway.

One reader at a time; whoever reads makes sure of that.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dataplane.journal.layout import names, parse_segment, remove_left_behind, try_lock
from dataplane.journal.record import FRAME_BYTES_MAX, FRAME_HEAD_BYTES, HEADER_BYTES, Record, check_header, decode

READ_BYTES_MAX: Final = HEADER_BYTES + FRAME_HEAD_BYTES + FRAME_BYTES_MAX  # a frame always fits


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment; nothing of it is kept open."""

    directory: Path
    name: str

    def read(self, offset: int = 0, bytes_max: int = READ_BYTES_MAX) -> tuple[list[Record], int]:
        """The records from `offset` on, and the offset to go on from; the same one when there is nothing new. Reads
        `bytes_max` at most, or what one frame may take. Raises DamagedSegment, ForeignSegment, OSError
        (FileNotFoundError for a segment that was removed)."""
        fd = os.open(self.directory / self.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return _read(fd, offset, max(bytes_max, READ_BYTES_MAX))
        finally:
            os.close(fd)

    def size(self) -> int:
        """Bytes. Raises OSError."""
        return (self.directory / self.name).stat().st_size

    def finished(self) -> bool:
        """Whether nobody writes it any more. One that is being made may look so, for as long as it is empty.
        Raises OSError."""
        fd = os.open(self.directory / self.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return try_lock(fd)
        finally:
            os.close(fd)

    def remove(self, offset: int) -> bool:
        """Remove it if it is finished and has nothing whole behind `offset`, up to which the caller has it durable.
        False: it is still there. Raises what `read` raises."""
        return remove_left_behind(self.directory / self.name, lambda fd: not _read(fd, offset, READ_BYTES_MAX)[0])

    def discard(self) -> bool:
        """Remove it if it is finished, whatever is in it: a damaged or a foreign one. False: it is still there.
        Raises OSError."""
        return remove_left_behind(self.directory / self.name, lambda fd: True)


def segments(directory: Path) -> list[Segment]:
    """All segments, each worker's in the order in which it wrote them. Raises OSError."""
    found = [(parsed, name) for name in names(directory) if (parsed := parse_segment(name)) is not None]
    return [Segment(directory, name) for _, name in sorted(found)]


def _read(fd: int, offset: int, bytes_max: int) -> tuple[list[Record], int]:
    if offset == 0:
        head = os.pread(fd, HEADER_BYTES, 0)
        if len(head) < HEADER_BYTES:
            return [], 0
        check_header(head)
        offset = HEADER_BYTES
    records, used = decode(os.pread(fd, bytes_max, offset), offset)
    return records, offset + used
