"""Get Blob Tags and Set Blob Tags.

Tags are beside the blob: setting them changes neither its ETag nor its Last-Modified. Conditions are x-ms-if-tags and
the four usual ones, which newer clients send under names of their own here (x-ms-blob-if-match and so on). Reading
needs no lease id, but a wrong one fails; writing to a leased blob needs it (the service's own SDK tests).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from dataplane.blobapi import conditions, leases, limits, tags
from dataplane.blobapi.checksums import BodyDigest, Purpose
from dataplane.blobapi.conditions import ConditionalHeaders
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.leases import Use
from dataplane.blobapi.message import Response
from dataplane.blobapi.model import BlobProperties, BlobState
from dataplane.blobapi.operations import Operation
from dataplane.server.call import Call, Handler
from dataplane.server.handlers.properties import write_existing
from dataplane.server.handlers.reads import checked_ref
from dataplane.server.handlers.shared import XML, blob_not_found, blob_ref, lease_id, tags_match

_CONDITIONS: Final = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")


async def get_blob_tags(call: Call) -> Response:
    """REST page "Get Blob Tags", of a blob or a snapshot. Raises BlobError BlobNotFound, ConditionNotMet, and those of
    leases."""
    given, wanted = lease_id(call), _conditions(call)
    state = await call.read(call.store.stat_blob, checked_ref(call))
    if state is None:
        raise await blob_not_found(call)
    properties = state.properties
    if not state.snapshot:
        leases.check_blob_use(state.lease, given, call.now, properties.last_modified, Use.READ)
    conditions.check_read(wanted, properties.etag, properties.last_modified, properties.tags, tags_match)
    return Response(200, [XML], tags.render(properties.tags))


async def set_blob_tags(call: Call) -> Response:
    """REST page "Set Blob Tags": replaces them all. Raises BlobError as Get Blob Tags, Md5Mismatch, Crc64Mismatch, and
    those of the document."""
    given, wanted = lease_id(call), _conditions(call)
    digest = BodyDigest(call.request.headers, call.version, Purpose.BLOCK)
    body = await call.body.read_all(limits.tags_xml_bytes_max)
    digest.update(body)
    digest.finish()
    new = tags.parse(body)

    def decide(current: BlobState | None) -> BlobProperties:
        if current is None:
            raise BlobError(ErrorCode.BLOB_NOT_FOUND)
        properties = current.properties
        leases.check_blob_use(current.lease, given, call.node.now(), properties.last_modified, Use.WRITE)
        conditions.check_write(wanted, properties.etag, properties.last_modified, properties.tags, tags_match)
        return replace(properties, tags=new)

    await write_existing(call, lambda: call.store.update(blob_ref(call), decide))
    return Response(204)


def _conditions(call: Call) -> ConditionalHeaders:
    headers = call.request.headers
    own = {name: headers[f"x-ms-blob-{name}"] for name in _CONDITIONS if f"x-ms-blob-{name}" in headers}
    return conditions.parse_conditions({**headers, **own})


HANDLERS: Final[Mapping[Operation, Handler]] = {
    Operation.GET_BLOB_TAGS: get_blob_tags,
    Operation.SET_BLOB_TAGS: set_blob_tags,
}
