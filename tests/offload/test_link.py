"""The link's states, for any order of results; and the probe against sockets."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import given
from hypothesis import strategies as st

from agent.offload.link import (
    FAILURES_MAX,
    PROBE_SECONDS_FIRST,
    PROBE_SECONDS_MAX,
    SUCCESSES_MIN,
    Link,
    LinkState,
    Result,
    after_probe,
    after_result,
    probe,
)
from tests.doctor.cloudserver import serving

ROUNDING = 1e-6
RESUME_SECONDS_MAX = 5.0  # what the offload promises


def down(now: float = 0.0) -> LinkState:
    state = LinkState()
    while state.link is not Link.OFFLINE:
        state = after_result(state, Result.NO_WAY, now)
    return state


def test_it_goes_down_by_failures_in_a_row_and_up_by_successes_in_a_row() -> None:
    state = after_result(LinkState(), Result.NO_WAY, 1.0)
    assert (state.link, state.work_max(16)) == (Link.DEGRADED, 1)
    for _ in range(SUCCESSES_MIN):
        state = after_result(state, Result.ANSWERED, 2.0)
    assert (state.link, state.work_max(16)) == (Link.ONLINE, 16)
    for _ in range(FAILURES_MAX):
        state = after_result(state, Result.NO_WAY, 3.0)
    assert (state.link, state.work_max(16)) == (Link.OFFLINE, 0)


def test_a_probe_that_gets_through_allows_one_trial() -> None:
    state = after_probe(down(), True, 1.0, 1.1)
    assert (state.link, state.work_max(16)) == (Link.DEGRADED, 1)
    assert after_result(state, Result.NO_WAY, 2.0).link is Link.OFFLINE
    state = after_result(state, Result.ANSWERED, 2.0)
    assert after_result(state, Result.NO_WAY, 3.0).link is Link.DEGRADED


@given(st.lists(st.floats(0.0, 2.0), min_size=1, max_size=50), st.floats(0, 60))
def test_the_next_probe_is_always_soon_and_never_a_storm(took: list[float], at: float) -> None:
    state, started = down(at), []
    now = at
    for seconds in took:
        now = max(now, state.probe_at)
        assert state.probe_due(now)
        started.append(now)
        state = after_probe(state, False, now, now + seconds)
        now += seconds
    assert state.work_max(16) == 0
    pauses = [later - earlier for earlier, later in zip(started, [*started[1:], state.probe_at], strict=True)]
    assert max(pauses) <= PROBE_SECONDS_MAX + ROUNDING < RESUME_SECONDS_MAX
    assert min(pauses) >= PROBE_SECONDS_FIRST - ROUNDING


@given(st.lists(st.tuples(st.sampled_from(["ok", "no", "probe ok", "probe no"]), st.floats(0.001, 5.0)), max_size=80))
def test_any_order_of_events_ends_online_once_the_way_is_there(events: list[tuple[str, float]]) -> None:
    state, now = LinkState(), 0.0
    for what, seconds in events:
        now += seconds
        if what.startswith("probe"):
            state = after_probe(state, what == "probe ok", now, now)
        else:
            state = after_result(state, Result.ANSWERED if what == "ok" else Result.NO_WAY, now)
        assert (state.work_max(8) == 0) == (state.link is Link.OFFLINE)
    healed = now
    while state.link is not Link.ONLINE:
        if state.link is Link.OFFLINE:
            now = max(now, state.probe_at)
            state = after_probe(state, True, now, now)
        else:
            state = after_result(state, Result.ANSWERED, now)
    assert now - healed <= PROBE_SECONDS_MAX + ROUNDING


def test_an_answer_while_offline_ends_it() -> None:
    assert after_result(down(), Result.ANSWERED, 1.0).link is Link.DEGRADED


@contextmanager
def accepting_only() -> Iterator[int]:
    """Accepts, and closes at once: a proxy without a way behind it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_the_probe_wants_an_answer_and_takes_any() -> None:
    with serving(status=503) as port:
        assert probe(["127.0.0.1"], "localhost", port, None)
        assert probe([], "127.0.0.1", port, None)
    assert not probe(["127.0.0.1"], "localhost", port, None)
    with accepting_only() as port:
        assert not probe(["127.0.0.1"], "localhost", port, None)


def test_a_probe_into_silence_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not probe(["127.0.0.1"], "localhost", listener.getsockname()[1], None, seconds=0.2)
