"""The workers of a service: which serve, which drain, and how one set of them is replaced by another.

A replacement is all or nothing. Successors are started one after the other, on the same listening sockets as those who
serve, and only when the last of them is ready are the old ones told to drain. So there is no moment without a worker
that accepts, and a successor that cannot boot changes nothing: those that came up before it drain, the old ones stay.
One that dies before the others are ready is waited for again, as its policy starts it again.
Rejected: stopping each old worker as soon as its own successor is ready; a later failure would leave a service of
two configurations. The price is twice the processes for as long as the drain takes.
"""

import functools
import logging
from collections.abc import Callable, Iterable, Sequence

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
        return await self._replace(plan, bounds, range(plan.workers), self.current)

    async def replace_one(self, plan: Plan, bounds: Sequence[Bound], number: int) -> list[str]:
        """Replace the worker with this number; for the rest as `replace`, beside which it must not run."""
        old = [child for child in self.current if child.number == number]
        if not old:
            return [f"there is no worker {number} any more"]
        return await self._replace(plan, bounds, [number], old)

    async def _replace(
        self, plan: Plan, bounds: Sequence[Bound], numbers: Iterable[int], old: Sequence[Child]
    ) -> list[str]:
        problems = await self._succeed(plan, bounds, numbers)
        leaving = self.successors if problems else old
        if not problems:
            stay = [child for child in self.current if child not in old]
            self.current = sorted([*stay, *self.successors], key=lambda child: child.number)
        self.successors = []
        self.draining += [child for child in leaving if not child.over.is_set()]
        if not self.stopping:  # `stop` told everyone, and a second signal may have told less time than this
            for child in leaving:
                child.stop(plan.config.drain_seconds)
        return problems

    async def _succeed(self, plan: Plan, bounds: Sequence[Bound], numbers: Iterable[int]) -> list[str]:
        """Start successors and return when all serve at the same time; otherwise return why they do not."""
        for number in numbers:
            try:
                self.successors.append(self._start(plan, number, bounds))
            except OperatorError as error:
                return [str(problem) for problem in error.problems]
            if problems := await self._serving():
                return problems
        return []

    async def _serving(self) -> list[str]:
        """Wait until every successor so far serves; one that served may have died meanwhile."""
        with trio.move_on_after(policy.START_SECONDS_MAX):
            while (waiting := self._not_ready()) is not None and await waiting.wait_serving():
                pass
        if self.stopping:
            return ["the service was stopped"]
        late = self._not_ready()
        if late is None:
            return []
        return [self._failures.pop(late, "") or f"a new worker was not ready after {policy.START_SECONDS_MAX:g} s"]

    def _not_ready(self) -> Child | None:
        return next((child for child in self.successors if not child.ready.is_set()), None)

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
            return Launch(self._command, to_json(worker_settings(plan, number, bounds, slot_fd)), fds, {})

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
