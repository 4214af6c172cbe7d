"""The queue for trio: calls from any task, run in one thread at a time, those that wait together in one transaction.

A durable commit costs a flush of the disk, so that a hundred finished uploads would take a hundred of them one by one.
Here, what was asked for while a commit was under way is the next transaction, as in the store's commits. A call that
raises undoes its own part only. A call that is cancelled while it waits is not made; once begun, it is finished.

Rejected: a task of its own with a channel (dies apart from its callers, and needs a nursery in every test).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

from agent.offload.database import Queue
from agent.offload.opening import QueueBusy, QueueError

_LOCK_POLL_SECONDS: Final = 0.05

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Call:
    work: Callable[[Queue], Any]
    done: bool = False
    value: Any = None
    error: Exception | None = None

    def finish(self, value: Any, error: Exception | None) -> None:
        self.done, self.value, self.error = True, value, error


class AsyncQueue:
    """A Queue, one thread at a time. `await queue(lambda q: q.take(now, 8, running))`."""

    def __init__(self, queue: Queue) -> None:
        self.queue: Final = queue
        self._waiting: list[_Call] = []
        self._turn: Final = trio.Lock()
        self._threads: Final = trio.CapacityLimiter(1)

    @classmethod
    async def open(cls, path: Path) -> "AsyncQueue":
        """Open the queue, waiting for as long as another process has it. Raises what Queue does, but for QueueBusy."""
        while True:
            try:
                return cls(await trio.to_thread.run_sync(Queue, path))
            except QueueBusy:
                await trio.sleep(_LOCK_POLL_SECONDS)

    async def aclose(self) -> None:
        """Close it after the calls that were made."""
        with trio.CancelScope(shield=True):
            async with self._turn:
                await trio.to_thread.run_sync(self.queue.close)

    async def set_aside(self, stamp: int) -> Path:
        """Close it, as it was found damaged, and rename its file. Returns the new name."""
        with trio.CancelScope(shield=True):
            async with self._turn:
                aside = await trio.to_thread.run_sync(self.queue.set_aside, stamp)
        return aside

    async def __call__(self, work: Callable[[Queue], T]) -> T:
        """Do the work in the queue's thread; it is durable when this returns. Raises what the work does, or QueueError:
        then nothing of it has happened."""
        call = _Call(work)
        self._waiting.append(call)
        try:
            async with self._turn:
                if not call.done:
                    calls, self._waiting = self._waiting, []
                    with trio.CancelScope(shield=True):  # the calls of others are among them
                        await trio.to_thread.run_sync(self._run, calls, limiter=self._threads)
        except trio.Cancelled:
            if call in self._waiting:
                self._waiting.remove(call)
            raise
        if call.error is not None:
            raise call.error
        value: T = call.value
        return value

    async def alone(self, work: Callable[[Queue], T]) -> T:
        """As a call, but in no transaction with others: for large work that is one method of the Queue, and so one
        transaction. A part of a transaction (a savepoint) keeps in memory each page that it changes as it was before:
        46 MiB for a batch of a worker's journal, where a million rows are known."""
        async with self._turn:
            with trio.CancelScope(shield=True):
                value = await trio.to_thread.run_sync(work, self.queue, limiter=self._threads)
        return value

    def _run(self, calls: list[_Call]) -> None:
        """All calls in one transaction. What the file or the disk does to one, it does to all."""
        try:
            with self.queue.transaction():
                for call in calls:
                    self._part(call)
        except Exception as error:
            for call in calls:
                call.finish(None, error)

    def _part(self, call: _Call) -> None:
        """One call, which may fail alone."""
        try:
            with self.queue.transaction():
                call.finish(call.work(self.queue), None)
        except QueueError:
            raise
        except Exception as error:
            call.finish(None, error)
