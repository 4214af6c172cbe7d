"""One deadline per connection, cheap to move.

Moving it later costs two attribute writes: the timer that is armed fires early, sees the new time and arms itself
again. So a connection that answers 10,000 requests a second has one timer in 240 seconds, not 10,000 a second.
"""

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls `expired` once when the time set last has come. Times are seconds of the loop's clock."""

    __slots__ = ("_at", "_expired", "_loop", "_timer", "_timer_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def set(self, seconds: float) -> None:
        """Expire in `seconds` unless moved or cleared before."""
        at = self._at = self._loop.time() + seconds
        if self._timer is None or self._timer_at > at:
            self._arm(at)

    def clear(self) -> None:
        """Nothing expires until the next `set`."""
        self._at = None

    def close(self) -> None:
        """Let go of the timer, which holds the connection."""
        self._at = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._at is None:
            return
        if self._loop.time() < self._at:
            self._arm(self._at)
            return
        self._at = None
        self._expired()
