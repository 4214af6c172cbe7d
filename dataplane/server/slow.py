"""Slow requests, said in the worker's log with where their time went.

A line is a warning when the node itself was slow, and only information when nothing but the wait for the client made
the request long. A mount that hangs makes every request slow: at most LINES_MAX lines go out in WINDOW_SECONDS, and at
the window's end one more says how many were left out. A line names operation, status and request id, by which the
access log has the rest; it shows no path, so nothing that a client chose.

A request is told when it is over or its client gave up; what still hangs in a mount is health's to see.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

LINES_MAX: Final = 10
WINDOW_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)

#: (seconds, function): call the function then
Later = Callable[[float, Callable[[], None]], object]


class Spent(NamedTuple):
    """Where a request's time went, in nanoseconds; the parts are disjoint and within `total_ns`."""

    total_ns: int
    queue_ns: int
    disk_ns: int
    send_ns: int

    @property
    def other_ns(self) -> int:
        """Our own computing, turns of the event loop, and other services (the source of a copy)."""
        return self.total_ns - self.queue_ns - self.disk_ns - self.send_ns

    def milliseconds(self) -> dict[str, float]:
        """By the names that the access log has."""
        return {
            "durationMs": round(self.total_ns / 1e6, 3),
            "queueMs": round(self.queue_ns / 1e6, 3),
            "diskMs": round(self.disk_ns / 1e6, 3),
            "sendMs": round(self.send_ns / 1e6, 3),
            "otherMs": round(self.other_ns / 1e6, 3),
        }

    def __str__(self) -> str:
        parts = {"queue": self.queue_ns, "disk": self.disk_ns, "send": self.send_ns, "other": self.other_ns}
        return f"{self.total_ns / 1e9:.3f} s ({', '.join(f'{name} {ns / 1e9:.3f}' for name, ns in parts.items())})"


def _on_the_loop(seconds: float, function: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(seconds, function)


class SlowLog:
    """Tells slow requests of one worker; `threshold_ns` is the shortest time that is one."""

    def __init__(self, threshold_ns: int, later: Later = _on_the_loop) -> None:
        self.threshold_ns = threshold_ns
        self._later = later
        self._lines = 0  # in the present window; 0 when there is none
        self._left_out = 0

    def tell(self, request_id: str, operation: str, status: int, code: str, spent: Spent) -> None:
        """Write a line about a slow request, or count it when there were too many."""
        if self._lines >= LINES_MAX:
            self._left_out += 1
            return
        if not self._lines:
            self._later(WINDOW_SECONDS, self._window_over)
        self._lines += 1
        level = logging.WARNING if spent.total_ns - spent.send_ns >= self.threshold_ns else logging.INFO
        fields = {"operationName": operation, "statusCode": status, "statusText": code or "Success"}
        _log.log(
            level, "slow request %s: %s %d %s took %s", request_id, operation, status, code or "Success", spent,
            extra={"fields": {"correlationId": request_id, **fields, **spent.milliseconds()}},
        )  # fmt: skip

    def _window_over(self) -> None:
        left_out, self._lines, self._left_out = self._left_out, 0, 0
        if left_out:
            _log.warning(
                "%d more slow requests in the last %.0f s", left_out, WINDOW_SECONDS,
                extra={"fields": {"leftOut": left_out}},
            )  # fmt: skip
