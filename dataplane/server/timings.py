"""Where a request's time goes: waiting for a thread or a group commit, or on the disk.

What a request waits for one after another is added up, so the two never exceed what it took as a whole; what is left is
our own computing and turns of the event loop. The third part, waiting for the client's bytes, is the body's
(BodyReader.waited_ns). Nothing of this changes when or where anything runs.

disk: from the first to the last instruction of a call on a thread, of a job's `prepare`, and of the group commit that a
job is in, with the syncs that all jobs of the group share. Hashing on a data thread is in it: it goes with the bytes.
queue: the rest of the wait, that is, until a thread is free or the groups before are committed; and the wait for room
on a disk that is almost full.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from dataplane.store.worktime import WorkTime

if TYPE_CHECKING:
    from dataplane.server.node import Committer
    from dataplane.store.commit import Job

T = TypeVar("T")
P = ParamSpec("P")
Waiting = tuple[int, WorkTime]  # since when, and the work


@dataclass(slots=True)
class Timings:
    """What one request has spent so far, in nanoseconds. Of the event loop's thread alone."""

    queue_ns: int = field(default=0, init=False)
    disk_ns: int = field(default=0, init=False)
    waiting: Waiting | None = field(default=None, init=False)  # for what, at this moment

    def at_once(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call here and now, for a file system that is quick enough. Raises what the call raises."""
        begun_ns = time.perf_counter_ns()
        try:
            return function(*args, **kwargs)
        finally:
            self.disk_ns += time.perf_counter_ns() - begun_ns

    async def on_thread(
        self, run: Callable[..., Awaitable[T]], function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call by `run`, a pool's. Raises what the pool and the call raise."""
        work = WorkTime()

        def timed() -> T:
            work.begin()
            try:
                return function(*args, **kwargs)
            finally:
                work.end()

        self.waiting = time.perf_counter_ns(), work
        try:
            return await run(timed)
        finally:
            self.settle()

    async def committed(self, committer: "Committer", job: "Job[T]") -> T:
        """Carry out a job. Raises what the committer and the job raise."""
        self.waiting = time.perf_counter_ns(), job.work
        try:
            return await committer.submit(job)
        finally:
            self.settle()

    async def queued(self, wait: Awaitable[T]) -> T:
        """Wait for what is no work of this request. Raises what it raises."""
        begun_ns = time.perf_counter_ns()
        try:
            return await wait
        finally:
            self.queue_ns += time.perf_counter_ns() - begun_ns

    def settle(self) -> None:
        """Add what has been waited for until now, for a request that is answered while its handler still waits."""
        if self.waiting is not None:
            begun_ns, work = self.waiting
            self.waiting = None
            now_ns = time.perf_counter_ns()
            waited_ns = now_ns - begun_ns
            disk_ns = min(work.busy_ns(now_ns), waited_ns)
            self.disk_ns += disk_ns
            self.queue_ns += waited_ns - disk_ns
