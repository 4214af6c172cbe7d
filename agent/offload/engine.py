"""The engine: takes rows that are due, as many as do good, has each delivered, and learns from what becomes of them.

Nothing is kept here that a kill must not take: a row that was under way is due again, a large blob goes on from the
blocks that are staged, and what the cloud has already is recognised. So SIGKILL at any moment loses nothing, and a
stop is a kill that waits a moment for sockets to close.

Rejected: a fixed number of workers that each take a row (the number has to follow the link), working off an order
in batches (one large blob would hold up the small ones after it).
"""

import functools
import logging
import random
import time
from collections.abc import Callable
from typing import Final

import trio

from agent.offload.acts import Act, Done
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.crowd import Crowd
from agent.offload.database import Queue
from agent.offload.delivery import MOUNT_ERRORS, Delivery, mount_failure
from agent.offload.failures import CloudFailed, Fault
from agent.offload.fuse import FAILURE as FUSE
from agent.offload.gate import FuseBlown, Gate
from agent.offload.linkwatch import LinkWatch
from agent.offload.opening import QueueError
from agent.offload.pace import SharedPace
from agent.offload.pace import Turn as PaceTurn
from agent.offload.queries import Filter
from agent.offload.rows import Failure, Row
from agent.offload.setbacks import REST_SECONDS, SECOND_NS, TROUBLE_MIN, answered, setback
from agent.offload.states import Hold, Residency
from agent.offload.transport import Errand

log = logging.getLogger("blobedge.offload")

IDLE_SECONDS: Final = 0.5  # between two looks for work when nothing says that there is some
CLOSED_SECONDS_MAX: Final = 30.0  # a closed pace is asked again: the clock may be set
PAUSED: Final = "paused"  # in the queue's settings
BUG: Final = "bug"  # the failure of a row that met one of ours
BUG_RETRY_SECONDS: Final = 900.0
STALLED_SECONDS_MAX: Final = 900.0  # a delivery that sends nothing for so long is stopped, and begun again
STUCK_SECONDS: Final = (
    60.0  # one that sends nothing for so long, as its mount hangs, takes neither another's place nor memory
)


class Running(Errand):
    """A delivery that is under way, and when it last got on."""

    def __init__(self, pace: Callable[[int], PaceTurn], progress: Callable[[int], None]) -> None:
        super().__init__(pace=pace, progress=self._progressed)
        self._told: Final = progress
        self.moved_at = time.monotonic()

    def _progressed(self, count: int) -> None:
        self.moved_at = time.monotonic()
        if count:  # else it reads the file
            self._told(count)


class Engine:
    """Works the queue off."""

    def __init__(
        self,
        queue: AsyncQueue,
        delivery: Delivery,
        gate: Gate,
        pace: SharedPace,
        watch: LinkWatch,
        uploads_count_max: int,
    ) -> None:
        self._queue: Final = queue
        self._delivery: Final = delivery
        self._pace: Final = pace
        self.gate: Final = gate
        self.watch: Final = watch
        watch.on_down, watch.on_up = self.stop_all, self.wake
        self.crowd: Final = Crowd(uploads_count_max)
        self.running: dict[int, Running] = {}
        self.paused = False
        self.closed_until = 0.0  # monotonic: the schedule, the budget or a Retry-After allows nothing before
        self.closed_reason = ""
        self.sent_bytes = 0  # since the start, as all that follows
        self.delivered_count = 0
        self.failures: dict[str, int] = {}
        self.last_failure: tuple[float, str] | None = None  # Unix time, text
        self._trouble = 0  # failures of the service in a row
        self._woken = trio.Event()

    @property
    def conflicts(self) -> dict[str, int]:
        """By policy: versions of somebody else that ours took the place of, since the start."""
        return self._delivery.conflicts

    def wake(self) -> None:
        """There may be work now."""
        self._woken.set()

    def stop_all(self) -> None:
        """End what is under way; it begins again where it was."""
        for errand in self.running.values():
            errand.stop()

    def retry(self) -> None:
        """What was wrong with the cloud may be mended."""
        self.gate.blocked.clear()
        self._trouble = 0
        self.closed_until = 0.0
        self.wake()

    async def pause(self) -> None:
        """Start nothing until `resume`, also after a restart; what is under way ends. Raises QueueError."""
        self.paused = True
        await self._queue(lambda queue: queue.remember(PAUSED, "1"))

    async def resume(self, *, confirm_deletes: bool) -> None:
        """Go on; with all deletes that were found by now, if that is said: the fuse is not asked about them, however
        late they can go. Raises QueueError."""
        self.paused = False
        await self._queue(lambda queue: queue.remember(PAUSED, ""))
        if confirm_deletes:
            wanted = Filter(residencies=frozenset({Residency.GOING}))
            after: str | None = None
            while True:
                done = await self._queue(functools.partial(_confirm, wanted, after))
                if (after := done.after) is None:
                    break
        self.retry()

    async def run(self) -> None:
        """Until cancelled. Raises QueueError."""
        self.paused = await self._queue(lambda queue: queue.recall(PAUSED)) == "1"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.watch.run)
            while True:
                self._woken = trio.Event()
                self.crowd.turn(time.monotonic())
                self.watch.busy = self.gate.under_way
                self._stop_stalled()
                await self._start_some(nursery)
                with trio.move_on_after(IDLE_SECONDS):
                    await self._woken.wait()

    def _stop_stalled(self) -> None:
        for errand in self.running.values():
            quiet = time.monotonic() - errand.moved_at
            if quiet > STUCK_SECONDS:
                self.gate.give_back(errand)
            if quiet > STALLED_SECONDS_MAX:
                errand.stop()

    async def _start_some(self, nursery: trio.Nursery) -> None:
        room = self._room()
        if room <= 0:
            return
        rows = await self._queue(lambda queue: queue.take(time.time_ns(), room, tuple(self.running)))
        for row in rows:
            errand = self.running[row.id] = Running(self._pace, self._sent)
            nursery.start_soon(self._one, row, errand)
        if len(rows) < room:
            self.crowd.not_full()

    def _room(self) -> int:
        """How many rows may be started now."""
        now = time.monotonic()
        if self.paused or now < self.closed_until:
            return 0
        turn = self._pace(0)
        if turn.closed:
            self._close(turn.wait_seconds, turn.closed)
            return 0
        most = 1 if self._trouble >= TROUBLE_MIN else self.crowd.width
        moving = sum(now - each.moved_at < STUCK_SECONDS for each in self.running.values())
        return self.watch.state.work_max(most) - moving

    async def _one(self, row: Row, errand: Errand) -> None:
        """Deliver a row, whatever happens to it. Raises QueueError only."""
        try:
            if await self._delivery.deliver(row, errand):
                self._succeeded()
        except QueueError:
            raise
        except CloudFailed as failed:
            await self._failed(row, failed.fault)
        except FuseBlown as blown:
            await self._report(row, Failure(FUSE, str(blown), Hold.OPERATOR))
        except MOUNT_ERRORS as error:
            await self._report(row, mount_failure(error, time.time_ns()))
        except Exception as error:  # a bug that one blob meets must not stop the others
            log.exception("row %d of the queue", row.id)
            again_at = time.time_ns() + int(BUG_RETRY_SECONDS * SECOND_NS)
            await self._report(row, Failure(BUG, f"{type(error).__name__}; the log has it", Hold.WAITING, again_at))
        finally:
            del self.running[row.id]
            self.wake()

    def _succeeded(self) -> None:
        self._trouble = 0
        self.delivered_count += 1
        self.watch.answered()
        self.crowd.finished(time.monotonic())

    async def _failed(self, row: Row, fault: Fault) -> None:
        if fault.code == "PaceClosed":
            self._close(fault.wait_seconds_min, fault.text)
            return
        what = setback(fault, row.attempts, self._trouble >= TROUBLE_MIN, time.time_ns(), random.random())
        if answered(fault):
            self.watch.answered()
        elif fault.code != "Cancelled":
            self.watch.no_way()
        self._count(fault.kind, fault.text)
        if what.trouble:
            self._trouble += 1
            self.crowd.refused(time.monotonic())
            if fault.wait_seconds_min:
                self._close(fault.wait_seconds_min, fault.text)
        if what.failure is None:
            await trio.sleep(REST_SECONDS)
        else:
            await self._report(row, what.failure, counted=True)

    async def _report(self, row: Row, failure: Failure, *, counted: bool = False) -> None:
        if not counted:
            self._count(failure.failure, failure.error)
        await self._queue(lambda queue: queue.failed(row, failure))

    def _count(self, kind: str, text: str) -> None:
        self.failures[kind] = self.failures.get(kind, 0) + 1
        self.last_failure = (time.time(), text)

    def _close(self, seconds: float, reason: str) -> None:
        until = time.monotonic() + min(seconds, CLOSED_SECONDS_MAX)
        self.closed_until, self.closed_reason = max(self.closed_until, until), reason

    def _sent(self, count: int) -> None:
        """From any thread; a lost update of the counts would only make a forecast a little wrong."""
        self.watch.moved()
        self.sent_bytes += count
        self.crowd.sent(count, time.monotonic())


def _confirm(wanted: Filter, after: str | None, queue: Queue) -> Done:
    return queue.act(Act.CONFIRM, wanted, after)
