"""One worker as the supervisor holds it: its slot, its process, its control channel, and the loop that asks policy.py.

The process is spawned by exec with the descriptors it needs and no others, never forked; it leads a process group of
its own, so that a Ctrl-C in the terminal reaches the supervisor alone and draining has one order. Everything that
happens to it becomes an event of policy.py, everything done to it is an action from there.
"""

import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import trio

from agent.supervision import policy
from agent.supervision.policy import Policy, State, describe
from dataplane.ipc import control, slots
from dataplane.ipc.settings import Settings, to_json

log = logging.getLogger("blobedge.supervisor")

EXIT_SPAWN_FAILED: Final = 127  # as a shell says it; the process never was


class Worker:
    """Runs worker number `number` until it was asked to stop, or the policy gives up.

    `settings` makes the settings for a slot's descriptor; `command` is the program, which gets `--control-fd N`.
    """

    def __init__(
        self,
        number: int,
        command: Sequence[str],
        settings: Callable[[int], Settings],
        give_up: Callable[[policy.GiveUp], None],
    ) -> None:
        self.number = number
        self.ready = trio.Event()  # the first time that it accepted
        self.pid = 0
        self._command = list(command)
        self._give_up = give_up
        self._policy = Policy()
        self._slot_fd = slots.create(f"blobedge-worker-{number}")
        self._slot = slots.Slot(self._slot_fd)
        self._settings = settings(self._slot_fd)
        self._start = control.Start(to_json(self._settings))
        # Unbounded: a full channel would have nobody to push back on, and the loop takes all events at each turn.
        self._send_event, self._events = trio.open_memory_channel[policy.Event](math.inf)
        self._process: trio.Process | None = None
        self._channel: control.Channel | None = None

    @property
    def state(self) -> State:
        return self._policy.state

    def stop(self, seconds: float) -> None:
        """Ask for a drain within `seconds`; a second call replaces the deadline."""
        if self.state in (State.STOPPED, State.FAILED):
            return
        self._send_event.send_nowait(policy.StopAsked(seconds))

    async def run(self) -> None:
        """Keep the worker alive; returns when it was asked to stop and is gone, or when it is given up."""
        try:
            async with trio.open_nursery() as nursery:
                while self.state not in (State.STOPPED, State.FAILED):
                    happened = await self._happened()
                    events = [policy.Beat(self._slot.heartbeat_ns / 1e9), *happened]
                    for action in self._policy.step(events, time.monotonic()):
                        await self._act(action, nursery)
                nursery.cancel_scope.cancel()
        finally:
            self._close()

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
                log.warning("worker %d (pid %d): %s; %s", self.number, self.pid, why, number.name)
                if self._process is not None:
                    self._process.send_signal(number)
            case policy.SendStop(seconds):
                self._tell_stop(seconds)
            case policy.GiveUp():
                self._give_up(action)

    async def _spawn(self, nursery: trio.Nursery) -> None:
        self._slot.begin(0)
        ours, theirs = control.pair()
        inherited = [theirs.fileno(), self._slot_fd, *(listener.fd for listener in self._settings.listeners)]
        try:
            ours.send(self._start)
            process = await trio.lowlevel.open_process(
                [*self._command, "--control-fd", str(theirs.fileno())],
                pass_fds=inherited,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),  # stdout is for the ready lines
                process_group=0,
            )
        except OSError as error:  # no memory, too many processes: it may pass
            log.error("worker %d: cannot start a process: %s", self.number, error.strerror)
            ours.close()
            self._send_event.send_nowait(policy.Exited(EXIT_SPAWN_FAILED))
            return
        finally:
            theirs.close()
        self._process, self._channel, self.pid = process, ours, process.pid
        log.info("worker %d: pid %d", self.number, self.pid)
        nursery.start_soon(self._watch, process, ours)

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
        if self.state is not State.STOPPING:
            log.warning("worker %d (pid %d) ended: %s", self.number, process.pid, describe(status))
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
                    case control.Ready():
                        self.ready.set()
                        self._send_event.send_nowait(policy.Ready())
                    case control.Failed(reason):
                        self._send_event.send_nowait(policy.BootFailed(reason))
                    case _:
                        log.error("worker %d says what only a supervisor may: %r", self.number, message)
        except BlockingIOError:
            return True
        except control.ControlError as error:
            log.error("worker %d broke the control protocol: %s", self.number, error)
        return False

    def _tell_stop(self, seconds: float) -> None:
        """Send Stop, or SIGTERM, which means the same, to a worker that does not read its channel."""
        assert self._channel is not None
        assert self._process is not None
        try:
            self._channel.send(control.Stop(seconds))
        except OSError:
            self._process.send_signal(signal.SIGTERM)

    def _close(self) -> None:
        self._slot.close()
        os.close(self._slot_fd)


def _environment() -> dict[str, str]:
    """Ours, and the place that this very code was loaded from first on the module path.

    So the supervisor and its workers are of one version, wherever it was started: `python -m` alone would look into the
    working directory first, which may hold anything (the command has -P, which stops that).
    """
    inherited = os.environ.get("PYTHONPATH")
    place = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([place, inherited] if inherited else [place])}
