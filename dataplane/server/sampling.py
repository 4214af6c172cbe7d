"""Which requests the access log has when it shall not have all: a fixed share, evenly spread.

Multiples of the golden ratio, modulo 1, fill every interval in proportion to its length, and no period of the traffic
can beat with them: of PUT, GET, PUT, GET at a half, a plain "every second one" would show the GETs alone. Among any n
requests in a row the number chosen differs from n times the share by a few. No call of the system's chance is spent.
"""

from typing import Final

_ONE: Final = 1 << 32
_STEP: Final = 0x9E3779B9  # the golden ratio's fraction of 2**32; odd, so that all 2**32 values come before one repeats


class Sample:
    """Chooses requests; `share` is 0 (none) to 1 (all)."""

    __slots__ = ("_at", "_below")

    def __init__(self, share: float) -> None:
        self._below = round(share * _ONE)
        self._at = 0

    def chosen(self) -> bool:
        """Whether the next request is one."""
        self._at = at = (self._at + _STEP) & (_ONE - 1)
        return at < self._below
