"""The workers' journals become rows of the queue, within POLL_SECONDS, while they are written.

- A batch and the offset that it goes up to are one transaction, so after any end of this process nothing is lost or
  missed. A segment is removed when its writer is done with it and all of it is durable in the queue.
- A change is looked at when it is DONE. An INTENT that nothing followed (its worker was killed in between) is noted
  when its segment is finished: the blob may have changed or not, and a look tells.
- What the journals cannot tell sets the flag `unclean` (dataplane/journal/unclean.py): a scan looks at everything.

Rejected: inotify on the directory (a watch for what a look every quarter second costs nothing to find), a row for each
INTENT (a look before the change is published sees the old version, and would have to come again).
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

import trio

from agent.offload.asyncqueue import AsyncQueue
from agent.offload.look import is_text
from agent.offload.rows import Change, Freed, Read
from agent.offload.rules import Rules, first_turn
from dataplane.journal import unclean
from dataplane.journal.reader import Segment, segments
from dataplane.journal.record import DamagedSegment, ForeignSegment, Kind, Record, freed_of

log = logging.getLogger("blobedge.offload")

POLL_SECONDS: Final = 0.25
RETRY_SECONDS: Final = 5.0  # after the journals' directory could not be read
JUDGE_SECONDS: Final = 5.0  # between two looks for workers that are gone

Container = tuple[str, str]  # account, container
Blob = tuple[str, str, str]


class _Batch(NamedTuple):
    """What was read of a segment, and what is to be done with the segment when that is durable."""

    changes: list[Change]
    reads: list[Read]
    looks: set[Container]
    freed: list[Freed]
    next_offset: int
    finished: bool


class Tail:
    """Reads the journals in `directory` into the queue. `changed` is called after each batch, with the containers that
    were themselves made, changed or deleted; the queue has them too (`Queue.looks`)."""

    def __init__(
        self, directory: Path, queue: AsyncQueue, rules: Rules, changed: Callable[[set[Container]], None]
    ) -> None:
        self._directory: Final = directory
        self._queue: Final = queue
        self._rules: Final = rules
        self._changed: Final = changed
        self._offsets: dict[str, int] = {}
        self._given_up: set[str] = set()
        self._judge_at = 0.0
        self.records_count = 0  # since the start

    async def run(self) -> None:
        """Until cancelled. Raises QueueError."""
        self._offsets = await self._queue(lambda queue: queue.offsets())
        while True:
            try:
                busy = await self._round()
            except OSError as error:
                log.error("the journals in %s cannot be read: %s", self._directory, error.strerror or error)
                await trio.sleep(RETRY_SECONDS)
                continue
            if not busy:
                await trio.sleep(POLL_SECONDS)

    async def _round(self) -> bool:
        """One batch of each segment. Returns whether there was anything."""
        found = await trio.to_thread.run_sync(self._list)
        there = {each.name for each in found}
        for name in self._offsets.keys() - there:  # removed, and the process ended before that was noted
            await self._forget(name)
        busy = False
        for segment in found:
            if segment.name in self._given_up:
                await self._discard(segment)
            else:
                busy |= await self._take(segment)
        return busy

    def _list(self) -> list[Segment]:
        if time.monotonic() >= self._judge_at:
            unclean.judge(self._directory)
            self._judge_at = time.monotonic() + JUDGE_SECONDS
        return segments(self._directory)

    async def _take(self, segment: Segment) -> bool:
        offset = self._offsets.get(segment.name, 0)
        try:
            batch = await trio.to_thread.run_sync(self._read, segment, offset)
        except (DamagedSegment, ForeignSegment) as error:
            await self._give_up(segment, error)
            return False
        except FileNotFoundError:
            return False
        if batch.next_offset != offset or batch.changes:
            await self._queue.alone(
                lambda queue: queue.ingest(
                    segment.name, batch.next_offset, batch.changes, batch.reads, batch.looks, batch.freed
                )
            )
            self._offsets[segment.name] = batch.next_offset
            self._changed(batch.looks)
        if batch.finished and await trio.to_thread.run_sync(segment.remove, batch.next_offset):
            await self._forget(segment.name)
        return batch.next_offset != offset

    def _read(self, segment: Segment, offset: int) -> _Batch:
        finished = segment.finished()  # before the read: what it says, the read has seen the end of
        records, next_offset = segment.read(offset)
        changes, reads, containers, freed = self._sorted(records)
        self.records_count += len(records)
        at_end = finished and next_offset == offset
        if at_end:
            changes = list(self._changes(unanswered(segment), time.time_ns()))
        return _Batch(changes, reads, containers, freed, next_offset, at_end)

    def _sorted(self, records: Iterable[Record]) -> tuple[list[Change], list[Read], set[Container], list[Freed]]:
        freed: list[Freed] = []
        done: dict[Blob, int] = {}
        reads: list[Read] = []
        containers: set[Container] = set()
        for kind, account, container, name, when in records:
            if kind is Kind.CONTAINER:
                containers.add((account, container))
            elif kind is Kind.READ and is_text(name):
                reads.append(Read(account, container, name, when))
            elif kind is Kind.DONE:
                done[account, container, name] = when
            elif kind is Kind.FREED and is_text(name):
                freed.append(Freed(account, container, *freed_of(name)))
        changes = [change for blob, when in done.items() for change in self._changes([blob], when)]
        return changes, reads, containers, freed

    def _changes(self, blobs: Iterable[Blob], when: int) -> Iterable[Change]:
        """What the rules may send. Others have no row, and one that had is looked at again by the next scan."""
        for account, container, name in blobs:
            turn = first_turn(self._rules, account, container, name, when) if is_text(name) else None
            if turn is not None:
                yield Change(account, container, name, when, *turn)

    async def _give_up(self, segment: Segment, error: Exception) -> None:
        """The rest of it is lost: a scan looks at everything, and the segment goes with its writer."""
        # A power cut leaves such ends. While its worker lives, it is the disk's doing, or another program's.
        finished = await trio.to_thread.run_sync(segment.finished)
        level = logging.WARNING if finished else logging.ERROR
        log.log(level, "journal segment %s: %s; all accounts are looked at again", segment.name, error)
        await trio.to_thread.run_sync(unclean.mark, self._directory)
        self._given_up.add(segment.name)
        await self._discard(segment)

    async def _discard(self, segment: Segment) -> None:
        if await trio.to_thread.run_sync(segment.discard):
            await self._forget(segment.name)

    async def _forget(self, name: str) -> None:
        await self._queue(lambda queue: queue.forget_segment(name))
        self._offsets.pop(name, None)
        self._given_up.discard(name)


def unanswered(segment: Segment) -> set[Blob]:
    """The blobs of a finished segment that have an INTENT which no DONE of the segment follows. Two changes of a blob
    may be under way at once, so each INTENT needs a DONE. Raises OSError, and what reading a damaged segment raises."""
    waiting: Counter[Blob] = Counter()
    offset = -1
    next_offset = 0
    while next_offset != offset:
        offset = next_offset
        records, next_offset = segment.read(offset)
        for kind, account, container, name, _ in records:
            if kind is Kind.INTENT:
                waiting[account, container, name] += 1
            elif kind is Kind.DONE and waiting[account, container, name] <= 1:
                del waiting[account, container, name]
            elif kind is Kind.DONE:
                waiting[account, container, name] -= 1
    return set(waiting)
