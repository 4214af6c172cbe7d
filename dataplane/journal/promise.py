"""A worker's promise that nothing is missing from its journal, kept where no disk can hold up taking it back.

It is an empty file in /dev/shm, which is memory: it outlives every process of this node, but not the kernel, and after
another boot the markers speak (unclean.py).

    NAME            nothing is missing
    NAME.broken     something is
    neither         nobody knows, which counts as the same

Taking it back is one rename(2), which waits for no disk, not even for one that memory was swapped out to. It is done
before the change whose entry is missing goes on. So a worker that is killed while its journal's disk hangs, alone or
with the whole service, has told. The file is locked by its worker as its segments are (layout.py). Where systemd's
RemoveIPC takes the files away with the service, or a container's memory goes with it, nobody knows afterwards: after
such an end, but not after that of one worker, everything is looked at.

Rejected: a word in the marker (a disk that hangs takes none, and the old one stays); the worker's slot (it goes with
the supervisor, and a service whose disk hangs is killed as a whole); a marker that says the worst from the start (each
kill would have everything looked at).
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from dataplane.journal.layout import try_lock

MEMORY: Final = Path("/dev/shm")
NONE: Final = "-"  # in place of a name: there is no promise, as there is no such memory
_BROKEN: Final = ".broken"
_CREATE_ATTEMPTS_MAX: Final = 16


class Promise:
    """Made whole. Any thread may take it back."""

    def __init__(self, directory: Path, worker: int, start_ns: int) -> None:
        """For the journal in `directory`, which is not touched. Raises OSError when there is no such memory."""
        for start in range(start_ns, start_ns + _CREATE_ATTEMPTS_MAX):
            self.name = f"{_prefix(directory)}w{worker}-{start:016x}"
            with suppress(FileExistsError):
                self._fd = os.open(MEMORY / self.name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                break
        else:
            raise FileExistsError("no name for a promise is free")
        self._whole = True
        try_lock(self._fd)

    def take_back(self) -> None:
        """Something is missing. Once is enough. Never raises: without its file a promise is not kept either."""
        if self._whole:
            with suppress(OSError):
                (MEMORY / self.name).rename(MEMORY / (self.name + _BROKEN))
            self._whole = False

    def close(self, *, told: bool) -> None:
        """The worker writes no more. `told`: what it said is known or does not matter; else it is judged."""
        if told:
            forget(self.name)
        os.close(self._fd)


def is_kept(name: str) -> bool:
    """Whether a promise that a marker names stands."""
    try:
        found = (MEMORY / name).lstat()
    except OSError:
        return False
    return name.startswith(_OWN) and found.st_uid == os.geteuid()  # nobody else keeps it for us


def forget(name: str) -> None:
    """Nobody asks for it any more."""
    if name.startswith(_OWN):
        for suffix in ("", _BROKEN):
            with suppress(OSError):
                (MEMORY / (name + suffix)).unlink()


def broken(directory: Path) -> Iterator[Path]:
    """The promises that workers took back, living ones and others, with a marker or before they had one."""
    with suppress(FileNotFoundError):
        for name in os.listdir(MEMORY):
            if name.startswith(_prefix(directory)) and name.endswith(_BROKEN):
                yield MEMORY / name


_OWN: Final = f"blobedge-{os.geteuid()}-"


def _prefix(directory: Path) -> str:
    """By the path, as a disk that hangs cannot be asked for a number."""
    return f"{_OWN}{sha256(os.path.abspath(directory).encode('utf-8', 'surrogateescape')).hexdigest()[:16]}-"
