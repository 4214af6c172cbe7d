"""What the random operations are made of.

Most requests are about a blob that is there, have no condition and the right lease id: where every request is drawn
freely, nearly all are refused, and a blob never gets a history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from hypothesis import strategies as st

from .cluster import WORKERS
from .rules import New

NAMES = ("a", "a/b", "a/", "a//b", "a/b/c", "b")  # most of them want the same path
BOXES = ("one", "two")
LEASE_IDS = tuple(f"{digit * 8}-0000-4000-8000-000000000000" for digit in "abc")
TAG_NAMES, TAG_VALUES = ("color", "size"), ("red", "9")


class Content(bytes):
    """Bytes that fit into a failure's report, and that tell where a range begins."""

    seed: int

    def __new__(cls, seed: int, size: int) -> Content:
        pattern = bytes((seed + index) % 251 for index in range(251))
        made = super().__new__(cls, (pattern * (size // 251 + 1))[:size])
        made.seed = seed
        return made

    def __repr__(self) -> str:
        return f"Content({self.seed}, {len(self)})"


class Choice(NamedTuple):
    """Conditional headers to send. ETags are "current", "stale" or "*"; of the dates only whether they hold is said."""

    if_match: str = ""
    if_none_match: str = ""
    modified: bool | None = None
    unmodified: bool | None = None
    if_tag: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class How:
    """What every request has. With `there` it is about the `index`-th blob that exists, else about `box` and `name`.

    `lease` is "right" (the blob's, if it has one), "none" or "other".
    """

    worker: int
    there: bool
    box: str
    name: str
    index: int
    lease: str
    choice: Choice


_ALONE = [
    *(Choice(if_match=etag) for etag in ("current", "current", "stale", "*")),
    *(Choice(if_none_match=etag) for etag in ("current", "stale", "*", "*")),
    *(Choice(modified=holds) for holds in (True, False)),
    *(Choice(unmodified=holds) for holds in (True, False)),
    *(Choice(if_tag=("color", value)) for value in TAG_VALUES),
]
_TOGETHER = [
    Choice(if_match="current", unmodified=False),
    Choice(if_match="stale", unmodified=True),
    Choice(if_none_match="current", modified=True),
    Choice(if_none_match="stale", modified=False),
    Choice(if_match="current", if_tag=("color", "red")),
    Choice(if_none_match="*", if_tag=("color", "red")),
    Choice(if_match="current", if_none_match="stale"),
    Choice(modified=True, unmodified=True),
]
choices = st.sampled_from([Choice()] * 30 + _ALONE * 2 + _TOGETHER)
workers = st.integers(0, WORKERS - 1)
hows = st.builds(
    How,
    workers,
    st.sampled_from([True] * 4 + [False]),
    st.sampled_from([BOXES[0]] * 3 + [BOXES[1]]),
    st.sampled_from(NAMES),
    st.integers(0, 11),
    st.sampled_from(["right"] * 8 + ["none", "other"]),
    choices,
)
contents = st.builds(Content, st.integers(1, 3), st.sampled_from((0, 1, 7, 20, 20, 5000, 300_000)))
metadata = st.dictionaries(st.sampled_from(("k", "other")), st.sampled_from(("1", "2")), max_size=2)
tags = st.dictionaries(st.sampled_from(TAG_NAMES), st.sampled_from(TAG_VALUES), max_size=2)
tiers = st.sampled_from(("Hot", "Cool", "Cold"))
content_types = st.sampled_from(("", "text/plain", "image/png"))
news = st.builds(New, content_types, metadata, tags, st.just("") | tiers)
block_ids = st.sampled_from(("01", "01", "02", "02", "03", "long"))
block_entries = st.lists(
    st.tuples(st.sampled_from(("Committed", "Uncommitted", "Latest", "Latest")), st.sampled_from(("01", "02", "03"))),
    max_size=3,
)
