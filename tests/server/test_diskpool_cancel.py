"""A caller that is cancelled in the very moment when its call is over must not wait for it a second time, and what a
call has made by then must not be lost."""

import asyncio
import threading
from types import SimpleNamespace
from typing import cast

import pytest

from dataplane.blobapi import limits
from dataplane.blobapi.checksums import Purpose
from dataplane.server.call import Call
from dataplane.server.diskpool import DiskPool, DiskPools
from dataplane.server.uploads import Receiver
from dataplane.store.staging import StagedFile


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


def test_a_file_that_is_staged_for_a_caller_who_is_gone_is_discarded() -> None:
    async def scenario() -> None:
        pools, begun, gate, discarded = DiskPools(local=False), threading.Event(), threading.Event(), threading.Event()
        staged = cast(StagedFile, SimpleNamespace(discard=discarded.set))

        def stage() -> StagedFile:
            begun.set()
            assert gate.wait(10)
            return staged

        request = SimpleNamespace(content_length=limits.small_body_bytes_max + 1, chunked=False, headers={})
        node = SimpleNamespace(behind=lambda pools, function: pools.data_pool._submit(function))
        call = SimpleNamespace(request=request, version="2021-12-02", pools=pools, blocking=pools.data, node=node)
        receiver = Receiver(cast(Call, call), Purpose.BLOB, limits.put_blob_bytes_max)
        caller = asyncio.create_task(receiver.receive(stage))
        assert await asyncio.to_thread(begun.wait, 10)
        caller.cancel()
        await asyncio.sleep(0)
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert await asyncio.to_thread(discarded.wait, 10), "its descriptor and its name stay for ever"
        pools.close()

    asyncio.run(scenario())
