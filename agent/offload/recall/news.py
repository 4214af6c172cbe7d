"""What the queue hears of recalls.

Bytes that came back count as read now. The worker's own note of a read comes seconds later, and `blobedge recall` reads
nothing: without this, a rule that evicts by age would take them away at once. A copy that a reader did not find is the
alarm that a comparison gives, and no other: it stays until the bytes are there again.
"""

import time
from typing import Final, Protocol

from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.recall.shelf import Key
from agent.offload.rows import Failure, Read
from agent.offload.states import COPY_LOST, Hold, Residency


class News(Protocol):
    """Who is told what became of a stub."""

    async def arrived(self, key: Key) -> None:
        """Its bytes are here again, verified."""
        ...

    async def missing(self, key: Key, text: str) -> None:
        """Its copy in the cloud is not there, or is another one."""
        ...


class QueueNews:
    """Tells the queue, where the next look at the row finds it. Raises QueueError."""

    def __init__(self, queue: AsyncQueue) -> None:
        self._queue: Final = queue

    async def arrived(self, key: Key) -> None:
        read = Read(key.account, key.container, key.name, time.time_ns())

        def came(queue: Queue) -> None:
            with queue.transaction():
                queue.note((), [read])
                queue.arrived(*key)

        await self._queue(came)

    async def missing(self, key: Key, text: str) -> None:
        failure = Failure(COPY_LOST, text, Hold.OPERATOR)

        def held(queue: Queue) -> None:
            row = queue.find(key.account, key.container, key.name)
            if row is None or (row.residency, row.etag) != (Residency.REMOTE, key.etag):
                return  # another version has bytes of its own
            if row.failure != COPY_LOST:  # else a comparison has said it, and what to do
                queue.failed(row, failure)

        await self._queue(held)
