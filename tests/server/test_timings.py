"""Where a request's time went: what a call reports of queue and disk. Nothing here depends on the machine's speed:
calls are held by the test, and compared with how long it held them by the same clock."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.server.commits import LoopCommitter
from dataplane.server.diskpool import DiskPool, DiskPools
from dataplane.server.timings import Timings
from dataplane.store.commit import Job
from dataplane.store.worktime import WorkTime

HELD_SECONDS = 0.02
HELD_NS = round(HELD_SECONDS * 1e9)


class Gate:
    """A call that says when it has begun, and ends when it is let go."""

    def __init__(self) -> None:
        self.begun, self._open = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self._open.wait(30)
        return "done"

    def open(self) -> None:
        self._open.set()

    async def hold(self) -> None:
        """Let it run for HELD_SECONDS from now on, which it has begun to."""
        await asyncio.to_thread(self.begun.wait, 30)
        await asyncio.sleep(HELD_SECONDS)


class HeldJob(Job[str]):
    """A job whose steps are held by gates."""

    durable = False

    def __init__(self, publishing: Callable[[], object], preparing: Callable[[], object] | None = None) -> None:
        super().__init__()
        self._publishing, self._preparing = publishing, preparing
        self.needs_prepare = preparing is not None

    def prepare(self) -> None:
        if self._preparing is not None:
            self._preparing()

    def publish(self) -> str:
        self._publishing()
        return "published"


def test_a_call_here_and_now_is_disk() -> None:
    timings = Timings()
    assert timings.at_once(lambda x: x, 1) == 1
    with pytest.raises(OSError, match="no"):
        timings.at_once(_fail)
    assert timings.disk_ns > 0
    assert timings.queue_ns == 0


def _fail() -> None:
    raise OSError("no")


def test_a_wait_for_a_thread_is_queue_and_its_call_is_disk() -> None:
    async def scene() -> tuple[Timings, Timings, int]:
        pool, gate = DiskPool("test", 1, 10), Gate()
        first, second = Timings(), Timings()
        begun_ns = time.perf_counter_ns()
        running = asyncio.create_task(first.on_thread(pool.run, gate))
        waiting = asyncio.create_task(second.on_thread(pool.run, str, 5))
        await gate.hold()
        gate.open()
        assert await running == "done"
        assert await waiting == "5"
        pool.close()
        return first, second, time.perf_counter_ns() - begun_ns

    first, second, whole_ns = asyncio.run(scene())
    assert first.disk_ns >= HELD_NS
    assert second.queue_ns >= HELD_NS
    for each in (first, second):
        assert 0 <= each.queue_ns + each.disk_ns <= whole_ns


def test_a_call_that_is_given_up_while_it_hangs_is_disk() -> None:
    async def scene() -> Timings:
        pool, gate, timings = DiskPool("test", 1, 10), Gate(), Timings()
        running = asyncio.create_task(timings.on_thread(pool.run_detached, gate))
        await gate.hold()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        gate.open()
        pool.close()
        return timings

    timings = asyncio.run(scene())
    assert timings.disk_ns >= HELD_NS


def test_a_request_that_is_answered_while_its_call_hangs_has_its_time_once() -> None:
    async def scene() -> tuple[int, int]:
        pool, gate, timings = DiskPool("test", 1, 10), Gate(), Timings()
        running = asyncio.create_task(timings.on_thread(pool.run, gate))
        await gate.hold()
        assert timings.waiting is not None
        timings.settle()
        settled_ns = timings.disk_ns
        gate.open()
        await running
        pool.close()
        return settled_ns, timings.disk_ns

    settled_ns, in_the_end_ns = asyncio.run(scene())
    assert settled_ns >= HELD_NS
    assert in_the_end_ns == settled_ns


def test_a_call_that_is_given_up_before_it_ran_is_queue() -> None:
    async def scene() -> Timings:
        pool, gate, timings = DiskPool("test", 1, 10), Gate(), Timings()
        running = asyncio.create_task(pool.run(gate))
        await asyncio.to_thread(gate.begun.wait, 30)
        waiting = asyncio.create_task(timings.on_thread(pool.run, str, 5))
        await asyncio.sleep(HELD_SECONDS)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.open()
        await running
        pool.close()
        return timings

    timings = asyncio.run(scene())
    assert timings.disk_ns == 0
    assert timings.queue_ns > 0


def test_a_full_pool_costs_next_to_nothing() -> None:
    async def scene() -> Timings:
        pool, gate, timings = DiskPool("test", 1, 0), Gate(), Timings()
        running = asyncio.create_task(pool.run(gate))
        await asyncio.to_thread(gate.begun.wait, 30)
        with pytest.raises(BlobError):
            await timings.on_thread(pool.run, str, 5)
        gate.open()
        await running
        pool.close()
        return timings

    assert asyncio.run(scene()).disk_ns == 0


def test_a_group_commit_is_queue_until_it_begins_and_disk_until_it_ends() -> None:
    async def scene() -> tuple[list[Timings], Timings]:
        pools = DiskPools()
        committer = LoopCommitter(asyncio.get_running_loop(), lambda mount: pools)
        gates, held, late = [Gate(), Gate()], [Timings(), Timings()], Timings()
        running = []
        for gate, timings in zip(gates, held, strict=True):  # each of the committer's threads has a group
            running.append(asyncio.create_task(timings.committed(committer, HeldJob(gate))))
            await asyncio.to_thread(gate.begun.wait, 30)
        waiting = asyncio.create_task(late.committed(committer, HeldJob(lambda: None)))
        await asyncio.sleep(0)  # it is submitted
        await asyncio.sleep(HELD_SECONDS)
        for gate in gates:
            gate.open()
        assert await asyncio.gather(*running, waiting) == ["published"] * 3
        await asyncio.to_thread(committer.stop, 30.0)
        pools.close()
        return held, late

    held, late = asyncio.run(scene())
    assert all(timings.disk_ns >= HELD_NS for timings in held)
    assert late.queue_ns >= HELD_NS


def test_a_jobs_preparation_is_disk() -> None:
    async def scene() -> Timings:
        pools, gate, timings = DiskPools(), Gate(), Timings()
        committer = LoopCommitter(asyncio.get_running_loop(), lambda mount: pools)
        running = asyncio.create_task(timings.committed(committer, HeldJob(lambda: None, gate)))
        await gate.hold()
        gate.open()
        assert await running == "published"
        await asyncio.to_thread(committer.stop, 30.0)
        pools.close()
        return timings

    assert asyncio.run(scene()).disk_ns >= HELD_NS


def test_the_wait_for_room_is_queue_and_so_is_one_that_fails() -> None:
    async def refused() -> None:
        await asyncio.sleep(HELD_SECONDS)
        raise BlobError(ErrorCode.SERVER_BUSY)

    async def scene() -> Timings:
        timings = Timings()
        await timings.queued(asyncio.sleep(HELD_SECONDS))
        with pytest.raises(BlobError):
            await timings.queued(refused())
        return timings

    spent = asyncio.run(scene())
    assert spent.queue_ns >= 2 * HELD_NS
    assert spent.disk_ns == 0


def test_a_stopwatch_that_runs_tells_what_it_has() -> None:
    work = WorkTime()
    assert work.busy_ns(time.perf_counter_ns()) == 0
    work.begin()
    begun_ns = time.perf_counter_ns()
    assert work.busy_ns(begun_ns + 1000) >= 1000
    work.end()
    first = work.busy_ns(0)
    assert first > 0
    work.begin()
    work.end()
    assert work.busy_ns(0) > first
