"""Put Block, Put Block List, Get Block List: a block blob in parts, in any order, from any number of connections."""

from collections.abc import Mapping
from functools import partial
from typing import Final

from dataplane.blobapi import blocklist, checksums, conditions, leases, limits
from dataplane.blobapi.checksums import BodyDigest, Purpose
from dataplane.blobapi.copysource import check_no_pending
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.leases import Use
from dataplane.blobapi.message import Response
from dataplane.blobapi.model import BlobProperties, BlobState
from dataplane.blobapi.operations import Operation
from dataplane.server.call import Call, Handler
from dataplane.server.handlers.shared import (
    WRITE_ENCRYPTED,
    XML,
    blob_not_found,
    blob_ref,
    entity,
    existing_container,
    lease_id,
    tags_match,
)
from dataplane.server.handlers.writing import NewBlob, Overwrite
from dataplane.server.uploads import Receiver, block_bytes_max

_LIST_TYPES: Final = ("committed", "uncommitted", "all")


async def put_block(call: Call) -> Response:
    """REST page "Put Block". A block needs the blob's lease, but neither takes conditions nor changes the blob."""
    block_id = call.require_query("blockid")
    if not blocklist.valid_block_id(block_id):
        raise BlobError(ErrorCode.INVALID_BLOCK_ID)
    given = lease_id(call)
    receiver = Receiver(call, Purpose.BLOCK, block_bytes_max(call.version))
    if receiver.length == 0:
        raise BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name="Content-Length", header_value="0")

    def decide(current: BlobState | None) -> None:
        lease = current.lease if current is not None else None
        modified = current.properties.last_modified if current is not None else 0
        leases.check_blob_use(lease, given, call.node.now(), modified, Use.WRITE)
        check_no_pending(current, call.node.now())

    if receiver.large:
        current = await call.read(call.store.stat_blob, blob_ref(call))
        if current is None:
            await existing_container(call)
        decide(current)
    upload = await receiver.receive(partial(call.store.stage_block, blob_ref(call), block_id, receiver.length))
    await call.write(call.store.put_block(blob_ref(call), block_id, upload.content, decide))
    return Response(201, [*upload.response_headers(), WRITE_ENCRYPTED])


async def put_block_list(call: Call) -> Response:
    """REST page "Put Block List": the blob becomes these blocks, in this order. Creation time survives."""
    overwrite, new = Overwrite(call), NewBlob.from_headers(call.request.headers, plain=False)
    content_md5 = checksums.parse_md5(call.request.headers, "x-ms-blob-content-md5")
    digest = BodyDigest(call.request.headers, call.version, Purpose.BLOCK_LIST)
    body = await call.body.read_all(limits.block_list_xml_bytes_max)
    if len(body) <= limits.hash_inline_bytes_max:
        entries = _entries(body, digest)
    else:
        entries = await call.blocking(_entries, body, digest)
    etag = call.new_etag()

    def decide(current: BlobState | None) -> BlobProperties:
        overwrite.check(current)
        now = call.node.now()
        created = current.properties.created if current is not None else now
        return new.properties(etag, now, created, content_md5)

    state = await call.write_with_bytes(lambda: call.store.commit_blocks(blob_ref(call), entries, decide))
    headers = [*entity(etag, state.properties.last_modified), *digest.response_headers(), WRITE_ENCRYPTED]
    return Response(201, headers)


def _entries(body: bytes, digest: BodyDigest) -> list[tuple[str, str]]:
    digest.update(body)
    digest.finish()
    return list(blocklist.parse(body))


async def get_block_list(call: Call) -> Response:
    """REST page "Get Block List". A blob that has uncommitted blocks only has a list too, but no ETag."""
    list_type = (call.query("blocklisttype") or "committed").lower()
    if list_type not in _LIST_TYPES:
        raise BlobError(ErrorCode.INVALID_QUERY_PARAMETER_VALUE, query_name="blocklisttype", query_value=list_type[:64])
    state = await call.read(call.store.stat_blob, blob_ref(call))
    if state is None:
        await existing_container(call)
    _check_readable(call, state)
    body = await call.blocking(_rendered_list, call, list_type)
    if body is None:
        raise await blob_not_found(call)
    headers = [XML]
    if state is not None:
        headers += [
            *entity(state.properties.etag, state.properties.last_modified),
            ("x-ms-blob-content-length", str(state.size)),
        ]
    return Response(200, headers, body)


def _rendered_list(call: Call, list_type: str) -> bytes | None:
    """The answer's body, None without a blob or block; on a thread, as 50,000 blocks take their time."""
    ref = blob_ref(call)
    lists = call.store.block_list(ref)
    if lists is None:
        return None
    committed, uncommitted = lists
    return blocklist.render(
        None if list_type == "uncommitted" else committed,
        None if list_type == "committed" or ref.snapshot else uncommitted,
    )


def _check_readable(call: Call, state: BlobState | None) -> None:
    """Lease and tag condition; the operation takes no other condition. Raises BlobError."""
    given, tag_condition = lease_id(call), conditions.parse_conditions(call.request.headers).if_tags
    if state is None:
        leases.check_blob_use(None, given, call.now, 0, Use.READ)
        if tag_condition is not None:
            raise BlobError(ErrorCode.CONDITION_NOT_MET)
        return
    leases.check_blob_use(state.lease, given, call.now, state.properties.last_modified, Use.READ)
    if tag_condition is not None and not tags_match(tag_condition, state.properties.tags):
        raise BlobError(ErrorCode.CONDITION_NOT_MET)


HANDLERS: Final[Mapping[Operation, Handler]] = {
    Operation.PUT_BLOCK: put_block,
    Operation.PUT_BLOCK_LIST: put_block_list,
    Operation.GET_BLOCK_LIST: get_block_list,
}
