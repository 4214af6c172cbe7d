"""Brings back all remote blobs that an operator names, some at a time.

A blob that does not come is counted with its reason and leaves the others alone. While the link is down each says so
at once, so the work ends soon and its report is clear. Rejected: waiting for the link in here (whoever asked has to see
that nothing moves).
"""

import functools
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.jobs import Job, Work
from agent.offload.queries import Filter, Page
from agent.offload.recall.reasons import NotComing
from agent.offload.recall.recalls import Recalls
from agent.offload.rows import Row
from agent.offload.states import Residency
from dataplane.ipc.recalls import Why

AT_ONCE_COUNT: Final = 4  # blobs on their way back for one operator; readers and uploads share the link with them
PAGE_ROWS: Final = 500
SUMMED_ROWS_MAX: Final = 50_000  # what is more is not summed up beforehand
REMOTE: Final = frozenset({Residency.REMOTE})

Progress = Callable[[int], None]
#: Brings one row's blob, telling bytes as they come; "" when it is here, else why it is not.
Bring = Callable[[Row, Progress], Awaitable[str]]

#: Why one does not come, in few words that many blobs share.
_REASONS: Final[dict[Why, str]] = {
    "offline": "the link is down",
    "archived": "the cloud has it in its archive tier: rehydrate it there first",
    "missing": "the cloud does not have it any more as it was",
    "space": "there is no room for it here",
    "changed": "it was changed meanwhile",
    "failed": "it failed: the log of the sidecar has more",
}


def through(recalls: Recalls) -> Bring:
    """Bring blobs through the recalls that serve readers too, so that none is fetched twice."""

    async def bring(row: Row, progress: Progress) -> str:
        last = 0

        def came(total: int) -> None:
            nonlocal last
            progress(total - last)
            last = total

        try:
            await recalls.bring(row.account, row.container, row.name, came)
        except NotComing as failure:
            why = failure.message.why
            return (failure.gist if why == "failed" else "") or _REASONS[why]
        came(row.size)  # the last bytes are told with the end
        return ""

    return bring


def plan(queue: AsyncQueue, bring: Bring, wanted: Filter) -> Work:
    """The work of bringing back what the filter lets through.

    A prefix is a range of the names, which is read whole; without one, only what is remote is read.
    """
    remote = Filter(wanted.account, wanted.container, wanted.prefix, residencies=None if wanted.prefix else REMOTE)

    async def work(job: Job) -> None:
        await _sum_up(queue, remote, job)
        send, receive = trio.open_memory_channel[Row](0)
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE_COUNT):
                nursery.start_soon(_bring_each, receive.clone(), bring, job)
            receive.close()
            async with send:
                await _tell_each(queue, remote, send)

    return work


async def _sum_up(queue: AsyncQueue, wanted: Filter, job: Job) -> None:
    """The totals for a progress bar, unless there are too many rows to count them first."""
    blobs = size = 0
    after: str | None = None
    while True:
        page = await queue(functools.partial(_page, wanted, after))
        blobs += len(page.rows)
        size += sum(row.size for row in page.rows)
        if (after := page.after) is None:
            job.blobs_total, job.bytes_total = blobs, size
            return
        if blobs >= SUMMED_ROWS_MAX:
            return


async def _tell_each(queue: AsyncQueue, wanted: Filter, send: "trio.MemorySendChannel[Row]") -> None:
    after: str | None = None
    while True:
        page = await queue(functools.partial(_page, wanted, after))
        for row in page.rows:
            await send.send(row)
        if (after := page.after) is None:
            return


async def _bring_each(rows: "trio.MemoryReceiveChannel[Row]", bring: Bring, job: Job) -> None:
    def came(count: int) -> None:
        job.bytes += count

    async with rows:
        async for row in rows:
            if why := await bring(row, came):
                job.keep(why, f"{row.account}/{row.container}/{row.name}")
            else:
                job.blobs += 1


def _page(wanted: Filter, after: str | None, queue: Queue) -> Page:
    page = queue.rows(wanted, after, PAGE_ROWS)
    return page._replace(rows=[row for row in page.rows if row.residency in REMOTE])
