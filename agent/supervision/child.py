"""One child process, worker or sidecar, as the supervisor holds it: the process, its control channel, its events.

The process is spawned by exec with the descriptors it needs and no others, never forked; it leads a process group of
its own, so that a Ctrl-C in the terminal reaches the supervisor alone and draining has one order. Everything that
happens to it becomes an event of policy.py, everything done to it is an action from there.
"""

import contextlib
import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import trio

from agent.supervision import policy
from agent.supervision.policy import Policy, State, describe
from agent.supervision.slotpool import OwnedSlot
from agent.supervision.snapshot import ProcessSnapshot
from dataplane.ipc import control

log = logging.getLogger("blobedge.supervisor")

Role = Literal["worker", "sidecar"]

EXIT_SPAWN_FAILED: Final = 127  # as a shell says it; the process never was


@dataclass(frozen=True, slots=True)
class Launch:
    """What a child is started with: its program (`--control-fd N` is appended), Start document and descriptors; and
    variables of its environment, where ours does not say otherwise."""

    command: tuple[str, ...]
    settings: dict[str, Any]
    fds: tuple[int, ...]
    variables: Mapping[str, str]


class Child:
    """Runs one child until it was asked to stop, or the policy gives up.

    `launch` says how, given the descriptor of its slot, which is the child's alone until `run` returns. `on_report`
    gets what a sidecar reports.
    """

    def __init__(
        self,
        role: Role,
        number: int,
        slot: OwnedSlot,
        launch: Callable[[int], Launch],
        give_up: Callable[["Child", policy.GiveUp], None],
        on_report: Callable[[control.Report], None] | None = None,
    ) -> None:
        self.role = role
        self.number = number
        self.slot = slot
        self.ready = trio.Event()  # it accepts; another event after its process ended
        self.settled = trio.Event()  # ready, or over; another one likewise
        self.over = trio.Event()
        self.pid = 0
        self.memory_bytes: int | None = None  # at the last look (recycle.py); None before it
        self.mounts: tuple[control.Mount, ...] = ()
        self.last_exit = ""
        self._ready_at: float | None = None
        self._give_up = give_up
        self._on_report = on_report
        self._policy = Policy()
        self._launch = launch(slot.fd)
        self._start = control.Start(self._launch.settings)
        # Unbounded: a full channel would have nobody to push back on, and the loop takes all events at each turn.
        self._send_event, self._events = trio.open_memory_channel[policy.Event](math.inf)
        self._process: trio.Process | None = None
        self._channel: control.Channel | None = None

    @property
    def name(self) -> str:
        return f"worker {self.number}" if self.role == "worker" else self.role

    @property
    def state(self) -> State:
        return self._policy.state

    def snapshot(self, draining: bool) -> ProcessSnapshot:
        """Return the present state, for people and probes."""
        now = time.monotonic()
        beat = self.slot.slot.heartbeat_ns
        return ProcessSnapshot(
            role=self.role,
            number=self.number,
            pid=self.pid,
            state=self.state.value,
            draining=draining,
            starts_count=self._policy.starts_count,
            last_exit=self.last_exit,
            heartbeat_age_seconds=max(0.0, now - beat / 1e9) if beat else None,
            uptime_seconds=now - self._ready_at if self._ready_at is not None else None,
            memory_bytes=self.memory_bytes,
        )

    async def wait_serving(self) -> bool:
        """Return True when it accepts, at once if it does already; False when it is over."""
        while not (self.ready.is_set() or self.over.is_set()):
            await self.settled.wait()
        return self.ready.is_set()

    def tell(self, message: control.Message) -> None:
        """Send a message if there is a child that reads; what it misses, its successor gets with its settings."""
        if self._channel is not None and self.pid:
            with contextlib.suppress(OSError):
                self._channel.send(message)

    def dump_stacks(self) -> None:
        """Have it print its stacks. Not before Ready: until it has a handler the signal would end it."""
        if self._process is not None and self.pid and self._ready_at is not None:
            self._process.send_signal(signal.SIGUSR2)

    def stop(self, seconds: float) -> None:
        """Ask for a drain within `seconds`; a second call replaces the deadline."""
        if self.state in (State.STOPPED, State.FAILED):
            return
        self._send_event.send_nowait(policy.StopAsked(seconds))

    async def run(self) -> None:
        """Keep the worker alive; returns when it was asked to stop and is gone, or when it is given up."""
        try:
            async with trio.open_nursery() as nursery:
                while not self._policy.over:
                    happened = await self._happened()
                    events = [policy.Beat(self.slot.slot.heartbeat_ns / 1e9), *happened]
                    for action in self._policy.step(events, time.monotonic()):
                        await self._act(action, nursery)
                nursery.cancel_scope.cancel()
        finally:
            self.settled.set()
            self.over.set()

    async def _happened(self) -> list[policy.Event]:
        """Wait for an event, or for the policy's deadline; return all that there are."""
        events: list[policy.Event] = []
        with trio.move_on_after(max(0.0, self._policy.deadline - time.monotonic())):
            events.append(await self._events.receive())
        try:
            while True:
                events.append(self._events.receive_nowait())
        except trio.WouldBlock:
            return events

    async def _act(self, action: policy.Action, nursery: trio.Nursery) -> None:
        match action:
            case policy.Spawn():
                await self._spawn(nursery)
            case policy.Signal(number, why):
                log.warning("%s (pid %d): %s; %s", self.name, self.pid, why, number.name)
                if self._process is not None:
                    self._process.send_signal(number)
            case policy.SendStop(seconds):
                self._tell_stop(seconds)
            case policy.GiveUp():
                self._give_up(self, action)

    async def _spawn(self, nursery: trio.Nursery) -> None:
        self.slot.slot.begin(0)
        try:
            process, channel = await self._started()
        except OSError as error:  # no memory, too many processes or descriptors: it may pass
            log.error("%s: cannot start a process: %s", self.name, error.strerror)
            self._send_event.send_nowait(policy.Exited(EXIT_SPAWN_FAILED))
            return
        except control.ControlError as error:  # it will never pass
            self._send_event.send_nowait(policy.BootFailed(f"the configuration is too long to hand over: {error}"))
            self._send_event.send_nowait(policy.Exited(control.EXIT_BOOT_FAILED))
            return
        self._process, self._channel, self.pid = process, channel, process.pid
        log.info("%s: pid %d", self.name, self.pid)
        nursery.start_soon(self._watch, process, channel)

    async def _started(self) -> tuple[trio.Process, control.Channel]:
        """A new process that has its settings, and its channel. Raises OSError, ControlError; then there is none."""
        ours, theirs = control.pair()
        try:
            ours.send(self._start)
            process = await trio.lowlevel.open_process(
                [*self._launch.command, "--control-fd", str(theirs.fileno())],
                pass_fds=[theirs.fileno(), self.slot.fd, *self._launch.fds],
                env={**self._launch.variables, **_environment()},
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),  # stdout is for the ready lines
                process_group=0,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return process, ours

    async def _watch(self, process: trio.Process, channel: control.Channel) -> None:
        """Turn what the process says, and its end, into events; what it said comes before its end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, channel)
            await process.wait()
            nursery.cancel_scope.cancel()
        self._take_messages(channel)
        channel.close()
        status = process.returncode
        assert status is not None
        self.pid, self._ready_at, self.memory_bytes, self.last_exit = 0, None, None, describe(status)
        if self.ready.is_set():
            self.ready, self.settled = trio.Event(), trio.Event()
        if self.state is not State.STOPPING:
            log.warning("%s (pid %d) ended: %s", self.name, process.pid, describe(status))
        await self._send_event.send(policy.Exited(status))

    async def _listen(self, channel: control.Channel) -> None:
        while True:
            await trio.lowlevel.wait_readable(channel.fileno())
            if not self._take_messages(channel):
                return  # end of file; the exit says the rest

    def _take_messages(self, channel: control.Channel) -> bool:
        """Take every message there is; False at end of file."""
        try:
            while (message := channel.receive_nowait()) is not None:
                match message:
                    case control.Ready(_, mounts):
                        self.mounts, self._ready_at = mounts, time.monotonic()
                        self.ready.set()
                        self.settled.set()
                        self._send_event.send_nowait(policy.Ready())
                    case control.Failed(reason):
                        log.warning("%s cannot serve: %s", self.name, reason)
                        self._send_event.send_nowait(policy.BootFailed(reason))
                    case control.Report() if self._on_report is not None:
                        self._on_report(message)
                    case _:
                        log.error("%s says what is not for it to say: %r", self.name, message)
        except BlockingIOError:
            return True
        except control.ControlError as error:
            log.error("%s broke the control protocol: %s", self.name, error)
        return False

    def _tell_stop(self, seconds: float) -> None:
        """Send Stop, or SIGTERM, which means the same, to a worker that does not read its channel."""
        assert self._channel is not None
        assert self._process is not None
        try:
            self._channel.send(control.Stop(seconds))
        except OSError:
            self._process.send_signal(signal.SIGTERM)


def _environment() -> dict[str, str]:
    """Ours, and the place that this very code was loaded from first on the module path.

    So the supervisor and its workers are of one version, wherever it was started: `python -m` alone would look into the
    working directory first, which may hold anything (the command has -P, which stops that).
    """
    inherited = os.environ.get("PYTHONPATH")
    place = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([place, inherited] if inherited else [place])}
