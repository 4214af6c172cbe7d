"""The running service: its workers, its addresses, its configuration, and how these change while it serves.

`snapshot` reads memory only. A reload is refused when the new configuration has a mistake, fails when a new worker
cannot serve with it, and in both cases changes nothing: workers, addresses and configuration stay as they were.
A reload and a recycle (recycle.py) both replace workers, so each waits for the end of the other.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Final, Literal

import trio

from agent.config import Config
from agent.problems import OperatorError
from agent.supervision.child import Child
from agent.supervision.fleet import Fleet
from agent.supervision.leaks import Place
from agent.supervision.plan import Plan, ready_urls
from agent.supervision.sidecar import Sidecar
from agent.supervision.snapshot import (
    MountSnapshot,
    RecycleSnapshot,
    ReloadSnapshot,
    ServiceSnapshot,
    ServiceState,
)
from agent.supervision.sockets import Bound, dropped, forget_all, rebind, store_all
from agent.supervision.systemd import ServiceManager
from dataplane.ipc import control, logs

log = logging.getLogger("blobedge.supervisor")


@dataclass(frozen=True, slots=True)
class Change:
    """What a companion prepared for a new configuration: made true, or given up, in one step."""

    commit: Callable[[], None]
    abort: Callable[[], None]


Prepare = Callable[[Config, int], Change]  # the new configuration, and the port of the first listener with it
LoadPlan = Callable[[], Plan]
ReloadState = Literal["running", "done", "refused", "failed"]

LOAD_SECONDS_MAX: Final = 30.0  # to read a configuration and look at what it names; a mount may hang


class Service:
    """Implements snapshot.Service; `reload` and `stop` are for the supervisor."""

    def __init__(
        self, plan: Plan, bounds: list[Bound], fleet: Fleet, sidecar: Sidecar, manager: ServiceManager
    ) -> None:
        self.plan = plan
        self.bounds = bounds
        self.fleet = fleet
        self.sidecar = sidecar
        self._manager = manager
        self._version = version()  # it is read from a file: once, so that a snapshot never does
        self._started_at = time.time()
        self._ready = False
        self._last_reload: ReloadSnapshot | None = None
        self._recycles: dict[Place, RecycleSnapshot] = {}
        self._changing = trio.Lock()  # held by whoever replaces processes
        self._debug = False
        self._prepare: Prepare = lambda _config, _port: Change(lambda: None, lambda: None)

    @property
    def config(self) -> Config:
        return self.plan.config

    def slot_fds(self) -> tuple[int, ...]:
        return self.fleet.slots.live_fds()

    def retired_slot_fds(self) -> tuple[int, ...]:
        return self.fleet.slots.retired_fds()

    def urls(self) -> list[str]:
        return ready_urls(self.plan, self.bounds)

    def snapshot(self) -> ServiceSnapshot:
        fleet = self.fleet
        processes = [child.snapshot(draining=child in fleet.draining) for child in self._children()]
        return ServiceSnapshot(
            version=self._version,
            pid=os.getpid(),
            state=self._state(),
            started_at=self._started_at,
            config_file=self.plan.config_file,
            urls=tuple(self.urls()),
            processes=tuple(processes),
            mounts=_mounts(fleet.current),
            reports=self.sidecar.reports(),
            last_reload=self._last_reload,
            recycles=tuple(self._recycles.values()),
        )

    @property
    def changing(self) -> bool:
        """Whether processes are being replaced, started for the first time, or stopped."""
        return self._changing.locked() or not self._ready or self.fleet.stopping

    async def wait_ready(self) -> None:
        """Return when each of the first workers has said that it accepts."""
        for child in self.fleet.current:
            await child.ready.wait()
        self._ready = True

    async def reload(self, load: LoadPlan, nursery: trio.Nursery) -> None:
        """Load the configuration again and serve with it. Old addresses are closed, in `nursery`, after the drain."""
        number = self._last_reload.number + 1 if self._last_reload is not None else 1
        self._last_reload = ReloadSnapshot(number, "running", time.time(), ())
        self._manager.reloading()
        try:
            plan = await _loaded(load)
        except OperatorError as error:
            self._finish(number, "refused", [str(problem) for problem in error.problems])
            return
        async with self._changing:
            problems = await self._replace(plan, nursery)
        self._finish(number, "failed" if problems else "done", problems)

    def follow_reloads(self, prepare: Prepare) -> None:
        """Have the admin endpoint's part of each reload done by `prepare`. It raises OperatorError to refuse one."""
        self._prepare = prepare

    async def recycle(self, place: Place) -> list[str]:
        """Put a new process in the place of one, which drains when that serves. Returns why it could not be done."""
        async with self._changing:
            if self.fleet.stopping:
                return ["the service was stopped"]
            if place.role == "sidecar":
                problems = await self.sidecar.replace(self.config)
            else:
                problems = await self.fleet.replace_one(self.plan, self.bounds, place.number)
            if self._debug:
                self._tell_log_level()
            return problems

    def note_recycle(self, place: Place, done: bool, text: str) -> None:
        """Remember how a recycle went, for the snapshot."""
        known = self._recycles.get(place)
        done_count, failed_count = (known.done_count, known.failed_count) if known is not None else (0, 0)
        self._recycles[place] = RecycleSnapshot(
            place.role, place.number, done_count + done, failed_count + (not done), time.time(), text
        )

    def stop(self, seconds: float) -> None:
        """Drain everything within `seconds`."""
        self._manager.stopping()
        self.fleet.stop(seconds)
        self.sidecar.stop()

    def toggle_debug(self) -> None:
        """Log everything, here and in the workers, or again what the configuration says."""
        self._debug = not self._debug
        log.warning("log level %s", self._tell_log_level())

    def _tell_log_level(self) -> str:
        level = "debug" if self._debug else self.config.log.level
        logging.getLogger().setLevel(level.upper())
        for child in self._children():
            child.tell(control.LogLevel(level))
        return level

    def dump_stacks(self) -> None:
        """Have every worker print the stacks of its threads."""
        for child in self._children():
            child.dump_stacks()

    async def _replace(self, plan: Plan, nursery: trio.Nursery) -> list[str]:
        if self.fleet.stopping:
            return ["the service was stopped"]
        try:
            bounds, change = self._bind(plan)
        except OperatorError as error:
            return [str(problem) for problem in error.problems]
        counts = [len(bound.sockets) for bound in self.bounds]
        problems = await self.fleet.replace(plan, bounds)
        if problems:
            change.abort()
            for bound in dropped(bounds, self.bounds):
                bound.close()
            for bound, count in zip(self.bounds, counts, strict=True):
                bound.shrink(count)  # nobody would answer in those that were meant for more workers
            return problems
        change.commit()
        nursery.start_soon(self._close_after_drain, dropped(self.bounds, bounds), list(self.fleet.draining))
        self.plan, self.bounds, self._debug = plan, bounds, False
        logs.configure(plan.config.log.format, plan.config.log.level, "supervisor", None, sys.stderr)
        store_all(bounds, self._manager)
        if self.sidecar.child is not None:
            self.sidecar.begin(plan.config)
        return []

    def _bind(self, plan: Plan) -> tuple[list[Bound], Change]:
        """Bind all addresses of a plan, the admin endpoint's too. Raises OperatorError; then none."""
        bounds = rebind(self.bounds, plan.listens)
        try:
            return bounds, self._prepare(plan.config, bounds[0].port)
        except OperatorError:
            for bound in dropped(bounds, self.bounds):
                bound.close()
            raise

    def _children(self) -> list[Child]:
        sidecar = self.sidecar.child
        return [*self.fleet.everyone(), *([] if sidecar is None else [sidecar])]

    async def _close_after_drain(self, gone: Sequence[Bound], draining: Sequence[Child]) -> None:
        for child in draining:
            await child.over.wait()
        forget_all(gone, self._manager)
        for bound in gone:
            bound.close()

    def _finish(self, number: int, state: ReloadState, problems: Sequence[str]) -> None:
        self._last_reload = ReloadSnapshot(number, state, time.time(), tuple(problems))
        if state == "done":
            log.info("reload %d: done", number)
        for problem in problems:
            log.error("reload %d %s, the old configuration stays: %s", number, state, problem)
        if not self.fleet.stopping:
            self._manager.ready()
            failed = f"; reload {state}: {problems[0]}" if problems else ""
            self._manager.status(f"serving with {len(self.fleet.current)} workers{failed}")

    def _state(self) -> ServiceState:
        if self.fleet.stopping:
            return "stopping"
        if not self._ready:
            return "starting"
        reloading = self._last_reload is not None and self._last_reload.state == "running"
        return "reloading" if reloading else "ready"


async def _loaded(load: LoadPlan) -> Plan:
    """Load in a thread, since it looks at mounts. Raises OperatorError, also when that takes too long."""
    with trio.move_on_after(LOAD_SECONDS_MAX):
        return await trio.to_thread.run_sync(load, abandon_on_cancel=True)
    raise OperatorError(f"checking the configuration took longer than {LOAD_SECONDS_MAX:g} s: does a mount hang?")


def _mounts(workers: Sequence[Child]) -> tuple[MountSnapshot, ...]:
    found = next((child.mounts for child in workers if child.number == 0), ())
    return tuple(MountSnapshot(**asdict(mount)) for mount in found)


def version() -> str:
    """The installed version, "" in a checkout that is not installed."""
    try:
        return metadata.version("blobedge")
    except metadata.PackageNotFoundError:
        return ""
