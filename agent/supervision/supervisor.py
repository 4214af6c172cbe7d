"""The supervisor: bind, start the workers, say when all accept, stop them all; its exit code says how it went.

It never serves a request and never touches a mount, so nothing that a client or a disk does can stop it from watching.
SIGTERM and SIGINT drain: each worker finishes what runs within drain_seconds. A second signal ends them at once. SIGHUP
loads the configuration again (service.py), SIGUSR1 turns debug messages on and off, SIGUSR2 prints the stacks of all
threads of all processes.
"""

import faulthandler
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import trio

from agent.problems import EXIT_CONFIG
from agent.supervision import policy, systemd
from agent.supervision.fleet import Fleet
from agent.supervision.plan import Plan
from agent.supervision.recycle import recycle_leaks
from agent.supervision.service import LoadPlan, Service
from agent.supervision.sidecar import Sidecar
from agent.supervision.sockets import adopt, bind_all, store_all
from agent.supervision.systemd import ServiceManager

log = logging.getLogger("blobedge.supervisor")

EXIT_OK: Final = 0
EXIT_GAVE_UP: Final = 1
WORKER_COMMAND: Final = (sys.executable, "-P", "-m", "dataplane")

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

Companion = Callable[[Service], Awaitable[None]]
Announce = Callable[[Sequence[str]], Awaitable[None]]


async def announce_ready(urls: Sequence[str]) -> None:
    """Print the line per URL that scripts wait for."""
    try:
        for url in urls:
            print(f"blobedge ready: {url}", flush=True)
    except BrokenPipeError:  # nobody waits for it; at exit Python would complain of the pipe again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def supervise(
    plan: Plan,
    announce: Announce = announce_ready,
    command: Sequence[str] = WORKER_COMMAND,
    *,
    load: LoadPlan | None = None,
    companions: Sequence[Companion] = (),
    with_sidecar: bool = False,
) -> int:
    """Serve until a signal, and return the exit code.

    `announce` is awaited once with the ready URLs when every worker accepts. `command` is the worker's program (tests
    have their own). `load` makes the plan again at SIGHUP; without it that signal is ignored. `companions` run beside
    the workers for as long as these (the admin endpoint). Raises OperatorError when an address cannot be bound.
    """
    manager, inherited = systemd.take(os.environ, os.getpid())
    adopted = adopt(inherited, manager)
    bounds = bind_all(plan.listens, plan.workers, adopted)
    adopted.close(manager)
    store_all(bounds, manager)
    with trio.open_signal_receiver(*SIGNALS) as received:
        faulthandler.register(signal.SIGUSR2, all_threads=True, chain=True)  # prints ours, then `received` gets it
        try:
            async with trio.open_nursery() as helpers:
                async with trio.open_nursery() as nursery:
                    signals = _Signals(load, helpers)
                    fleet = Fleet(nursery, command, signals.give_up)
                    service = signals.service = Service(plan, bounds, fleet, Sidecar(nursery), manager)
                    fleet.begin(plan, bounds)
                    if with_sidecar:
                        service.sidecar.begin(plan.config)
                    helpers.start_soon(signals.handle, received)
                    helpers.start_soon(manager.watchdog)
                    helpers.start_soon(recycle_leaks, service)
                    helpers.start_soon(_announce, service, announce, manager)
                    for companion in companions:
                        helpers.start_soon(companion, service)
                helpers.cancel_scope.cancel()
        finally:
            faulthandler.unregister(signal.SIGUSR2)
    for bound in service.bounds:
        bound.close()
    fleet.slots.close()
    service.sidecar.close()
    return signals.exit_code


async def _announce(service: Service, announce: Announce, manager: ServiceManager) -> None:
    await service.wait_ready()
    manager.ready()
    manager.status(f"serving with {len(service.fleet.current)} workers")
    await announce(service.urls())


class _Signals:
    """What each signal does, and how the service ends: by one of them, or because a worker is hopeless."""

    service: Service

    def __init__(self, load: LoadPlan | None, nursery: trio.Nursery) -> None:
        self.exit_code = EXIT_OK
        self._load = load
        self._nursery = nursery
        self._reloads = 0  # asked for and not yet begun, and the one that runs

    async def handle(self, signals: AsyncIterator[int]) -> None:
        """Obey each signal, without waiting for what it began."""
        drain_seconds: float | None = None
        async for number in signals:
            match number:
                case signal.SIGHUP:
                    self._ask_reload()
                case signal.SIGUSR1:
                    self.service.toggle_debug()
                case signal.SIGUSR2:
                    self.service.dump_stacks()
                case _:
                    seconds = self.service.config.drain_seconds if drain_seconds is None else drain_seconds
                    log.info("%s: stopping within %g s", signal.Signals(number).name, seconds)
                    self.service.stop(seconds)
                    drain_seconds = 0.0

    def give_up(self, action: policy.GiveUp) -> None:
        """Called for the worker that gives up; the others drain. The first reason is the one that counts."""
        if self.exit_code == EXIT_OK:
            print(f"blobedge: {action.reason}", file=sys.stderr, flush=True)
            self.exit_code = EXIT_CONFIG if action.operator else EXIT_GAVE_UP
            self.service.stop(self.service.config.drain_seconds)

    def _ask_reload(self) -> None:
        """One reload at a time, and one more after it for all that were asked for meanwhile."""
        if self._load is None:
            log.warning("SIGHUP: nothing to load again")
            return
        self._reloads = min(self._reloads + 1, 2)
        if self._reloads == 1:
            self._nursery.start_soon(self._reload, self._load)

    async def _reload(self, load: LoadPlan) -> None:
        await self.service.wait_ready()
        while self._reloads and not self.service.fleet.stopping:
            await self.service.reload(load, self._nursery)
            self._reloads -= 1
