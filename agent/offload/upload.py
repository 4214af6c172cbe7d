"""One blob to the cloud, and one blob away from it: guarded, resumable, verified. Blocking: runs on a thread.

Small blobs go in one Put Blob, large ones as blocks (blocks.py) with what is staged already reused. Each request
carries the MD5 of its bytes, which the service checks. Guarantees, whatever fails, and wherever a process dies:

- Nothing is committed unless the cloud has what the guard says: nothing, or the version that we sent last. What
  somebody else put there is met by the conflict policy: edge-wins replaces the version that was seen, and no later one;
  keep-both first has it copied beside, verified; cloud-wins leaves it and raises Conflict.
- Our own former version is kept in the same way before other bytes take its place, or it is deleted, when the guard
  says so: it may be all that there is of a stub (astray.py).
- An upload of ours that is in the cloud already, since an answer was lost or a crash forgot it, is recognised
  (verify.py) and not repeated.
- An Outcome says that Get Blob Properties, after the commit, showed the ETag of that commit, the length, the MD5, and
  every property and metadata entry. A service that lies about a commit is found out: NotVerified.
- What is sent is one version of the blob (source.py), or nothing is committed.
- Bytes that the cloud has are not sent again. A version of which only properties, metadata, tags or tier are new is
  described there (describe.py), under the same guard and the same verification. A stub's is never sent otherwise: when
  the cloud has not what it stands for, that is CopyGone.

Memory: a small blob's bytes, or a piece for each block in flight. Rejected: the SDK's upload_blob for large blobs:
random block ids, so nothing to resume with, and a buffer for each block.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from azure.core import MatchConditions
from azure.storage.blob import BlobBlock, BlobClient, StandardBlobTier

from agent.offload import blocks, describe, keep
from agent.offload.cloud import Cloud
from agent.offload.failures import CloudFailed, Kind, Request, found
from agent.offload.source import Source
from agent.offload.transport import Errand, FileBody
from agent.offload.verify import BLOCK_BLOB, ETAG, Facts, Seen, Wanted, difference, wanted

BLOCKS_IN_FLIGHT: Final = 4
ROUNDS_MAX: Final = 5  # of somebody else changing the blob between our look and our commit
ABSENT: Final = ""  # as a condition: there must be no blob
#: A new version up to here is sent whole although only its properties are new: one request, where a description takes
#: more, each of which costs what these bytes do.
WHOLE_BYTES_MAX: Final = 64 * 1024


class Policy(StrEnum):
    """What counts when somebody else changed the blob in the cloud."""

    EDGE_WINS = "edge-wins"
    CLOUD_WINS = "cloud-wins"
    KEEP_BOTH = "keep-both"


class Target(Protocol):
    """Where a blob goes. `tier` "": the blob's own, else the account's default."""

    @property
    def container(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def tier(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Guard:
    """What the cloud has to have before: the ETag of our last upload (without quotes), "" for none; and what if not.
    `keeps`: whatever is there is kept before other bytes take its place."""

    cloud_etag: str = ABSENT
    policy: Policy = Policy.EDGE_WINS
    keeps: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verified upload. `md5`: of the bytes; `bytes_sent`: of bodies, 0 when the cloud had it already; `kept_as`:
    where the version is now that was kept, "" for none; `replaced`: the ETag of somebody else's version that ours took
    the place of, "" for none; `alone`: there was nothing in its place when it was committed."""

    cloud_etag: str
    md5: bytes
    bytes_sent: int
    kept_as: str = ""
    replaced: str = ""
    alone: bool = False

    @property
    def safe(self) -> bool:
        """Whether no stub needs what was there before: it was kept, or there was nothing."""
        return self.alone or bool(self.kept_as)


class Conflict(CloudFailed):
    """Somebody else's version is in the cloud, and the policy leaves it. `present`: it; None when they deleted ours."""

    def __init__(self, request: Request, present: Seen | None) -> None:
        super().__init__(found("ConditionNotMet", request).fault)
        self.present = present


def upload(
    cloud: Cloud,
    source: Source,
    target: Target,
    guard: Guard,
    errand: Errand,
    *,
    node: str,
    again: bool = False,
    blocks_in_flight: int = BLOCKS_IN_FLIGHT,
) -> Outcome:
    """Send a version and verify it. `node`: who this is (identity.py). `again`: look first, as an earlier try failed,
    or the cloud may have all or the bytes of it.

    Raises CloudFailed with what to do, Conflict among them; afterwards the cloud has the version that it had, or ours.
    """
    work = _Upload(cloud, source, target, guard, errand, node, blocks_in_flight)
    return work.run(again or guard.keeps or work.large or source.properties.remote is not None)


class _Reading:
    """Tells an errand that a file is being read for it: a large one takes minutes in which nothing is sent. Ends the
    reading with the errand."""

    def __init__(self, errand: Errand) -> None:
        self._errand: Final = errand

    def update(self, data: bytes, /) -> None:
        self._errand.check()
        self._errand.after(0)


class _Upload:
    """One upload. `want` is known once all bytes were read."""

    def __init__(
        self,
        cloud: Cloud,
        source: Source,
        target: Target,
        guard: Guard,
        errand: Errand,
        node: str,
        blocks_in_flight: int,
    ) -> None:
        self.cloud = cloud
        self.source = source
        self.target = target
        self.guard = guard
        self.errand = errand
        self.node = node
        self.blocks_in_flight = blocks_in_flight
        self.large = source.size > blocks.SMALL_BYTES_MAX
        self.want: Wanted | None = None
        self.md5: bytes | None = None  # of the source's bytes, once they were read
        self.kept_as = ""
        self.replaced = ""  # by our commit, if that one is admitted

    @property
    def blob(self) -> BlobClient:
        """Made for each request: a long upload outlives its SAS."""
        return self.cloud.blob(self.target.container, self.target.name)

    def run(self, look_first: bool) -> Outcome:
        self.source.check_version(self._request("Put Blob", "w"))
        condition = self.guard.cloud_etag
        seen = None
        if look_first:
            seen = self._look()
            if seen is not None and self._is_done(seen):
                return self._outcome(seen.etag)
            condition = self._admitted(seen, condition)
        for _ in range(ROUNDS_MAX):
            try:
                return self._verified(self._commit_version(seen, condition), alone=condition == ABSENT)
            except CloudFailed as failed:
                seen = self._look_after(failed)
            if seen is not None and self._is_done(seen):
                return self._outcome(seen.etag)
            self.source.check_version(self._request("Put Blob", "w"))  # what is there may be our own later version
            condition = self._admitted(seen, condition)
        raise found("ChangesAllTheTime", self._request("Put Blob", "w"))

    def _look_after(self, failed: CloudFailed) -> Seen | None:
        """What the cloud has after a commit that was refused, or whose answer is missing. Raises the failure unless
        that explains it: somebody else's version, or ours."""
        conflict = failed.fault.kind is Kind.CONFLICT
        if self.want is None or not (conflict or failed.maybe_done):
            raise failed
        try:
            seen = self._look()
        except CloudFailed as looking:
            # A refusal may be by our own commit, whose answer was lost: nobody's conflict before that was seen. A
            # commit without an answer failed by what the look does; that may have hidden what a person has to mend.
            raise (looking if conflict or looking.fault.kind is Kind.OPERATOR else failed) from None
        if not conflict and (seen is None or difference(self.want, seen)):
            raise failed
        return seen

    def _admitted(self, seen: Seen | None, condition: str) -> str:
        """The condition of the next commit, when the cloud has `seen`. Raises Conflict when the policy ends it here."""
        for _ in range(ROUNDS_MAX):
            self.replaced = ""
            cloud_wins = self.guard.policy is Policy.CLOUD_WINS
            if seen is None:
                if condition != ABSENT and cloud_wins:
                    raise Conflict(self._request("Put Blob", "w"), None)
                return ABSENT
            mine = seen.etag == condition or seen.written_by(self.node)
            if not mine:
                if cloud_wins:
                    raise Conflict(self._request("Put Blob", "w"), seen)
                self.replaced = seen.etag
            if not self._must_keep(seen, mine=mine):
                return seen.etag
            try:
                self.kept_as = keep.beside(self.cloud, self.target.container, self.target.name, seen, self.errand)
                return seen.etag
            except CloudFailed as failed:
                if failed.fault.kind is not Kind.CONFLICT:
                    raise
            seen = self._look()  # it changed while it was copied
        raise found("ChangesAllTheTime", self._request("Copy Blob", "wr"))

    def _must_keep(self, seen: Seen, *, mine: bool) -> bool:
        """Whether a version has to be somewhere else before ours takes its place."""
        if not mine and self.guard.policy is Policy.KEEP_BOTH:
            return True
        return self.guard.keeps and not self._has_bytes(seen)  # those stay where they are

    def _commit_version(self, seen: Seen | None, condition: str) -> str:
        """Bring the cloud from `seen` to our version, with as few bytes as that takes; its ETag there."""
        if seen is not None and seen.etag == condition and self._has_bytes(seen):
            try:
                self.want = self._wants(seen.facts)
                return describe.describe(self.cloud, lambda: self.blob, self.want, seen, self.errand)
            except CloudFailed as failed:
                if self.source.properties.remote is not None or not describe.refused_archived(failed):
                    raise
        if self.source.properties.remote is not None:
            raise found("CopyGone", self._request("Get Blob Properties", "r"))
        return self._send_large(condition) if self.large else self._send_small(condition)

    def _has_bytes(self, seen: Seen) -> bool:
        """Whether the cloud has the bytes of our version, which are then described only. Reads them here when the copy
        is of another version; what somebody else wrote is not believed to have the MD5 that it says."""
        there = seen.md5
        if there is None or (seen.facts.size, seen.facts.blob_type) != (self.source.size, BLOCK_BLOB):
            return False
        if self.source.properties.remote is not None:
            return self._md5_here(seen) == there
        if not self._is_ours(seen):
            return False
        if seen.ours(ETAG) != self.source.properties.etag:  # else tags or tier alone are new: no version is sent twice
            if self.source.size <= WHOLE_BYTES_MAX:
                return False
            if self.large and self.md5 is None and self.source.properties.content_md5 not in (None, seen.facts.md5):
                return False  # without reading it all for nothing
        return self._md5_here(seen) == there

    def _md5_here(self, seen: Seen) -> bytes:
        """The MD5 of our bytes: as a stub says it, as the verified copy of this very version says it, or as read."""
        if self.md5 is None:
            remote = self.source.properties.remote
            if remote is not None:
                self.md5 = remote.md5
            elif self._is_copy(seen) and seen.md5 is not None:
                self.md5 = seen.md5
            else:
                request = self._request("Get Blob Properties", "r")
                md5 = self.source.hash(0, self.source.size, request, _Reading(self.errand))
                self.source.check(request)
                self.md5 = md5
        return self.md5

    def _is_ours(self, seen: Seen) -> bool:
        return seen.etag == self.guard.cloud_etag or seen.written_by(self.node)

    def _is_copy(self, seen: Seen) -> bool:
        """Whether this is the copy that the queue knows, of the version that is here."""
        mine = (self.source.properties.etag, self.source.size)
        return seen.etag == self.guard.cloud_etag and seen.intact and (seen.ours(ETAG), seen.facts.size) == mine

    def _send_small(self, condition: str) -> str:
        """One Put Blob; the cloud's ETag of it. Put Blob checks the MD5 that it stores, so one that a client made up
        goes by way of a block list."""
        request = self._request("Put Blob", self._permissions())
        data = self.source.read(0, self.source.size, request)
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        self.source.check_md5(md5, request)
        want = self._wanted(md5)
        if want.facts.md5 != md5:
            return self._send_large(condition)
        etag = self.cloud.put_blob(request, self.errand, data, md5, want, condition)
        if etag is not None:
            return etag
        return self._commit(
            request,
            lambda: self.blob.upload_blob(
                data,
                length=len(data),
                overwrite=True,
                transactional_content_md5=bytearray(md5),
                **_described(want),
                **_condition(condition),
            ),
        )

    def _send_large(self, condition: str) -> str:
        """Put Block for what is not staged, then Put Block List; the cloud's ETag of it."""
        self.want = None
        request = self._request("Put Block List", self._permissions())
        ids, md5 = self._stage()
        self.source.check_md5(md5, request)
        want = self._wanted(md5)
        parts = [BlobBlock(each) for each in ids]
        return self._commit(
            request, lambda: self.blob.commit_block_list(parts, **_described(want), **_condition(condition))
        )

    def _stage(self) -> tuple[list[str], bytes]:
        """Have all blocks in the cloud; their ids in order, and the MD5 of all bytes. Reads in order, sends several."""
        staged = self._staged()
        step = blocks.block_bytes(self.source.size)
        request = self._request("Put Block", "w")
        whole = hashlib.md5(usedforsecurity=False)
        ids: list[str] = []
        flying: deque[Future[None]] = deque()
        with ThreadPoolExecutor(self.blocks_in_flight, "block") as pool:
            try:
                for piece in blocks.cut(self.source.size):
                    md5 = self.source.hash(piece.offset, piece.size, request, whole, _Reading(self.errand))
                    ids.append(blocks.block_id(self.source.properties.etag, step, piece.number, md5))
                    if (ids[-1], piece.size) in staged:
                        continue
                    if len(flying) == self.blocks_in_flight:
                        flying.popleft().result()
                    flying.append(pool.submit(self._put_block, ids[-1], piece, md5, request))
                while flying:
                    flying.popleft().result()
            finally:
                for future in flying:  # after a failure: what has not begun does not begin
                    future.cancel()
        return ids, whole.digest()

    def _staged(self) -> set[tuple[str, int]]:
        """(id, size) of the blocks that are staged. Ids that are not text are another program's."""
        request = self._request("Get Block List", "r")
        try:
            uncommitted = self.cloud.call(request, self.errand, lambda: self.blob.get_block_list("uncommitted")[1])
        except CloudFailed as failed:
            if failed.fault.code in ("BlobNotFound", "404", "UnicodeDecodeError"):  # 404: cut off before its code
                return set()
            raise
        return {(block.id, block.size) for block in uncommitted}

    def _put_block(self, block_id: str, piece: blocks.Piece, md5: bytes, request: Request) -> None:
        body = FileBody(self.source.fd, piece.offset, piece.size, request)
        self.cloud.call(
            request,
            self.errand,
            lambda: self.blob.stage_block(
                block_id,
                body,
                length=piece.size,
                transactional_content_md5=bytearray(md5),
            ),
        )

    def _commit(self, request: Request, function: Callable[[], dict[str, Any]]) -> str:
        answer = self.cloud.call(request, self.errand, function)
        return str(answer.get("etag") or "").strip('"')

    def _verified(self, etag: str, *, alone: bool) -> Outcome:
        """Ask for what was committed; `etag`: as the answer said, "" when it was cut off before that; `alone`: where
        nothing was. Raises CloudFailed NotVerified when it is not there as it was sent."""
        seen = self._look()
        assert self.want is not None
        if seen is None or seen.etag != (etag or seen.etag) or difference(self.want, seen):
            raise found("NotVerified", self._request("Get Blob Properties", "r"))
        return self._outcome(seen.etag, alone=alone)

    def _is_done(self, seen: Seen) -> bool:
        """Whether the cloud has all of what we want, whoever's answer was lost. Reads the source when it may be."""
        if self.want is None:
            if seen.ours(ETAG) != self.source.properties.etag or seen.facts.size != self.source.size:
                return False
            md5 = self._md5_here(seen)
            if seen.md5 != md5:
                return False
            self._wanted(md5)
        assert self.want is not None
        return not difference(self.want, seen)

    def _wanted(self, md5: bytes) -> Wanted:
        self.md5 = md5
        self.want = self._wants(None)
        return self.want

    def _wants(self, before: Facts | None) -> Wanted:
        assert self.md5 is not None
        return wanted(self.source.size, self.md5, self.source.properties, self.target.tier, self.node, before)

    def _outcome(self, etag: str, *, alone: bool = False) -> Outcome:
        assert self.md5 is not None
        return Outcome(etag, self.md5, self.errand.bytes_sent, self.kept_as, self.replaced, alone)

    def _look(self) -> Seen | None:
        return self.cloud.head(self.target.container, self.target.name, self.errand)

    def _permissions(self) -> str:
        return "wt" if self.source.properties.tags else "w"

    def _request(self, action: str, permission: str) -> Request:
        return self.cloud.request(action, permission, self.target.container, self.target.name)


def delete(cloud: Cloud, target: Target, guard: Guard, errand: Errand, *, node: str, version: str = "") -> str:
    """Delete the blob in the cloud if it still has our version there; done when there is none. `version`: our ETag of
    it, "" for any upload of ours: what we know of it may be a stub's word. Snapshots stay: a blob that has some is not
    deleted. Returns where it was kept before, "" for nowhere. Raises CloudFailed; Conflict, under every policy, for
    somebody else's version.
    """
    kept_as = ""
    blob = cloud.blob(target.container, target.name)
    deleting = cloud.request("Delete Blob", "d", target.container, target.name)
    for _ in range(ROUNDS_MAX):
        seen = cloud.head(target.container, target.name, errand)
        if seen is None:
            return kept_as
        ours = seen.written_by(node) and version in ("", seen.ours(ETAG))
        if seen.etag != guard.cloud_etag and not ours:
            raise Conflict(deleting, seen)
        condition = _condition(seen.etag)
        try:
            if guard.keeps:
                kept_as = keep.beside(cloud, target.container, target.name, seen, errand)
            cloud.call(deleting, errand, lambda: blob.delete_blob(**condition))  # noqa: B023  # called at once
        except CloudFailed as failed:
            if failed.fault.kind is not Kind.CONFLICT and failed.fault.code != "BlobNotFound":
                raise
    raise found("ChangesAllTheTime", deleting)


def _described(want: Wanted) -> dict[str, Any]:
    """Everything but the bytes, as the SDK takes it."""
    settings = describe.content_settings(want.facts)
    described: dict[str, Any] = {"content_settings": settings, "metadata": dict(want.metadata)}
    if want.tags:
        described["tags"] = dict(want.tags)
    if want.tier:
        described["standard_blob_tier"] = StandardBlobTier(want.tier)
    return described


def _condition(etag: str) -> dict[str, Any]:
    """If-Match, or If-None-Match: * for ABSENT."""
    if etag == ABSENT:
        return {"match_condition": MatchConditions.IfMissing}
    return describe.condition(etag)
