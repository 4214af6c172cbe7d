"""Some blobs leave the node together: looked at, asked for in the cloud, replaced by stubs or deleted, reported.

    look      what is there now, and what its rule says of it        a thread of the account
    ask       one HEAD each, side by side                            threads of our own
    note      that stubs of them may be anywhere soon (astray.py)    the queue
    go        all together, so that their syncs are one              a thread of the account
    report    one transaction                                        the queue

Nothing goes of which the cloud was not asked just before, with one exception: offline, in low space, evicting trusts
the verification after the upload. The store compares ETag and seal again under the blob's lock. A kill between the last
two steps leaves a row that says COPIED of a stub: whoever looks next, here or elsewhere, reports it.

Rejected: asking for a whole container by a listing (a page of 5,000 names for the few that go), one job at a time (each
would wait for syncs of its own).
"""

import functools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import trio

from agent.offload.asyncqueue import AsyncQueue
from agent.offload.cloud import Cloud
from agent.offload.database import Queue
from agent.offload.evict.check import Held, ask, md5_of
from agent.offload.evict.space import Mode
from agent.offload.evict.verdict import Heat, Verdict, Way, verdict
from agent.offload.failures import CloudFailed, Kind
from agent.offload.link import Link
from agent.offload.linkwatch import LinkWatch
from agent.offload.look import Stores, look
from agent.offload.rows import Row, Seen
from agent.offload.rules import Decision, Rules
from agent.offload.setbacks import answered
from agent.offload.transport import Errand
from dataplane.blobapi import leases
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import LOST, BlobState, Remote
from dataplane.store import commit
from dataplane.store.commit import Job
from dataplane.store.errors import NotEvictable, StoreError
from dataplane.store.store import BlobRef, DeleteScope, Store

log = logging.getLogger("blobedge.offload")

BATCH_ROWS: Final = 64  # as many as the store commits together
ASKS_COUNT_MAX: Final = 16
ASK_SECONDS_MAX: Final = 10.0  # for one HEAD; the link is suspected then
GO_SECONDS_MAX: Final = 60.0  # for a batch; a mount that takes longer hangs
HASH_SECONDS_MAX: Final = 600.0  # for the bytes of one blob

OFFLINE: Final = "the link is down"
#: Of what may be a stub by now, by another task or by this one before a sync failed.
_NOT_SEEN_WHOLE: Final = ("its bytes are not here", "it is gone", "it has changed")
NO_COPY: Final = "the cloud does not have it as it was sent"


class Left(NamedTuple):
    """What became of a row: `why` is empty when its bytes went, `size` of them. `deleted`: and the blob with them;
    `whole`: the store saw that they are all here."""

    row: Row
    size: int
    why: str = ""
    deleted: bool = False
    whole: bool = False


class _Case(NamedTuple):
    """A row and what was found of its blob. `stub`: its bytes are not here."""

    row: Row
    seen: Seen | None = None
    decision: Decision | None = None
    stub: Remote | None = None


class _Going(NamedTuple):
    """A row whose bytes may go."""

    row: Row
    size: int
    way: Way
    held: Held


class Departures:
    """Lets blobs go. Safe for several tasks."""

    def __init__(self, queue: AsyncQueue, stores: Stores, rules: Rules, cloud: Cloud, watch: LinkWatch) -> None:
        self._queue: Final = queue
        self._stores: Final = stores
        self._rules: Final = rules
        self._cloud: Final = cloud
        self._watch: Final = watch
        self._asks: Final = trio.CapacityLimiter(ASKS_COUNT_MAX)
        self._asking: set[Errand] = set()
        watch.downs.append(self._stop_asking)
        self._deleted: Final[Counter[str]] = Counter()  # by account/container, since it was told
        self.deleted_count = 0  # blobs that rules deleted here, since the start
        self.lost_count = 0  # copies that were not in the cloud any more, since the start

    @property
    def offline(self) -> bool:
        """Whether the cloud cannot be asked."""
        return self._watch.state.link is Link.OFFLINE

    async def batch(self, account: str, rows: Sequence[Row], mode: Mode, *, asked: bool = False) -> list[Left]:
        """Let those go of an account's COPIED rows that may, in the mode of their mount; `asked`: an operator wants it.
        Raises QueueError, MOUNT_ERRORS."""
        now = time.time_ns()
        cases = await self._stores.call(account, functools.partial(_look, self._rules, rows, now), GO_SECONDS_MAX)
        left, wanted = await self._sorted(cases, now, mode, asked)
        going: list[_Going] = []

        async def one(case: _Case, way: Way) -> None:
            outcome = await self._held(case, way, mode)
            if isinstance(outcome, Held):
                assert case.seen is not None
                going.append(_Going(case.row, case.seen.size, way, outcome))
            else:
                left.append(Left(case.row, 0, outcome))

        async with trio.open_nursery() as nursery:
            for case, way in wanted:
                nursery.start_soon(one, case, way)
        if going:
            await self._queue(lambda queue: queue.leaving([each.row for each in going if each.way is Way.EVICT]))
        gone = await self._stores.call(account, functools.partial(_go, going), GO_SECONDS_MAX) if going else []
        await self._queue(functools.partial(_report, gone))
        for each in gone:
            if each.deleted:
                self._count(account, each.row.container)
        return left + gone

    async def delete(self, account: str, container: str, state: BlobState, row: Row | None) -> None:
        """Delete a blob that no rule sends, if it is still this version. `row`: what the queue says of
        it. Raises QueueError, MOUNT_ERRORS but BlobError."""
        ref, decide = BlobRef(container, state.name), functools.partial(_delete_if, state.properties.etag)
        try:
            await self._stores.call(
                account, lambda store: store.run(store.delete(ref, decide, yields=True)), GO_SECONDS_MAX
            )
        except (BlobError, NotEvictable) as error:
            log.debug("a blob that has expired stays: %s", _reason(error))
            return
        if row is not None:
            await self._queue(lambda queue: queue.gone(row, astray_too=True))
        self._count(account, container)

    def tell_deleted(self) -> None:
        """At the end of a pass: one line in the log of what rules have deleted here since the last one, if anything."""
        if self._deleted:
            counts = ", ".join(f"{count} in {at}" for at, count in sorted(self._deleted.items()))
            log.info("blobs that rules deleted here (delete_after_upload, ttl_days): %s", counts)
            self._deleted.clear()

    def _count(self, account: str, container: str) -> None:
        self._deleted[f"{account}/{container}"] += 1
        self.deleted_count += 1

    async def _sorted(
        self, cases: Iterable[_Case], now: int, mode: Mode, asked: bool
    ) -> tuple[list[Left], list[tuple[_Case, Way]]]:
        """Those that stay, with why, and those that may go. What the queue did not know is reported."""
        left: list[Left] = []
        wanted: list[tuple[_Case, Way]] = []
        news: list[Callable[[Queue], object]] = []
        for case in cases:
            why, told = _known(case, now)
            if told is not None:
                news.append(told)
            if why:
                left.append(Left(case.row, 0, why))
                continue
            assert case.decision is not None
            said = row_verdict(case.row, case.decision, now, mode, asked=asked)
            if said.way is Way.STAY:
                left.append(Left(case.row, 0, said.why))
            elif case.stub is not None and said.way is Way.EVICT:
                left.append(Left(case.row, 0, "its bytes are not here"))
            else:
                wanted.append((case, said.way))
        if news:
            await self._queue(lambda queue: [tell(queue) for tell in news])
        return left, wanted

    async def _held(self, case: _Case, way: Way, mode: Mode) -> Held | str:
        """What the cloud holds of it, or why it stays."""
        assert case.seen is not None
        row, size = case.row, case.seen.size
        held = None if self.offline else await self._asked(row, size)
        if self.offline:  # by now
            return await self._trusted(row, size) if mode is Mode.LOW_SPACE and way is Way.EVICT else OFFLINE
        if held is None:
            await self._lost(row)
            return NO_COPY
        if isinstance(held, str):
            return held
        return held if held.md5 is not None else held._replace(md5=await self._md5(row, size))

    async def _asked(self, row: Row, size: int) -> Held | str | None:
        """What the cloud says that it holds; text when it does not say. The link learns from it."""
        self._asks.total_tokens = max(1, self._watch.state.work_max(ASKS_COUNT_MAX))
        errand, held = Errand(), None
        try:
            with trio.move_on_after(ASK_SECONDS_MAX) as scope:
                held = await self._ask(row, size, errand)
        except CloudFailed as failed:
            if failed.fault.kind is Kind.LINK:
                self._watch.no_way()
                return OFFLINE
            if answered(failed.fault):
                self._watch.answered()
            return f"the cloud was not to be asked: {failed.fault.gist}"
        if scope.cancelled_caught:
            self._watch.no_way()
            return OFFLINE
        self._watch.answered()
        return held

    async def _ask(self, row: Row, size: int, errand: Errand) -> Held | None:
        work = functools.partial(ask, self._cloud, row, size, errand)
        self._asking.add(errand)
        try:
            return await trio.to_thread.run_sync(work, limiter=self._asks, abandon_on_cancel=True)
        finally:
            self._asking.discard(errand)
            errand.stop()

    def _stop_asking(self) -> None:
        """The link went down: nobody waits for an answer any more."""
        for errand in self._asking:
            errand.stop()

    async def _trusted(self, row: Row, size: int) -> Held | str:
        """On the strength of the upload's verification, with the MD5 of what is here: the same version."""
        md5 = await self._md5(row, size)
        return Held(row.cloud_etag, md5) if md5 is not None else "it has changed"

    async def _md5(self, row: Row, size: int) -> bytes | None:
        return await self._stores.call(row.account, functools.partial(_md5, row, size), HASH_SECONDS_MAX)

    async def _lost(self, row: Row) -> None:
        """The copy is not there as it was sent: this version is to be sent again."""
        self.lost_count += 1
        at = f"{self._cloud.account}/{row.cloud_container}/{row.cloud_name!a}"
        log.warning("%s is not in the cloud any more as it was sent: it is sent again, and stays here", at)
        await self._queue(lambda queue: queue.lost(row))


def row_verdict(row: Row, decision: Decision, now: int, mode: Mode, *, asked: bool = False) -> Verdict:
    """The verdict on a row."""
    heat = Heat(row.modified_ns, row.read_at, row.copied_at)
    return verdict(decision.leaving, heat, now, mode, pinned=row.pinned, asked=asked)


def _look(rules: Rules, rows: Sequence[Row], now: int, store: Store) -> list[_Case]:
    """What is there of each. Raises StoreError, OSError."""
    cases: list[_Case] = []
    for row in rows:
        looked = look(store, rules, row, now)
        if looked is None:
            cases.append(_Case(row))
            continue
        looked.blob.close()
        cases.append(_Case(row, looked.seen, looked.decision, looked.blob.state.properties.remote))
    return cases


def _known(case: _Case, now: int) -> tuple[str, Callable[[Queue], object] | None]:
    """Why a blob stays before any rule is asked, and what the queue is to be told of it."""
    row, seen, decision = case.row, case.seen, case.decision
    if seen is None or decision is None:
        return "it is not here", None  # the journal, or a scan, tells the queue
    if case.stub == LOST:
        return "its stub says nothing any more", None
    if seen.etag != row.copied_etag:
        if decision.upload:
            return "it has changed", lambda queue: queue.changed(row, seen, decision.turn, now)
        return "it has changed", lambda queue: queue.kept(row, seen)
    return "", None if case.stub is None else lambda queue: queue.evicted(row)


def _md5(row: Row, size: int, store: Store) -> bytes | None:
    """The MD5 of the version that a row is of; None when that is not here any more. Raises StoreError, OSError."""
    blob = store.open_blob(BlobRef(row.container, row.name))
    if blob is None:
        return None
    try:
        state = blob.state
        same = state.properties.etag == row.copied_etag and state.size == size and state.properties.remote is None
        return md5_of(blob.fd) if same else None
    finally:
        blob.close()


def _go(going: Sequence[_Going], store: Store) -> list[Left]:
    """Evict and delete. What one of them meets keeps that one here."""
    left: list[Left] = []
    by_mount: dict[int, list[tuple[_Going, Job[Any]]]] = {}
    for each in going:
        try:
            job = _job(store, each)
        except (BlobError, StoreError, NotEvictable) as error:
            left.append(_stays(each.row, error))
        else:
            by_mount.setdefault(id(job.mount), []).append((each, job))
    for pairs in by_mount.values():
        outcomes = commit.run_group([job for _, job in pairs])
        for (each, _), outcome in zip(pairs, outcomes, strict=True):
            if outcome.error is not None:
                left.append(_stays(each.row, outcome.error))
            else:
                left.append(Left(each.row, each.size, deleted=each.way is Way.DELETE))
    return left


def _job(store: Store, going: _Going) -> Job[Any]:
    row, held = going.row, going.held
    ref = BlobRef(row.container, row.name)
    if going.way is Way.DELETE:
        return store.delete(ref, functools.partial(_delete_if, row.copied_etag), yields=True)
    if held.md5 is None:
        raise NotEvictable("it has changed")
    remote = Remote(going.size, held.md5, held.etag, row.cloud_container, row.cloud_name, row.copied_etag, 0, 0)
    return store.evict(ref, row.copied_etag, remote)


def _delete_if(etag: str, state: BlobState | None) -> DeleteScope:
    """Under the blob's lock. Snapshots are here alone, so a blob that has some stays, as one that is leased does."""
    if state is None:
        raise BlobError(ErrorCode.BLOB_NOT_FOUND)
    if state.properties.etag != etag:
        raise NotEvictable("it has changed")
    if state.has_snapshots:
        raise NotEvictable("it has snapshots, which only this node has")
    leases.check_blob_use(state.lease, None, int(time.time()), state.properties.last_modified, leases.Use.WRITE)
    return DeleteScope.BLOB


def _stays(row: Row, error: BaseException) -> Left:
    whole = isinstance(error, BlobError) or (isinstance(error, NotEvictable) and error.reason not in _NOT_SEEN_WHOLE)
    return Left(row, 0, _reason(error), whole=whole)


def _reason(error: BaseException) -> str:
    """In few words that many blobs share."""
    if isinstance(error, NotEvictable):
        return error.reason
    if isinstance(error, BlobError):
        return f"the store refuses: {error.code.code}"
    log.warning("a blob that was to leave stays: %s", error)
    return f"the mount refused: {type(error).__name__}"


def _report(gone: Sequence[Left], queue: Queue) -> None:
    queue.stayed([each.row for each in gone if each.whole])
    for each in gone:
        if each.why:
            continue
        if each.deleted:
            queue.gone(each.row)
        else:
            queue.evicted(each.row)
