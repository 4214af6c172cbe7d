"""The sum of all workers' slots, read in a thread: some milliseconds with many workers, which the loop does not have.

Totals never fall while the supervisor lives: slots that no process has now are in the sum, each slot is in it once, and
a slot only ever grows. The descriptors are duplicated first: the supervisor may close its own while the thread reads.
"""

import os

import trio

from agent.supervision.snapshot import Service
from dataplane.ipc.series import Reading, read_fds


async def read_totals(service: Service) -> Reading:
    """Add up the slots of all workers, dead ones too. Raises SlotError for a descriptor that is no slot, OSError."""
    mine: list[int] = []
    try:
        # In one step, without an await: no slot is seen twice, or missed.
        mine.extend(map(os.dup, (*service.slot_fds(), *service.retired_slot_fds())))
        return await trio.to_thread.run_sync(read_fds, mine)
    finally:
        for fd in mine:
            os.close(fd)
