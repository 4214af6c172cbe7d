"""Whether the journals tell everything, and what has to happen when they do not: the mount is looked at as a whole.

Three things say so. The flag `unclean`, which a writer leaves when it could not write something. A promise that a
worker took back, in memory (promise.py), since a disk that is full or hangs takes no flag. And the marker of a worker
that ran under another boot of the kernel: its last entries were in the page cache when the power went. A worker that
was killed loses nothing: what it wrote belongs to the kernel. So a marker of this boot whose promise stands just goes.

`begin` before the look and `end` after it: what is lost in between leaves a new flag, and is not taken for seen.
"""

import os
from functools import partial
from pathlib import Path
from typing import Final

from dataplane.journal import promise
from dataplane.journal.layout import (
    RECONCILING,
    UNCLEAN,
    create_marker,
    names,
    parse_marker,
    remove_left_behind,
    sync,
    sync_segments,
)

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_MARKER_BYTES_MAX: Final = 256


class Marker:
    """Says that a worker writes journals, under which boot, and with which promise. Raises OSError when it cannot be
    made durable."""

    def __init__(self, directory: Path, worker: int, start_ns: int, promised: str, boot: str = "") -> None:
        self._fd, self.start_ns = create_marker(directory, worker, start_ns)
        self._path: Final = directory / f"w{worker}-{self.start_ns:016x}.running"
        try:
            os.write(self._fd, _content(boot or boot_id(), promised))
            os.fsync(self._fd)
            sync(directory)
        except BaseException:
            self.close()
            raise

    def unlink(self) -> None:
        """The disk has all that the worker wrote. Raises OSError."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Where it is still there, it is judged from now on."""
        os.close(self._fd)


def boot_id() -> str:
    """Which boot of the kernel this is (proc(5)). Raises OSError."""
    return _BOOT_ID.read_text().strip()


def mark(directory: Path) -> None:
    """Leave the flag. It is not synced: a power cut is told by the markers. Raises OSError."""
    os.close(os.open(directory / UNCLEAN, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def judge(directory: Path, boot: str = "") -> None:
    """Turn the markers of workers that are gone into the flag, or remove them. Once at the reader's start, and now and
    then. What such a worker wrote is synced first: the power may still go. Raises OSError."""
    present = boot or boot_id()
    for name in names(directory):
        worker = parse_marker(name)
        if worker is not None:
            remove_left_behind(directory / name, partial(_settle, directory, worker, present))
    for path in promise.broken(directory):  # of workers whose disk did not even take a marker
        remove_left_behind(path, partial(_note, directory))


def _settle(directory: Path, worker: tuple[int, int], boot: str, fd: int) -> bool:
    """Have nothing depend on a marker any more."""
    content = os.pread(fd, _MARKER_BYTES_MAX, 0)
    if not content:
        return True  # it was being made: nothing is written before it is durable
    promised = content.decode("ascii", "replace").rstrip("\n").partition(" ")[2]
    if content == _content(boot, promised) and promise.is_kept(promised):
        sync_segments(directory, *worker)
    else:
        _note(directory)
    promise.forget(promised)
    return True


def _note(directory: Path, _: int = -1) -> bool:
    """Leave the flag, where a power cut does not take it."""
    mark(directory)
    sync(directory)
    return True


def _content(boot: str, promised: str) -> bytes:
    return f"{boot} {promised}\n".encode("ascii", "replace")


def is_due(directory: Path) -> bool:
    """Whether something is missing, or a look that was begun was not ended. Raises OSError."""
    return not {UNCLEAN, RECONCILING}.isdisjoint(names(directory))


def begin(directory: Path) -> None:
    """The look at everything begins. Raises OSError."""
    path = directory / RECONCILING
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    sync(directory)
    (directory / UNCLEAN).unlink(missing_ok=True)


def end(directory: Path) -> None:
    """It was finished, and what it found is durable. Raises OSError."""
    (directory / RECONCILING).unlink(missing_ok=True)
    sync(directory)
