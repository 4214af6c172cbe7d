"""A caller that is cancelled in the very moment when its call is over must not wait for it a second time."""

import asyncio
import threading

import pytest

from dataplane.server.diskpool import DiskPool


def test_cancelled_between_the_end_of_the_call_and_its_delivery() -> None:
    async def scenario() -> None:
        pool = DiskPool("test", 1, 1)
        ended = threading.Event()
        caller = asyncio.create_task(pool.run(ended.set))
        await asyncio.sleep(0)  # the call is handed over
        assert ended.wait(10)
        while pool._threads[0].is_alive() and not _delivery_waits(pool):
            pass  # the loop stands still here, so that the delivery waits in its queue
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(caller, 10)
        pool.close()

    asyncio.run(scenario())


def _delivery_waits(pool: DiskPool) -> bool:
    """Whether the thread has told the loop: it is back to waiting for the next call then."""
    loop = asyncio.get_running_loop()
    return len(loop._ready) > 0  # type: ignore[attr-defined]
