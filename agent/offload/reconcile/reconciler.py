"""Carries a reconciliation out: mount against queue against cloud, in pages, at its own pace, from where it stopped.

What is asked for is kept in the queue until it is done, so neither a kill nor a link that is down forgets it. There is
one at a time. It is read-only unless it was asked to mend. While it runs, everything else does too: it holds no lock,
and whatever changes meanwhile wins over what it found (mountside.py).

    the link is down          it waits, and goes on when the link is back
    the cloud cannot          the operator sees why, and it tries again
    a person has to mend it   (a permission is missing) it ends, with why, after REFUSALS_MAX tries; but that of a new
                              database, for which nobody waits, goes on when the credential's file was mended
    a mount does not answer   its account is left out and told; the others are looked at
    the scratch file fails    it begins again

Rejected: a process of its own for `blobedge reconcile` (two writers of one queue, and a second credential).
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import trio

from agent.config_offload import Offload
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.cloud import Cloud
from agent.offload.database import Queue
from agent.offload.delivery import MOUNT_ERRORS
from agent.offload.failures import CloudFailed
from agent.offload.failures import Kind as FaultKind
from agent.offload.look import Stores
from agent.offload.reconcile import cloudside, course, mountside
from agent.offload.reconcile.course import Course, Phase, Wish
from agent.offload.reconcile.ledger import Ledger, LedgerError
from agent.offload.reconcile.listed import list_page
from agent.offload.reconcile.origin import Origins
from agent.offload.reconcile.verdict import Kind
from agent.offload.rows import Row
from agent.offload.rules import Rules
from agent.offload.scan import bound
from agent.offload.schema import COMPARED_KEY, RECONCILED_KEY
from agent.offload.transport import Errand
from dataplane.blobapi.model import BlobState
from dataplane.store.store import Store

log = logging.getLogger("blobedge.offload")

UNDER_WAY: Final = "reconcile"  # in the queue's settings: the Course
LEDGER_FILE: Final = "reconcile.db"
CALL_SECONDS_MAX: Final = 120.0  # for one page of a mount; it hangs then
RETRY_SECONDS: Final = 10.0
REFUSALS_MAX: Final = 3  # a credential's file that is just being replaced is read again by then
THE_CLOUD: Final = "the cloud"  # among the accounts that were not looked at
TURN_SECONDS: Final = 0.5
SLEEP_FACTOR: Final = 2.0  # of the time that a page took
CONTAINERS_MAX: Final = 1_000_000
_SECOND_NS: Final = 1_000_000_000
#: What a credential is told that may not list the account's containers, one for a single container among them.
_NO_LIST: Final = frozenset({
    "AuthorizationFailure", "AuthorizationPermissionMismatch", "AuthorizationResourceTypeMismatch",
    "InsufficientAccountPermissions",
})  # fmt: skip

T = TypeVar("T")


class Busy(Exception):
    """One is under way, and another was asked for."""


class Reconciler:
    """The reconciliations of one node. `state`: the directory of the queue. `online`: whether the link is up."""

    def __init__(
        self,
        queue: AsyncQueue,
        stores: Stores,
        rules: Rules,
        cloud: Cloud,
        offload: Offload,
        state: Path,
        online: Callable[[], bool] = lambda: True,
    ) -> None:
        self._queue: Final = queue
        self._stores: Final = stores
        self._rules: Final = rules
        self._cloud: Final = cloud
        self._offload: Final = offload
        self._online: Final = online
        self._ledger: Final = Ledger(state / LEDGER_FILE)
        self._thread: Final = trio.CapacityLimiter(1)  # of the ledger
        self._asked = trio.Event()
        self._checked = 0  # the `began` of the one for which the queue's file was checked
        self.course: Course | None = None  # that is under way
        self.last: Course | None = None  # that was carried to its end
        self.refused: Course | None = None  # that the cloud did not let get there, since the start
        self._refusals = 0  # of the one that is under way, in a row
        self.problem = ""  # why the one that is under way does not go on

    def accounts(self) -> list[str]:
        """Those of the node."""
        return self._stores.names()

    @property
    def ended(self) -> Course | None:
        """The one that ended last, in whichever way."""
        return max((each for each in (self.last, self.refused) if each), key=lambda each: each.began, default=None)

    async def ask(self, wish: Wish) -> int:
        """Begin one. Returns what `Course.began` of it is. Raises Busy, QueueError."""
        found = Course(wish=wish, began=time.time_ns())

        def note(queue: Queue) -> int:
            under_way = course.from_json(queue.recall(UNDER_WAY))
            if under_way is not None:
                if under_way.wish != wish:
                    raise Busy
                return under_way.began
            queue.remember(UNDER_WAY, found.to_json())
            return found.began

        began = await self._queue(note)
        self._asked.set()
        return began

    async def stop(self) -> None:
        """Forget the one that is under way, after its page. Raises QueueError."""
        await self._queue(lambda queue: queue.remember(UNDER_WAY, ""))

    async def rebuild(self) -> bool:
        """For a database that is new: rows of all that the mounts and the cloud hold. False when the cloud, or a mount,
        could not be asked, or somebody stopped it: then the mounts have to be looked at alone. Raises QueueError."""
        try:
            began = await self.ask(Wish(repair=True, fast=True))
        except Busy:  # an operator's wish outlived the process: it does what is needed if it mends
            return False
        while True:
            under_way, last = await self._queue(_courses)
            if last is not None and last.began == began:
                return not last.failed
            if not _is(under_way, began) or self.problem or not self._online():  # it goes on, if it was not stopped
                return False
            await trio.sleep(TURN_SECONDS)

    async def compare(self) -> bool:
        """After a power cut, say: mend what differs, in a while. False when an operator's is under way. Raises
        QueueError."""
        try:
            await self.ask(Wish(repair=True))
        except Busy:
            return False
        return True

    async def run(self) -> None:
        """Until cancelled. Raises QueueError."""
        self.last = course.from_json(await self._queue(lambda queue: queue.recall(RECONCILED_KEY)))
        while True:
            self._asked = trio.Event()
            self.course = course.from_json(await self._queue(lambda queue: queue.recall(UNDER_WAY)))
            if self.course is None:
                self.problem, self._refusals = "", 0
                with trio.move_on_after(RETRY_SECONDS):
                    await self._asked.wait()
            elif self._online():
                await self._try(self.course)
            else:
                self.problem = "the link is down"
                await trio.sleep(TURN_SECONDS)

    async def _try(self, begun: Course) -> None:
        try:
            await self._go(begun)
            self.problem, self._refusals = "", 0
        except (CloudFailed, LedgerError) as error:
            refused = isinstance(error, CloudFailed) and error.fault.kind is FaultKind.OPERATOR
            self._refusals = self._refusals + 1 if refused and not begun.wish.fast else 0
            if self._refusals >= REFUSALS_MAX:
                await self._give_up(self.course or begun, str(error))
                return
            self.problem = str(error)
            log.warning("the reconciliation stops for %g s: %s", RETRY_SECONDS, error)
            if isinstance(error, LedgerError):
                with suppress(_Stopped):
                    await self._keep(Course(wish=begun.wish, began=begun.began))
            await trio.sleep(RETRY_SECONDS)

    async def _go(self, now: Course) -> None:
        """From where it is to its end. Raises CloudFailed, LedgerError, QueueError: DamagedDatabase among them."""
        age = (time.time_ns() - now.began) / _SECOND_NS
        begins = (now.phase, now.container, now.start) == (Phase.LIST, "", "")
        if not begins and not 0 <= age < course.LISTING_SECONDS_MAX:
            now, begins = Course(wish=now.wish, began=now.began), True
        if begins and now.wish.doubts_queue and self._checked != now.began:
            await self._queue(lambda queue: queue.verify())
            self._checked = now.began
        await self._on_thread(partial(self._ledger.open, empty=begins))
        try:
            if now.phase is Phase.LIST:
                now = (await self._list(now)).enter(Phase.MOUNT)
            if now.phase is Phase.MOUNT:
                now = (await self._mounts(now)).enter(Phase.CLOUD)
            now = await self._copies(now)
        except _Stopped:
            log.info("the reconciliation was stopped")
        else:
            await self._finish(now)
        finally:
            with trio.CancelScope(shield=True):
                await self._on_thread(self._ledger.close)

    async def _give_up(self, at: Course, why: str) -> None:
        """End it without an answer. What the last whole one found is still what is known."""
        log.warning("the reconciliation ends, as the cloud refuses it: %s", why)
        await self._on_thread(self._ledger.remove)
        await self._queue(partial(_forget, at.began))
        self.problem, self._refusals = "", 0
        self.course, self.refused = None, replace(at, failed={**at.failed, THE_CLOUD: why})

    async def _finish(self, done: Course) -> None:
        def note(queue: Queue) -> None:
            _forget(done.began, queue)
            queue.remember(RECONCILED_KEY, done.to_json())
            if done.whole:
                queue.remember(COMPARED_KEY, "1")

        await self._on_thread(self._ledger.remove)
        await self._queue(note)
        self.course, self.last = None, done
        seconds = (time.time_ns() - done.began) / _SECOND_NS
        words = ", ".join(f"{count} {kind}" for kind, count in done.found.items() if count) or "nothing"
        log.info(
            "compared %d blobs here with %d in the cloud in %.1f s: %s; %d differences are left",
            done.blobs, done.listed, seconds, words, done.left,
        )  # fmt: skip

    async def _keep(self, now: Course, mend: Callable[[Queue], dict[Kind, int]] | None = None) -> Course:
        """Note the place, with what mends a page in one transaction. Raises _Stopped when nobody wants it any more."""

        def note(queue: Queue) -> Course | None:
            if not _is(_courses(queue)[0], now.began):  # another one was begun since it was stopped
                return None
            after = now if mend is None else now.with_found((), mend(queue))
            queue.remember(UNDER_WAY, after.to_json())
            return after

        kept = await self._queue(note)
        if kept is None:
            raise _Stopped
        self.course = kept
        return kept

    # The cloud's listing.

    async def _list(self, now: Course) -> Course:
        containers, notes = await self._cloud_containers(now.wish)
        now = replace(now, notes=notes)
        for container in containers:
            if container < now.container:
                continue
            if container != now.container:
                now = now.at("", container, "")
            while True:
                began = time.monotonic()
                page = await self._errand(partial(list_page, self._cloud, container, now.start))
                await self._on_thread(partial(self._ledger.add, page.entries))
                now = replace(now.at("", container, page.following), listed=now.listed + len(page.entries))
                now = await self._keep(now)
                await self._rest(now, began)
                if not page.following:
                    break
        return now

    async def _cloud_containers(self, wish: Wish) -> tuple[list[str], tuple[str, ...]]:
        """Those that may hold copies of what is asked about, in order, and what has to be said of them."""
        names: set[str] = set()
        for account, container in await self._pairs(wish, {}):
            routes = (each.route for each in self._rules.candidates(account, container))
            names |= {route.target(account, container, "-", 0).container for route in routes if route is not None}
        if wish.container and not wish.nodes:
            return sorted(names), ()
        origins = self._origins(wish)
        try:
            there = await self._errand(self._cloud.container_names)
        except CloudFailed as failed:
            if failed.fault.code not in _NO_LIST:
                raise
            said = f"containers that only the cloud has were not looked for: {failed.fault.text}"
            return sorted(names), (said,)
        return sorted(names | {each for each in there if origins.may_lead_to(each)}), ()

    # The mounts.

    async def _pairs(self, wish: Wish, failed: dict[str, str]) -> list[tuple[str, str]]:
        """(account, container) of what is asked about: those of the mounts that rules are for, and those of the queue.
        An account whose mount fails is added to `failed`."""
        totals = await self._queue(lambda queue: queue.counts())
        queued = {(each.account, each.container) for each in totals}
        pairs = set(queued)
        for account in self._stores.names():
            try:
                there = await self._call(account, lambda store: store.list_containers("", "", CONTAINERS_MAX)[0])
            except MOUNT_ERRORS as error:
                failed[account] = f"{type(error).__name__}: {error}"
                continue
            pairs |= {(account, each.name) for each in there}
        if wish.account and wish.container:
            pairs.add((wish.account, wish.container))
        return sorted(
            (account, container)
            for account, container in pairs
            if account in self._stores.names()
            and wish.account in ("", account)
            and wish.container in ("", container)
            and ((account, container) in queued or self._rules.candidates(account, container))
        )

    async def _mounts(self, now: Course) -> Course:
        failed = dict(now.failed)
        for account, container in await self._pairs(now.wish, failed):
            if (account, container) < (now.account, now.container):
                continue
            if (account, container) != (now.account, now.container):
                now = now.at(account, container, "")
            if account in failed:
                continue
            try:
                now = await self._container(now)
            except MOUNT_ERRORS as error:
                failed[account] = f"{type(error).__name__}: {error}"
                log.warning("the reconciliation leaves %s out: %s", account, failed[account])
                assert self.course is not None
                now = self.course
        return replace(now, failed=failed)

    async def _container(self, now: Course) -> Course:
        while True:
            began = time.monotonic()
            read = partial(mountside.read_page, container=now.container, start=now.start)
            page = await self._call(now.account, read)
            rows, left = await self._rows(now, page)
            if left is not None:
                page = page.until(left)
            side = await self._judged(now, page.states, rows)
            mend = await self._mender(side) if now.wish.mends else None
            after = now.at(now.account, now.container, page.following or "")
            after = replace(after, blobs=now.blobs + len(page.states)).with_found(side.found(), {})
            now = await self._keep(after, mend)
            await self._rest(now, began)
            if page.following is None:
                return now

    async def _rows(self, now: Course, page: mountside.MountPage) -> tuple[dict[str, Row], str | None]:
        before = page.following and bound(page.following)
        return await self._queue(partial(mountside.rows_of, now.account, now.container, bound(now.start), before))

    async def _judged(self, now: Course, states: list[BlobState], rows: dict[str, Row]) -> mountside.Side:
        side = mountside.Side(now.account, now.container, self._rules, now.began)
        side.read(states, rows, time.time_ns())

        def meet() -> None:
            side.judge(self._ledger.meet(side.places()), time.time_ns())
            self._ledger.note_lost(side.lost())

        await self._on_thread(meet)
        if doubtful := side.doubtful():
            await self._errand(lambda errand: mountside.ask_cloud(doubtful, self._cloud, errand))
        return side

    async def _mender(self, side: mountside.Side) -> Callable[[Queue], dict[Kind, int]]:
        again = [each for each in side.blobs if each.kind is Kind.UNRECORDED and each.row is not None]
        same = await self._call(side.account, lambda store: mountside.still(again, store, side.container))
        return mountside.mender(side, same, time.time_ns())

    # Copies that no blob led to.

    async def _copies(self, now: Course) -> Course:
        origins = self._origins(now.wish)
        nodes = now.wish.nodes or self._offload.node_name()
        while True:
            began = time.monotonic()
            after = now.container, now.start
            entries = await self._on_thread(partial(self._ledger.unmet, after, cloudside.PAGE_BLOBS))
            if not entries:
                return await self._lost(now)
            found = cloudside.sort_out(entries, origins, nodes)
            found = [each for each in found if cloudside.in_scope(each, now.wish)]
            now = await self._settle(now, [each for each in found if each.local is not None])
            told = [(each.kind, each.shown) for each in found if each.kind is not None and not each.still_lost]
            now = now.with_found(told, {}).at("", entries[-1].container, entries[-1].name)
            planted = [each for each in found if each.planted is not None]
            now = await self._keep(now, partial(cloudside.adopt, planted))
            await self._on_thread(partial(self._ledger.found, [each.local for each in planted if each.local]))
            await self._rest(now, began)

    async def _settle(self, now: Course, copies: list[cloudside.Left]) -> Course:
        """See what is here in their place, account by account."""
        failed = dict(now.failed)
        for account in {each.local[0] for each in copies if each.local is not None}:
            some = [each for each in copies if each.local is not None and each.local[0] == account]
            if account in failed:
                continue
            await self._queue(partial(cloudside.read_rows, some))
            try:
                await self._call(account, partial(cloudside.settle, copies=some, rules=self._rules, now=time.time_ns()))
                await self._plant(account, cloudside.to_plant(some, now.wish))
            except MOUNT_ERRORS as error:
                failed[account] = f"{type(error).__name__}: {error}"
        return replace(now, failed=failed)

    async def _plant(self, account: str, copies: list[cloudside.Left]) -> None:
        """Make stubs of what the cloud still has as it was listed."""
        for first in range(0, len(copies), cloudside.PLANTED_TOGETHER):
            batch = copies[first : first + cloudside.PLANTED_TOGETHER]
            there = await self._errand(partial(cloudside.confirm, batch, self._cloud))
            await self._call(account, partial(cloudside.plant_all, copies=there))

    async def _lost(self, now: Course) -> Course:
        """Stubs that say nothing, and for which no copy was found."""
        lost = await self._on_thread(self._ledger.lost)
        return now.with_found([(Kind.LOST_STUB, "/".join(name)) for name in lost], {})

    def _origins(self, wish: Wish) -> Origins:
        node = self._offload.node_name() if wish.nodes in ("", "*") else wish.nodes
        return Origins(self._offload, self._stores.names(), node)

    # How things are called.

    async def _rest(self, now: Course, began: float) -> None:
        await trio.sleep(0 if now.wish.fast else (time.monotonic() - began) * SLEEP_FACTOR)

    async def _call(self, account: str, function: Callable[[Store], T]) -> T:
        return await self._stores.call(account, function, CALL_SECONDS_MAX)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._thread)

    async def _errand(self, work: Callable[[Errand], T]) -> T:
        """Ask the cloud on a thread; cancelled, the request ends."""
        errand = Errand()
        try:
            return await trio.to_thread.run_sync(work, errand, abandon_on_cancel=True)
        finally:
            errand.stop()


def _courses(queue: Queue) -> tuple[Course | None, Course | None]:
    """The one that is under way, and the one that was finished last."""
    return course.from_json(queue.recall(UNDER_WAY)), course.from_json(queue.recall(RECONCILED_KEY))


def _is(under_way: Course | None, began: int) -> bool:
    return under_way is not None and under_way.began == began


def _forget(began: int, queue: Queue) -> None:
    """It is not under way any more. One that was begun since then stays."""
    if _is(_courses(queue)[0], began):
        queue.remember(UNDER_WAY, "")


class _Stopped(Exception):
    """The operator does not want it any more."""
