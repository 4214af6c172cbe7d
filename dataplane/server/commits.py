"""The event loop's side of group commit: hand a job over, hear of its outcome when it is durable.

The long part of a job runs on a data thread first, so that it never holds up a group; then the committer's thread takes
it together with whatever else waits, and wakes the loop once for the whole group. A job whose caller goes away
meanwhile is still carried out or discarded as a whole.

Each file system has a committer of its own, for all accounts on it, so that one that hangs holds up no other; and on
each, jobs that need not be durable have theirs, so that they do not wait for the syncs of those that must.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from dataplane.blobapi import limits
from dataplane.server.diskpool import DiskPools, busy
from dataplane.server.patience import waiting
from dataplane.store.commit import PREPARE_ATTEMPTS_MAX, Again, GroupCommitter, Job, Outcome, Witness, prepare

T = TypeVar("T")
Pairs = list[tuple["_Handed", Outcome[Any]]]


class _Handed(NamedTuple):
    """A job in the hands of its group, and who waits for it."""

    future: asyncio.Future[Any]
    job: Job[Any]
    pools: DiskPools


class LoopCommitter:
    """Commits the jobs of one worker's stores. `pools_of` tells the pools of a job's mount; `committed` is told the
    number of jobs of each group, on the loop; `witness` the jobs themselves, on the commit threads, and is closed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pools_of: Callable[[object], DiskPools],
        committed: Callable[[int], None] | None = None,
        witness: Witness | None = None,
    ) -> None:
        self._loop = loop
        self._pools_of = pools_of
        self._committed = committed
        self._witness = witness
        self._groups: dict[tuple[DiskPools, bool], GroupCommitter] = {}
        self._in_flight: Counter[DiskPools] = Counter()
        self._abandoned: set[asyncio.Future[None]] = set()

    async def submit(self, job: Job[T]) -> T:
        """Carry out a job. Raises what the job raises, and BlobError ServerBusy when too many are under way."""
        pools = self._pools_of(job.mount)
        if self._in_flight[pools] >= limits.commits_in_flight_max:
            self._abandon(job, pools)
            raise busy()
        self._in_flight[pools] += 1
        try:
            for _ in range(PREPARE_ATTEMPTS_MAX - 1):
                try:
                    return await self._attempt(job, pools)
                except Again:
                    continue
            return await self._attempt(job, pools)
        except Again:
            self._abandon(job, pools)
            raise busy() from None
        finally:
            self._in_flight[pools] -= 1

    def in_flight(self, pools: DiskPools) -> int:
        """Jobs on a file system that have been submitted and are not over, also those whose callers went away."""
        return self._in_flight[pools]

    def stop(self, seconds_max: float) -> bool:
        """Finish what was handed over and end the threads; what is still prepared is lost. Blocks until then, but no
        longer than so many seconds: False when a file system does not let its group go. Called once."""
        until = time.monotonic() + seconds_max
        stopped = _call_all([each.stop for each in self._groups.values()], until)
        if stopped and self._witness is not None:
            _call_all([self._witness.close], until)  # its disk is not the mounts': what hangs there ends with us
        return stopped

    async def _attempt(self, job: Job[T], pools: DiskPools) -> T:
        if job.needs_prepare:
            try:
                await pools.data_pool.run_long(prepare, job)
            except Again:
                raise  # it is prepared once more: nothing may be taken from under it
            except BaseException:
                self._abandon(job, pools)
                raise
        future: asyncio.Future[T] = self._loop.create_future()
        handed = _Handed(future, job, pools)
        self._group(pools, job.durable).submit(handed, job)
        try:
            with waiting(pools.bounds.call_seconds_max):
                return await future
        except asyncio.CancelledError:
            self._leave(handed)
            raise

    def _leave(self, handed: _Handed) -> None:
        """Its caller goes away; it is in flight until its group is over (`_deliver`)."""
        if handed.future.cancelled():
            self._in_flight[handed.pools] += 1
        elif isinstance(handed.future.exception(), Again):
            self._abandon(handed.job, handed.pools)

    def _group(self, pools: DiskPools, durable: bool) -> GroupCommitter:
        found = self._groups.get((pools, durable))
        if found is None:
            name = f"commit-{pools.name}" if durable else f"commit-relaxed-{pools.name}"
            found = self._groups[pools, durable] = GroupCommitter(self._done, name, self._witness)
        return found

    def _abandon(self, job: Job[Any], pools: DiskPools) -> None:
        """Throw away what a job staged, off the loop; its caller does not wait."""
        task = asyncio.ensure_future(pools.data_pool.run_admitted(_discard, job))
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)

    def _done(self, outcomes: Pairs) -> None:
        """On the committer's thread."""
        try:
            self._loop.call_soon_threadsafe(self._deliver, outcomes)
        except RuntimeError:
            return  # the loop is closed: the process ends, and nobody waits

    def _deliver(self, outcomes: Pairs) -> None:
        for handed, outcome in outcomes:
            future = handed.future
            if future.done():  # the caller went away
                self._in_flight[handed.pools] -= 1
                if isinstance(outcome.error, Again):
                    self._abandon(handed.job, handed.pools)
            elif outcome.error is None:
                future.set_result(outcome.value)
            else:
                future.set_exception(outcome.error)
        if self._committed is not None:
            self._committed(len(outcomes))


def _call_all(calls: Sequence[Callable[[], None]], until: float) -> bool:
    """Side by side, each on a thread of its own. False when some were not over at that time (time.monotonic)."""
    threads = [threading.Thread(target=each, name="stop", daemon=True) for each in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def _discard(job: Job[Any]) -> None:
    try:
        job.discard()
    except OSError:
        return  # leftovers are swept
    finally:
        job.close()
