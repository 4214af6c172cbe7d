"""The files of a journal's directory, and the locks that tell a living writer from a dead one.

    wN-START-SEQUENCE.journal   a segment of worker N
    wN-START.running            a worker that may still lose what it wrote: a power cut takes what was not synced
    unclean                     something is missing from the journals: the mount has to be looked at as a whole
    reconciling                 the same, while that look is under way

START is the worker's start in ns since 1970, SEQUENCE counts from 0, both hexadecimal. A file of a worker is locked
(flock(2)) by it for as long as it may write there; the kernel lets go with the process, however that ends. Between its
creation and its lock such a file looks left behind. So whoever removes one holds its lock meanwhile, and a creator that
does not get the lock, or finds its file unlinked, makes another. Rejected: pid files (a pid is used again).
"""

import fcntl
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

UNCLEAN: Final = "unclean"
RECONCILING: Final = "reconciling"
_SEGMENT: Final = re.compile(r"w(\d{1,6})-([0-9a-f]{16})-([0-9a-f]{8})\.journal")
_MARKER: Final = re.compile(r"w(\d{1,6})-([0-9a-f]{16})\.running")
_CREATE_ATTEMPTS_MAX: Final = 16


class SegmentName(NamedTuple):
    """A segment's name. The order of these tuples is that in which the segments are read: by the start of their
    worker, then as it wrote them."""

    start_ns: int
    worker: int
    sequence: int

    def __str__(self) -> str:
        return f"w{self.worker}-{self.start_ns:016x}-{self.sequence:08x}.journal"


def parse_segment(name: str) -> SegmentName | None:
    """None for what is no segment."""
    found = _SEGMENT.fullmatch(name)
    return SegmentName(int(found[2], 16), int(found[1]), int(found[3], 16)) if found else None


def parse_marker(name: str) -> tuple[int, int] | None:
    """The worker and its start, None for what is no marker."""
    found = _MARKER.fullmatch(name)
    return (int(found[1]), int(found[2], 16)) if found else None


def names(directory: Path) -> list[str]:
    """What is in a journal's directory; nothing, while nobody made it. Raises OSError."""
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def sync(path: Path) -> None:
    """Wait until the disk has a file or the entries of a directory. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_segments(directory: Path, worker: int, start_ns: int) -> None:
    """The same for all that one worker has written and nobody has read. Raises OSError."""
    for name in names(directory):
        segment = parse_segment(name)
        if segment is not None and (segment.worker, segment.start_ns) == (worker, start_ns):
            with suppress(FileNotFoundError):  # read and removed meanwhile
                sync(directory / name)
    sync(directory)


def create_marker(directory: Path, worker: int, start_ns: int) -> tuple[int, int]:
    """A new locked marker: its descriptor, and the start that its name says. Raises OSError."""
    for start in range(start_ns, start_ns + _CREATE_ATTEMPTS_MAX):
        fd = _create(directory / f"w{worker}-{start:016x}.running")
        if fd is not None:
            return fd, start
    raise FileExistsError("no name for a marker is free")


def create_segment(directory: Path, name: SegmentName) -> tuple[int, SegmentName]:
    """A new locked file, under this name or a later one. Raises OSError."""
    for sequence in range(name.sequence, name.sequence + _CREATE_ATTEMPTS_MAX):
        tried = name._replace(sequence=sequence)
        fd = _create(directory / str(tried))
        if fd is not None:
            return fd, tried
    raise FileExistsError("no name for a segment is free")


def try_lock(fd: int) -> bool:
    """Lock a file if nobody has it locked. The lock goes with the descriptor."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove_left_behind(path: Path, check: Callable[[int], bool]) -> bool:
    """Remove a file whose writer is gone, if `check`, which gets its descriptor, agrees. False: it is still there.
    Raises OSError, and what `check` raises."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    try:
        if not try_lock(fd) or not check(fd):
            return False
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(fd)


def _create(path: Path) -> int | None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return None
    if try_lock(fd) and os.fstat(fd).st_nlink:
        return fd
    os.close(fd)
    return None
