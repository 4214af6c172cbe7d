"""Copy Blob, Abort Copy Blob, Copy Blob From URL, Put Blob From URL, Put Block From URL.

Copy Blob of a local source of ordinary size is done when it is answered (202, `success`), as the service does within an
account. A long or a remote one is answered `pending`: the destination becomes an empty blob with all properties, and a
task of this worker fetches the bytes and then replaces it. The other operations answer when they are done.

The destination is looked at before the source is fetched, and again by the store under its lock.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from dataplane.blobapi import blocklist, copysource, leases, limits
from dataplane.blobapi.checksums import BodyDigest, Purpose
from dataplane.blobapi.copysource import SourceHeaders, TagOption, check_no_pending
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.leases import Use
from dataplane.blobapi.message import Response
from dataplane.blobapi.model import AccessTier, BlobProperties, BlobState, CopyState, CopyStatus
from dataplane.blobapi.operations import Operation
from dataplane.server.call import Call, Handler
from dataplane.server.copysource import LocalSource, RecalledSource, Run, Source, open_source
from dataplane.server.diskpool import DiskPools, Kept
from dataplane.server.handlers.shared import (
    WRITE_ENCRYPTED,
    blob_not_found,
    blob_ref,
    entity,
    existing_container,
    lease_id,
)
from dataplane.server.handlers.writing import TIER_HEADER, NewBlob, Overwrite, parse_tier
from dataplane.server.node import Account, Node
from dataplane.server.remotesource import RemoteSource
from dataplane.server.uploads import block_bytes_max, put_blob_bytes_max
from dataplane.store.errors import StoreError
from dataplane.store.staging import StagedFile
from dataplane.store.store import BlobRef

_log = logging.getLogger(__name__)

_HASH_BYTES: Final = limits.MIB
_Decide = Callable[[BlobState | None], BlobProperties]


# --- Copy Blob ---


async def copy_blob(call: Call) -> Response:
    """REST page "Copy Blob"."""
    _check_no_body(call)
    asked = copysource.parse_source_headers(call.request.headers)
    if asked.range is not None:
        raise BlobError(ErrorCode.UNSUPPORTED_HEADER, header_name="x-ms-source-range")
    destination = _Destination(call)
    await destination.check_early()
    source = await open_source(call, asked, asynchronous=True)
    background = False
    try:
        copysource.check_archived(source.properties, destination.tier, call.now)
        copy_id = call.new_guid()
        make = partial(destination.copied, source, asked, copy_id, call.new_etag())
        if isinstance(source, RemoteSource) or source.size > limits.copy_foreground_bytes_max:
            call.node.copies.check_room()
            state = await call.write(call.store.put(blob_ref(call), b"", partial(make, CopyStatus.PENDING)))
            pending = _PendingCopy(call.node, call.account, blob_ref(call), copy_id, call.new_etag(), source)
            call.node.copies.start(copy_id, pending.run())
            background = True
            await asyncio.sleep(0)  # a task that is cancelled before its first step would not even clean up
        else:
            content = await _content(call, source, None)
            job = call.store.put(blob_ref(call), content, partial(make, CopyStatus.SUCCESS), source.blocks)
            state = await call.write(job)
    finally:
        if not background:
            await source.close()
    return Response(202, [*entity(state.properties.etag, state.properties.last_modified), *_copy_headers(state)])


async def abort_copy_blob(call: Call) -> Response:
    """REST page "Abort Copy Blob": the destination stays, empty, with its metadata."""
    action = call.require_header("x-ms-copy-action")
    if action.lower() != "abort":
        raise BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name="x-ms-copy-action", header_value=action)
    copy_id = call.require_query("copyid")
    given, now = lease_id(call), call.node.now()
    if await call.read(call.store.stat_blob, blob_ref(call)) is None:
        raise await blob_not_found(call)

    def decide(current: BlobState | None) -> BlobProperties:
        if current is None:
            raise BlobError(ErrorCode.BLOB_NOT_FOUND)
        leases.check_blob_use(current.lease, given, now, current.properties.last_modified, Use.WRITE)
        return copysource.aborted(current, copy_id, now)

    await call.write(call.store.update(blob_ref(call), decide))
    call.node.copies.cancel(copy_id)
    return Response(204)


# --- the From URL operations ---


async def copy_blob_from_url(call: Call) -> Response:
    """REST page "Copy Blob From URL": Content-MD5 is answered only if the request had one to check."""
    _check_no_body(call)
    asked = copysource.parse_source_headers(call.request.headers)
    destination = _Destination(call)
    await destination.check_early()
    source = await open_source(call, asked, asynchronous=False)
    try:
        _check_size(source, limits.copy_from_url_sync_bytes_max)
        copysource.check_archived(source.properties, None, call.now)
        digest = _digest(asked, call, Purpose.BLOCK) if asked.md5 or asked.crc64 else None
        copy_id = call.new_guid()
        content = await _content(call, source, digest)
        decide = partial(destination.copied, source, asked, copy_id, call.new_etag(), CopyStatus.SUCCESS)
        state = await call.write(call.store.put(blob_ref(call), content, decide, source.blocks))
    finally:
        await source.close()
    headers = [*entity(state.properties.etag, state.properties.last_modified), *_copy_headers(state)]
    return Response(202, headers + (digest.response_headers() if digest is not None else []))


async def put_blob_from_url(call: Call) -> Response:
    """REST page "Put Blob From URL"."""
    _check_no_body(call)
    blob_type = call.require_header("x-ms-blob-type")
    if blob_type.lower() != "blockblob":
        raise BlobError(ErrorCode.FEATURE_NOT_SUPPORTED, header_name="x-ms-blob-type", header_value=blob_type)
    asked = copysource.parse_source_headers(call.request.headers)
    digest = _digest(asked, call, Purpose.BLOB)
    new = NewBlob.from_headers(call.request.headers, plain=False)
    destination = _Destination(call)
    await destination.check_early()
    source = await open_source(call, asked, asynchronous=False)
    try:
        _check_size(source, put_blob_bytes_max(call.version))
        copysource.check_archived(source.properties, None, call.now)
        content, etag = await _content(call, source, digest), call.new_etag()

        def decide(current: BlobState | None) -> BlobProperties:
            destination.check(current)
            now = call.node.now()
            base = new.properties(etag, now, created=now, content_md5=digest.md5)
            return copysource.uploaded_properties(source.properties, asked, call.request.headers, base)

        state = await call.write(call.store.put(blob_ref(call), content, decide))
    finally:
        await source.close()
    headers = entity(state.properties.etag, state.properties.last_modified)
    return Response(201, [*headers, *digest.response_headers(), WRITE_ENCRYPTED])


async def put_block_from_url(call: Call) -> Response:
    """REST page "Put Block From URL". A block needs the blob's lease; conditions are the source's alone."""
    _check_no_body(call)
    block_id = call.require_query("blockid")
    if not blocklist.valid_block_id(block_id):
        raise BlobError(ErrorCode.INVALID_BLOCK_ID)
    asked = copysource.parse_source_headers(call.request.headers)
    digest = _digest(asked, call, Purpose.BLOCK)
    given = lease_id(call)

    def decide(current: BlobState | None) -> None:
        lease = current.lease if current is not None else None
        modified = current.properties.last_modified if current is not None else 0
        leases.check_blob_use(lease, given, call.node.now(), modified, Use.WRITE)
        check_no_pending(current, call.node.now())

    current = await call.read(call.store.stat_blob, blob_ref(call))
    if current is None:
        await existing_container(call)
    decide(current)
    source = await open_source(call, asked, asynchronous=False)
    try:
        _check_size(source, block_bytes_max(call.version))
        if source.size == 0:
            raise BlobError(ErrorCode.INVALID_RANGE)
        copysource.check_archived(source.properties, None, call.now)
        content = await _content(call, source, digest)
        await call.write(call.store.put_block(blob_ref(call), block_id, content, decide))
    finally:
        await source.close()
    return Response(201, [*digest.response_headers(), WRITE_ENCRYPTED])


# --- what they share ---


class _Destination:
    """What the request says about its destination. Raises BlobError on construction as its headers' parsers do."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._overwrite = Overwrite(call)
        self.tier: AccessTier | None = parse_tier(call.request.headers.get(TIER_HEADER))

    def check(self, current: BlobState | None) -> None:
        """Raises BlobError when the destination may not be made or replaced."""
        self._overwrite.check(current)

    async def check_early(self) -> None:
        """Before a long fetch. Raises also ContainerNotFound."""
        await self._overwrite.check_early()
        check_no_pending(await self._call.read(self._call.store.stat_blob, blob_ref(self._call)), self._call.node.now())

    def copied(
        self,
        source: Source,
        asked: SourceHeaders,
        copy_id: str,
        etag: str,
        status: CopyStatus,
        current: BlobState | None,
    ) -> BlobProperties:
        """The destination's properties, for the store to ask for."""
        self.check(current)
        now = self._call.node.now()
        properties = copysource.copied_properties(
            source.properties, self._call.request.headers, etag=etag, now=now, access_tier=self.tier,
            copy_tags=asked.tag_option is TagOption.COPY,
        )  # fmt: skip
        done = status is CopyStatus.SUCCESS
        copy = CopyState(
            copy_id, asked.url.shown, status, source.size if done else 0, source.size, now if done else None
        )
        return replace(properties, copy=copy)


async def _content(call: Call, source: Source, digest: BodyDigest | None) -> bytes | StagedFile:
    """The source's bytes: in memory when there are few, else in a staged file. Their checksum has been compared."""
    if isinstance(source, LocalSource) and source.size <= limits.copy_inline_bytes_max:
        content = await source.pools.read(source.content)
        if digest is not None:
            digest.update(content)
            digest.finish()
        return content
    staging = Kept(call.store.stage)
    try:
        staged = await call.blocking(staging, call.request.resource.container)
        await source.fetch(_runner(call.node, call.pools, source), staged, lambda _: None)
        if digest is not None:
            await call.blocking(_hash, staged, digest)
    except BaseException:
        if staging.value is not None:
            call.node.behind(call.pools, staging.value.discard)
        raise
    return staged


def _hash(staged: StagedFile, digest: BodyDigest) -> None:
    """Feed the digest, when it computes anything, and compare. Raises BlobError Md5Mismatch, Crc64Mismatch."""
    if digest.computes_md5 or digest.computes_crc64:
        for offset in range(0, staged.size, _HASH_BYTES):
            digest.update(os.pread(staged.fd, _HASH_BYTES, staged.base + offset))
    digest.finish()


def _digest(asked: SourceHeaders, call: Call, purpose: Purpose) -> BodyDigest:
    """The checksums of what comes from the source, as if it were the request's body (recordings of the service)."""
    headers = call.request.headers
    given = {
        "content-md5": headers.get("x-ms-source-content-md5", ""),
        "x-ms-content-crc64": headers.get("x-ms-source-content-crc64", ""),
        "x-ms-blob-content-md5": headers.get("x-ms-blob-content-md5", ""),
    }
    return BodyDigest({name: value for name, value in given.items() if value}, call.version, purpose)


def _check_size(source: Source, bytes_max: int) -> None:
    if source.size > bytes_max:
        raise BlobError(ErrorCode.REQUEST_BODY_TOO_LARGE, detail=(("MaxLimit", str(bytes_max)),))


def _check_no_body(call: Call) -> None:
    """All of these have their content elsewhere. Raises BlobError InvalidHeaderValue."""
    if call.request.chunked or call.request.content_length:
        raise BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name="Content-Length")


def _copy_headers(state: BlobState) -> list[tuple[str, str]]:
    copy = state.properties.copy
    assert copy is not None  # the handler has just put it there
    return [("x-ms-copy-id", copy.copy_id), ("x-ms-copy-status", copy.status.value)]


# --- pending copies ---


@dataclass(slots=True)
class _PendingCopy:
    """One copy after its request was answered. Owns the source."""

    node: Node
    account: Account
    ref: BlobRef
    copy_id: str
    etag: str
    source: Source
    copied_bytes: int = 0

    async def run(self) -> None:
        """Fetch, then publish; whatever ends it early is written down at the destination."""
        work = asyncio.current_task()
        assert work is not None
        heartbeat = asyncio.create_task(self._beat(work))
        try:
            await self._fetch()
        except asyncio.CancelledError:
            await self._fail("The copy was cancelled.")
            raise
        except (BlobError, StoreError) as error:
            await self._fail(error.message if isinstance(error, BlobError) else "The storage failed.")
        except Exception:
            _log.error("copy %s failed", self.copy_id, exc_info=True)
            await self._fail("Internal error.")
        finally:
            heartbeat.cancel()
            await self.source.close()

    async def _fetch(self) -> None:
        staging = Kept(self.account.store.stage)
        try:
            staged = await self._run(staging, self.ref.container)
            await self.source.fetch(self._run, staged, self._progressed)
        except BaseException:
            if staging.value is not None:
                self.node.behind(self.account.pools(self.ref.container), staging.value.discard)
            raise
        await self._write(self._complete, staged)

    def _progressed(self, copied_bytes: int) -> None:
        self.copied_bytes = copied_bytes

    def _complete(self, current: BlobState | None) -> BlobProperties:
        return copysource.completed(current, self.copy_id, self.etag, self.node.now())

    async def _write(self, decide: _Decide, content: StagedFile | None = None) -> None:
        store = self.account.store
        if content is None:
            await self.account.committer.submit(store.update(self.ref, decide))
        else:
            await self.account.committer.submit(store.put(self.ref, content, decide, self.source.blocks))

    async def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        """On a data thread. A full pool is no reason to fail a copy that nobody waits for."""
        run = _runner(self.node, self.account.pools(self.ref.container), self.source)
        return await _patiently(partial(run, function, *args))

    async def _beat(self, work: asyncio.Task[None]) -> None:
        """Write the progress down every few seconds; end the work when somebody else has aborted or replaced it."""
        while True:
            await asyncio.sleep(limits.copy_progress_seconds)
            try:
                await self._write(self._note)
            except BlobError as error:
                if error.code is ErrorCode.NO_PENDING_COPY_OPERATION:
                    work.cancel()
                    return
            except StoreError:
                continue

    def _note(self, current: BlobState | None) -> BlobProperties:
        noted = copysource.progressed(current, self.copy_id, self.copied_bytes, self.node.now())
        if noted is None:
            raise BlobError(ErrorCode.NO_PENDING_COPY_OPERATION)
        return noted

    async def _fail(self, reason: str) -> None:
        def decide(current: BlobState | None) -> BlobProperties:
            return copysource.ended(current, self.copy_id, CopyStatus.FAILED, reason, self.node.now())

        try:
            await self._write(decide)
        except (BlobError, StoreError):
            return  # it was aborted or replaced, or will read as failed before long


def _runner(node: Node, pools: DiskPools, source: Source) -> Run:
    """Where a copy's calls run, given the destination's pools. They take long, and wait for both file systems."""
    if isinstance(source, LocalSource | RecalledSource):
        pools = node.pools.across((pools, source.pools))
    return pools.data_pool.run_long


async def _patiently(attempt: Callable[[], Awaitable[Any]]) -> Any:
    """Call until the pool has room. Raises what the call raises."""
    while True:
        try:
            return await attempt()
        except BlobError as error:
            if error.code is not ErrorCode.SERVER_BUSY:
                raise
        await asyncio.sleep(limits.copy_busy_wait_seconds)


HANDLERS: Final[Mapping[Operation, Handler]] = {
    Operation.COPY_BLOB: copy_blob,
    Operation.ABORT_COPY_BLOB: abort_copy_blob,
    Operation.COPY_BLOB_FROM_URL: copy_blob_from_url,
    Operation.PUT_BLOB_FROM_URL: put_blob_from_url,
    Operation.PUT_BLOCK_FROM_URL: put_block_from_url,
}
