"""How long a piece of work has run on threads so far, as told to whoever waits for it.

The thread that does the work calls `begin` and `end`, once or several times, never two threads at once; anyone may ask
`busy_ns` at any moment, also while it runs: a caller that gives up on a mount that hangs learns that its time went
there. A question between the two stores of `end` may count the last stretch twice, so callers bound the answer by the
time that they have waited. Rejected: a lock, which the waiting event loop could be held up by.
"""

import time


class WorkTime:
    """A stopwatch of one piece of work; times are nanoseconds of time.perf_counter_ns."""

    __slots__ = ("_done_ns", "_since_ns")

    def __init__(self) -> None:
        self._done_ns = 0
        self._since_ns = 0  # 0 while it does not run

    def begin(self) -> None:
        """The work runs from now on."""
        self._since_ns = time.perf_counter_ns()

    def end(self) -> None:
        """The work stands still, or is over."""
        self._done_ns += time.perf_counter_ns() - self._since_ns
        self._since_ns = 0

    def busy_ns(self, now_ns: int) -> int:
        """Nanoseconds of work until `now_ns`."""
        since_ns = self._since_ns
        return self._done_ns + (now_ns - since_ns if since_ns else 0)
