"""When is a worker started again, aborted, killed, or given up? Decided here, without a process or a clock in sight.

`Policy.step(events, now)` takes what happened to one worker and returns what to do about it; `Policy.deadline` says
when to ask again though nothing happens. The states and what each event does in them:

    state      event              next       action
    IDLE       due                STARTING   Spawn
    STARTING   Ready              RUNNING
    STARTING   BootFailed         FAILED     GiveUp: trying again cannot help (so does its exit code alone), unless
                                             one served with these settings before: then its exit is a crash
    STARTING   Exited             IDLE       later Spawn; GiveUp after CRASHES_COUNT_MAX if it was never Ready
    STARTING   no Ready in time   ABORTING   Signal(SIGABRT): faulthandler prints where it hangs
    RUNNING    Exited             IDLE       Spawn at once, or after a pause if it lived too short
    RUNNING    no heartbeat       ABORTING   Signal(SIGABRT)
    ABORTING   Exited             IDLE       as from RUNNING or STARTING
    ABORTING   still there        ABORTING   Signal(SIGKILL), again every second
    any        StopAsked          STOPPING   SendStop, or nothing to stop: STOPPED
    STOPPING   Exited             STOPPED
    STOPPING   deadline passed    STOPPING   Signal(SIGKILL), again every second
    FAILED     still there        FAILED     Signal(SIGKILL), again every second: it said BootFailed and did not end

A pause doubles from PAUSE_SECONDS to PAUSE_SECONDS_MAX with each short life in a row. The first short life is free: a
worker that was killed from outside is back within its own start-up time.

A supervisor that was itself stopped for a while (SIGSTOP, a suspended virtual machine) sees old heartbeats of workers
that are well: a step that comes much later than it asked for does not count the gap as silence.

A worker that served once is tried again for ever: what hinders it now (a mount that is away) may pass.
"""

import math
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from dataplane.ipc.control import EXIT_BOOT_FAILED

START_SECONDS_MAX: Final = 60.0  # from spawn to Ready: a big mount may need long to probe
HEARTBEAT_SECONDS_MAX: Final = 10.0  # a worker beats twice a second from its event loop
ABORT_SECONDS: Final = 5.0  # for faulthandler to print the stacks
KILL_AGAIN_SECONDS: Final = 1.0  # SIGKILL needs no repetition; a process in uninterruptible I/O needs patience
SHORT_LIFE_SECONDS: Final = 2.0  # a worker that dies sooner after Ready counts as a crash at start
PAUSE_SECONDS: Final = 0.25
PAUSE_SECONDS_MAX: Final = 30.0
CRASHES_COUNT_MAX: Final = 6  # starts in a row of a worker that was never Ready yet: about four seconds
STOP_GRACE_SECONDS: Final = 2.0  # beyond the drain deadline that the worker itself keeps
LATE_SECONDS: Final = 2.0  # a step this much after its deadline: the supervisor slept


class State(Enum):
    """Where one worker is in its life."""

    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    ABORTING = "aborting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker says that it accepts."""


@dataclass(frozen=True, slots=True)
class BootFailed:
    """The worker says that it cannot serve with its settings, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The process is gone: its exit code, or minus the signal's number."""

    status: int


@dataclass(frozen=True, slots=True)
class Beat:
    """The newest heartbeat, on the clock of `now`."""

    at: float


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The supervisor wants to end: drain within `seconds`. A second one replaces the deadline."""

    seconds: float


_NOT_GONE: Final = {
    State.ABORTING: "did not end at SIGABRT",
    State.STOPPING: "did not drain in time",
    State.FAILED: "cannot serve and did not end",
}

Event = Ready | BootFailed | Exited | Beat | StopAsked


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a process."""


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal; `why` is for the log."""

    number: signal.Signals
    why: str


@dataclass(frozen=True, slots=True)
class SendStop:
    """Ask the worker to drain."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Stop the whole service. `operator` tells that the settings are at fault, not the program."""

    reason: str
    operator: bool


Action = Spawn | Signal | SendStop | GiveUp


class Policy:
    """The life of one worker. `step` is the only way to change it."""

    def __init__(self) -> None:
        self.state = State.IDLE
        self.starts_count = 0
        self.deadline = -math.inf  # when to step again without an event; inf for never
        self._alive = False
        self._was_ready = False  # since the last spawn
        self._ever_ready = False
        self._ready_at = 0.0
        self._beat_at = 0.0
        self._short_lives = 0
        self._killing = False

    @property
    def over(self) -> bool:
        """Whether there is no process, and never will be one."""
        return not self._alive and self.state in (State.STOPPED, State.FAILED)

    def step(self, events: Iterable[Event], now: float) -> list[Action]:
        """Take in the events, oldest first, then whatever is due at `now` (seconds on a monotonic clock)."""
        slept = now > self.deadline + LATE_SECONDS
        actions: list[Action] = []
        for event in events:
            actions += self._take(event, now)
        if slept and self.state is State.RUNNING:
            self._beat_at = now
            self.deadline = now + HEARTBEAT_SECONDS_MAX
        while now >= self.deadline:
            actions += self._due(now)
        return actions

    def _take(self, event: Event, now: float) -> list[Action]:
        match event:
            case Beat(at):
                if self.state is State.RUNNING:
                    self._beat_at = max(self._beat_at, min(at, now))  # a beat from the future buys no patience
                    self.deadline = self._beat_at + HEARTBEAT_SECONDS_MAX
            case Ready():
                if self.state is State.STARTING:
                    self._was_ready = self._ever_ready = True
                    self._ready_at = self._beat_at = now
                    self._enter(State.RUNNING, now + HEARTBEAT_SECONDS_MAX)
            case BootFailed(reason):
                if self.state is State.STARTING and not self._ever_ready:
                    self._enter(State.FAILED, now + ABORT_SECONDS)
                    return [GiveUp(reason, operator=True)]
            case StopAsked(seconds):
                return self._stop(seconds, now)
            case Exited(status):
                return self._exited(status, now)
        return []

    def _stop(self, seconds: float, now: float) -> list[Action]:
        if self.state is State.FAILED:  # it ends without being asked
            return []
        if not self._alive:
            self._enter(State.STOPPED, math.inf)
            return []
        self._killing = False
        self._enter(State.STOPPING, now + seconds + STOP_GRACE_SECONDS)
        return [SendStop(seconds)]

    def _exited(self, status: int, now: float) -> list[Action]:
        self._alive = False
        if self.state in (State.STOPPING, State.STOPPED):
            self._enter(State.STOPPED, math.inf)
            return []
        if self.state is State.FAILED:
            self.deadline = math.inf
            return []
        if status == EXIT_BOOT_FAILED and not self._ever_ready:
            self._enter(State.FAILED, math.inf)
            return [GiveUp("a worker cannot serve with these settings and did not say why; see its log", operator=True)]
        short = not self._was_ready or now - self._ready_at < SHORT_LIFE_SECONDS
        self._short_lives = self._short_lives + 1 if short else 0
        if not self._ever_ready and self._short_lives >= CRASHES_COUNT_MAX:
            self._enter(State.FAILED, math.inf)
            reason = f"a worker ended {self._short_lives} times in a row at its start ({describe(status)})"
            return [GiveUp(reason, operator=False)]
        self._enter(State.IDLE, now + pause_seconds(self._short_lives))
        return []

    def _due(self, now: float) -> list[Action]:
        """The deadline of the present state passed."""
        match self.state:
            case State.IDLE:
                self._alive, self._was_ready, self._killing = True, False, False
                self.starts_count += 1
                self._enter(State.STARTING, now + START_SECONDS_MAX)
                return [Spawn()]
            case State.STARTING:
                self._enter(State.ABORTING, now + ABORT_SECONDS)
                return [Signal(signal.SIGABRT, f"not ready after {START_SECONDS_MAX:g} s")]
            case State.RUNNING:
                self._enter(State.ABORTING, now + ABORT_SECONDS)
                return [Signal(signal.SIGABRT, f"no heartbeat for {now - self._beat_at:.0f} s")]
            case State.ABORTING | State.STOPPING | State.FAILED if self._alive:
                why = _NOT_GONE[self.state]
                first, self._killing = not self._killing, True
                self.deadline = now + KILL_AGAIN_SECONDS
                return [Signal(signal.SIGKILL, why if first else "still there")]
            case _:
                self.deadline = math.inf
        return []

    def _enter(self, state: State, deadline: float) -> None:
        self.state = state
        self.deadline = deadline


def pause_seconds(short_lives: int) -> float:
    """The pause before the next start after so many short lives in a row."""
    if short_lives <= 1:
        return 0.0
    return min(PAUSE_SECONDS * 2.0 ** min(short_lives - 2, 16), PAUSE_SECONDS_MAX)


def describe(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
