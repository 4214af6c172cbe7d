"""How many uploads at one time: more while that brings more, fewer when the service or the way has had enough. Pure.

Each ROUND_SECONDS in which all places were taken, what went through is compared with the best of the widths before: at
least GAIN more, and the next round is wider; else the width goes back to the best one and stays for SETTLED_SECONDS,
after which it is tried again, as links change. A refusal (503, 429) or a time-out halves it, once a round.

What went through is counted in bytes, and BLOB_BYTES for each blob: a request of 4 KiB costs its round trip, not its
bytes. Rejected: the round-trip time as the measure (a queue in a modem grows before anything is refused).
"""

from dataclasses import dataclass
from typing import Final

FIRST: Final = 4
GAIN: Final = 1.05
ROUND_SECONDS: Final = 1.0
SETTLED_SECONDS: Final = 30.0
BLOB_BYTES: Final = 64 * 1024  # what a request costs besides its bytes, on a link of 100 Mbit/s and 5 ms


@dataclass(slots=True)
class Crowd:
    """The width. `now` is seconds of a monotonic clock."""

    most: int
    width: int = 0
    _since: float = -1.0
    _done: int = 0
    _full: bool = True
    _best_rate: float = 0.0
    _best_width: int = 0
    _settled_until: float = 0.0
    _halved_at: float = -ROUND_SECONDS

    def __post_init__(self) -> None:
        self.width = min(FIRST, self.most)

    def sent(self, count: int, now: float) -> None:
        """`count` bytes went out."""
        if self._since < 0:
            self._since = now
        self._done += count

    def finished(self, now: float) -> None:
        """A blob was taken."""
        self.sent(BLOB_BYTES, now)

    def not_full(self) -> None:
        """There was less work than places: what went through says nothing of the width."""
        self._full = False

    def refused(self, now: float) -> None:
        """The service asked for less, or something timed out."""
        if now - self._halved_at < ROUND_SECONDS:
            return
        self.width = max(1, self.width // 2)
        self._halved_at, self._settled_until = now, now + SETTLED_SECONDS
        self._best_rate = 0.0
        self._begin(now)

    def turn(self, now: float) -> None:
        """Call it often: ends the round when it is over."""
        if self._since < 0 or now - self._since < ROUND_SECONDS:
            return
        if self._full and now >= self._settled_until:
            self._judge(self._done / (now - self._since), now)
        self._begin(now)

    def _judge(self, rate: float, now: float) -> None:
        if rate > self._best_rate * GAIN:
            self._best_rate, self._best_width = rate, self.width
            self.width = min(self.most, self.width + max(1, self.width // 2))
            return
        self.width = min(self._best_width or self.width, self.most)
        self._best_rate = 0.0
        self._settled_until = now + SETTLED_SECONDS

    def _begin(self, now: float) -> None:
        self._since, self._done, self._full = now, 0, True
