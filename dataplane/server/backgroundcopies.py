"""The copies that one worker carries out after it has answered `pending`.

Bounded: one more is refused with ServerBusy. A copy can be cancelled by its id (Abort Copy Blob); `stop` cancels all
and waits for them, while the committers still run, so that each can write down that it failed. Nothing of it outlives
the worker: what a killed one leaves behind reads as failed after a while (blobapi.copysource.observed).
"""

import asyncio
from collections.abc import Coroutine

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode


class BackgroundCopies:
    """Tasks by copy id."""

    def __init__(self, running_max: int = limits.copies_background_max) -> None:
        self._running_max = running_max
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def check_room(self) -> None:
        """Raises BlobError ServerBusy when as many run as may."""
        if len(self._tasks) >= self._running_max:
            raise BlobError(ErrorCode.SERVER_BUSY, headers=(("Retry-After", "5"),))

    def start(self, copy_id: str, work: Coroutine[None, None, None]) -> None:
        """Run a copy. `work` handles its own failures."""
        task = asyncio.get_running_loop().create_task(work, name=f"copy {copy_id}")
        self._tasks[copy_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(copy_id, None))

    def cancel(self, copy_id: str) -> None:
        """End a copy, if it is one of this worker's."""
        task = self._tasks.get(copy_id)
        if task is not None:
            task.cancel()

    async def stop(self) -> None:
        """Cancel all and wait until each has written down its end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def wait(self) -> None:
        """Wait until those that run now are done (tests, draining)."""
        await asyncio.gather(*list(self._tasks.values()), return_exceptions=True)
