"""Amounts as an operator writes and reads them: sizes with a binary unit, spans of time. Pure."""

import re
from typing import Final

NANOSECONDS: Final = 1_000_000_000  # in a second
UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_TIME_MAX: Final = 2**63 - 1  # ns since 1970, in the year 2262: what a column of the queue holds
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]iB|B)\Z")
_SPANS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


def size(text: str) -> int:
    """Bytes of a text such as `64 MiB`. Raises ValueError with a sentence for the operator.

    Decimal units are refused and not guessed: half of the people who write MB mean MiB.
    """
    found = _SIZE.match(text)
    if found is None:
        raise ValueError(f'{text!r} is not a size: write a number and B, KiB, MiB, GiB or TiB, like "64 MiB"')
    return int(float(found.group(1)) * UNITS[found.group(2)])


def time_ns(seconds: int) -> int:
    """A time of a blob in ns since 1970. Whoever can write a file can give it a time of any year: the last that can be
    kept stands for those after it."""
    return kept_ns(seconds * NANOSECONDS)


def kept_ns(time: int) -> int:
    """The same for a time that is in nanoseconds already."""
    return max(-_TIME_MAX, min(time, _TIME_MAX))


def check_size(text: str) -> str:
    """The text, if it is a size. Raises ValueError."""
    size(text)
    return text


def size_text(count: int) -> str:
    """Bytes for a person: `1.5 GiB`."""
    for unit, factor in reversed(UNITS.items()):
        if count >= factor > 1:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def span_text(seconds: float) -> str:
    """A length of time for a person: `3.5 d`."""
    for factor, unit in _SPANS:
        if seconds >= factor:
            return f"{seconds / factor:.1f} {unit}"
    return f"{seconds:.0f} s"
