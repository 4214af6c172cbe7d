"""One segment while it is written. Whatever goes wrong with it, it is given up and never written to again: a reader may
already have what a short write left, so nothing is cut off or written over."""

import os
from pathlib import Path
from typing import Final

from dataplane.journal.layout import SegmentName, create_segment, parse_segment
from dataplane.journal.record import header

SEGMENT_BYTES_MAX: Final = 8 << 20


class ShortWrite(OSError):
    """The disk took a part, as a nearly full one does."""


class SegmentFile:
    """A new segment, locked until `close`."""

    def __init__(self, directory: Path, name: SegmentName) -> None:
        """Raises OSError."""
        self._fd, self.name = create_segment(directory, name)
        self.size = 0
        try:
            self.write(header())
        except BaseException:
            self.close()
            raise

    def write(self, data: bytes) -> None:
        """One write(2). Raises OSError; the segment is then to be closed."""
        written = os.write(self._fd, data)
        self.size += written
        if written != len(data):
            raise ShortWrite("a short write")

    def close(self) -> None:
        """Let the reader finish it."""
        os.close(self._fd)


def bytes_unread(directory: Path) -> int:
    """What all segments in a directory take: a reader removes what it has read. Raises OSError."""
    total = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            if parse_segment(entry.name) is not None:
                try:
                    total += entry.stat(follow_symlinks=False).st_size
                except FileNotFoundError:
                    continue  # read and removed meanwhile
    return total
