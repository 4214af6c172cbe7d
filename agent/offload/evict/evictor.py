"""Evicts while the node runs: what its age or the disk's use asks for, and what an operator names.

    make room     each disk whose mode says so, down to its low mark, coldest first; by itself, as a disk may hang
    by age        what was not used for as long as its rule says
    after upload  what a rule deletes here once the cloud has it
    asked         what a filter lets through, at once
    expired       what has lived long enough (expiry.py)

The first three take rows as choice.py chooses them, the coldest first, and departure.py lets them go, some batches at a
time. A pass that found nothing to do is followed by a pause of PAUSE_FACTOR times as long as it took to choose: a
million blobs that may not go cost a tenth of a core at most.

In low space, uploads that make room are brought forward, and recalls are not kept (`keep`).
"""

import functools
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any, Final, Protocol

import trio

from agent.config_offload import Offload
from agent.offload.acts import Act, Done
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.delivery import MOUNT_ERRORS
from agent.offload.evict.choice import Choice, Pass
from agent.offload.evict.departure import BATCH_ROWS, OFFLINE, Departures, Left
from agent.offload.evict.expiry import Expiry
from agent.offload.evict.space import Marks, Mode
from agent.offload.evict.spaces import Disk, Found, Part, Spaces, uses
from agent.offload.look import Stores
from agent.offload.queries import Filter, Page
from agent.offload.rows import Row
from agent.offload.rules import Rules
from agent.offload.states import Hold, Residency
from dataplane.store.store import Store

log = logging.getLogger("blobedge.offload")

WAKE_SECONDS: Final = 1.0  # between two looks at the disks: at 1 GB/s that is 1 GB
AGE_SECONDS: Final = 60.0  # between two passes by age
AFTER_UPLOAD_SECONDS: Final = 2.0  # between two passes over what goes once it is uploaded
PAUSE_FACTOR: Final = 9.0
LANES: Final = 3  # batches at one time, so that the disk syncs one while the cloud is asked for another
PAGE_ROWS: Final = 500
DAY_NS: Final = 86_400_000_000_000

#: Why a row whose bytes are only here stays, for an operator who asks.
_NOT_COPIED: Final = {
    Residency.LOCAL: "no rule sends it to the cloud",
    Residency.QUEUED: "the cloud does not have it yet",
}


class Told(Protocol):
    """Who asked for an eviction, and hears how far it is: jobs.Job."""

    blobs: int
    bytes: int

    def keep(self, reason: str, name: str) -> None:
        """A blob was left as it is."""


class Evictor:
    """Everything of a node that lets bytes go."""

    def __init__(
        self,
        queue: AsyncQueue,
        stores: Stores,
        rules: Rules,
        departures: Departures,
        offload: Offload,
        uses: Callable[[Store], list[Found]] = uses,
    ) -> None:
        self._queue: Final = queue
        self._departures: Final = departures
        marks = Marks(offload.space_low_percent, offload.space_high_percent, offload.low_space_percent)
        self.spaces: Final = Spaces(stores, marks, uses)
        rules.low_space = self.spaces.low
        self._evicts_by_age: Final = [rule.evict_days for rule in offload.rules if rule.evict_days is not None]
        self._expiry: Final = Expiry(queue, stores, rules, departures, offload.scan_seconds)
        self._expires: Final = any(rule.ttl_days is not None for rule in offload.rules)
        self._deletes_after_upload: Final = any(rule.delete_after_upload for rule in offload.rules)
        self._choice: Final = Choice(queue, rules, self.spaces)
        self._busy: set[int] = set()  # disks that room is being made on, by id
        self._hurried: set[Part] = set()
        self.evicted_count = 0  # since the start, as what follows
        self.evicted_bytes = 0

    def keep(self, account: str, container: str) -> bool:
        """Whether what a read brings back is kept: not in low space."""
        return not self.spaces.low(account, container)

    def document(self) -> dict[str, Any]:
        """What status shows: each disk, and what went since the start."""
        return {
            "evicted_blobs": self.evicted_count,
            "evicted_bytes": self.evicted_bytes,
            "expired_blobs": self._departures.deleted_count,
            "lost_copies": self._departures.lost_count,
            "low_space": self.low_space,
            "disks": self.spaces.document(),
        }

    @property
    def low_space(self) -> bool:
        """Whether any disk is in low space."""
        return any(disk.mode is Mode.LOW_SPACE for disk in self.spaces)

    def plan(self, wanted: Filter) -> Callable[[Told], Awaitable[None]]:
        """The work of evicting what the filter lets through, for jobs.py."""
        return functools.partial(self.evict, wanted)

    async def run(self) -> None:
        """Until cancelled. Raises QueueError."""
        await self.spaces.look()
        async with trio.open_nursery() as nursery:
            if self._evicts_by_age:
                nursery.start_soon(self._again_and_again, AGE_SECONDS, min(self._evicts_by_age))
            if self._deletes_after_upload:
                nursery.start_soon(self._again_and_again, AFTER_UPLOAD_SECONDS, None)
            if self._expires:
                nursery.start_soon(self._expiry.run)
            while True:
                await self._hurry()
                for disk in self.spaces:
                    if self.spaces.to_free(disk) and id(disk) not in self._busy:
                        self._busy.add(id(disk))
                        nursery.start_soon(self._make_room, disk)
                await trio.sleep(WAKE_SECONDS)
                await self.spaces.look()

    async def evict(self, wanted: Filter, told: Told) -> None:
        """Evict now what the filter lets through and nothing forbids. Raises QueueError."""
        after: str | None = None
        while True:
            page: Page = await self._queue(functools.partial(_page, wanted, after))
            copied: dict[str, list[Row]] = {}
            for row in page.rows:
                if row.residency is Residency.COPIED:
                    if row.size:  # an empty one has nothing to free
                        copied.setdefault(row.account, []).append(row)
                elif row.residency in _NOT_COPIED:
                    told.keep(_NOT_COPIED[row.residency], _name(row))
            for rows in copied.values():
                for batch in _batched(rows, BATCH_ROWS):
                    _tell(told, await self._let_go(batch, Mode.NORMAL, asked=True))
            if (after := page.after) is None:
                return

    # --- passes -------------------------------------------------------------------------------------------------

    async def _again_and_again(self, seconds: float, unused_days: float | None) -> None:
        while True:
            done = Pass()
            await self._sweep(unused_days, done)
            self._departures.tell_deleted()
            await trio.sleep(max(seconds, PAUSE_FACTOR * done.reading_seconds))

    async def _make_room(self, disk: Disk) -> None:
        """One pass over a disk, or as much of one as it needs."""
        want, freed, done = self.spaces.to_free(disk), 0, Pass()
        try:
            for part in sorted(disk.parts):
                if freed < want and not self._waits_for_link(disk):
                    freed += await self._free(part, lambda: disk.mode, want - freed, done)
            if self._waits_for_link(disk):
                copies = await self._choice.copies()
                done.stays[OFFLINE] = sum(
                    at.blobs for at in copies if self.spaces.disk(at.account, at.container) is disk
                )
            disk.stays, disk.stuck = done.stays, not freed and not self._waits_for_link(disk)
            await self.spaces.look()
            if not freed:
                await trio.sleep(PAUSE_FACTOR * done.reading_seconds)
        finally:
            self._busy.discard(id(disk))

    def _waits_for_link(self, disk: Disk) -> bool:
        return self._departures.offline and disk.mode is not Mode.LOW_SPACE

    async def _sweep(self, unused_days: float | None, done: Pass) -> None:
        """One pass over all disks, for what goes whatever their use is."""
        if self._departures.offline:
            return
        since = None if unused_days is None else time.time_ns() - int(unused_days * DAY_NS)
        for disk in self.spaces:
            for part in sorted(disk.parts):
                await self._free(part, _normal, math.inf, done, since)

    async def _free(
        self, part: Part, mode: Callable[[], Mode], want: float, done: Pass, since: int | None = None
    ) -> int:
        """Let blobs of a part go until `want` bytes are on their way, or all were asked for, several batches at a time.
        Returns the bytes that went."""
        freed = promised = 0
        send, receive = trio.open_memory_channel[list[Row]](0)

        async def lane(batches: trio.MemoryReceiveChannel[list[Row]]) -> None:
            nonlocal freed
            async for batch in batches:
                for left in await self._let_go(batch, mode()):
                    freed += left.size
                    if left.why:
                        done.stays[left.why] += 1

        async with trio.open_nursery() as nursery:
            for _ in range(LANES):
                nursery.start_soon(lane, receive.clone())
            receive.close()
            async with send, aclosing(self._choice.batches(part, mode, done, since)) as rows:
                async for batch in rows:
                    going = _enough(batch, want - promised)
                    promised += sum(row.size for row in going)
                    await send.send(going)
                    if promised >= want:
                        break
        return freed

    async def _let_go(self, rows: list[Row], mode: Mode, *, asked: bool = False) -> list[Left]:
        """A batch of one account. What did not go rests; all of it when the mount does not answer."""
        if not rows:
            return []
        try:
            found = await self._departures.batch(rows[0].account, rows, mode, asked=asked)
        except MOUNT_ERRORS as error:
            log.warning("account %s: nothing can be evicted now: %s", rows[0].account, error)
            found = [Left(row, 0, "the mount does not answer") for row in rows]
        for left in found:
            if left.why and left.why != OFFLINE:  # which is no fault of the blob
                self._choice.rest(left.row, left.why)
            elif not left.why and not left.deleted:  # deleted ones have a count of their own
                self.evicted_count += 1
                self.evicted_bytes += left.size
        return found

    async def _hurry(self) -> None:
        """When a disk gets into low space: what waits to be uploaded from it is looked at again."""
        low = {part for disk in self.spaces if disk.mode is Mode.LOW_SPACE for part in disk.parts}
        for account in {part.account for part in low - self._hurried}:
            waiting = Filter(account, residencies=frozenset({Residency.QUEUED}), holds=frozenset({Hold.WAITING}))
            after: str | None = None
            while True:
                done = await self._queue(functools.partial(_retry, waiting, after))
                if (after := done.after) is None:
                    break
        self._hurried = low


def _batched(rows: list[Row], count: int) -> Iterator[list[Row]]:
    return (rows[start : start + count] for start in range(0, len(rows), count))


def _tell(told: Told, found: list[Left]) -> None:
    for left in found:
        if left.why:
            told.keep(left.why, _name(left.row))
        else:
            told.blobs += 1
            told.bytes += left.size


def _normal() -> Mode:
    return Mode.NORMAL


def _enough(batch: list[Row], want: float) -> list[Row]:
    """As many of the first as have that many bytes."""
    total = 0
    for number, row in enumerate(batch, 1):
        total += row.size
        if total >= want:
            return batch[:number]
    return batch


def _page(wanted: Filter, after: str | None, queue: Queue) -> Page:
    return queue.rows(wanted, after, PAGE_ROWS)


def _retry(waiting: Filter, after: str | None, queue: Queue) -> Done:
    return queue.act(Act.RETRY, waiting, after)


def _name(row: Row) -> str:
    return f"{row.account}/{row.container}/{row.name}"
