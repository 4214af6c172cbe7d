"""How full a mount is, and what follows from that: a mode with hysteresis, and how many bytes have to go. Pure.

    NORMAL     --use >= high-->  EVICT      --use >= low_space-->  LOW_SPACE
    LOW_SPACE  --use < high-->   EVICT      --use <= low-->        NORMAL

A mode is left at another mark than it was entered at, so a mount whose use hovers at one mark does not change its mode
with every file. While the mode is not NORMAL the use is brought down to the low mark.

Use is what df shows: of the blocks that a service without privileges can have, the share that is taken. Inodes count
for the mode, as a mount without any takes no more files; but a stub is a file too, so evicting frees none: bytes are
only asked for by the use of bytes. What frees inodes is a delete (`delete_after_upload`, `ttl_days`).
"""

import math
import os
from enum import StrEnum
from typing import Final, NamedTuple

_PERCENT: Final = 100.0


class Mode(StrEnum):
    """What a mount's use asks for."""

    NORMAL = "normal"
    EVICT = "evict"  # down to the low mark, coldest first
    LOW_SPACE = "low-space"  # and hurry: uploads at once, recalls not kept, offline too


class Marks(NamedTuple):
    """Percents of use, in this order: low < high < low_space."""

    low: float
    high: float
    low_space: float


class Use(NamedTuple):
    """Of a mount: bytes and inodes that are taken, and those that this service could have in all. A file system that
    does not count inodes has none."""

    used_bytes: int
    all_bytes: int
    used_inodes: int = 0
    all_inodes: int = 0

    @property
    def bytes_percent(self) -> float:
        """0 to 100."""
        return _PERCENT * self.used_bytes / self.all_bytes if self.all_bytes else 0.0

    @property
    def inodes_percent(self) -> float:
        """0 to 100; 0 where they are not counted."""
        return _PERCENT * self.used_inodes / self.all_inodes if self.all_inodes else 0.0

    @property
    def percent(self) -> float:
        """Of what is scarcer."""
        return max(self.bytes_percent, self.inodes_percent)


def use_of(found: os.statvfs_result) -> Use:
    """The use that statvfs(3) tells, without what is reserved for root."""
    used = found.f_blocks - found.f_bfree
    inodes = found.f_files - found.f_ffree
    return Use(
        used * found.f_frsize,
        (used + found.f_bavail) * found.f_frsize,
        inodes if found.f_files else 0,
        inodes + found.f_favail if found.f_files else 0,
    )


def next_mode(mode: Mode, use: Use, marks: Marks) -> Mode:
    """The mode that follows from the one before and a new look at the mount."""
    percent = use.percent
    if percent >= marks.low_space or (mode is Mode.LOW_SPACE and percent >= marks.high):
        return Mode.LOW_SPACE
    if percent >= marks.high or (mode is not Mode.NORMAL and percent > marks.low):
        return Mode.EVICT
    return Mode.NORMAL


def bytes_to_free(mode: Mode, use: Use, marks: Marks) -> int:
    """How many bytes have to go until the low mark is reached; 0 in NORMAL, and when only inodes are scarce."""
    if mode is Mode.NORMAL:
        return 0
    return max(0, math.ceil(use.used_bytes - use.all_bytes * marks.low / _PERCENT))
