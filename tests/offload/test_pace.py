"""The token bucket, the schedule and the daily budget, with clocks of the test's own."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from agent.offload.pace import BURST_SECONDS, CLOSED_SECONDS_MAX, WAIT_SECONDS_MIN, Pacer, SharedPace
from agent.offload.schedule import Weekly, Window

NS = 1_000_000_000
MONDAY = int(datetime(2026, 11, 23, 12, 0, tzinfo=UTC).timestamp()) * NS
EVERY_DAY = frozenset(range(7))


def flat(mbits: float | None) -> Weekly:
    return Weekly([], mbits, UTC)


@given(st.lists(st.tuples(st.integers(1, 200_000), st.floats(0, 2)), min_size=1, max_size=200), st.floats(0.01, 1000))
def test_no_stretch_of_time_gets_more_than_the_rate(pieces: list[tuple[int, float]], mbits: float) -> None:
    pacer, rate, now = Pacer(flat(mbits)), mbits * 125_000, 0.0
    granted: list[tuple[float, int]] = []
    for count, idle in pieces:
        now += idle
        while (turn := pacer.ask(count, now, MONDAY)).wait_seconds > 0:
            assert not turn.closed
            now += turn.wait_seconds
        granted.append((now, count))
    for first in range(0, len(granted), 7):
        begin = granted[first][0]
        total = 0
        for moment, count in granted[first:]:
            total += count
            allowed = rate * (moment - begin + BURST_SECONDS) + count + max(each for each, _ in pieces)
            assert total <= allowed * (1 + 1e-6) + 1


@given(st.integers(1, 200_000), st.integers(2, 300), st.floats(0.1, 1000))
def test_a_busy_bucket_loses_nothing(count: int, pieces: int, mbits: float) -> None:
    pacer, rate, now = Pacer(flat(mbits)), mbits * 125_000, 0.0
    for _ in range(pieces):
        while (turn := pacer.ask(count, now, MONDAY)).wait_seconds > 0:
            now += turn.wait_seconds
    assert now <= pieces * count / rate * (1 + 1e-6) + WAIT_SECONDS_MIN


def test_no_limit_never_waits() -> None:
    pacer = Pacer(flat(None))
    assert all(pacer.ask(1 << 30, 0.0, MONDAY).wait_seconds == 0 for _ in range(100))


def test_the_schedule_changes_the_rate_and_closes() -> None:
    evening = Window(EVERY_DAY, 18 * 60, 24 * 60, 8.0)
    noon = Window(EVERY_DAY, 12 * 60, 13 * 60, 0.0)
    pacer = Pacer(Weekly([evening, noon], None, UTC))
    turn = pacer.ask(1000, 0.0, MONDAY + 600 * NS)
    assert turn == (50 * 60, "the schedule sends nothing before Mon 13:00")
    assert pacer.ask(1000, 0.0, MONDAY + 3600 * NS).wait_seconds == 0
    at_six = MONDAY + 6 * 3600 * NS
    assert pacer.ask(2_000_000, 1.0, at_six).wait_seconds == 0
    later = pacer.ask(1000, 1.0, at_six)
    assert not later.closed
    assert 1.5 < later.wait_seconds <= 2.0


def test_closed_for_ever_is_asked_again() -> None:
    turn = Pacer(flat(0.0)).ask(1, 0.0, MONDAY)
    assert turn == (CLOSED_SECONDS_MAX, "the schedule never sends anything")


def test_the_budget_closes_until_midnight_and_begins_anew() -> None:
    pacer = Pacer(flat(None), daily_bytes_max=1000, day="2026-11-23", spent=900)
    assert pacer.ask(100, 0.0, MONDAY).wait_seconds == 0
    late = MONDAY + (11 * 3600 + 30 * 60) * NS
    turn = pacer.ask(1, 0.0, late)
    assert turn == (1800, "today's budget of 1000 B is spent")
    assert pacer.ask(1, 0.0, late + 1800 * NS).wait_seconds == 0
    assert (pacer.day, pacer.spent) == ("2026-11-24", 1)


def test_midnight_is_that_of_the_zone() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    before = int(datetime(2026, 10, 25, 1, 30, tzinfo=berlin).timestamp()) * NS  # the clock goes back at 3
    pacer = Pacer(flat(None), daily_bytes_max=1, zone=berlin)
    pacer.ask(1, 0.0, before)
    assert pacer.ask(1, 0.0, before).wait_seconds == CLOSED_SECONDS_MAX
    end = int((datetime(2026, 10, 26, tzinfo=timezone(timedelta(hours=1)))).timestamp()) * NS
    assert pacer.ask(1, 0.0, end - NS).closed
    assert not pacer.ask(1, 0.0, end).closed


def test_a_shared_pace_asks_its_clocks_and_tells_what_was_spent() -> None:
    pace = SharedPace(Pacer(flat(8.0)), lambda: 5.0, lambda: MONDAY)
    assert pace(1_000_000).wait_seconds == 0
    assert pace(1).wait_seconds > 0
    assert pace.spent() == ("2026-11-23", 1_000_000)
