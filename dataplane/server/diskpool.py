"""Bounded threads for calls that block: metadata and data apart, so that a slow read never holds up a stat.

Guarantees: at most `threads_count` calls run and `queue_count_max` wait, one more is answered 503 ServerBusy; a caller
that is cancelled gets its cancellation only after a call that had started is over, so that what the call uses
(descriptors, buffers) may be freed in `finally`; a call that had not started never runs. Threads are daemons: one that
hangs in a dead mount does not keep the process from ending. Each file system has pools of its own (mountpools.py), and
a request that waits too long for one is answered without it (patience.py).

Rejected: ThreadPoolExecutor, whose queue has no bound and whose threads are joined at exit.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, Generic, ParamSpec, TypeVar

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.server.patience import timed_out, waiting

T = TypeVar("T")
P = ParamSpec("P")
RETRY_AFTER_SECONDS: Final = 1


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """`depth` calls wait, `running` run; `shed` were refused since the start, `done` finished."""

    threads: int
    depth: int
    running: int
    shed: int
    done: int
    oldest_running_seconds: float


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What the pools of one file system may hold, and how long one of its calls may keep a request waiting."""

    metadata_threads_count: int = limits.metadata_threads_count
    data_threads_count: int = limits.data_threads_count
    queue_count_max: int = limits.pool_queue_count_max
    call_seconds_max: float = limits.storage_seconds_max
    long_call_seconds_max: float = limits.storage_long_seconds_max


DEFAULT_LIMITS: Final = PoolLimits()


@dataclass(slots=True, eq=False)
class _Task(Generic[T]):
    """A call. Whoever takes `ticket` (popping a list is atomic) decides: a thread to run it, a canceller to drop it."""

    function: Callable[[], T]
    future: "asyncio.Future[T]"
    loop: asyncio.AbstractEventLoop
    ticket: list[None] = field(default_factory=lambda: [None])
    started: float | None = None

    def take(self) -> bool:
        try:
            self.ticket.pop()
        except IndexError:
            return False
        return True


class DiskPool:
    """One kind of calls. Used from one event loop; `clock` is monotonic seconds."""

    def __init__(
        self,
        name: str,
        threads_count: int,
        queue_count_max: int,
        clock: Callable[[], float] = time.monotonic,
        call_seconds_max: float = limits.storage_seconds_max,
        long_call_seconds_max: float = limits.storage_long_seconds_max,
    ) -> None:
        self._name = name
        self._threads_count = threads_count
        self._queue_count_max = queue_count_max
        self._clock = clock
        self._call_seconds_max = call_seconds_max
        self._long_call_seconds_max = long_call_seconds_max
        self._queue: SimpleQueue[_Task[Any] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unfinished: set[_Task[Any]] = set()  # waiting or running; touched by the loop only
        self._shed = 0
        self._done = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call on a thread. Raises BlobError ServerBusy when too many wait, else what the call raises."""
        self._admit()
        with waiting(self._call_seconds_max):
            return await self._finished(self._submit(partial(function, *args, **kwargs)))

    async def run_long(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for a call that copies or syncs so much that it may take minutes on a mount that works."""
        self._admit()
        with waiting(self._long_call_seconds_max):
            return await self._finished(self._submit(partial(function, *args, **kwargs)))

    async def run_admitted(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for the next step of an answer that has begun: it waits behind a full queue, as a 503 is too late.
        Whoever uses this has at most one such call at a time."""
        return await self._finished(self._submit(partial(function, *args, **kwargs)))

    async def run_detached(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, for a call that owns all it uses and whose result is a plain value: a cancelled caller goes on at
        once, the call ends when it ends. Raises BlobError ServerBusy."""
        self._admit()
        task = self._submit(partial(function, *args, **kwargs))
        try:
            return await task.future
        except asyncio.CancelledError:
            self._drop(task)
            raise

    async def run_in_time(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run_detached`, but no longer than a call may take. Raises BlobError ServerBusy, OperationTimedOut."""
        deadline = asyncio.timeout(self._call_seconds_max)
        try:
            async with deadline:
                return await self.run_detached(function, *args, **kwargs)
        except TimeoutError:
            if deadline.expired():
                raise timed_out() from None
            raise  # ETIMEDOUT of the call itself

    def full(self) -> bool:
        """Whether one more call would have to wait behind too many."""
        return len(self._unfinished) >= self._threads_count + self._queue_count_max

    @property
    def shed(self) -> int:
        """Calls that were refused since the start."""
        return self._shed

    def idle(self) -> bool:
        """Whether no call waits or runs."""
        return not self._unfinished

    def statistics(self) -> PoolStatistics:
        """A snapshot; cheap enough for every heartbeat."""
        starts = [task.started for task in self._unfinished if task.started is not None]
        return PoolStatistics(
            threads=len(self._threads),
            depth=len(self._unfinished) - len(starts),
            running=len(starts),
            shed=self._shed,
            done=self._done,
            oldest_running_seconds=self._clock() - min(starts) if starts else 0.0,
        )

    def close(self) -> None:
        """Let idle threads end; calls that wait still run. Joins nothing."""
        for _ in self._threads:
            self._queue.put(None)

    def _admit(self) -> None:
        if self.full():
            self._shed += 1
            raise busy()

    def _submit(self, function: Callable[[], T]) -> _Task[T]:
        loop = asyncio.get_running_loop()
        task = _Task(function, loop.create_future(), loop)
        if len(self._unfinished) >= len(self._threads) < self._threads_count:
            thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._unfinished.add(task)
        self._queue.put(task)
        return task

    async def _finished(self, task: _Task[T]) -> T:
        """The result; a cancellation only after the call, if it had started."""
        try:
            return await task.future
        except asyncio.CancelledError:
            if not self._drop(task) and task in self._unfinished:  # else it is over, and nobody would settle it
                await _settle(task)
            raise

    def _drop(self, task: _Task[Any]) -> bool:
        """Take back a call that has not started."""
        dropped = task.take()
        if dropped:
            self._unfinished.discard(task)
        return dropped

    def _work(self) -> None:
        """A thread's life."""
        while (task := self._queue.get()) is not None:
            if not task.take():
                continue
            result: Any = None
            error: BaseException | None = None
            task.started = self._clock()
            try:
                result = task.function()
            except BaseException as raised:
                error = raised
            try:
                task.loop.call_soon_threadsafe(self._finish, task, result, error)
            except RuntimeError:
                return  # the loop is closed: the process ends
            del task, result, error

    def _finish(self, task: _Task[Any], result: Any, error: BaseException | None) -> None:
        self._unfinished.discard(task)
        self._done += 1
        if task.future.done():
            return  # cancelled and detached
        if error is None:
            task.future.set_result(result)
        else:
            task.future.set_exception(error)


class Kept(Generic[T]):
    """A call on another thread whose result must not get lost when the caller is cancelled meanwhile: `value` has it
    as soon as there is one."""

    def __init__(self, function: Callable[..., T]) -> None:
        self._function = function
        self.value: T | None = None

    def __call__(self, *args: Any) -> T:
        self.value = self._function(*args)
        return self.value


async def _settle(task: _Task[Any]) -> None:
    """Wait until a cancelled call that runs is over. Further cancellations do not cut this short."""
    task.future = task.loop.create_future()
    while not task.future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task.future])
    task.future.exception()  # seen: the caller gets its cancellation instead


def busy() -> BlobError:
    """503 ServerBusy, to be tried again soon."""
    return BlobError(ErrorCode.SERVER_BUSY, headers=(("Retry-After", str(RETRY_AFTER_SECONDS)),))


class DiskPools:
    """The two pools of one file system. `device` is its st_dev, 0 for pools that are not of one."""

    def __init__(
        self, name: str = "default", bounds: PoolLimits = DEFAULT_LIMITS, *, local: bool = True, device: int = 0
    ) -> None:
        self.name = name
        self.bounds = bounds
        self.local = local
        self.device = device
        threads_and_names = ((bounds.metadata_threads_count, "metadata"), (bounds.data_threads_count, "data"))
        self.metadata_pool, self.data_pool = (
            DiskPool(
                f"{kind}-{name}",
                threads_count,
                bounds.queue_count_max,
                call_seconds_max=bounds.call_seconds_max,
                long_call_seconds_max=bounds.long_call_seconds_max,
            )
            for threads_count, kind in threads_and_names
        )

    async def metadata(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Opens, stats, directory reads. Raises BlobError ServerBusy."""
        return await self.metadata_pool.run(function, *args, **kwargs)

    async def metadata_in_time(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same outside of handlers, for plain results. Raises BlobError ServerBusy, OperationTimedOut."""
        return await self.metadata_pool.run_in_time(function, *args, **kwargs)

    async def read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `metadata`, but at once where the file system is quick enough for the event loop."""
        if self.local:
            return function(*args, **kwargs)
        return await self.metadata_pool.run(function, *args, **kwargs)

    async def data(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Reads and writes of contents, hashing, copies. Raises BlobError ServerBusy."""
        return await self.data_pool.run(function, *args, **kwargs)

    def close(self) -> None:
        self.metadata_pool.close()
        self.data_pool.close()
