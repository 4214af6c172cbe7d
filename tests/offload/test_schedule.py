"""How fast uploads may be in the week, also on days on which clocks change."""

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.offload.amounts import NANOSECONDS
from agent.offload.schedule import DAYS, Weekly, Window, days, minute_of_day, zone

BERLIN = ZoneInfo("Europe/Berlin")
WORK = Window(days("mon-fri"), minute_of_day("08:00"), minute_of_day("18:00"), 20)
HOUR = 3600 * NANOSECONDS


def at(text: str, where: tzinfo = UTC) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=where).timestamp()) * NANOSECONDS


def text(moment: int, where: tzinfo = UTC) -> str:
    return datetime.fromtimestamp(moment // NANOSECONDS, where).strftime("%a %H:%M")


def test_a_window_holds_on_its_days_from_its_start_to_its_end() -> None:
    weekly = Weekly([WORK], None, BERLIN)
    assert weekly.mbits(at("2026-11-23T07:59:59", BERLIN)) is None
    assert weekly.mbits(at("2026-11-23T08:00", BERLIN)) == 20
    assert weekly.mbits(at("2026-11-23T17:59", BERLIN)) == 20
    assert weekly.mbits(at("2026-11-23T18:00", BERLIN)) is None
    assert weekly.mbits(at("2026-11-28T12:00", BERLIN)) is None  # a Saturday
    assert weekly.bytes_per_second(at("2026-11-23T08:00", BERLIN)) == 2_500_000


def test_the_first_open_window_counts_and_a_pause_is_zero() -> None:
    pause = Window(days("fri"), minute_of_day("12:00"), minute_of_day("13:00"), 0)
    weekly = Weekly([pause, WORK], 100, UTC)
    noon = at("2026-11-27T12:30")
    assert weekly.mbits(noon) == weekly.bytes_per_second(noon) == 0
    assert weekly.mbits(noon + HOUR) == 20
    assert text(weekly.next_change(noon) or 0) == "Fri 13:00"
    assert text(weekly.next_change(noon + HOUR) or 0) == "Fri 18:00"
    assert text(weekly.next_change(noon + 8 * HOUR) or 0) == "Mon 08:00"


def test_a_window_over_midnight_belongs_to_the_day_of_its_start() -> None:
    night = Weekly([Window(days("fri"), minute_of_day("22:00"), minute_of_day("06:00"), 5)], None, UTC)
    assert night.mbits(at("2026-11-27T05:00")) is None  # Friday morning is Thursday's night
    assert night.mbits(at("2026-11-27T23:00")) == 5
    assert night.mbits(at("2026-11-28T05:59")) == 5
    assert night.mbits(at("2026-11-28T06:00")) is None


def test_clocks_that_go_forward_skip_an_hour() -> None:
    """Berlin, 29 March 2026: 02:00 is 03:00."""
    early = Weekly([Window(days("sun"), minute_of_day("02:30"), minute_of_day("04:00"), 5)], None, BERLIN)
    before = at("2026-03-29T00:59", UTC)  # 01:59
    assert early.mbits(before) is None
    assert early.mbits(at("2026-03-29T01:00", UTC)) == 5  # 03:00
    assert early.next_change(before) == at("2026-03-29T01:00", UTC)
    assert early.next_change(at("2026-03-29T01:00", UTC)) == at("2026-03-29T02:00", UTC)


def test_clocks_that_go_back_have_an_hour_twice() -> None:
    """Berlin, 25 October 2026: 03:00 is 02:00 again."""
    late = Weekly([Window(days("sun"), minute_of_day("02:00"), minute_of_day("02:30"), 5)], None, BERLIN)
    moments = [at("2026-10-25T00:00", UTC)]
    while (change := late.next_change(moments[-1])) is not None and len(moments) < 4:
        moments.append(change)
    assert [text(moment) for moment in moments] == ["Sun 00:00", "Sun 00:30", "Sun 01:00", "Sun 01:30"]
    assert [late.mbits(moment) for moment in moments] == [5, None, 5, None]


def test_a_working_day_is_ten_hours_of_the_wall_clock_in_summer_and_winter() -> None:
    weekly = Weekly([WORK], None, BERLIN)
    assert text(weekly.next_change(at("2026-07-01T00:00")) or 0) == "Wed 06:00"
    assert text(weekly.next_change(at("2026-12-02T00:00")) or 0) == "Wed 07:00"


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.builds(
            Window,
            st.frozensets(st.integers(0, 6), min_size=1),
            st.integers(0, 1439),
            st.integers(0, 1440),
            st.sampled_from([0.0, 5.0, 20.0]),
        ),
        max_size=3,
    ),
    st.integers(at("2026-03-20T00:00"), at("2026-11-10T00:00")),
)
def test_between_a_moment_and_the_next_change_nothing_changes(windows: list[Window], now: int) -> None:
    weekly = Weekly(windows, 80, BERLIN)
    change = weekly.next_change(now)
    end = now + 7 * 24 * HOUR if change is None else change
    step = 7 * 60 * NANOSECONDS
    assert {weekly.mbits(moment) for moment in range(now, end, step)} <= {weekly.mbits(now)}
    assert change is None or weekly.mbits(change) != weekly.mbits(now)


def test_without_windows_the_rate_is_always_the_same() -> None:
    assert Weekly([], 80, UTC).mbits(0) == 80
    assert Weekly([], 80, UTC).next_change(0) is None


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("daily", "mon tue wed thu fri sat sun"),
        ("mon-fri", "mon tue wed thu fri"),
        ("sat,sun", "sat sun"),
        ("fri-mon", "fri sat sun mon"),
        ("mon, wed-thu", "mon wed thu"),
        ("tue", "tue"),
    ],
)
def test_days(said: str, meant: str) -> None:
    assert days(said) == {DAYS.index(day) for day in meant.split()}


@pytest.mark.parametrize("said", ["", "monday", "mon-", "-fri", "mon;fri", "MON"])
def test_days_with_a_mistake(said: str) -> None:
    with pytest.raises(ValueError, match="are no days"):
        days(said)


@pytest.mark.parametrize("said", ["8:00", "08.00", "24:01", "08:60", "0800", "", "-1:00", "²3:00"])
def test_times_with_a_mistake(said: str) -> None:
    with pytest.raises(ValueError, match="not a time of day"):
        minute_of_day(said)


def test_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    assert zone("Europe/Berlin") == BERLIN
    monkeypatch.setenv("TZ", "Europe/Berlin")
    assert zone("local") == BERLIN
    monkeypatch.setenv("TZ", "no such zone")
    assert zone("local").utcoffset(datetime(2026, 1, 1)) is not None
    for wrong in ("Europe/Nowhere", "../etc/passwd", "/etc/localtime", ""):
        with pytest.raises(ValueError, match="not a time zone"):
            zone(wrong)
