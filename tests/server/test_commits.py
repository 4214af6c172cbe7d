"""The event loop's side of group commit, with small jobs of its own and the store's real committer."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable

import pytest

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.server.commits import LoopCommitter
from dataplane.server.diskpool import DiskPools
from dataplane.store.commit import COMMIT_THREADS, PREPARE_ATTEMPTS_MAX, Again, Job
from dataplane.store.errors import StorageUnavailable

WAIT_SECONDS = 10.0


class Probe(Job[str]):
    """A job that notes what happens to it. `gate` holds up `publish`; `agains` times `publish` asks for another go."""

    def __init__(
        self, gate: threading.Event | None = None, agains: int = 0, prepare_error: Exception | None = None,
        publish_error: Exception | None = None, mount: object = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.gate, self.agains, self.prepare_error, self.publish_error = gate, agains, prepare_error, publish_error
        self.mount = mount
        self.needs_prepare = True
        self.prepared = 0
        self.publishing = threading.Event()
        self.discarded = threading.Event()
        self.closed = threading.Event()

    def prepare(self) -> None:
        self.prepared += 1
        if isinstance(self.prepare_error, Again) and self.prepared > 1:
            return
        if self.prepare_error is not None:
            raise self.prepare_error

    def publish(self) -> str:
        self.publishing.set()
        if self.gate is not None:
            assert self.gate.wait(WAIT_SECONDS)
        if self.agains and self.prepared <= self.agains:
            raise Again
        if self.publish_error is not None:
            raise self.publish_error
        return "done"

    def discard(self) -> None:
        self.discarded.set()

    def close(self) -> None:
        super().close()
        self.closed.set()


def run(test: Callable[[LoopCommitter, list[int]], Awaitable[None]]) -> None:
    """Run a coroutine with a committer that notes the size of each group."""

    async def body() -> None:
        sizes: list[int] = []
        pools: defaultdict[object, DiskPools] = defaultdict(DiskPools)
        committer = LoopCommitter(asyncio.get_running_loop(), pools.__getitem__, sizes.append)
        try:
            await test(committer, sizes)
        finally:
            assert committer.stop(WAIT_SECONDS)
            for each in pools.values():
                each.close()

    asyncio.run(asyncio.wait_for(body(), WAIT_SECONDS))


def test_jobs_that_wait_are_one_group() -> None:
    async def body(committer: LoopCommitter, sizes: list[int]) -> None:
        gate = threading.Event()
        first = [Probe(gate) for _ in range(COMMIT_THREADS)]  # keep all of the committer's threads busy
        leaders = []
        for job in first:
            leaders.append(asyncio.ensure_future(committer.submit(job)))
            await asyncio.to_thread(job.publishing.wait, WAIT_SECONDS)
        others = [Probe() for _ in range(5)]
        for job in others:
            job.needs_prepare = False  # so that one turn of the loop brings them to the committer
        followers = [asyncio.ensure_future(committer.submit(job)) for job in others]
        await asyncio.sleep(0)
        gate.set()
        assert await asyncio.gather(*leaders, *followers) == ["done"] * (COMMIT_THREADS + 5)
        assert sorted(sizes) == [1] * COMMIT_THREADS + [5]
        assert all(job.closed.is_set() and not job.discarded.is_set() for job in (*first, *others))

    run(body)


def test_a_job_that_has_to_be_prepared_again_is_not_thrown_away_meanwhile() -> None:
    async def body(committer: LoopCommitter, sizes: list[int]) -> None:
        job = Probe(prepare_error=Again())
        assert await committer.submit(job) == "done"
        assert (job.prepared, job.discarded.is_set(), sizes) == (2, False, [1])

    run(body)


def test_a_mount_that_hangs_holds_up_no_other() -> None:
    async def body(committer: LoopCommitter, sizes: list[int]) -> None:
        gate, here, there = threading.Event(), object(), object()
        stuck = asyncio.ensure_future(committer.submit(Probe(gate, mount=here)))
        assert await committer.submit(Probe(mount=there)) == "done"
        assert not stuck.done()
        gate.set()
        assert await stuck == "done"

    run(body)


def test_jobs_in_a_group_that_hangs_count_after_their_callers_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every request that was answered for would make room for one more in memory, for as long as it hangs."""
    monkeypatch.setattr(limits, "commits_in_flight_max", 3)

    async def body(committer: LoopCommitter, sizes: list[int]) -> None:
        gate, refused = threading.Event(), Probe()
        for _ in range(3):
            job = Probe(gate)
            job.needs_prepare = False
            caller = asyncio.ensure_future(committer.submit(job))
            await asyncio.sleep(0.01)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
        with pytest.raises(BlobError) as raised:
            await committer.submit(refused)
        assert raised.value.code is ErrorCode.SERVER_BUSY
        gate.set()
        while sum(sizes) < 3:  # noqa: ASYNC110 - the committer tells no event
            await asyncio.sleep(0.01)
        assert await committer.submit(Probe()) == "done"

    run(body)


def test_a_job_that_should_be_prepared_again_is_thrown_away_when_nobody_waits() -> None:
    async def body(committer: LoopCommitter, sizes: list[int]) -> None:
        gate = threading.Event()
        job = Probe(gate, agains=1)
        caller = asyncio.ensure_future(committer.submit(job))
        assert await asyncio.to_thread(job.publishing.wait, WAIT_SECONDS)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        gate.set()
        assert await asyncio.to_thread(job.discarded.wait, WAIT_SECONDS), "what it staged stays open for ever"

    run(body)


def test_a_refusal_reaches_its_caller_only() -> None:
    async def body(committer: LoopCommitter, sizes: list[int]) -> None:
        refused = Probe(publish_error=BlobError(ErrorCode.CONDITION_NOT_MET))
        results = await asyncio.gather(committer.submit(refused), committer.submit(Probe()), return_exceptions=True)
        assert isinstance(results[0], BlobError)
        assert results[1] == "done"
        assert refused.discarded.is_set()

    run(body)


def test_a_change_underneath_prepares_again() -> None:
    async def body(committer: LoopCommitter, sizes: list[int]) -> None:
        job = Probe(agains=2)
        assert await committer.submit(job) == "done"
        assert job.prepared == 3

    run(body)


def test_changes_without_end_are_busy() -> None:
    async def body(committer: LoopCommitter, sizes: list[int]) -> None:
        job = Probe(agains=1000)
        with pytest.raises(BlobError) as caught:
            await committer.submit(job)
        assert caught.value.code is ErrorCode.SERVER_BUSY
        assert job.prepared == PREPARE_ATTEMPTS_MAX
        assert await asyncio.to_thread(job.discarded.wait, WAIT_SECONDS)

    run(body)


def test_what_cannot_be_prepared_is_thrown_away() -> None:
    async def body(committer: LoopCommitter, sizes: list[int]) -> None:
        job = Probe(prepare_error=OSError(5, "fsync"))
        with pytest.raises(StorageUnavailable):
            await committer.submit(job)
        assert await asyncio.to_thread(job.discarded.wait, WAIT_SECONDS)
        assert await asyncio.to_thread(job.closed.wait, WAIT_SECONDS)
        assert sizes == []

    run(body)


def test_a_caller_that_goes_away_does_not_stop_its_job() -> None:
    async def body(committer: LoopCommitter, sizes: list[int]) -> None:
        gate = threading.Event()
        job = Probe(gate)
        caller = asyncio.ensure_future(committer.submit(job))
        await asyncio.to_thread(job.publishing.wait, WAIT_SECONDS)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        gate.set()
        assert await asyncio.to_thread(job.closed.wait, WAIT_SECONDS)
        assert not job.discarded.is_set()
        assert await committer.submit(Probe()) == "done"

    run(body)


def test_too_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "commits_in_flight_max", 1)

    async def body(committer: LoopCommitter, sizes: list[int]) -> None:
        gate = threading.Event()
        first = asyncio.ensure_future(committer.submit(Probe(gate)))
        await asyncio.sleep(0)
        refused = Probe()
        with pytest.raises(BlobError) as caught:
            await committer.submit(refused)
        assert caught.value.code is ErrorCode.SERVER_BUSY
        assert await asyncio.to_thread(refused.closed.wait, WAIT_SECONDS)
        gate.set()
        assert await first == "done"
        assert await committer.submit(Probe()) == "done"

    run(body)
