"""The workers of a service: which serve, which drain, and how one set of them is replaced by another.

A replacement is all or nothing. Successors are started one after the other, on the same listening sockets as those who
serve, and only when the last of them is ready are the old ones told to drain. So there is no moment without a worker
that accepts, and a successor that cannot boot changes nothing: those that came up before it drain, the old ones stay.
Rejected: stopping each old worker as soon as its own successor is ready; a later failure would leave a service of
two configurations. The price is twice the processes for as long as the drain takes.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Final

import trio

from agent.problems import OperatorError
from agent.supervision import policy
from agent.supervision.child import Child, Launch
from agent.supervision.plan import Plan, worker_settings
from agent.supervision.slotpool import SlotPool
from agent.supervision.sockets import Bound
from dataplane.ipc import control
from dataplane.ipc.settings import to_json

log = logging.getLogger("blobedge.supervisor")

SUCCESSOR_SECONDS_MAX: Final = policy.START_SECONDS_MAX


class Fleet:
    """All workers. They run in `nursery`, which is over when the last one is gone."""

    def __init__(self, nursery: trio.Nursery, command: Sequence[str], give_up: Callable[[policy.GiveUp], None]) -> None:
        self.current: list[Child] = []
        self.draining: list[Child] = []
        self.successors: list[Child] = []
        self.slots = SlotPool("blobedge-worker")
        self.stopping = False
        self._nursery = nursery
        self._command = tuple(command)
        self._give_up = give_up
        self._failures: dict[Child, str] = {}  # of successors, whose failure is not the service's

    def begin(self, plan: Plan, bounds: Sequence[Bound]) -> None:
        """Start the first workers, all at once."""
        self.current = [self._start(plan, number, bounds) for number in range(plan.workers)]

    async def replace(self, plan: Plan, bounds: Sequence[Bound]) -> list[str]:
        """Replace every worker. Returns what went wrong; then the old ones serve on."""
        problems: list[str] = []
        for number in range(plan.workers):
            problems = await self._succeed(plan, number, bounds)
            if problems:
                break
        old = self.current
        if problems:
            old = self.successors
        else:
            self.current = self.successors
        self.successors = []
        self.draining += [child for child in old if not child.over.is_set()]
        for child in old:
            child.stop(plan.config.drain_seconds)
        return problems

    async def _succeed(self, plan: Plan, number: int, bounds: Sequence[Bound]) -> list[str]:
        """Start a successor and wait until it serves; otherwise return why it does not."""
        try:
            child = self._start(plan, number, bounds)
        except OperatorError as error:
            return [str(problem) for problem in error.problems]
        self.successors.append(child)
        with trio.move_on_after(SUCCESSOR_SECONDS_MAX):
            await child.settled.wait()
        if self.stopping:
            return ["the service was stopped"]
        if child.ready.is_set():
            return []
        return [self._failures.pop(child, "") or f"a new worker was not ready after {SUCCESSOR_SECONDS_MAX:g} s"]

    def stop(self, seconds: float) -> None:
        """Everything drains within `seconds`; nothing is started any more."""
        self.stopping = True
        for child in self.everyone():
            child.stop(seconds)

    def everyone(self) -> list[Child]:
        """Those that serve, those that drain, those that are to take over."""
        return [*self.current, *self.draining, *self.successors]

    def _start(self, plan: Plan, number: int, bounds: Sequence[Bound]) -> Child:
        shares = [(bound, bound.share(number, plan.workers)) for bound in bounds]
        fds = tuple(sock.fileno() for _, share in shares for sock in share)

        def launch(slot_fd: int) -> Launch:
            return Launch(self._command, to_json(worker_settings(plan, number, bounds, slot_fd)), fds)

        child = Child("worker", number, self.slots.take(), launch, self._gave_up)
        self._nursery.start_soon(functools.partial(self._run, child))
        return child

    async def _run(self, child: Child) -> None:
        try:
            await child.run()
        finally:
            self.slots.give_back(child.slot)
            if child in self.draining:
                self.draining.remove(child)

    def _gave_up(self, child: Child, action: policy.GiveUp) -> None:
        if child in self.current:
            self._give_up(action)
        elif child in self.successors:
            self._failures[child] = action.reason
        else:
            log.warning("%s: %s", child.name, action.reason)

    def tell(self, message: control.Message) -> None:
        """Send a message to every worker."""
        for child in self.everyone():
            child.tell(message)
