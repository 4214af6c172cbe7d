"""Which reads are worth an entry, under a clock of the test's."""

from hypothesis import given
from hypothesis import strategies as st

from dataplane.journal.heat import Blob, Heat

HOT: Blob = ("account", "container", "hot")


def test_a_blob_counts_once_in_a_while() -> None:
    heat = Heat(interval_ns=10)
    assert [heat.counts(HOT, now) for now in (0, 5, 9, 10, 19, 20)] == [True, False, False, True, False, True]


def test_a_clock_that_goes_back_silences_nobody() -> None:
    heat = Heat(interval_ns=10)
    assert heat.counts(HOT, 1000)
    assert heat.counts(HOT, 5)


def test_the_oldest_makes_room() -> None:
    heat = Heat(interval_ns=100, count_max=2)
    blobs: list[Blob] = [("account", "container", name) for name in "abc"]
    assert all(heat.counts(blob, at) for at, blob in enumerate(blobs))
    assert not heat.counts(blobs[1], 3)
    assert heat.counts(blobs[0], 4)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5))), st.integers(1, 10))
def test_no_blob_counts_twice_in_an_interval(steps: list[tuple[int, int]], count_max: int) -> None:
    heat = Heat(interval_ns=10, count_max=count_max)
    now, last = 0, dict[int, int]()
    for blob, passed in steps:
        now += passed
        if heat.counts(("account", "container", str(blob)), now):
            forgotten = count_max < 10
            assert forgotten or now - last.get(blob, -10) >= 10
            last[blob] = now
        else:
            assert now - last[blob] < 10
