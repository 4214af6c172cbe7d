"""Which ranges of a file are there: disjoint, sorted, never touching. Pure.

A file that comes from the cloud has few of them (one for each download that is under way, some more for ranges that
were read once), so lists and bisection do; an interval tree was rejected.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Extents:
    """Ranges of bytes, [start, end)."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total = 0  # bytes in all of them

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._ends, strict=True)))

    def add(self, start: int, end: int) -> None:
        """These bytes are there now, too."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)  # the first one that reaches `start`, or ends after it
        last = bisect_right(self._starts, end)  # behind the last one that begins at `end` or before
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        covered = zip(self._starts[first:last], self._ends[first:last], strict=True)
        self.total += end - start - sum(old_end - old_start for old_start, old_end in covered)
        self._starts[first:last], self._ends[first:last] = [start], [end]

    def end_from(self, offset: int) -> int:
        """Where the bytes that are there from `offset` on end; `offset` itself when there are none."""
        index = bisect_right(self._starts, offset) - 1
        return max(offset, self._ends[index]) if index >= 0 else offset

    def next_start(self, offset: int, end: int) -> int:
        """Where the first range begins that begins after `offset`; `end` when there is none before it."""
        index = bisect_right(self._starts, offset)
        return min(end, self._starts[index]) if index < len(self._starts) else end

    def covers(self, start: int, end: int) -> bool:
        """Whether all of these bytes are there."""
        return self.end_from(start) >= end
