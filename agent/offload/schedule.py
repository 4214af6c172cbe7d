"""How fast uploads may be at a moment of the week. Pure: the clock is an argument, the time zone a value.

A moment is turned into wall-clock time and looked up there, never the other way round: so a day on which clocks change
needs no special case. An hour that the wall clock shows twice is in its window twice, one that it skips never comes.
Rejected: turning the windows into moments, as 02:30 may be no moment, or two.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agent.offload.amounts import NANOSECONDS

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_A_DAY: Final = 24 * 60
BYTES_A_MBIT: Final = 125_000
LOCAL: Final = "local"
_LOCALTIME: Final = Path("/etc/localtime")
_LOOK_AHEAD_MINUTES: Final = 8 * MINUTES_A_DAY  # a week, and the hour that a change of clocks may add


class Window(NamedTuple):
    """Part of some days of each week. It ends on the next day when its end is not after its start."""

    days: frozenset[int]  # of its start; 0 is Monday
    start: int  # minute of the day
    end: int  # minute of the day, exclusive
    mbits: float  # Mbit/s; 0: no upload starts

    def holds(self, day: int, minute: int) -> bool:
        """Whether the window is open at a minute of a weekday."""
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        return (day in self.days and minute >= self.start) or ((day - 1) % 7 in self.days and minute < self.end)


class Weekly:
    """A list of windows, of which the first that is open counts, and what holds outside of all."""

    def __init__(self, windows: Sequence[Window], otherwise_mbits: float | None, zone: tzinfo) -> None:
        """`otherwise_mbits`: Mbit/s, None for no limit."""
        self._windows: Final = tuple(windows)
        self._otherwise: Final = otherwise_mbits
        self._zone: Final = zone

    def mbits(self, now: int) -> float | None:
        """Mbit/s at a moment (ns since 1970); 0: none, None: as fast as it goes."""
        local = datetime.fromtimestamp(now // NANOSECONDS, self._zone)
        minute = local.hour * 60 + local.minute
        for window in self._windows:
            if window.holds(local.weekday(), minute):
                return window.mbits
        return self._otherwise

    def bytes_per_second(self, now: int) -> float | None:
        """The same in bytes per second."""
        mbits = self.mbits(now)
        return None if mbits is None else mbits * BYTES_A_MBIT

    def next_change(self, now: int) -> int | None:
        """The first moment after `now` (ns) with another rate, None if there is none in a week. Takes up to 20 ms:
        minute by minute, which is right on every day that clocks change."""
        present = self.mbits(now)
        minute = now // NANOSECONDS // 60
        for ahead in range(1, _LOOK_AHEAD_MINUTES if self._windows else 0):
            moment = (minute + ahead) * 60 * NANOSECONDS
            if self.mbits(moment) != present:
                return moment
        return None


def days(text: str) -> frozenset[int]:
    """Weekdays of `mon-fri`, `sat,sun`, `daily`. A range may go over the weekend. Raises ValueError."""
    found: set[int] = set()
    for part in ("mon-sun" if text == "daily" else text).split(","):
        first, dash, last = part.strip().partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError(f'{text!r} are no days: write "mon-fri", "sat,sun" or "daily"')
        start = DAYS.index(first)
        length = (DAYS.index(last) - start) % 7 if dash else 0
        found |= {(start + step) % 7 for step in range(length + 1)}
    return frozenset(found)


def minute_of_day(text: str) -> int:
    """Minutes since midnight of `HH:MM`; 24:00 is the end of a day. Raises ValueError."""
    hour, colon, minute = text.partition(":")
    digits = len(hour) == len(minute) == 2 and (hour + minute).isascii() and (hour + minute).isdigit()
    value = int(hour) * 60 + int(minute) if digits else -1
    if not colon or not 0 <= value <= MINUTES_A_DAY or int(minute) > 59:
        raise ValueError(f'{text!r} is not a time of day: write "08:00", at most "24:00"')
    return value


def zone(name: str) -> tzinfo:
    """The time zone of a name as in `Europe/Berlin`, or this machine's for `local`. Raises ValueError."""
    if name == LOCAL:
        return _local_zone()
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f'{name!r} is not a time zone of this machine: write "local", "UTC" or "Europe/Berlin"'
        ) from None


def _local_zone() -> tzinfo:
    """As the C library finds it: TZ, then /etc/localtime, then UTC (tzset(3))."""
    named = os.environ.get("TZ", "").removeprefix(":")
    if named:
        with suppress(ZoneInfoNotFoundError, ValueError, OSError):
            return ZoneInfo(named)
    try:
        with _LOCALTIME.open("rb") as file:
            return ZoneInfo.from_file(file, key=LOCAL)
    except (OSError, ValueError):
        return ZoneInfo("UTC")
