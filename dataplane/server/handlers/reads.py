"""Get Blob, Get Blob Properties, Get Blob Metadata.

One order of checks for all: the blob is there, the lease id fits, the conditions hold, the tier allows it, the range
lies inside. A plain read of a local store needs no coroutine: its answer is a head and a descriptor (SYNC_HANDLERS);
everything else takes the long way through the same functions. A stub is checked and described as any blob; only what
sends bytes asks for them (recalls.py), and the answer's status waits for the first ones.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from dataplane.blobapi import leases, metadata, tiers
from dataplane.blobapi.blobheaders import blob_headers
from dataplane.blobapi.conditions import check_absent, check_read, parse_conditions
from dataplane.blobapi.copysource import observed
from dataplane.blobapi.dates import parse_iso_ticks
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.leases import Use
from dataplane.blobapi.message import FileBody, RecallBody, Response
from dataplane.blobapi.model import BlobState
from dataplane.blobapi.operations import Operation
from dataplane.blobapi.ranges import ByteRange, parse_range, resolve
from dataplane.ipc.recalls import WINDOW_BYTES_MAX
from dataplane.server.call import Call, Handler, SyncHandler
from dataplane.server.diskpool import Kept, busy
from dataplane.server.downloads import CheckedRead, needs_bytes
from dataplane.server.handlers.shared import blob_ref, entity, lease_id, tags_match
from dataplane.server.recallrefusals import check_known
from dataplane.server.recalls import LOOKS_COUNT_MAX, BlobChanged, Recalled, Stub
from dataplane.store.staging import StagedFile
from dataplane.store.store import BlobRef, OpenBlob


async def get_blob(call: Call) -> Response:
    """REST page "Get Blob"."""
    ref = checked_ref(call)
    for _ in range(LOOKS_COUNT_MAX):
        try:
            response = await _looked_at(call, ref)
        except BlobChanged:  # between our look and the sidecar's
            continue
        _note_read(call, ref)
        return response
    raise busy()


async def _looked_at(call: Call, ref: BlobRef) -> Response:
    """The answer as the blob is now. Raises BlobChanged when its bytes were to be recalled and it is another."""
    opening = Kept(call.store.open_blob)
    try:
        opened = await call.read(opening, ref)
        if opened is None:
            raise await _absent(call)
        if opened.state.properties.remote is not None:
            response = await _recalled_answer(call, ref, opened)
        elif not needs_bytes(call.request.headers):
            return _plain_answer(call, opened)
        else:
            response = await _checked_answer(call, opened)
    except BaseException:
        if opening.value is not None:
            opening.value.close()
        raise
    if not (isinstance(response.body, FileBody) and response.body.fd == opened.fd):
        opened.close()
    return response


def get_blob_now(call: Call) -> Response | None:
    """The same at once, for reads that look at no byte."""
    if needs_bytes(call.request.headers):
        return None
    ref = checked_ref(call)
    opened = call.store.open_blob(ref)
    if opened is None:
        raise _absent_in(call, call.store.container(call.request.resource.container) is not None)
    if opened.state.properties.remote is not None:
        opened.close()
        return None
    try:
        response = _plain_answer(call, opened)
    except BaseException:
        opened.close()
        raise
    _note_read(call, ref)
    return response


def _note_read(call: Call, ref: BlobRef) -> None:
    """Tell the journal, when there is one, that a blob was read: what is read stays on the node."""
    journal = call.node.journal
    if journal is not None and not ref.snapshot:
        journal.read(call.account.name, ref.container, ref.name)


async def get_blob_properties(call: Call) -> Response:
    """REST page "Get Blob Properties": the headers of the whole blob, and its tier."""
    state = await call.read(call.store.stat_blob, checked_ref(call))
    if state is None:
        raise await _absent(call)
    return _properties_answer(call, state)


def get_blob_properties_now(call: Call) -> Response | None:
    """The same at once."""
    state = call.store.stat_blob(checked_ref(call))
    if state is None:
        raise _absent_in(call, call.store.container(call.request.resource.container) is not None)
    return _properties_answer(call, state)


async def get_blob_metadata(call: Call) -> Response:
    """REST page "Get Blob Metadata"."""
    state = await call.read(call.store.stat_blob, checked_ref(call))
    if state is None:
        raise await _absent(call)
    _check(call, state)
    properties = state.properties
    headers = [*entity(properties.etag, properties.last_modified), *metadata.to_headers(properties.metadata)]
    return Response(200, headers)


def checked_ref(call: Call) -> BlobRef:
    """The blob or snapshot of a request. Raises BlobError InvalidQueryParameterValue for a snapshot that is no
    instant: an empty one must not mean the base blob, which a Delete Blob would then take."""
    ref = blob_ref(call)
    if "snapshot" in call.request.query and parse_iso_ticks(ref.snapshot) is None:
        raise BlobError(ErrorCode.INVALID_QUERY_PARAMETER_VALUE, query_name="snapshot", query_value=ref.snapshot[:64])
    return ref


def _plain_answer(call: Call, opened: OpenBlob) -> Response:
    """Headers and the descriptor, which is the answer's from here on. It stays the caller's when this raises."""
    state, part = _prepared(call, opened.state)
    headers = _headers(call, state, part)
    length = state.size if part is None else part.length
    if length == 0:
        opened.close()
        return Response(200, headers)
    offset = 0 if part is None else part.offset
    return Response(200 if part is None else 206, headers, FileBody(opened.fd, offset, length))


async def _checked_answer(call: Call, opened: OpenBlob) -> Response:
    """The same with what downloads.py computes; the descriptor stays the caller's unless it is in the body."""
    checked = CheckedRead(call.request.headers)
    state, part = _prepared(call, opened.state)
    checked.check(part)
    offset, length = (0, state.size) if part is None else (part.offset, part.length)
    more, body = await checked.answer(call, opened.fd, offset, length)
    return Response(200 if part is None else 206, _headers(call, state, part) + more, body)


async def _recalled_answer(call: Call, ref: BlobRef, opened: OpenBlob) -> Response:
    """The same for a stub. The first bytes can be read when this returns. Raises BlobError, BlobChanged."""
    checked = CheckedRead(call.request.headers)
    state, part = _prepared(call, opened.state)
    checked.check(part)
    status, headers = 200 if part is None else 206, _headers(call, state, part)
    offset, length = (0, state.size) if part is None else (part.offset, part.length)
    if not length:
        more, body = await checked.answer(call, opened.fd, 0, 0)
        return Response(status, headers + more, body)
    stub = Stub(call.account.name, ref, state, call.store.open_blob, call.read)
    recalled = await call.node.recalls.open(stub, offset, offset + length)
    if not checked.computes:
        return Response(status, headers, RecallBody(recalled, offset, length))
    try:
        more, body = await _checked_recall(call, checked, recalled, offset, length)
    finally:
        recalled.close()
    return Response(status, headers + more, body)


async def _checked_recall(
    call: Call, checked: CheckedRead, recalled: Recalled, offset: int, length: int
) -> tuple[list[tuple[str, str]], bytes | FileBody]:
    """What downloads.py computes of bytes that are in the cloud: they have to be in a file first, all of them."""
    if length <= WINDOW_BYTES_MAX:
        fd = await recalled.whole(offset)
        return await checked.answer(call, fd, offset, length)
    staging = Kept(partial(StagedFile.create, call.store.mount))
    try:
        staged = await call.blocking(staging)
        while staged.size < length:
            at = offset + staged.size
            fd, end = await recalled.readable(at)
            await call.blocking(staged.copy_from, fd, at, end - at)
        return await checked.answer(call, staged.fd, 0, length)
    finally:
        if staging.value is not None:
            call.node.behind(call.pools, staging.value.discard)


def _prepared(call: Call, state: BlobState) -> tuple[BlobState, ByteRange | None]:
    """The state to describe and the bytes to send. Raises BlobError for whatever forbids the read."""
    state = _check(call, state)
    tiers.check_online(state.properties, call.now)
    wanted = parse_range(call.request.headers)
    return state, None if wanted is None else resolve(wanted, state.size)


def _headers(call: Call, state: BlobState, part: ByteRange | None) -> list[tuple[str, str]]:
    return blob_headers(
        state, call.version, call.now, head=False, part=part, overrides=call.caller.overrides,
        residency=call.node.journal is not None,
    )  # fmt: skip


def _properties_answer(call: Call, state: BlobState) -> Response:
    state = _check(call, state)
    headers = blob_headers(
        state, call.version, call.now, head=True, overrides=call.caller.overrides,
        residency=call.node.journal is not None,
    )  # fmt: skip
    return Response(200, headers, content_length=state.size)


def _check(call: Call, state: BlobState) -> BlobState:
    """Lease and conditions of a read; returns the state as it is now. Raises BlobError: those of leases, and 304 or
    412 ConditionNotMet; 503 for a stub without a record."""
    properties = state.properties
    if properties.remote is not None:
        check_known(properties)
    leases.check_blob_use(state.lease, lease_id(call), call.now, properties.last_modified, Use.READ)
    conditions = parse_conditions(call.request.headers)
    check_read(conditions, properties.etag, properties.last_modified, properties.tags, tags_match)
    current = observed(tiers.settled(properties, call.now), call.now)
    return state if current is properties else replace(state, properties=current)


async def _absent(call: Call) -> BlobError:
    container = await call.read(call.store.container, call.request.resource.container)
    return _absent_in(call, container is not None)


def _absent_in(call: Call, container: bool) -> BlobError:
    """The refusal of a read of what is not there. Raises BlobError ConditionNotMet when a condition asks for it."""
    if not container:
        return BlobError(ErrorCode.CONTAINER_NOT_FOUND)
    check_absent(parse_conditions(call.request.headers))
    return BlobError(ErrorCode.BLOB_NOT_FOUND)


HANDLERS: Final[Mapping[Operation, Handler]] = {
    Operation.GET_BLOB: get_blob,
    Operation.GET_BLOB_PROPERTIES: get_blob_properties,
    Operation.GET_BLOB_METADATA: get_blob_metadata,
}
SYNC_HANDLERS: Final[Mapping[Operation, SyncHandler]] = {
    Operation.GET_BLOB: get_blob_now,
    Operation.GET_BLOB_PROPERTIES: get_blob_properties_now,
}
