"""Does each mount answer? Asked in a thread of the mount's own, because a hung NFS server holds its asker for ever.

It guarantees that nobody waits for a mount: a question is begun and left alone, a mount counts as hung since it was
asked, and no second thread is spent on it until the first has come back.

A question is statvfs, and an open and stat of the marker that every tree of ours has. Rejected: stat alone (the kernel
answers it from its cache while the server is gone), a subprocess (it could not be reaped while it hangs).
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from agent.config import Config

MARKER: Final = ".blobedge/format"


@dataclass(frozen=True, slots=True)
class Place:
    """A mount by its place in the configuration."""

    account: str
    container: str  # "" for the account's root
    path: str

    @property
    def name(self) -> str:
        return f"{self.account}/{self.container}" if self.container else self.account


@dataclass(frozen=True, slots=True)
class Facts:
    """What a mount answered."""

    free_bytes: int  # for an unprivileged user
    size_bytes: int
    free_inodes: int
    inodes: int  # 0: the file system does not count them
    marked: bool  # the marker is there


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of a mount. Times are those of the clock that was given to Mounts."""

    place: Place
    facts: Facts | None = None  # of the last answer, None before the first and after an error
    error: str = ""  # of the last answer
    asked_at: float | None = None  # of the question that is not answered yet
    was_marked: bool = False  # in an earlier answer


def places(config: Config) -> tuple[Place, ...]:
    """Return the mounts of a configuration: each account's root, and the containers that are elsewhere."""
    found = []
    for account in config.accounts:
        found.append(Place(account.name, "", account.root))
        found += [Place(account.name, each.name, each.path) for each in account.containers if each.path is not None]
    return tuple(found)


def ask(path: str) -> Facts:
    """Ask a mount; may hang. Raises OSError."""
    space = os.statvfs(path)
    try:
        fd = os.open(f"{path}/{MARKER}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        marked = False
    else:
        try:
            os.fstat(fd)
        finally:
            os.close(fd)
        marked = True
    return Facts(
        space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize, space.f_favail, space.f_files, marked
    )


class _Asked:
    """One mount and the one thread that may be at it. The thread writes `facts` and `error`, then `asked_at`."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.facts: Facts | None = None
        self.error = ""
        self.asked_at: float | None = None
        self.was_marked = False

    def run(self, question: Callable[[str], Facts]) -> None:
        """In the thread. Everything that can go wrong is an answer."""
        try:
            self.facts, self.error = question(self.place.path), ""
            self.was_marked = self.was_marked or self.facts.marked
        except OSError as error:
            self.facts, self.error = None, error.strerror or str(error)
        finally:
            self.asked_at = None

    def reading(self) -> Reading:
        return Reading(self.place, self.facts, self.error, self.asked_at, self.was_marked)


class Mounts:
    """The newest reading of each mount."""

    def __init__(self, question: Callable[[str], Facts] = ask, clock: Callable[[], float] = trio.current_time) -> None:
        self._question = question
        self._clock = clock
        self._asked: dict[Place, _Asked] = {}

    def ask(self, wanted: Iterable[Place], nursery: trio.Nursery) -> None:
        """Ask every mount that owes no answer; returns at once. The threads are waited for in `nursery`."""
        self._asked = {place: self._asked.get(place) or _Asked(place) for place in wanted}
        for asked in self._asked.values():
            if asked.asked_at is None:
                asked.asked_at = self._clock()
                nursery.start_soon(self._ask, asked)

    async def _ask(self, asked: _Asked) -> None:
        alone = trio.CapacityLimiter(1)  # trio's own 40 threads would run out with 40 hung mounts
        await trio.to_thread.run_sync(
            asked.run, self._question, abandon_on_cancel=True, limiter=alone, thread_name="blobedge-mount"
        )

    def readings(self) -> Sequence[Reading]:
        """Return what is known now; never waits."""
        return [asked.reading() for asked in self._asked.values()]
