"""The event loop's side of group commit: hand a job over, hear of its outcome when it is durable.

The long part of a job runs on a data thread first, so that it never holds up a group; then the committer's thread takes
it together with whatever else waits, and wakes the loop once for the whole group. A job whose caller goes away
meanwhile is still carried out or discarded as a whole.

Each mount has a committer of its own, so that one that hangs holds up no other; and on each, jobs that need not be
durable have theirs, so that they do not wait for the syncs of those that must.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from dataplane.blobapi import limits
from dataplane.server.diskpool import DiskPools, busy
from dataplane.store.commit import PREPARE_ATTEMPTS_MAX, Again, GroupCommitter, Job, Outcome, prepare

T = TypeVar("T")
Pairs = list[tuple[Any, Outcome[Any]]]


class LoopCommitter:
    """Commits the jobs of one store. `committed` is told the number of jobs of each group, on the loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pools: DiskPools,
        name: str,
        committed: Callable[[int], None] | None = None,
    ) -> None:
        self._loop = loop
        self._pools = pools
        self._name = name
        self._committed = committed
        self._groups: dict[tuple[int, bool], GroupCommitter] = {}
        self._in_flight = 0
        self._abandoned: set[asyncio.Future[None]] = set()

    async def submit(self, job: Job[T]) -> T:
        """Carry out a job. Raises what the job raises, and BlobError ServerBusy when too many are under way."""
        if self._in_flight >= limits.commits_in_flight_max:
            self._abandon(job)
            raise busy()
        self._in_flight += 1
        try:
            for _ in range(PREPARE_ATTEMPTS_MAX - 1):
                try:
                    return await self._attempt(job)
                except Again:
                    continue
            return await self._attempt(job)
        except Again:
            self._abandon(job)
            raise busy() from None
        finally:
            self._in_flight -= 1

    def stop(self) -> None:
        """Finish what was handed over and end the threads. Blocks until then; what is still prepared is lost."""
        for group in self._groups.values():
            group.stop()

    async def _attempt(self, job: Job[T]) -> T:
        if job.needs_prepare:
            try:
                await self._pools.data(prepare, job)
            except Again:
                raise  # it is prepared once more: nothing may be taken from under it
            except BaseException:
                self._abandon(job)
                raise
        future: asyncio.Future[T] = self._loop.create_future()
        self._group(job).submit(future, job)
        return await future

    def _group(self, job: Job[Any]) -> GroupCommitter:
        key = (id(job.mount), job.durable)
        found = self._groups.get(key)
        if found is None:
            found = self._groups[key] = GroupCommitter(self._done, f"{self._name}-{len(self._groups)}")
        return found

    def _abandon(self, job: Job[Any]) -> None:
        """Throw away what a job staged, off the loop; its caller does not wait."""
        task = asyncio.ensure_future(self._pools.data_pool.run_admitted(_discard, job))
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)

    def _done(self, outcomes: Pairs) -> None:
        """On the committer's thread."""
        try:
            self._loop.call_soon_threadsafe(self._deliver, outcomes)
        except RuntimeError:
            return  # the loop is closed: the process ends, and nobody waits

    def _deliver(self, outcomes: Pairs) -> None:
        for future, outcome in outcomes:
            if future.done():
                continue  # the caller went away
            if outcome.error is None:
                future.set_result(outcome.value)
            else:
                future.set_exception(outcome.error)
        if self._committed is not None:
            self._committed(len(outcomes))


def _discard(job: Job[Any]) -> None:
    try:
        job.discard()
    except OSError:
        return  # leftovers are swept
    finally:
        job.close()
