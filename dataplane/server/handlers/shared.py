"""What several handlers need: headers that many answers have, and readings of headers that many requests have."""

from collections.abc import Mapping
from typing import Final

from dataplane.blobapi import leases
from dataplane.blobapi.dates import http_date
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.etag import quoted
from dataplane.blobapi.model import ContainerState
from dataplane.blobapi.tagquery import parse_condition
from dataplane.server.call import Call
from dataplane.store.store import BlobRef

XML: Final = ("Content-Type", "application/xml")
#: Everything is at rest as the mount keeps it; SDKs ask for these headers on every write and read.
WRITE_ENCRYPTED: Final = ("x-ms-request-server-encrypted", "true")


def entity(etag: str, last_modified: int) -> list[tuple[str, str]]:
    """ETag and Last-Modified of an answer."""
    return [("ETag", quoted(etag)), ("Last-Modified", http_date(last_modified))]


def lease_id(call: Call) -> str | None:
    """The request's x-ms-lease-id in canonical form. Raises BlobError InvalidHeaderValue."""
    return leases.parse_lease_id(call.request.headers.get("x-ms-lease-id"))


def blob_ref(call: Call) -> BlobRef:
    """The blob, or with a `snapshot` parameter the snapshot, that a request is about."""
    resource = call.request.resource
    return BlobRef(resource.container, resource.blob, call.request.query.get("snapshot", ""))


def tags_match(expression: str, tags: Mapping[str, str]) -> bool:
    """Whether an x-ms-if-tags condition holds. Raises BlobError InvalidHeaderValue."""
    return parse_condition(expression).holds(tags)


async def existing_container(call: Call) -> ContainerState:
    """The container that a request is about. Raises BlobError ContainerNotFound."""
    state = await call.read(call.store.container, call.request.resource.container)
    if state is None:
        raise BlobError(ErrorCode.CONTAINER_NOT_FOUND)
    return state


async def blob_not_found(call: Call) -> BlobError:
    """The refusal for an absent blob, which depends on whether its container is there."""
    await existing_container(call)
    return BlobError(ErrorCode.BLOB_NOT_FOUND)
