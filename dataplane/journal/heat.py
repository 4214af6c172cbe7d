"""Which blobs are read, coarsely: a blob counts once in a while, and only so many blobs are remembered; pure.

A blob that is forgotten because others came counts once more when it is read again, so the bound costs entries, not
heat. The oldest goes first. Rejected: counting each read (a hot blob would fill the journal).
"""

from collections import OrderedDict
from typing import Final

INTERVAL_NS: Final = 600 * 10**9
BLOBS_COUNT_MAX: Final = 16_384  # about 4 MiB

Blob = tuple[str, str, str]


class Heat:
    """For one thread. Times are nanoseconds of any clock that goes on steadily."""

    def __init__(self, interval_ns: int = INTERVAL_NS, count_max: int = BLOBS_COUNT_MAX) -> None:
        self._interval_ns: Final = interval_ns
        self._count_max: Final = count_max
        # In the order of the times. A plain dict would look for its first entry among all that have gone [15 us].
        self._noted: OrderedDict[Blob, int] = OrderedDict()

    def counts(self, blob: Blob, now_ns: int) -> bool:
        """Whether a read of this blob now is worth an entry."""
        before = self._noted.get(blob)
        if before is not None:
            if 0 <= now_ns - before < self._interval_ns:
                return False
            del self._noted[blob]
        elif len(self._noted) >= self._count_max:
            self._noted.popitem(last=False)
        self._noted[blob] = now_ns
        return True
