"""The supervisor: bind, start the workers, say when all accept, stop them all; its exit code says how it went.

It never serves a request and never touches a mount, so nothing that a client or a disk does can stop it from watching.
SIGTERM and SIGINT drain: each worker finishes what runs within drain_seconds. A second signal ends them at once.
"""

import functools
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import trio

from agent.problems import EXIT_CONFIG
from agent.supervision import policy
from agent.supervision.plan import Plan, ready_urls, worker_settings
from agent.supervision.sockets import bind_all
from agent.supervision.worker import Worker

log = logging.getLogger("blobedge.supervisor")

EXIT_OK: Final = 0
EXIT_GAVE_UP: Final = 1
WORKER_COMMAND: Final = (sys.executable, "-P", "-m", "dataplane")

Announce = Callable[[Sequence[str]], Awaitable[None]]


async def announce_ready(urls: Sequence[str]) -> None:
    """Print the line per URL that scripts wait for."""
    try:
        for url in urls:
            print(f"blobedge ready: {url}", flush=True)
    except BrokenPipeError:  # nobody waits for it; at exit Python would complain of the pipe again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def supervise(plan: Plan, announce: Announce = announce_ready, command: Sequence[str] = WORKER_COMMAND) -> int:
    """Serve until a signal, and return the exit code.

    `announce` is awaited once with the ready URLs when every worker accepts. `command` is the worker's program (tests
    have their own). Raises OperatorError when an address cannot be bound.
    """
    bounds = bind_all(plan.listens, plan.workers)
    stopping = _Stopping(plan.config.drain_seconds)
    try:
        workers = stopping.workers = [
            Worker(number, command, functools.partial(worker_settings, plan, number, bounds), stopping.give_up)
            for number in range(plan.workers)
        ]
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as helpers:
                helpers.start_soon(stopping.on_signals, signals)
                helpers.start_soon(_announce, workers, announce, ready_urls(plan, bounds))
                async with trio.open_nursery() as nursery:
                    for worker in workers:
                        nursery.start_soon(worker.run)
                helpers.cancel_scope.cancel()
    finally:
        for bound in bounds:
            bound.close()
    return stopping.exit_code


async def _announce(workers: Sequence[Worker], announce: Announce, urls: Sequence[str]) -> None:
    for worker in workers:
        await worker.ready.wait()
    await announce(urls)


class _Stopping:
    """How the service ends: by a signal, or because a worker is hopeless."""

    def __init__(self, drain_seconds: float) -> None:
        self.exit_code = EXIT_OK
        self.workers: Sequence[Worker] = ()
        self._drain_seconds = drain_seconds

    async def on_signals(self, signals: AsyncIterator[int]) -> None:
        drain_seconds = self._drain_seconds
        async for number in signals:
            log.info("%s: stopping within %g s", signal.Signals(number).name, drain_seconds)
            self._stop_all(drain_seconds)
            drain_seconds = 0.0

    def give_up(self, action: policy.GiveUp) -> None:
        """Called by the worker that gives up; the others drain. The first reason is the one that counts."""
        if self.exit_code == EXIT_OK:
            print(f"blobedge: {action.reason}", file=sys.stderr, flush=True)
            self.exit_code = EXIT_CONFIG if action.operator else EXIT_GAVE_UP
            self._stop_all(self._drain_seconds)

    def _stop_all(self, seconds: float) -> None:
        for worker in self.workers:
            worker.stop(seconds)
