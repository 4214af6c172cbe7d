"""The two notations of time on the wire: RFC 1123 dates in headers, ISO 8601 instants in SAS tokens and snapshots.

Times inside blobedge are whole seconds since the epoch (Azure's Last-Modified has no finer resolution), except
snapshot ids, which count 100 ns ticks as Azure's do.
"""

import calendar
import re
import time
from functools import lru_cache

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_RFC1123 = re.compile(r"[A-Z][a-z]{2}, (\d{2}) ([A-Z][a-z]{2}) (\d{4}) (\d{2}):(\d{2}):(\d{2}) GMT\Z")
_ISO = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:T(\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,7}))?)?(Z|[+-]\d{2}:\d{2}))?\Z")


@lru_cache(maxsize=4096)
def http_date(seconds: int) -> str:
    """The RFC 1123 form (RFC 9110 section 5.6.7, IMF-fixdate) of a time in seconds since the epoch."""
    t = time.gmtime(seconds)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02d} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04d} "
        f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} GMT"
    )


def parse_http_date(text: str) -> int | None:
    """Seconds since the epoch of an RFC 1123 date, or None when the text is not one."""
    match = _RFC1123.match(text.strip())
    if match is None or match[2] not in _MONTHS:
        return None
    day, month, year = int(match[1]), _MONTHS.index(match[2]) + 1, int(match[3])
    return _seconds(year, month, day, int(match[4]), int(match[5]), int(match[6]))


def iso_ticks(ticks: int) -> str:
    """An instant of 100 ns ticks since the epoch as Azure writes it: seven decimals and Z."""
    t = time.gmtime(ticks // 10_000_000)
    return (
        f"{t.tm_year:04d}-{t.tm_mon:02d}-{t.tm_mday:02d}T{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}"
        f".{ticks % 10_000_000:07d}Z"
    )


def parse_iso_ticks(text: str) -> int | None:
    """Ticks of 100 ns since the epoch of an ISO 8601 instant (date alone, minutes, seconds or decimals), or None.

    The forms are those of the REST page "Formatting DateTime values"; an offset is accepted as SAS tokens may have one.
    """
    match = _ISO.match(text)
    if match is None:
        return None
    year, month, day = int(match[1]), int(match[2]), int(match[3])
    seconds = _seconds(year, month, day, int(match[4] or 0), int(match[5] or 0), int(match[6] or 0))
    if seconds is None:
        return None
    zone = match[8] or "Z"
    if zone != "Z":
        offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
        seconds += -offset if zone[0] == "+" else offset
    return seconds * 10_000_000 + int((match[7] or "0").ljust(7, "0"))


def _seconds(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int | None:
    if not (1 <= month <= 12 and hour < 24 and minute < 60 and second < 60 and year >= 1601):
        return None
    if not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    return calendar.timegm((year, month, day, hour, minute, second))
