"""The fuse: many deletes of a container at once wait for a person: a mount that is gone looks just like that. Pure.

A delete is propagated SETTLE_SECONDS after it was found, so that those of one mistake are all there when the first is
due. It goes when the deletes that wait, together with those of the last WINDOW_SECONDS, are a smaller share of the
container's copies than the rule allows, or fewer than BLOBS_MIN. What a person confirms is what was found by then,
row by row (CONFIRMED): those deletes go however late that is, and count for nothing. Rejected: a rate of deletes (a
nightly clean-up of a large container is fast, and a slow script may delete everything), a time for which the fuse is
not asked (it passes while nothing may be sent, and lets go what nobody has seen).
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

SETTLE_SECONDS: Final = 10.0
WINDOW_SECONDS: Final = 3_600.0
BLOBS_MIN: Final = 10  # the half of four blobs is no mass delete
FAILURE: Final = "fuse"  # the failure of a row that it holds
CONFIRMED: Final = 0  # the `changed_at` of a GOING row that a person has confirmed; else it is when it was found


@dataclass(slots=True)
class Fuse:
    """The deletes of one container. `now` is seconds of a monotonic clock."""

    _done: deque[float] = field(default_factory=deque)

    def done(self, now: float) -> None:
        """One was propagated."""
        self._done.append(now)

    def blows(self, waiting: int, copies: int, percent_max: float, now: float) -> str:
        """Why a delete has to wait, "" if it may go. `waiting`: deletes that nobody confirmed, `copies`: other blobs
        that the cloud has."""
        while self._done and self._done[0] < now - WINDOW_SECONDS:
            self._done.popleft()
        deletes = waiting + len(self._done)
        share = 100 * deletes / (deletes + copies) if deletes else 0.0
        if deletes < BLOBS_MIN or share <= percent_max:
            return ""
        return (
            f"{deletes} blobs of this container, {share:.0f} % of its copies, were deleted at once: if that is meant, "
            "run `blobedge queue resume --confirm-deletes`; else bring them back, and the copies stay"
        )
