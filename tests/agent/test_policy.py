"""The restart policy: each row of its table, and properties over random lives."""

import math
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.supervision.policy import (
    ABORT_SECONDS,
    CRASHES_COUNT_MAX,
    HEARTBEAT_SECONDS_MAX,
    KILL_AGAIN_SECONDS,
    LATE_SECONDS,
    PAUSE_SECONDS_MAX,
    SHORT_LIFE_SECONDS,
    START_SECONDS_MAX,
    STOP_GRACE_SECONDS,
    Action,
    Beat,
    BootFailed,
    Event,
    Exited,
    GiveUp,
    Policy,
    Ready,
    SendStop,
    Signal,
    Spawn,
    State,
    StopAsked,
    describe,
    pause_seconds,
)
from dataplane.ipc.control import EXIT_BOOT_FAILED

BEGIN = 1000.0


def running() -> Policy:
    """A policy whose worker got ready at BEGIN."""
    policy = Policy()
    assert policy.step([], BEGIN) == [Spawn()]
    assert policy.step([Ready()], BEGIN) == []
    assert policy.state is State.RUNNING
    return policy


def signals(actions: list[Action]) -> list[signal.Signals]:
    return [action.number for action in actions if isinstance(action, Signal)]


def test_a_crash_after_service_is_answered_at_once() -> None:
    policy = running()
    assert policy.step([Exited(-9)], BEGIN + SHORT_LIFE_SECONDS) == [Spawn()]
    assert policy.state is State.STARTING


def test_killing_it_again_and_again_after_it_served_never_brings_a_pause() -> None:
    policy, now = running(), BEGIN
    for _ in range(50):
        now += SHORT_LIFE_SECONDS
        assert policy.step([Exited(-9)], now) == [Spawn()]
        assert policy.step([Ready()], now) == []


def test_short_lives_are_paused_for_longer_and_longer() -> None:
    policy, now, pauses = running(), BEGIN, []
    for _ in range(12):
        actions = policy.step([Exited(1)], now)
        pauses.append(max(0.0, policy.deadline - now) if not actions else 0.0)
        now = max(now, policy.deadline) if not actions else now
        assert actions == [Spawn()] or policy.step([], now) == [Spawn()]
        policy.step([Ready()], now)
    assert pauses == sorted(pauses)
    assert pauses[0] == 0.0
    assert pauses[-1] == PAUSE_SECONDS_MAX


def test_a_worker_that_never_gets_ready_ends_the_service() -> None:
    policy, now = Policy(), BEGIN
    actions = policy.step([], now)
    for _ in range(CRASHES_COUNT_MAX):
        assert actions[-1:] == [Spawn()]
        actions = policy.step([Exited(1)], now)
        now = max(now, policy.deadline) if policy.deadline < math.inf else now
        actions = actions or policy.step([], now)
    assert isinstance(actions[0], GiveUp)
    assert not actions[0].operator
    assert policy.state is State.FAILED


def test_one_that_served_once_is_tried_for_ever() -> None:
    policy, now = running(), BEGIN
    for _ in range(10 * CRASHES_COUNT_MAX):
        actions = policy.step([Exited(1)], now)
        if not actions:
            now = policy.deadline
            actions = policy.step([], now)
        assert actions == [Spawn()]


@pytest.mark.parametrize("event", [BootFailed("no such directory"), Exited(EXIT_BOOT_FAILED)])
def test_a_boot_failure_is_not_repeated(event: Event) -> None:
    policy = Policy()
    policy.step([], BEGIN)
    (action,) = policy.step([event], BEGIN)
    assert isinstance(action, GiveUp)
    assert action.operator
    assert policy.step([Exited(EXIT_BOOT_FAILED)], BEGIN + 1) == []
    assert policy.deadline == math.inf
    assert policy.over


def test_one_that_cannot_serve_and_does_not_end_is_killed() -> None:
    policy = Policy()
    policy.step([], BEGIN)
    policy.step([BootFailed("no such directory")], BEGIN)
    assert not policy.over
    assert policy.step([StopAsked(100)], BEGIN) == []
    for at in (BEGIN + ABORT_SECONDS, BEGIN + ABORT_SECONDS + KILL_AGAIN_SECONDS):
        assert policy.deadline == at
        assert signals(policy.step([], at)) == [signal.SIGKILL]
    assert policy.step([Exited(-9)], BEGIN + 20) == []
    assert policy.over


def test_a_boot_failure_after_it_served_is_tried_again_with_pauses() -> None:
    """The settings were good: what hinders it now, a mount that is away, may pass."""
    policy, now = running(), BEGIN + SHORT_LIFE_SECONDS
    assert policy.step([Exited(-9)], now) == [Spawn()]
    for _ in range(10 * CRASHES_COUNT_MAX):
        assert policy.step([BootFailed("no such directory")], now) == []
        actions = policy.step([Exited(EXIT_BOOT_FAILED)], now)
        now = max(now, policy.deadline) if not actions else now
        assert actions == [Spawn()] or policy.step([], now) == [Spawn()]
    assert policy.step([Exited(EXIT_BOOT_FAILED)], now) == []
    assert policy.deadline == now + PAUSE_SECONDS_MAX


def test_the_ladder_for_a_worker_that_hangs() -> None:
    policy = running()
    policy.step([Beat(BEGIN + 3)], BEGIN + 3)
    silent = BEGIN + 3 + HEARTBEAT_SECONDS_MAX
    assert policy.deadline == silent
    assert signals(policy.step([], silent)) == [signal.SIGABRT]
    assert signals(policy.step([], silent + ABORT_SECONDS)) == [signal.SIGKILL]
    assert signals(policy.step([], silent + ABORT_SECONDS + KILL_AGAIN_SECONDS)) == [signal.SIGKILL]
    assert policy.step([Exited(-9)], silent + ABORT_SECONDS + KILL_AGAIN_SECONDS) == [Spawn()]


def test_a_worker_that_is_not_ready_in_time_is_aborted() -> None:
    policy = Policy()
    policy.step([], BEGIN)
    assert policy.step([], BEGIN + START_SECONDS_MAX - 1) == []
    assert signals(policy.step([], BEGIN + START_SECONDS_MAX)) == [signal.SIGABRT]


def test_a_supervisor_that_slept_does_not_blame_the_worker() -> None:
    policy = running()
    late = BEGIN + HEARTBEAT_SECONDS_MAX + LATE_SECONDS + 1
    assert policy.step([Beat(BEGIN + 1)], late) == []
    assert signals(policy.step([Beat(BEGIN + 1)], late + HEARTBEAT_SECONDS_MAX)) == [signal.SIGABRT]


def test_a_stop_drains_and_then_kills() -> None:
    policy = running()
    assert policy.step([StopAsked(5)], BEGIN) == [SendStop(5)]
    assert policy.step([], BEGIN + 5 + STOP_GRACE_SECONDS - 0.1) == []
    assert signals(policy.step([], BEGIN + 5 + STOP_GRACE_SECONDS)) == [signal.SIGKILL]
    assert policy.step([Exited(-9)], BEGIN + 20) == []
    assert policy.state is State.STOPPED


def test_a_second_stop_replaces_the_deadline() -> None:
    policy = running()
    policy.step([StopAsked(100)], BEGIN)
    assert policy.step([StopAsked(0)], BEGIN + 1) == [SendStop(0)]
    assert signals(policy.step([], BEGIN + 1 + STOP_GRACE_SECONDS)) == [signal.SIGKILL]


def test_a_stop_between_two_lives_needs_nobody() -> None:
    policy = running()
    policy.step([Exited(1)], BEGIN)
    assert policy.step([Exited(1)], BEGIN) == []  # a pause
    assert policy.step([StopAsked(5)], BEGIN) == []
    assert policy.state is State.STOPPED
    assert policy.step([], BEGIN + 1000) == []


EVENTS = st.one_of(
    st.just(Ready()),
    st.just(BootFailed("x")),
    st.builds(Exited, st.integers(-15, 5)),
    st.builds(StopAsked, st.floats(0, 100)),
    st.builds(Beat, st.floats(0, 5000)),
)


@given(st.lists(st.tuples(st.floats(0, 100), st.lists(EVENTS, max_size=3)), max_size=40))
def test_there_is_never_a_second_process_and_never_a_busy_loop(history: list[tuple[float, list[Event]]]) -> None:
    """Exits are told only of a process that is there, as the runner does; everything else may come at any time."""
    policy, now, alive, stopped = Policy(), BEGIN, False, False
    for wait, told in history:
        now += wait
        events = [event for event in told if alive or not isinstance(event, Exited)]
        exits = sum(isinstance(event, Exited) for event in events)
        events = events if exits <= 1 else [event for event in events if not isinstance(event, Exited)]
        exited = exits == 1
        for event in events:
            stopped = stopped or isinstance(event, StopAsked)
        actions = policy.step(events, now)
        spawns = actions.count(Spawn())
        assert spawns <= 1
        if exited:
            alive = False
        if spawns:
            assert not alive, "a second process"
            assert not (stopped and policy.state is not State.STOPPING), "a start after the stop"
            alive = True
        assert policy.deadline > now, "the runner would spin"
        assert policy.deadline <= now + max(START_SECONDS_MAX, 100 + STOP_GRACE_SECONDS) or policy.deadline == math.inf


@given(st.integers(0, 10_000))
def test_pauses_are_bounded_and_monotonic(lives: int) -> None:
    assert 0 <= pause_seconds(lives) <= pause_seconds(lives + 1) <= PAUSE_SECONDS_MAX


def test_exit_statuses_in_words() -> None:
    assert [describe(0), describe(-9), describe(-99)] == ["exit code 0", "signal SIGKILL", "signal 99"]


WAITS = st.lists(st.floats(0, 30), min_size=1, max_size=60)


def _until_due(policy: Policy, now: float) -> tuple[float, list[Action]]:
    """Step when the policy wants to be asked next."""
    now = max(now, policy.deadline)
    return now, policy.step([], now)


@given(st.integers(1, 5), st.floats(0, START_SECONDS_MAX / 2))
def test_one_that_always_crashes_before_ready_is_given_up_after_so_many_starts(status: int, lives_s: float) -> None:
    status = status if status != EXIT_BOOT_FAILED else 1
    policy, now = Policy(), BEGIN
    actions = policy.step([], now)
    while not any(isinstance(action, GiveUp) for action in actions):
        now += lives_s
        actions = policy.step([Exited(status)], now)
        if not actions:
            now, actions = _until_due(policy, now)
    assert policy.starts_count == CRASHES_COUNT_MAX
    assert policy.state is State.FAILED


@given(WAITS)
def test_one_that_never_gets_ready_gets_sigabrt_then_sigkill_and_then_a_successor(waits: list[float]) -> None:
    """However often the policy is asked before anything is due."""
    policy, now, sent = Policy(), BEGIN, []
    policy.step([], now)
    for wait in waits:
        now = min(now + wait, policy.deadline)
        sent += signals(policy.step([Beat(now)], now))
    while signal.SIGKILL not in sent:
        now, actions = _until_due(policy, now)
        sent += signals(actions)
    assert sent[0] is signal.SIGABRT
    assert sent.count(signal.SIGABRT) == 1
    assert now - BEGIN >= START_SECONDS_MAX + ABORT_SECONDS
    assert policy.step([Exited(-9)], now) == [Spawn()]


@given(st.lists(st.floats(0, HEARTBEAT_SECONDS_MAX - 1), max_size=60))
def test_one_that_beats_is_left_alone_and_aborted_once_it_hangs(pauses: list[float]) -> None:
    policy, now = running(), BEGIN
    for pause in pauses:
        now += pause
        assert policy.step([Beat(now)], now) == []
    silent, actions = _until_due(policy, now)
    assert silent == now + HEARTBEAT_SECONDS_MAX
    assert signals(actions) == [signal.SIGABRT]
