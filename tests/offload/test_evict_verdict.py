"""Whether a blob may leave the node, and why not."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.offload.amounts import NANOSECONDS
from agent.offload.evict.space import Mode
from agent.offload.evict.verdict import Heat, Verdict, Way, verdict
from agent.offload.rules import Leaving

DAY = 86_400 * NANOSECONDS
NOW = 20_000 * DAY
OLD = Heat(modified_ns=NOW - 10 * DAY, read_at=0, copied_at=NOW - 9 * DAY)
AGE = Leaving("age", 3 * DAY)
SPACE = Leaving("space")


def asked(leaving: Leaving, heat: Heat = OLD, mode: Mode = Mode.NORMAL, pinned: bool = False) -> Verdict:
    return verdict(leaving, heat, NOW, mode, pinned=pinned)


@pytest.mark.parametrize(
    ("leaving", "heat", "mode", "way", "why"),
    [
        (Leaving(), OLD, Mode.LOW_SPACE, Way.STAY, "no rule evicts it"),
        (SPACE, OLD, Mode.NORMAL, Way.STAY, "the disk has room"),
        (SPACE, OLD, Mode.EVICT, Way.EVICT, ""),
        (AGE, OLD, Mode.NORMAL, Way.EVICT, ""),
        (AGE, OLD._replace(read_at=NOW - DAY), Mode.NORMAL, Way.STAY, "used lately"),
        (AGE, OLD._replace(modified_ns=NOW - DAY), Mode.NORMAL, Way.STAY, "used lately"),
        (AGE, OLD._replace(read_at=NOW - DAY), Mode.EVICT, Way.EVICT, ""),
        (AGE, OLD._replace(modified_ns=NOW + DAY), Mode.NORMAL, Way.EVICT, ""),
        (AGE._replace(pinned=True), OLD, Mode.LOW_SPACE, Way.STAY, "pinned"),
        (Leaving(delete_after_upload=True), OLD, Mode.NORMAL, Way.DELETE, ""),
        (Leaving(ttl_ns=10 * DAY), OLD, Mode.NORMAL, Way.DELETE, ""),
        (Leaving(ttl_ns=11 * DAY), OLD, Mode.LOW_SPACE, Way.STAY, "no rule evicts it"),
        (SPACE._replace(ttl_ns=10 * DAY), OLD, Mode.LOW_SPACE, Way.DELETE, ""),
        (Leaving(ttl_ns=9 * DAY), OLD._replace(modified_ns=NOW + DAY), Mode.NORMAL, Way.DELETE, ""),
    ],
)
def test_what_the_rules_say(leaving: Leaving, heat: Heat, mode: Mode, way: Way, why: str) -> None:
    assert asked(leaving, heat, mode)[:2] == (way, why)


def test_when_it_would_go() -> None:
    assert asked(AGE, OLD._replace(read_at=NOW - DAY)).at == NOW + 2 * DAY
    assert asked(SPACE).at is None


def test_an_operator_may_ask_for_what_no_rule_evicts_and_not_for_what_is_pinned() -> None:
    assert verdict(Leaving(), OLD, NOW, Mode.NORMAL, pinned=False, asked=True).way is Way.EVICT
    assert verdict(Leaving(), OLD, NOW, Mode.NORMAL, pinned=True, asked=True).way is Way.STAY
    assert verdict(Leaving(pinned=True), OLD, NOW, Mode.NORMAL, pinned=False, asked=True).way is Way.STAY


LEAVINGS = st.builds(
    Leaving,
    st.sampled_from(["never", "age", "space"]),
    st.integers(0, 20 * DAY),
    st.booleans(),
    st.booleans(),
    st.none() | st.integers(1, 20 * DAY),
)
TIMES = st.integers(NOW - 20 * DAY, NOW + DAY)
HEATS = st.builds(Heat, TIMES, TIMES, st.integers(NOW - 20 * DAY, NOW))


@given(LEAVINGS, HEATS, st.booleans())
def test_more_pressure_never_keeps_what_less_would_let_go(leaving: Leaving, heat: Heat, pinned: bool) -> None:
    ways = [asked(leaving, heat, mode, pinned).way for mode in Mode]
    for before, after in pairwise(ways):
        assert before is Way.STAY or before is after
    if pinned or leaving.pinned:
        assert set(ways) == {Way.STAY}


@given(LEAVINGS, HEATS, st.integers(0, 30 * DAY))
def test_what_may_leave_now_may_leave_later(leaving: Leaving, heat: Heat, later: int) -> None:
    if asked(leaving, heat).way is not Way.STAY:
        assert verdict(leaving, heat, NOW + later, Mode.NORMAL, pinned=False).way is not Way.STAY
