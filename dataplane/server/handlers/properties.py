"""Changes of a blob that exists, its content aside: properties, metadata, tier, snapshots, and its end.

Lease and conditions are checked in the closures that the store calls under the blob's lock. Set Blob Properties and Set
Blob Metadata give a new ETag; Set Blob Tier and Snapshot Blob do not (recordings).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, TypeVar

from dataplane.blobapi import leases, metadata, tiers
from dataplane.blobapi.checksums import parse_md5
from dataplane.blobapi.conditions import (
    ConditionalHeaders,
    check_absent,
    check_combination,
    check_tier_changed,
    check_write,
    parse_conditions,
    parse_tier_conditions,
)
from dataplane.blobapi.copysource import check_no_pending
from dataplane.blobapi.dates import iso_ticks
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.leases import Use
from dataplane.blobapi.message import Response
from dataplane.blobapi.model import BlobProperties, BlobState
from dataplane.blobapi.operations import Operation
from dataplane.server.call import Call, Handler
from dataplane.server.handlers.reads import checked_ref
from dataplane.server.handlers.shared import WRITE_ENCRYPTED, blob_ref, entity, existing_container, lease_id, tags_match
from dataplane.server.handlers.writing import TIER_HEADER, parse_tier
from dataplane.store.store import DeleteScope, Job

T = TypeVar("T")
Change = Callable[[BlobProperties, int], BlobProperties]  # the properties and the time in seconds -> the new ones

_SCOPES: Final = {"include": DeleteScope.BLOB_AND_SNAPSHOTS, "only": DeleteScope.SNAPSHOTS_ONLY}
_OF_AN_ABSENT_BLOB: Final = (ErrorCode.BLOB_NOT_FOUND, ErrorCode.CONDITION_NOT_MET)
_SNAPSHOTS_HEADER: Final = "x-ms-delete-snapshots"
_PERMANENT_SINCE: Final = "2017-07-29"
_PROPERTY_HEADERS: Final = (
    "x-ms-blob-content-type", "x-ms-blob-content-encoding", "x-ms-blob-content-language",
    "x-ms-blob-content-disposition", "x-ms-blob-cache-control", "x-ms-blob-content-md5",
)  # fmt: skip


class Guard:
    """What the request says about the blob as it has to be: its lease and conditions."""

    def __init__(self, call: Call, use: Use) -> None:
        """Raises BlobError InvalidHeaderValue, MultipleConditionHeadersNotSupported."""
        self._clock: Callable[[], int] = call.node.now
        self._use = use
        self._conditions: ConditionalHeaders = parse_conditions(call.request.headers)
        check_combination(self._conditions)
        self._lease_id = lease_id(call)

    def check(self, current: BlobState | None) -> tuple[BlobState, int]:
        """The blob and the time, if the request may go on. Raises BlobError BlobNotFound, ConditionNotMet, those of
        leases."""
        if current is None:
            check_absent(self._conditions)
            raise BlobError(ErrorCode.BLOB_NOT_FOUND)
        now, properties = self._clock(), current.properties
        if not current.snapshot:
            leases.check_blob_use(current.lease, self._lease_id, now, properties.last_modified, self._use)
            if self._use is Use.WRITE:
                check_no_pending(current, now)
        check_write(self._conditions, properties.etag, properties.last_modified, properties.tags, tags_match)
        return current, now


async def write_existing(call: Call, make: Callable[[], Job[T]]) -> T:
    """Commit a change of a blob that has to exist; `make` may be called again. Raises BlobError ContainerNotFound
    rather than BlobNotFound or ConditionNotMet when it is the container that is missing, and what the job raises."""
    try:
        return await call.write_with_bytes(make)
    except BlobError as error:
        if error.code in _OF_AN_ABSENT_BLOB:
            await existing_container(call)
        raise


async def set_blob_properties(call: Call) -> Response:
    """REST page "Set Blob Properties": one that is set sets them all, and clears those that are not sent."""
    headers = call.request.headers
    md5 = parse_md5(headers, "x-ms-blob-content-md5")
    given = any(name in headers for name in _PROPERTY_HEADERS)

    def change(properties: BlobProperties, now: int) -> BlobProperties:
        if not given:
            return properties
        return replace(
            properties,
            content_type=headers.get("x-ms-blob-content-type", ""),
            content_encoding=headers.get("x-ms-blob-content-encoding", ""),
            content_language=headers.get("x-ms-blob-content-language", ""),
            content_disposition=headers.get("x-ms-blob-content-disposition", ""),
            cache_control=headers.get("x-ms-blob-cache-control", ""),
            content_md5=md5,
        )

    state = await _modify(call, change)
    return Response(200, entity(state.properties.etag, state.properties.last_modified))


async def set_blob_metadata(call: Call) -> Response:
    """REST page "Set Blob Metadata": all metadata is replaced."""
    new = metadata.from_headers(call.request.headers)
    state = await _modify(call, lambda properties, _: replace(properties, metadata=new))
    return Response(200, [*entity(state.properties.etag, state.properties.last_modified), WRITE_ENCRYPTED])


async def _modify(call: Call, change: Change) -> BlobState:
    """Apply a change with a new ETag and time."""
    guard, etag = Guard(call, Use.WRITE), call.new_etag()

    def decide(current: BlobState | None) -> BlobProperties:
        state, now = guard.check(current)
        tiers.check_online(state.properties, now)
        properties = tiers.settled(state.properties, now)
        return replace(change(properties, now), etag=etag, last_modified=now)

    return await write_existing(call, lambda: call.store.update(blob_ref(call), decide))


async def set_blob_tier(call: Call) -> Response:
    """REST page "Set Blob Tier". 202 when the blob has to come back from Archive first."""
    tier = parse_tier(call.require_header(TIER_HEADER))
    assert tier is not None
    priority = tiers.parse_priority(call.request.header(tiers.PRIORITY_HEADER))
    guard = Guard(call, Use.WRITE)
    status = 200

    def decide(current: BlobState | None) -> BlobProperties:
        nonlocal status
        state, now = guard.check(current)
        changed = tiers.change_tier(state.properties, tier, priority, now)
        status = changed.status
        return changed.properties

    await write_existing(call, lambda: call.store.update(checked_ref(call), decide))
    return Response(status)


async def snapshot_blob(call: Call) -> Response:
    """REST page "Snapshot Blob": the snapshot has the blob's ETag and time, unless it gets metadata of its own."""
    new = metadata.from_headers(call.request.headers)
    guard, etag = Guard(call, Use.READ), call.new_etag()

    def decide(current: BlobState | None) -> BlobProperties:
        state, now = guard.check(current)
        tiers.check_online(state.properties, now)
        properties = tiers.settled(state.properties, now)
        return replace(properties, metadata=new, etag=etag, last_modified=now) if new else properties

    state = await write_existing(call, lambda: call.store.snapshot(blob_ref(call), decide, iso_ticks(call.ticks())))
    return Response(
        201,
        [
            *entity(state.properties.etag, state.properties.last_modified),
            ("x-ms-snapshot", state.snapshot),
            ("x-ms-request-server-encrypted", "true" if new else "false"),  # whether this request brought data
        ],
    )


async def delete_blob(call: Call) -> Response:
    """REST page "Delete Blob". Raises BlobError SnapshotsPresent when the request does not say what becomes of them."""
    ref = checked_ref(call)
    scope = _scope(call.request.header(_SNAPSHOTS_HEADER))
    if ref.snapshot and scope is not None:
        raise BlobError(ErrorCode.INVALID_OPERATION, message="Invalid operation against a blob snapshot.")
    guard = Guard(call, Use.WRITE)
    since = parse_tier_conditions(call.request.headers)

    def decide(current: BlobState | None) -> DeleteScope:
        state, now = guard.check(current)
        tier_changed = tiers.settled(state.properties, now).tier_changed
        check_tier_changed(since, state.properties.created if tier_changed is None else tier_changed)
        if state.has_snapshots and scope is None:
            raise BlobError(ErrorCode.SNAPSHOTS_PRESENT)
        return scope or DeleteScope.BLOB

    await write_existing(call, lambda: call.store.delete(ref, decide))
    if call.version < _PERMANENT_SINCE:
        return Response(202)
    return Response(202, [("x-ms-delete-type-permanent", "true")])  # there is no soft delete


def _scope(text: str | None) -> DeleteScope | None:
    if text is None:
        return None
    scope = _SCOPES.get(text.lower())
    if scope is None:
        raise BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name=_SNAPSHOTS_HEADER, header_value=text)
    return scope


HANDLERS: Final[Mapping[Operation, Handler]] = {
    Operation.SET_BLOB_PROPERTIES: set_blob_properties,
    Operation.SET_BLOB_METADATA: set_blob_metadata,
    Operation.SET_BLOB_TIER: set_blob_tier,
    Operation.SNAPSHOT_BLOB: snapshot_blob,
    Operation.DELETE_BLOB: delete_blob,
}
