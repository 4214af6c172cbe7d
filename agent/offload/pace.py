"""How fast the offload may send: a token bucket whose rate follows a weekly schedule, and a daily budget. Pure.

Nothing here reads a clock: who asks gives the monotonic time for the bucket and the time of day for schedule and
budget. A piece is granted when the bucket has no debt; its bytes are then taken, which may leave a debt that later
pieces wait for. So a piece may be of any size, and what is sent in t seconds is at most rate * (t + BURST_SECONDS) and
one piece. A budget that is spent, and a rate of zero, close the pace until a moment that is told, so that nobody
keeps a request open over a night. Rejected: a limit per connection, which is wrong as soon as there are two.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, NamedTuple, Protocol

from agent.offload.amounts import size_text

BURST_SECONDS: Final = 0.2  # what an idle bucket saves up: enough for the engine's turn, too little for a modem's queue
WAIT_SECONDS_MIN: Final = 0.001  # shorter waits cost more than they pace; the bucket keeps what they overshoot
CLOSED_SECONDS_MAX: Final = 3600.0  # who is told to wait longer asks again after this
_NANOSECONDS: Final = 1_000_000_000


class Speed(Protocol):
    """What schedule.Weekly says of a moment (ns since 1970)."""

    def bytes_per_second(self, now: int) -> float | None:
        """The rate; 0: nothing, None: no limit."""

    def next_change(self, now: int) -> int | None:
        """The next moment with another rate, None when there is none."""


class Turn(NamedTuple):
    """What is said to who wants to send: wait so long and ask again; 0: send. `closed`: why the schedule or the budget
    sends nothing now, for people, and no reason to keep a request open; "" when it is the rate."""

    wait_seconds: float
    closed: str = ""


_GO: Final = Turn(0.0)


@dataclass(slots=True)
class Pacer:
    """The bucket and the budget. Not for several threads: see SharedPace."""

    speed: Speed
    daily_bytes_max: int | None = None
    zone: tzinfo = UTC  # whose midnight starts a day's budget
    day: str = ""  # YYYY-MM-DD that `spent` is of; the engine keeps both in the queue's budget
    spent: int = 0
    tokens: float = 0.0  # bytes; negative: debt
    filled_at: float | None = None

    def ask(self, count: int, now: float, now_ns: int) -> Turn:
        """Take `count` bytes, or tell how long to wait. `now`: seconds of a monotonic clock; `now_ns`: since 1970."""
        local = datetime.fromtimestamp(now_ns // _NANOSECONDS, self.zone)
        if self.day != (today := local.date().isoformat()):
            self.day, self.spent = today, 0
        rate = self.speed.bytes_per_second(now_ns)
        if rate is not None and rate <= 0:
            return self._by_schedule(now_ns)
        if self.daily_bytes_max is not None and self.spent + count > self.daily_bytes_max:
            return _closed(_seconds_to_midnight(local), f"today's budget of {size_text(self.daily_bytes_max)} is spent")
        if rate is not None:
            self._fill(rate, now)
            if self.tokens <= -1:  # less than a byte is rounding
                return Turn(max(-self.tokens / rate, WAIT_SECONDS_MIN))
            self.tokens -= count
        else:
            self.tokens, self.filled_at = 0.0, now
        self.spent += count
        return _GO

    def _by_schedule(self, now_ns: int) -> Turn:
        change = self.speed.next_change(now_ns)
        if change is None:
            return _closed(CLOSED_SECONDS_MAX, "the schedule never sends anything")
        opens = datetime.fromtimestamp(change // _NANOSECONDS, self.zone).strftime("%a %H:%M")
        return _closed((change - now_ns) / _NANOSECONDS, f"the schedule sends nothing before {opens}")

    def _fill(self, rate: float, now: float) -> None:
        passed = 0.0 if self.filled_at is None else max(now - self.filled_at, 0.0)
        self.tokens = min(self.tokens + passed * rate, BURST_SECONDS * rate)
        self.filled_at = now


class SharedPace:
    """A Pacer for many threads, with real clocks: the `pace` that an Errand asks before each piece."""

    def __init__(
        self,
        pacer: Pacer,
        now: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._pacer = pacer
        self._now = now
        self._now_ns = now_ns
        self._lock = threading.Lock()

    def __call__(self, count: int) -> Turn:
        with self._lock:
            return self._pacer.ask(count, self._now(), self._now_ns())

    def spent(self) -> tuple[str, int]:
        """The day, and how many bytes of its budget are spent: what the queue keeps."""
        with self._lock:
            return self._pacer.day, self._pacer.spent


def _closed(seconds: float, why: str) -> Turn:
    return Turn(min(max(seconds, 1.0), CLOSED_SECONDS_MAX), why)


def _seconds_to_midnight(local: datetime) -> float:
    """By moments, not by the wall clock: a day may have 23 or 25 hours."""
    midnight = (local + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight.timestamp() - local.timestamp()
