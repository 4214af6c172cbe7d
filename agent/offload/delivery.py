"""One taken row, from the look at its blob to what became of it: reported by the table of states, for the revision that
was taken, so that a change in between always wins.

What is asked of the cloud runs on threads of its own; a blob's descriptor is open for as long. Nothing here decides
when: the engine does.
"""

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

import trio

from agent.offload import fuse, keep
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.cloud import Cloud
from agent.offload.database import Queue
from agent.offload.failures import CloudFailed, Fault, Kind, Request, found
from agent.offload.gate import FuseBlown, Gate
from agent.offload.homes import AWAY, Homes
from agent.offload.look import Looked, Stores
from agent.offload.pace import SharedPace
from agent.offload.rows import Copy, Failure, Row, Seen, Turn
from agent.offload.rules import Decision, Rules, Subject, decide
from agent.offload.schema import COMPARED_KEY
from agent.offload.setbacks import SECOND_NS, STAYS_HERE
from agent.offload.source import source_of
from agent.offload.states import Hold, Residency
from agent.offload.templates import Target
from agent.offload.transport import Errand
from agent.offload.upload import WHOLE_BYTES_MAX, Conflict, Guard, Outcome, Policy, delete, upload
from agent.offload.yielding import delete_here, take_theirs
from dataplane.blobapi.errors import BlobError
from dataplane.blobapi.model import LOST, Remote
from dataplane.store.errors import FormatTooNew, NameNotStorable, NotAStub, NotEvictable, StoreError
from dataplane.store.files import is_written_stub
from dataplane.store.store import BlobRef, Store

log = logging.getLogger("blobedge.offload")

MOUNT_RETRY_SECONDS: Final = 15.0
STOP_SECONDS_MAX: Final = 0.4  # of the second that the sidecar has to stop
UPLOADS_COUNT_MAX: Final = 256  # as the configuration allows at most; the engine has fewer under way
MOUNT: Final = "mount"  # the failure of a row whose mount does not give its blob
#: What a mount, or a configuration that has changed, may answer instead of a blob.
MOUNT_ERRORS: Final = (StoreError, BlobError, OSError, KeyError, FormatTooNew, NameNotStorable)

T = TypeVar("T")


class Delivery:
    """Carries out rows with what all of them share."""

    def __init__(
        self,
        queue: AsyncQueue,
        stores: Stores,
        rules: Rules,
        cloud: Cloud,
        gate: Gate,
        pace: SharedPace,
        node: str,
        known_since: int,
    ) -> None:
        """`known_since`: when the queue's database was made (ns since 1970). What is older may be in the cloud although
        no row says so, and is looked for there before it is sent."""
        self._queue: Final = queue
        self._stores: Final = stores
        self._rules: Final = rules
        self._cloud: Final = cloud
        self._gate: Final = gate
        self._homes: Final = Homes(queue, stores)
        self._pace: Final = pace
        self._node: Final = node
        self._known_since: Final = known_since
        self._compared = False  # mounts and cloud, since the database was made
        self.conflicts: dict[str, int] = {}  # by policy: versions of somebody else that ours took the place of
        self._threads: Final = trio.CapacityLimiter(UPLOADS_COUNT_MAX)

    async def deliver(self, row: Row, errand: Errand) -> bool:
        """Bring a row on. True when something was sent or deleted in the cloud.

        Raises CloudFailed, FuseBlown, QueueError, and MOUNT_ERRORS.
        """
        now = time.time_ns()
        store, looked = await self._stores.look(self._rules, row, now)
        if looked is None:
            return await self._missing(row, errand, now)
        with contextlib.closing(looked.blob):
            if await self._is_moved_stub(row, looked, errand):
                return True
            if await self._is_known_stub(row, looked, now):
                return False
            self._check_not_written(row, looked)
            if not await self._is_due(row, looked, now):
                return False
            return await self._send(store, row, looked, errand)

    async def _is_moved_stub(self, row: Row, looked: Looked, errand: Errand) -> bool:
        """Whether it is a stub that somebody gave another name on the mount; it has a copy of its own then. Or one that
        was moved back since a later version was sent: it says then where its bytes were kept. The row stays as it is,
        and is taken again."""
        remote, target = looked.blob.state.properties.remote, looked.decision.target
        if remote is None or target is None or remote == LOST:
            return False
        place = Target(remote.container, remote.name)
        senders = self._rules.senders(*place[:2]) - {_blob(row)}
        kept = place.container == target.container and keep.is_beside(target.name, place.name)
        own = self._is_its_own(row, looked.decision, place)
        if kept or (row.copied_etag in ("", remote.version) if own else not senders):
            return False
        work = functools.partial(keep.whereabouts, self._cloud, remote, None if own else target[:2], errand)
        async with self._gate.upload(target, 0, errand):
            now = await self._on_thread(work, errand)
        if now == remote:
            return False
        log.info("a stub that was moved to %s/%s/%a has its copy with it", row.account, row.container, row.name)
        await self._pointed(row, looked.seen, now)
        return True

    async def _is_known_stub(self, row: Row, looked: Looked, now: int) -> bool:
        """Report a stub that has nothing to tell the cloud. One that the queue knew already has: its tags or tier."""
        remote, seen = looked.blob.state.properties.remote, looked.seen
        if remote is None:
            return False
        if remote == LOST:
            raise found("StubLost", Request("look", "", row.account, row.container, row.name))
        if looked.decision.upload and (remote.version != seen.etag or row.copied_etag == seen.etag):
            return False
        copy = Copy(remote.version, remote.etag, remote.container, remote.name, now)
        await self._queue(lambda queue: queue.stubbed(row, seen, copy))
        return True

    def _check_not_written(self, row: Row, looked: Looked) -> None:
        """A stub that somebody wrote into, root or who may change modes, has bytes and still the stub's mark. Sent, it
        would take the place of the only copy: a person says which of the two counts. Raises CloudFailed OPERATOR."""
        if not looked.decision.upload or not is_written_stub(os.fstat(looked.blob.fd)):
            return
        assert looked.decision.target is not None
        copy = (row.cloud_container, row.cloud_name) if row.copied_at else looked.decision.target[:2]
        raise found("StubWritten", Request("look", "", self._cloud.account, *copy))

    async def _is_due(self, row: Row, looked: Looked, now: int) -> bool:
        """Report what the look found; whether this version is to be sent now."""
        seen, decision = looked.seen, looked.decision
        if not decision.upload:
            await self._queue(lambda queue: queue.kept(row, seen))
            return False
        known = row.etag == seen.etag and row.residency is Residency.QUEUED
        if known and decision.due_at <= now:
            return True
        current = await self._queue(lambda queue: queue.changed(row, seen, decision.turn, now))
        in_order = decision.turn[1:] == (row.priority, row.order_key)
        return current and decision.due_at <= now and in_order  # else it waits for its turn among the others

    async def _send(self, store: Store, row: Row, looked: Looked, errand: Errand) -> bool:
        """Send what the cloud lacks. A version that the queue knows to be there is compared, not believed: another may
        have been sent meanwhile, and tags and tier change without a new ETag."""
        await self._homes.found(row.account, row.container)
        seen, (target, cloud_etag) = looked.seen, _place(row, looked)
        ref, remote = BlobRef(row.container, row.name), looked.blob.state.properties.remote
        policy = Policy(looked.decision.conflict)
        if remote is not None and not self._is_its_own(row, looked.decision, target):
            policy = Policy.EDGE_WINS  # what is there is another blob's: this one neither takes nor keeps it
        guard = Guard(cloud_etag, policy, keeps=row.away)
        forgotten = not row.copied_at and seen.modified_ns < self._known_since
        known = bool(row.copied_at) and seen.etag == row.copied_etag
        alike = bool(cloud_etag) and row.size == seen.size > WHOLE_BYTES_MAX  # perhaps only described anew
        again = row.attempts > 0 or forgotten or known or alike
        source = source_of(store, ref, looked.blob)
        work = functools.partial(upload, self._cloud, source, target, guard, errand, node=self._node, again=again)
        async with self._gate.upload(target, 0 if remote else seen.size, errand):
            try:
                sent = await self._on_thread(work, errand)
            except Conflict as conflict:
                await self._give_way(store, row, seen, target, conflict, errand)
                return True
            except CloudFailed:
                await self._queue(lambda queue: self._spend(queue, errand.bytes_sent))
                raise
        self._tell_conflict(target, sent, guard.policy)
        copy = Copy(seen.etag, sent.cloud_etag, target.container, target.name, time.time_ns())
        is_stub = remote is not None and await self._retarget(row, seen, remote, copy)

        def report(queue: Queue) -> None:
            self._spend(queue, sent.bytes_sent)
            if is_stub:
                queue.stubbed(row, seen, copy)
            else:
                queue.copied(row, copy, safe=sent.safe)

        await self._queue(report)
        return True

    async def _retarget(self, row: Row, seen: Seen, remote: Remote, copy: Copy) -> bool:
        """Have a stub know its copy as it is now. False: its bytes came back meanwhile, or it changed again."""
        now = replace(remote, etag=copy.cloud_etag, version=seen.etag)
        return now == remote or await self._pointed(row, seen, now)

    async def _pointed(self, row: Row, seen: Seen, now: Remote) -> bool:
        """Have a stub of this version say where its bytes are now. False: there is no such stub any more."""

        def retarget(store: Store) -> bool:
            try:
                store.run(store.retarget(BlobRef(row.container, row.name), seen.etag, now))
            except NotAStub:
                return False
            return True

        return await self._stores.call(row.account, retarget)

    async def _give_way(
        self, store: Store, row: Row, seen: Seen, target: Target, conflict: Conflict, errand: Errand
    ) -> None:
        """cloud-wins: what they did there happens here. Raises CloudFailed LATER, with the reason, while it may not."""
        ref, theirs = BlobRef(row.container, row.name), conflict.present
        at = f"{self._cloud.account}/{target.container}/{target.name!a}"
        try:
            if theirs is None:
                await self._on_thread(functools.partial(delete_here, store, ref, seen.etag), errand)
                await self._queue(lambda queue: queue.gone(row))
                log.warning(
                    "conflict, %s: somebody deleted %s, and so it is here: version %s, %d bytes, is gone",
                    Policy.CLOUD_WINS, at, seen.etag, seen.size,
                )  # fmt: skip
            else:
                work = functools.partial(take_theirs, self._cloud, store, ref, seen.etag, target, theirs, errand)
                properties, remote = await self._on_thread(work, errand)
                now = time.time_ns()
                copy = Copy(properties.etag, remote.etag, remote.container, remote.name, now)
                await self._queue(lambda queue: queue.stubbed(row, Seen(properties.etag, remote.size, now), copy))
                log.info(
                    "conflict, %s: somebody else's version %s of %s counts here", Policy.CLOUD_WINS, theirs.etag, at
                )
        except NotEvictable as refusal:
            text = f"{conflict.fault.text}; theirs counts, but ours stays here for now: {refusal.reason}"
            raise CloudFailed(Fault(Kind.LATER, text, STAYS_HERE)) from None
        self.conflicts[Policy.CLOUD_WINS] = self.conflicts.get(Policy.CLOUD_WINS, 0) + 1

    def _tell_conflict(self, target: Target, sent: Outcome, policy: Policy) -> None:
        """Somebody else's version had to give way: say where it is now, before anything can fail to be reported."""
        if not sent.replaced:
            self._tell_kept(target, sent.kept_as)
            return
        self.conflicts[policy] = self.conflicts.get(policy, 0) + 1
        at = f"{self._cloud.account}/{target.container}/"
        became = f"is kept as {at}{sent.kept_as!a}" if sent.kept_as else "is replaced"
        log.info("conflict, %s: somebody else's version %s of %s%a %s", policy, sent.replaced, at, target.name, became)

    def _tell_kept(self, target: Target, kept_as: str) -> None:
        """What was kept of ours gave way to nobody: it is not a conflict."""
        if kept_as:
            at = f"{self._cloud.account}/{target.container}/"
            log.info("what %s%a was is kept as %s%a: a stub here may be of it", at, target.name, at, kept_as)

    async def _missing(self, row: Row, errand: Errand, now: int) -> bool:
        """There is no such blob here: the copy stays, or goes after the fuse had a look at it. What may have a copy is
        not even forgotten while its directory is away: it would be sent once more when that is back."""
        decision = self._verdict(row, now)
        going, confirmed = row.residency is Residency.GOING, row.changed_at == fuse.CONFIRMED
        if not (row.copied_at or going or (row.etag and await self._is_ignorant())):
            await self._forget(row, decision, errand)
            return False
        away = not (going and confirmed) and await self._homes.is_away(row.account, row.container)
        place = decision.target if not row.copied_at else Target(row.cloud_container, row.cloud_name)
        if not away and (place is None or decision.delete != "propagate"):
            await self._queue(lambda queue: queue.gone(row, astray_too=True))
            return False
        if not going:
            turn = Turn(now + int(fuse.SETTLE_SECONDS * SECOND_NS), decision.priority, decision.order_key)
            await self._queue(lambda queue: queue.deleted(row, turn, now))
            return False
        if away:
            raise FuseBlown(AWAY)
        assert place is not None
        await self._delete(row, decision, place, errand)
        return True

    async def _delete(self, row: Row, decision: Decision, target: Target, errand: Errand) -> None:
        """Delete the copy, if the fuse lets it go."""
        guard = Guard(row.cloud_etag if row.copied_at else "", keeps=row.away)
        version = "" if self._is_its_own(row, decision, target) else row.copied_etag
        work = functools.partial(delete, self._cloud, target, guard, errand, node=self._node, version=version)
        theirs = False
        try:
            async with self._gate.delete(row, target, decision.delete_fuse_percent):
                self._tell_kept(target, await self._on_thread(work, errand))
        except Conflict:  # somebody else's version is there: theirs to delete
            theirs = True
        await self._queue(lambda queue: queue.gone(row, astray_too=theirs))

    async def _forget(self, row: Row, decision: Decision, errand: Errand) -> None:
        """A blob that is gone, and that was never sent as far as this database knows. One that was looked at may have
        been sent by a sidecar that was killed before it could say so: then what is there is ours, and goes as well."""
        target = decision.target
        doubtful = decision.delete == "propagate" and row.etag
        if target is not None and doubtful and not await self._homes.is_away(row.account, row.container):
            work = functools.partial(delete, self._cloud, target, Guard(keeps=row.away), errand, node=self._node)
            with contextlib.suppress(Conflict):
                self._tell_kept(target, await self._on_thread(work, errand))
        await self._queue(lambda queue: queue.gone(row, astray_too=True))

    async def _is_ignorant(self) -> bool:
        """Whether the database is new and was not compared with the cloud yet: it does not know what was sent."""
        self._compared = self._compared or bool(await self._queue(lambda queue: queue.recall(COMPARED_KEY)))
        return not self._compared

    def _is_its_own(self, row: Row, decision: Decision, place: Target) -> bool:
        """Whether rules put this blob, and no other, at a place in the cloud. Where its copy is may be a stub's word,
        and whoever can write on the mount can make a stub, or move one."""
        target = decision.target and decision.target[:2]
        return target == place[:2] or _blob(row) in self._rules.senders(*place[:2])

    def _verdict(self, row: Row, now: int) -> Decision:
        """What the rules say of a blob that is not here any more, as it was last seen."""
        subject = Subject(row.account, row.container, row.name, row.size, row.modified_ns, row.modified_ns)
        return decide(self._rules, subject, now)

    async def _on_thread(self, work: Callable[[], T], errand: Errand) -> T:
        """Run it. Cancelled, it is stopped, and waited for so long that the blob is closed after its last read; one
        that hangs in a mount is left behind."""

        def ended() -> T | Exception:
            try:
                return work()
            except (CloudFailed, NotEvictable, *MOUNT_ERRORS) as error:
                return error

        async with trio.open_nursery() as nursery:
            scope, done = trio.CancelScope(shield=True), False

            async def stop_when_cancelled() -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    if not done:
                        errand.stop()
                    scope.deadline = trio.current_time() + STOP_SECONDS_MAX

            nursery.start_soon(stop_when_cancelled)
            with scope:
                result = await trio.to_thread.run_sync(ended, limiter=self._threads, abandon_on_cancel=True)
            done = True
            nursery.cancel_scope.cancel()
        if isinstance(result, Exception):
            raise result  # out here, so that it is in no group
        return result

    def _spend(self, queue: Queue, count: int) -> None:
        if count:
            queue.spend(self._pace.spent()[0], count)


def _place(row: Row, looked: Looked) -> tuple[Target, str]:
    """Where a version goes, and the cloud's ETag of what we have there, "" for nothing. A stub's copy, and a version
    that is there already, stay where they are, whatever the rule says by now."""
    target, remote = looked.decision.target, looked.blob.state.properties.remote
    assert target is not None
    if remote is not None:
        return Target(remote.container, remote.name, target.tier), remote.etag
    if row.copied_at and looked.seen.etag == row.copied_etag:
        target = Target(row.cloud_container, row.cloud_name, target.tier)
    here = (row.cloud_container, row.cloud_name) == (target.container, target.name)
    return target, row.cloud_etag if here and row.copied_at else ""


def _blob(row: Row) -> tuple[str, str, str]:
    return row.account, row.container, row.name


def mount_failure(error: Exception, now: int) -> Failure:
    """The failure of a row whose mount, or whose account, did not give its blob. The mount may hang for hours, and is
    asked again without haste; an account that is not configured is for the operator. Pure."""
    if isinstance(error, KeyError):
        return Failure(
            MOUNT, f"account {error} is not in the configuration: bring it back, or drop the row", Hold.OPERATOR
        )
    if isinstance(error, NameNotStorable | BlobError):
        return Failure(MOUNT, f"the mount does not take this name: {error}", Hold.POISON)
    text = f"the mount does not give it: {error if isinstance(error, StoreError) else type(error).__name__}"
    return Failure(MOUNT, text, Hold.WAITING, now + int(MOUNT_RETRY_SECONDS * SECOND_NS))
