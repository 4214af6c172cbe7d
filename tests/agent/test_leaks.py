"""The decision to recycle a process that leaks: each row of its table, and properties over random lives."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from agent.supervision.leaks import (
    CALM_SECONDS,
    LOOK_SECONDS,
    LOOKS_COUNT,
    PAUSE_SECONDS,
    PAUSE_SECONDS_MAX,
    Ended,
    LeakPolicy,
    Look,
    Looked,
    Place,
    Recycle,
    pause_seconds,
)

LIMIT = 1000
HOUR = 3600.0
WORKER, OTHER, SIDECAR = Place("worker", 0), Place("worker", 1), Place("sidecar", 0)


@dataclass
class Watched:
    """A policy that is shown the processes at every look."""

    policy: LeakPolicy = field(default_factory=LeakPolicy)
    now: float = 1000.0

    def look(self, *looks: Look, changing: bool = False) -> list[Recycle]:
        self.now += LOOK_SECONDS
        return self.policy.step([Looked(looks, LIMIT, changing)], self.now)

    def until_recycled(self, *looks: Look) -> Recycle:
        """Look until there is an action, for an hour at most, and let it end."""
        for _ in range(int(HOUR / LOOK_SECONDS)):
            for action in self.look(*looks):
                self.policy.step([Ended()], self.now)
                return action
        raise AssertionError("never recycled")


LEAKY = Look(WORKER, 7, LIMIT + 1)


def test_so_many_looks_above_the_limit_and_not_one_less() -> None:
    watched = Watched()
    assert [watched.look(LEAKY) for _ in range(LOOKS_COUNT - 1)] == [[]] * (LOOKS_COUNT - 1)
    over_seconds = (LOOKS_COUNT - 1) * LOOK_SECONDS
    assert watched.look(LEAKY) == [Recycle(WORKER, 7, LIMIT + 1, LIMIT, over_seconds, PAUSE_SECONDS)]


def test_the_limit_itself_is_within_it() -> None:
    watched = Watched()
    assert not any(watched.look(Look(WORKER, 7, LIMIT)) for _ in range(10 * LOOKS_COUNT))


def test_one_look_within_the_limit_or_another_process_begins_anew() -> None:
    for between in (Look(WORKER, 7, LIMIT), Look(WORKER, 8, LIMIT + 1)):
        watched = Watched()
        for _ in range(5):
            assert not any(watched.look(LEAKY) for _ in range(LOOKS_COUNT - 1))
            assert watched.look(between) == []


def test_nothing_begins_while_a_reload_or_a_drain_is_under_way() -> None:
    watched = Watched()
    assert not any(watched.look(LEAKY, changing=True) for _ in range(2 * LOOKS_COUNT))
    assert not any(watched.look(Look(WORKER, 7, LIMIT + 1, alone=False)) for _ in range(2 * LOOKS_COUNT))
    assert len(watched.look(LEAKY)) == 1


def test_the_next_one_waits_for_the_end_of_the_last_and_the_largest_new_one_goes_first() -> None:
    watched = Watched()
    looks = (LEAKY, Look(OTHER, 8, 3 * LIMIT), Look(SIDECAR, 9, 2 * LIMIT))
    for place in (OTHER, SIDECAR, WORKER):
        found = [action for _ in range(2 * LOOKS_COUNT) for action in watched.look(*looks)]
        assert [action.place for action in found] == [place]
        watched.policy.step([Ended()], watched.now)


def test_the_pause_doubles_while_they_come_close_and_is_short_again_after_calm() -> None:
    watched = Watched()
    pauses = [watched.until_recycled(Look(WORKER, pid, LIMIT + 1)).pause_seconds for pid in range(8)]
    assert pauses == [min(PAUSE_SECONDS * 2**n, PAUSE_SECONDS_MAX) for n in range(8)]
    watched.now += CALM_SECONDS
    assert watched.until_recycled(LEAKY).pause_seconds == PAUSE_SECONDS


@given(st.floats(LOOK_SECONDS, 4 * HOUR))
def test_one_that_leaks_for_ever_is_recycled_for_ever_but_not_in_a_storm(fill_seconds: float) -> None:
    """A process passes the limit `fill_seconds` after its start; a day of it."""
    watched, pid, started, times = Watched(), 1, 1000.0, []
    end = watched.now + 24 * HOUR
    while watched.now < end:
        over = watched.now + LOOK_SECONDS - started > fill_seconds
        for _ in watched.look(Look(WORKER, pid, LIMIT + over)):
            watched.policy.step([Ended()], watched.now)
            times.append(watched.now)
            pid, started = pid + 1, watched.now
    least = PAUSE_SECONDS_MAX + fill_seconds + 2 * LOOKS_COUNT * LOOK_SECONDS
    assert len(times) >= int(24 * HOUR / least), "it was left to grow"
    storm = 24 * HOUR / PAUSE_SECONDS_MAX + PAUSE_SECONDS_MAX / PAUSE_SECONDS
    assert fill_seconds > PAUSE_SECONDS_MAX or len(times) <= storm
    assert times[-1] >= end - least, "it was given up"


LOOKS = st.lists(
    st.builds(
        Look,
        st.sampled_from([WORKER, OTHER, SIDECAR]),
        st.integers(1, 3),
        st.sampled_from([0, LIMIT, LIMIT + 1, 5 * LIMIT]),
        st.sampled_from([True, True, True, False]),
    ),
    max_size=3,
    unique_by=lambda look: look.place,
)
HISTORY = st.lists(
    st.tuples(st.sampled_from([LOOK_SECONDS, LOOK_SECONDS, 30.0, CALM_SECONDS]), LOOKS, st.booleans(), st.booleans()),
    max_size=80,
)


@given(HISTORY, st.integers(1, LOOKS_COUNT + 1))
def test_whatever_is_seen_one_at_a_time_never_below_the_limit_never_above_the_rate(
    history: list[tuple[float, list[Look], bool, bool]], repeats: int
) -> None:
    """Each part of a history is seen several times, so that counts are often reached."""
    policy, now, recycling = LeakPolicy(), 0.0, False
    seen: dict[tuple[Place, int], int] = {}  # looks in a row above the limit
    allowed: dict[Place, float] = {}
    for wait, looks, changing, ends in (part for part in history for _ in range(repeats)):
        now += wait
        over = {(look.place, look.pid) for look in looks if look.memory_bytes > LIMIT}
        seen = {each: seen.get(each, 0) + 1 for each in over}
        if ends:
            policy.step([Ended()], now)
            recycling = False
        actions = policy.step([Looked(looks, LIMIT, changing)], now)
        assert len(actions) <= 1
        for action in actions:
            assert not recycling, "two at the same time"
            assert not changing, "beside a reload"
            assert seen[action.place, action.pid] >= LOOKS_COUNT, "it was within the limit"
            assert action.memory_bytes > LIMIT
            assert now >= allowed.get(action.place, 0.0), "too often"
            assert PAUSE_SECONDS <= action.pause_seconds <= PAUSE_SECONDS_MAX
            recycling, allowed[action.place] = True, now + action.pause_seconds


@given(st.integers(0, 10_000))
def test_pauses_are_bounded_and_monotonic(close_count: int) -> None:
    assert PAUSE_SECONDS <= pause_seconds(close_count) <= pause_seconds(close_count + 1) <= PAUSE_SECONDS_MAX
