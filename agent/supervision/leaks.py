"""When is a process that holds too much memory replaced by a new one? Decided here, without a process or a clock.

`LeakPolicy.step(events, now)` takes what was seen of all processes and returns at most one replacement to begin. Each
place, that is a worker's number or the sidecar, is in one of these states:

    state      event                           next       action
    FINE       look above the limit            OVER       count 1
    OVER       look above, same process        OVER       count + 1
    OVER       look within, another process    FINE       forget the count
    OVER       count reached LOOKS_COUNT, no   RECYCLED   Recycle: a successor first, then the old one drains
               change under way, no pause, no
               predecessor that still drains
    RECYCLED   Ended, well or not              FINE       a pause: nothing more at this place until it is over

What this guarantees, and tests/agent/test_leaks.py holds it to: one recycle at a time in the whole service; none of a
process that was not above the limit at each of the last LOOKS_COUNT looks; at each place at most one in PAUSE_SECONDS,
and while they come close together the pause doubles up to PAUSE_SECONDS_MAX. So a limit that is too small costs some
starts in an hour, and a worker that leaks for ever is replaced for ever. One predecessor at a time for each place:
otherwise a long drain would keep more and more of them, which is what the memory is wanted back from.

Rejected: an RLIMIT_AS or a cgroup's limit for each worker (the process is refused memory, or killed, in the middle of
requests), and recycling after a number of requests (it guesses at what can be measured).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

LOOK_SECONDS: Final = 5.0  # between two looks
LOOKS_COUNT: Final = 6  # in a row above the limit: half a minute is no burst of large requests
PAUSE_SECONDS: Final = 60.0
PAUSE_SECONDS_MAX: Final = 900.0
CALM_SECONDS: Final = 2 * PAUSE_SECONDS_MAX  # so long after the last one, a recycle is the first of its kind again


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process is to be: a worker's number, or the sidecar's 0."""

    role: Literal["worker", "sidecar"]
    number: int


@dataclass(frozen=True, slots=True)
class Look:
    """What one running process holds."""

    place: Place
    pid: int
    memory_bytes: int
    alone: bool = True  # its predecessor, if it has one, is gone


@dataclass(frozen=True, slots=True)
class Looked:
    """All processes that are ready. `changing`: a reload is under way, nothing may begin."""

    looks: Sequence[Look]
    limit_bytes: int
    changing: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """The recycle that was asked for is over: the successor serves, or it could not."""


Event = Looked | Ended


@dataclass(frozen=True, slots=True)
class Recycle:
    """Replace this process. The rest is for the log: what it held, for how long, and the pause that follows."""

    place: Place
    pid: int
    memory_bytes: int
    limit_bytes: int
    over_seconds: float
    pause_seconds: float


@dataclass(frozen=True, slots=True)
class _Over:
    """Looks in a row at which one process was above the limit."""

    pid: int
    since: float
    count: int


@dataclass(frozen=True, slots=True)
class _Turn:
    """The last recycle at a place, and how many came close together before it."""

    at: float
    close_count: int


class LeakPolicy:
    """What was seen of the memory of all places. `step` is the only way to change it."""

    def __init__(self) -> None:
        self._over: dict[Place, _Over] = {}
        self._turns: dict[Place, _Turn] = {}
        self._recycling = False

    def step(self, events: Iterable[Event], now: float) -> list[Recycle]:
        """Take in the events, oldest first; `now` is in seconds on a monotonic clock."""
        actions: list[Recycle] = []
        for event in events:
            match event:
                case Ended():
                    self._recycling = False
                case Looked():
                    self._count(event, now)
                    actions += self._choose(event, now)
        return actions

    def _count(self, looked: Looked, now: float) -> None:
        """Count on where the same process is above the limit again, and forget every other."""
        over: dict[Place, _Over] = {}
        for look in looked.looks:
            if look.memory_bytes > looked.limit_bytes:
                known = self._over.get(look.place)
                if known is None or known.pid != look.pid:
                    known = _Over(look.pid, now, 0)
                over[look.place] = _Over(known.pid, known.since, known.count + 1)
        self._over = over

    def _choose(self, looked: Looked, now: float) -> list[Recycle]:
        """Of those that are due, the one whose place waited the longest, then the one that holds the most."""
        if self._recycling or looked.changing:
            return []
        due = [look for look in looked.looks if look.alone and self._is_due(look.place, now)]
        if not due:
            return []
        look = min(due, key=lambda each: (self._last_at(each.place), -each.memory_bytes))
        self._recycling = True
        turn = self._turns[look.place] = _Turn(now, self._close_count(look.place, now))
        over = self._over.pop(look.place)
        pause = pause_seconds(turn.close_count)
        return [Recycle(look.place, look.pid, look.memory_bytes, looked.limit_bytes, now - over.since, pause)]

    def _is_due(self, place: Place, now: float) -> bool:
        over, last = self._over.get(place), self._turns.get(place)
        if over is None or over.count < LOOKS_COUNT:
            return False
        return last is None or now >= last.at + pause_seconds(last.close_count)

    def _last_at(self, place: Place) -> float:
        last = self._turns.get(place)
        return -math.inf if last is None else last.at

    def _close_count(self, place: Place, now: float) -> int:
        last = self._turns.get(place)
        return last.close_count + 1 if last is not None and now - last.at < CALM_SECONDS else 0


def pause_seconds(close_count: int) -> float:
    """The least time from one recycle of a place to the next, after so many that came close together."""
    return min(PAUSE_SECONDS * 2.0 ** min(close_count, 16), PAUSE_SECONDS_MAX)
