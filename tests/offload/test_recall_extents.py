"""Extents against a set of bytes."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.offload.recall.extents import Extents

SIZE = 40
ranges = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE))


@given(st.lists(ranges, max_size=20), st.integers(0, SIZE), st.integers(0, SIZE))
def test_extents_are_the_bytes_that_were_added(added: list[tuple[int, int]], offset: int, end: int) -> None:
    extents, present = Extents(), set[int]()
    for start, stop in added:
        extents.add(start, stop)
        present.update(range(start, stop))
    assert extents.total == len(present)
    assert {at for start, stop in extents for at in range(start, stop)} == present
    found = list(extents)
    assert all(start < stop for start, stop in found)
    assert all(one[1] < two[0] for one, two in pairwise(found))
    assert extents.end_from(offset) == next(at for at in range(offset, SIZE + 2) if at not in present)
    assert extents.covers(offset, end) == all(at in present for at in range(offset, end))
    starts = [start for start, _ in found if offset < start < end]
    assert extents.next_start(offset, end) == min([*starts, end])
