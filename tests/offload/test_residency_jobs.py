"""Jobs: begun, looked at, stopped; and bringing back what is remote, some at a time."""

from pathlib import Path

import pytest
import trio
import trio.lowlevel

from agent.offload import bringing, jobs
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.jobs import Job, Jobs, JobState, TooManyJobs
from agent.offload.queries import Filter
from agent.offload.rows import Adopted, Copy, Row, Seen
from agent.offload.states import Residency

pytestmark = pytest.mark.trio
NOW = 1_000


async def work(job: Job) -> None:
    job.blobs += 1


async def ages(job: Job) -> None:
    job.blobs += 1
    await trio.sleep_forever()


async def breaks(job: Job) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises)


async def raises() -> None:
    raise ValueError("why")


async def until(job: Job, state: JobState) -> None:
    with trio.fail_after(30.0):
        while job.state is not state:
            await trio.lowlevel.checkpoint()


async def test_a_job_ends_is_stopped_or_fails_and_the_others_go_on() -> None:
    async with trio.open_nursery() as nursery:
        made = Jobs(nursery)
        done, stopped, failed = made.start("a", work), made.start("b", ages), made.start("c", breaks)
        await until(done, JobState.DONE)
        await until(failed, JobState.FAILED)
        assert failed.error == "ValueError: why"
        found = made.find(stopped.id)
        assert found is stopped
        assert found.state is JobState.RUNNING
        made.stop(stopped.id)
        await until(stopped, JobState.STOPPED)
        made.stop(stopped.id)  # nothing happens
        assert made.find("other-1") is None
        assert stopped.document()["blobs"] == 1


async def test_so_many_run_at_once_and_so_many_are_remembered() -> None:
    async with trio.open_nursery() as nursery:
        made = Jobs(nursery)
        running = [made.start(str(number), ages) for number in range(jobs.RUNNING_COUNT_MAX)]
        with pytest.raises(TooManyJobs):
            made.start("one more", work)
        made.stop(running[0].id)
        await until(running[0], JobState.STOPPED)
        for _ in range(jobs.KEPT_COUNT + 1):
            await until(made.start("short", work), JobState.DONE)
        assert made.find(running[0].id) is None
        assert made.find(running[1].id) is running[1]
        nursery.cancel_scope.cancel()


def remote(queue: Queue, count: int) -> None:
    """So many remote blobs of ten bytes in a container, and one that is here."""
    rows = [
        Adopted("a", "c", f"n{number:02}", Residency.REMOTE, Seen("e", 10, NOW), Copy("e", "x", "c", "n", NOW))
        for number in range(count)
    ]
    queue.adopt([*rows, Adopted("a", "c", "here", Residency.LOCAL, Seen("e", 10, NOW))])


async def test_what_is_remote_comes_and_what_does_not_is_counted_by_reason(tmp_path: Path) -> None:
    with Queue(tmp_path / "queue.db") as queue:
        remote(queue, 20)
        under_way, most, came = 0, 0, []
        all_at_once = trio.Event()

        async def bring(row: Row, progress: bringing.Progress) -> str:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            if under_way == bringing.AT_ONCE_COUNT:
                all_at_once.set()
            await all_at_once.wait()
            under_way -= 1
            if row.name == "n07":
                return "in the archive"
            progress(row.size)
            came.append(row.name)
            return ""

        async with trio.open_nursery() as nursery:
            plan = bringing.plan(AsyncQueue(queue), bring, Filter(account="a", container="c", prefix="n"))
            job = Jobs(nursery).start("recall", plan)
            await until(job, JobState.DONE)
        assert (job.blobs, job.bytes, job.blobs_total, job.bytes_total) == (19, 190, 20, 200)
        assert (job.kept, job.examples) == ({"in the archive": 1}, {"in the archive": "a/c/n07"})
        assert sorted([*came, "n07"]) == [f"n{number:02}" for number in range(20)]
        assert most == bringing.AT_ONCE_COUNT


async def test_a_job_that_is_stopped_brings_nothing_more(tmp_path: Path) -> None:
    with Queue(tmp_path / "queue.db") as queue:
        remote(queue, 20)
        begun: list[str] = []

        async def bring(row: Row, progress: bringing.Progress) -> str:
            begun.append(row.name)
            await trio.sleep_forever()
            return ""

        async with trio.open_nursery() as nursery:
            made = Jobs(nursery)
            job = made.start("recall", bringing.plan(AsyncQueue(queue), bring, Filter(account="a")))
            with trio.fail_after(30.0):
                while len(begun) < bringing.AT_ONCE_COUNT:
                    await trio.lowlevel.checkpoint()
            made.stop(job.id)
            await until(job, JobState.STOPPED)
        assert len(begun) == bringing.AT_ONCE_COUNT
        assert job.blobs == 0
