"""The engine's pure parts: how many at a time, the fuse, what a failure means for the row and for the others."""

import pytest

from agent.offload.crowd import FIRST, ROUND_SECONDS, SETTLED_SECONDS, Crowd
from agent.offload.failures import Fault, Kind
from agent.offload.fuse import BLOBS_MIN, WINDOW_SECONDS, Fuse
from agent.offload.queries import Total
from agent.offload.report import Speed, forecast
from agent.offload.setbacks import SECOND_NS, answered, setback
from agent.offload.states import Hold, Residency

MIB = 1 << 20


def _round(crowd: Crowd, now: float, rate: float) -> float:
    """One round in which `rate` bytes a second go through. Returns the time after it."""
    crowd.sent(0, now)
    crowd.sent(int(rate * ROUND_SECONDS), now)
    crowd.turn(now + ROUND_SECONDS)
    return now + ROUND_SECONDS


def test_it_grows_while_more_goes_through_and_stays_where_that_ends() -> None:
    crowd, now = Crowd(64), 0.0
    for _ in range(20):
        now = _round(crowd, now, min(crowd.width, 16) * MIB)  # a link that 16 fill
    assert 16 <= crowd.width <= 36
    settled = crowd.width
    _round(crowd, now, 16 * MIB)
    assert crowd.width == settled


def test_it_is_halved_once_a_round_by_refusals_and_tried_again_later() -> None:
    crowd, now = Crowd(64), 0.0
    for _ in range(6):
        now = _round(crowd, now, crowd.width * MIB)
    before = crowd.width
    crowd.refused(now)
    crowd.refused(now + 0.01)
    assert crowd.width == before // 2
    now = _round(crowd, now, 100 * MIB)
    assert crowd.width == before // 2
    _round(crowd, now + SETTLED_SECONDS, 100 * MIB)
    assert crowd.width > before // 2


def test_too_little_work_says_nothing_of_the_width_and_the_most_is_kept() -> None:
    crowd = Crowd(8)
    crowd.sent(MIB, 0.0)
    crowd.not_full()
    crowd.turn(ROUND_SECONDS)
    assert crowd.width == FIRST
    assert Crowd(2).width == 2
    now = 10.0
    for _ in range(10):
        now = _round(crowd, now, crowd.width * MIB)
    assert crowd.width <= 8


def test_the_fuse_stops_a_large_share_and_lets_few_and_slow_ones_go() -> None:
    fuse = Fuse()
    assert not fuse.blows(BLOBS_MIN - 1, 0, 20.0, 0.0)
    assert not fuse.blows(20, 80, 20.0, 0.0)
    assert "--confirm-deletes" in fuse.blows(21, 79, 20.0, 0.0)
    for number in range(15):
        fuse.done(float(number))
    assert fuse.blows(6, 79, 20.0, 20.0)  # with those that went already
    assert not fuse.blows(6, 79, 20.0, WINDOW_SECONDS + 20.0)


@pytest.mark.parametrize(
    ("kind", "code", "hold"),
    [
        (Kind.OPERATOR, "AuthenticationFailed", Hold.OPERATOR),
        (Kind.CONFLICT, "ConditionNotMet", Hold.WAITING),
        (Kind.POISON, "InvalidMetadata", Hold.POISON),
        (Kind.LATER, "ServerBusy", Hold.WAITING),
        (Kind.NOW, "Md5Mismatch", Hold.WAITING),
    ],
)
def test_a_failure_holds_its_row_as_its_class_says(kind: Kind, code: str, hold: Hold) -> None:
    failure = setback(Fault(kind, "why", code), 0, False, SECOND_NS, 0.5).failure
    assert failure is not None
    assert (failure.failure, failure.error, failure.hold) == (kind, "why", hold)
    assert (failure.next_try_at > SECOND_NS) == (hold is Hold.WAITING)


@pytest.mark.parametrize("code", ["ServiceRequestError", "Cancelled", "PaceClosed"])
def test_what_is_not_the_blobs_fault_leaves_no_trace_in_its_row(code: str) -> None:
    kind = Kind.LINK if code == "ServiceRequestError" else Kind.LATER
    assert setback(Fault(kind, "why", code), 3, False, 0, 0.5).failure is None


def test_a_copy_that_is_said_to_be_gone_once_is_asked_for_again_before_its_blob_is_held() -> None:
    gone = Fault(Kind.OPERATOR, "why", "CopyGone")
    holds = [setback(gone, attempts, False, 0, 0.5).failure for attempts in range(4)]
    assert [each and each.hold for each in holds] == [Hold.WAITING, Hold.WAITING, Hold.OPERATOR, Hold.OPERATOR]


def test_while_the_service_has_trouble_no_blob_learns_to_wait_long() -> None:
    busy = Fault(Kind.LATER, "busy", "ServerBusy")
    assert setback(busy, 0, True, 0, 0.5) == (None, True)
    unreadable = Fault(Kind.LATER, "here", "ReadFailed")
    assert setback(unreadable, 0, True, 0, 0.5).failure is not None


def test_only_an_answer_of_the_service_says_that_there_is_a_way() -> None:
    assert answered(Fault(Kind.LATER, "", "ServerBusy"))
    assert answered(Fault(Kind.OPERATOR, "", "AuthenticationFailed"))
    assert not answered(Fault(Kind.LINK, "", "ServiceRequestError"))
    assert not answered(Fault(Kind.LATER, "", "ReadFailed"))


def test_the_speed_follows_what_is_sent() -> None:
    speed = Speed(_at=0.0)
    speed.see(1000, 1.0)
    assert speed.bytes_per_second == 1000
    for second in range(2, 600):
        speed.see(1000 + 50 * (second - 1), float(second))
    assert 49 < speed.bytes_per_second < 55


def _queued(hold: Hold, blobs: int, size: int) -> Total:
    return Total("a", "c", Residency.QUEUED, hold, blobs, size, 1)


@pytest.mark.parametrize(
    ("queued", "moving", "rate", "seconds"),
    [
        ([], True, 0.0, 0.0),
        ([], False, 0.0, 0.0),
        ([_queued(Hold.NONE, 2, 500)], True, 50.0, 10.0),
        ([_queued(Hold.NONE, 2, 500), _queued(Hold.POISON, 1, 900)], True, 50.0, 10.0),
        ([_queued(Hold.NONE, 2, 500)], False, 1e9, None),  # paused, closed or offline
        ([_queued(Hold.NONE, 2, 500)], True, 0.0, None),
        ([_queued(Hold.NONE, 2, 0)], True, 50.0, None),  # not looked at yet
        ([_queued(Hold.OPERATOR, 2, 500), _queued(Hold.POISON, 1, 1)], True, 1e9, None),
    ],
)
def test_a_forecast_is_made_only_of_what_moves(
    queued: list[Total], moving: bool, rate: float, seconds: float | None
) -> None:
    assert forecast(queued, moving, rate) == seconds
