"""Looks at all that the mounts hold, and has the queue look at every blob that it does not know as it is.

It finds what no journal told of: what other programs wrote, what was lost with a database, what happened while journals
could not be written. It reads a page of a container and the queue's rows of the same names side by side, so it needs
the memory of a page, however many blobs there are; sleeps in proportion to what it worked; and keeps its place in the
queue, in one transaction with what it found. It never touches the cloud: whether a blob is to be sent, and whether the
cloud has it already, is found out where blobs are sent.

Rejected: comparing every blob by opening it (the listing has the ETag), a list of all names (memory).
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Final, TypeVar

import trio

from agent.offload.amounts import NANOSECONDS, time_ns
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.delivery import MOUNT_ERRORS
from agent.offload.homes import Homes
from agent.offload.look import Stores, is_text, storable
from agent.offload.queries import Known
from agent.offload.rows import Change, Measured, Turn, Wandered
from agent.offload.rules import Rules, first_turn
from agent.offload.states import Hold, Residency
from dataplane.blobapi.model import LOST, BlobState
from dataplane.store.store import Store

log = logging.getLogger("blobedge.offload")

PAGE_BLOBS: Final = 1_000
ROWS_MAX: Final = 5_000  # of the queue at once
CONTAINERS_MAX: Final = 1_000_000
CALL_SECONDS_MAX: Final = 120.0  # for one page of a mount; it hangs then
SLEEP_FACTOR: Final = 4.0  # of the time that a page took: a scan takes a fifth of a core at most
CLOCK_SECONDS_MAX: Final = 60  # that a row may be of the future; the clock was set back since it was noted
PLACE: Final = "scan"  # in the queue's settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """How far a scan is: everything before `start` in `container` of `account` was looked at.

    `again`: the rules are other ones than when the rows were made, so what they kept here may go now. `fast`: the
    queue knows nothing, so it does not sleep. `rules`: a digest of those that it began with.
    """

    account: str = ""
    container: str = ""
    start: str = ""
    again: bool = False
    fast: bool = False
    rules: str = ""
    found: int = 0  # blobs that the queue did not know as they are
    blobs: int = 0  # that were looked at


Places = dict[str, Place]  # by account: those whose scan is not finished


@dataclass(frozen=True, slots=True)
class Done:
    """What a scan found, and which accounts it could not finish: their mounts failed."""

    blobs: int
    found: int
    failed: dict[str, Exception]


class Scanner:
    """Scans accounts, or a container. Not for two tasks at once."""

    def __init__(self, stores: Stores, queue: AsyncQueue, rules: Rules) -> None:
        self._stores: Final = stores
        self._queue: Final = queue
        self._rules: Final = rules
        self._homes: Final = Homes(queue, stores)
        self._left: Places = {}  # as they are noted
        self.place: Place | None = None  # of the scan that is under way

    def beginning(self, place: Place) -> Places:
        """All accounts from their beginning, otherwise as `place` says."""
        return {account: replace(place, account=account) for account in self._stores.names()}

    async def unfinished(self) -> Places:
        """The places of scans that were not finished, by the process before this one or because of a mount."""
        text = await self._queue(lambda queue: queue.recall(PLACE))
        try:
            found = {account: Place(**place) for account, place in json.loads(text or "{}").items()}
        except (ValueError, TypeError, AttributeError):  # of another version
            return self.beginning(Place())
        return {account: place for account, place in found.items() if account in self._stores.names()}

    async def begin(self, places: Places, settings: Mapping[str, str] | None = None) -> None:
        """Note that scans begin here, and no others: `unfinished` has each until `scan` is through with it; and keep
        settings with that. Raises QueueError."""
        self._left = dict(places)

        def note(queue: Queue) -> None:
            queue.remember(PLACE, self._noted())
            for key, value in (settings or {}).items():
                queue.remember(key, value)

        await self._queue(note)

    async def scan(self, places: Places) -> Done:
        """Look at accounts, each from its place on. One whose mount fails stops where it is, and the others go on; what
        was found so far is noted, and `unfinished` has its place. Raises QueueError."""
        self._left = {**await self.unfinished(), **places}
        blobs, found = 0, 0
        failed: dict[str, Exception] = {}
        for account, begun in sorted(places.items()):
            try:
                await self._account(begun)
            except MOUNT_ERRORS as error:
                failed[account] = error
            place = self._left[account] if account in failed else self.place or begun
            blobs, found = blobs + place.blobs, found + place.found
            if account not in failed:
                del self._left[account]
                await self._queue(lambda queue: queue.remember(PLACE, self._noted()))
        self.place = None
        return Done(blobs, found, failed)

    async def _account(self, place: Place) -> None:
        """Look at one from its place on."""
        self.place = place
        for container in await self._containers(place.account):
            if container < place.container:
                continue
            if container != place.container:
                place = replace(place, container=container, start="")
            place = await self._container(place)

    async def scan_container(self, account: str, container: str) -> None:
        """Look at one container, which was itself made, changed or deleted. Raises as `scan`, and MOUNT_ERRORS."""
        if account in self._stores.names() and self._rules.candidates(account, container):
            await self._homes.meant(account, container)
            await self._container(Place(account, container), keep=False)

    async def _containers(self, account: str) -> list[str]:
        """Those of the mount that rules are for, and those of the queue, whether they are still there or not."""
        there = await self._call(account, lambda store: store.list_containers("", "", CONTAINERS_MAX)[0])
        totals = await self._queue(lambda queue: queue.counts())
        names = {each.name for each in there if self._rules.candidates(account, each.name)}
        return sorted(names | {each.container for each in totals if each.account == account})

    async def _container(self, place: Place, *, keep: bool = True) -> Place:
        while True:
            began = time.monotonic()
            states, end = await self._page(place)
            if states:
                await self._homes.found(place.account, place.container)
            changes, waiting, place = await self._compare(place, states, end)
            news = {change.name for change in changes}
            sizes = [*waiting, *_sizes(place, states, news)]
            place = replace(place, start=end or "")
            await self._note(changes, self._wandered(place, states, news), sizes, place if keep else None)
            if end is None:
                return place
            await trio.sleep(0 if place.fast else (time.monotonic() - began) * SLEEP_FACTOR)

    async def _page(self, place: Place) -> tuple[list[BlobState], str | None]:
        """The next blobs, and the name that the page after them begins with."""

        def read(store: Store) -> tuple[list[BlobState], str | None]:
            page = store.list_blobs(place.container, prefix="", delimiter="", start=place.start, limit=PAGE_BLOBS)
            states = [item.state for item in page.items if item.state is not None and storable(item.state)]
            return states, page.next_start or None

        return await self._call(place.account, read)

    async def _compare(
        self, place: Place, states: list[BlobState], end: str | None
    ) -> tuple[list[Change], list[Measured], Place]:
        """What is news, and how large it is what the queue knew and has not looked at yet."""
        now = time.time_ns()
        listed = {state.name: state for state in states}
        names: list[str] = []
        waiting: list[Measured] = []
        start, before = bound(place.start), end and bound(end)
        while True:
            rows = await self._queue(partial(_known, place, start, before))
            for row in rows:
                state = listed.pop(row.name, None)
                if _differs(row, state, place.again, now):
                    names.append(row.name)
                elif state is not None and row.residency is Residency.QUEUED and row.size != state.size:
                    waiting.append(Measured(place.account, place.container, row.name, state.size, row.revision))
            if len(rows) < ROWS_MAX:
                break
            start = rows[-1].name + "\0"
        changes = list(self._changes(place, names, now, known=True))
        changes += self._changes(place, listed, now, known=False)
        return changes, waiting, replace(place, found=place.found + len(changes), blobs=place.blobs + len(states))

    def _changes(self, place: Place, names: Iterable[str], now: int, *, known: bool) -> Iterable[Change]:
        """What is to be looked at. A blob that the queue does not know and no rule sends is left alone."""
        for name in names:
            turn = first_turn(self._rules, place.account, place.container, name, now)
            if turn is None and known:
                turn = Turn(now, 0, 0)
            if turn is not None:
                yield Change(place.account, place.container, name, now, *turn)

    def _wandered(self, place: Place, states: Iterable[BlobState], news: Set[str]) -> list[Wandered]:
        """Of what is news: the stubs that were moved, by the blobs that they were made of."""
        found: list[Wandered] = []
        for state in states:
            remote = state.properties.remote
            if state.name in news and remote is not None and remote != LOST:
                others = self._rules.others((place.account, place.container, state.name), remote.container, remote.name)
                found += (Wandered(*blob, remote.version) for blob in others)
        return found

    async def _note(
        self, changes: list[Change], wandered: list[Wandered], sizes: list[Measured], place: Place | None
    ) -> None:
        def note(queue: Queue) -> None:
            if wandered:
                queue.wandered(wandered)
            if changes:
                queue.note(changes)
            queue.measured(sizes)
            if place is not None:
                queue.remember(PLACE, self._noted())

        if place is not None:
            self.place = self._left[place.account] = place
        if changes or sizes or place is not None:
            await self._queue(note)

    def _noted(self) -> str:
        return json.dumps({account: asdict(place) for account, place in self._left.items()})

    async def _call(self, account: str, function: Callable[[Store], T]) -> T:
        return await self._stores.call(account, function, CALL_SECONDS_MAX)


def _sizes(place: Place, states: Iterable[BlobState], names: Set[str]) -> Iterable[Measured]:
    """Of those with these names."""
    return (Measured(place.account, place.container, each.name, each.size) for each in states if each.name in names)


def _known(place: Place, start: str, before: str | None, queue: Queue) -> list[Known]:
    return queue.known(place.account, place.container, start, before, ROWS_MAX)


def bound(name: str) -> str:
    """The least valid text that is not less than a name of the mount, which may hold bytes that are not UTF-8."""
    at = next((at for at, character in enumerate(name) if not is_text(character)), None)
    return name if at is None else name[:at] + "\ue000"


def _differs(row: Known, state: BlobState | None, again: bool, now: int) -> bool:
    """Whether the queue has to look at a blob that it knows as `row`, and that is there as `state`. Pure.

    What is queued will be looked at when its turn comes; only a later change puts that turn off. What was noted while
    the clock was ahead would have its turn when that time comes, and gets one now. What will never go has no turn: any
    other version of it is news, also a file that is older. A stub of a blob that counts as here, or the other way
    round, is what a process that was killed could not report any more. What was to be deleted in the cloud and is here
    is news too: its directory is back.
    """
    if state is None:
        return row.residency is not Residency.GOING
    if row.residency is Residency.GOING:
        return True
    if row.residency is Residency.QUEUED:
        if row.hold is Hold.POISON and row.etag:
            return again or state.properties.etag != row.etag
        later = time_ns(state.properties.last_modified) > row.modified_ns
        return again or later or row.modified_ns > now + CLOCK_SECONDS_MAX * NANOSECONDS
    remote = state.properties.remote
    if remote != LOST and row.residency is (Residency.REMOTE if remote is None else Residency.COPIED):
        return True
    return state.properties.etag != row.etag or (again and row.residency is Residency.LOCAL)
