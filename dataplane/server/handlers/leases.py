"""Lease Blob and Lease Container: the rules of blobapi/leases.py, applied under the store's locks.

ETag and Last-Modified stay (recordings). The outcome is taken from the last call of the closure, as the store may ask
more than once; the id for a new lease is drawn once for all of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from dataplane.blobapi import leases
from dataplane.blobapi.conditions import check_combination, check_container, check_write, parse_conditions
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.leases import LeaseOutcome
from dataplane.blobapi.message import Response
from dataplane.blobapi.model import BlobState, ContainerProperties, ContainerState, Lease
from dataplane.blobapi.operations import Operation
from dataplane.server.call import Call, Handler
from dataplane.server.handlers.properties import write_existing
from dataplane.server.handlers.shared import blob_ref, entity, tags_match


class _Change:
    """One lease operation of a request, on whatever lease there is."""

    def __init__(self, call: Call, resource: str) -> None:
        """Raises BlobError MissingRequiredHeader, InvalidHeaderValue."""
        self._request = leases.parse_lease_request(call.request.header)
        self._clock: Callable[[], int] = call.node.now
        self._new_id = call.new_guid()
        self._resource = resource
        self.outcome: LeaseOutcome | None = None

    def apply(self, lease: Lease | None, last_modified: int = 0, etag: str = "") -> Lease | None:
        """The lease afterwards; `last_modified` and `etag` are the blob's. Raises BlobError 409."""
        self.outcome = leases.apply(
            self._request,
            lease,
            self._clock(),
            self._new_id,
            last_modified=last_modified,
            etag=etag,
            resource=self._resource,
        )
        return self.outcome.lease

    def answer(self, etag: str, last_modified: int) -> Response:
        """The answer once the change is durable."""
        assert self.outcome is not None
        return Response(self.outcome.status, [*entity(etag, last_modified), *self.outcome.headers])


async def lease_blob(call: Call) -> Response:
    """REST page "Lease Blob"."""
    conditions = parse_conditions(call.request.headers)
    check_combination(conditions)
    change = _Change(call, "blob")

    def decide(current: BlobState | None) -> Lease | None:
        if current is None:
            raise BlobError(ErrorCode.BLOB_NOT_FOUND)
        properties = current.properties
        check_write(conditions, properties.etag, properties.last_modified, properties.tags, tags_match)
        return change.apply(current.lease, properties.last_modified, properties.etag)

    state = await write_existing(call, lambda: call.store.set_lease(blob_ref(call), decide))
    return change.answer(state.properties.etag, state.properties.last_modified)


async def lease_container(call: Call) -> Response:
    """REST page "Lease Container"."""
    conditions = parse_conditions(call.request.headers)
    change = _Change(call, "container")

    def decide(current: ContainerState | None) -> ContainerProperties:
        if current is None:
            raise BlobError(ErrorCode.CONTAINER_NOT_FOUND)
        check_container(conditions, current.properties.last_modified)
        return replace(current.properties, lease=change.apply(current.properties.lease))

    state = await call.write(call.store.update_container(call.request.resource.container, decide))
    return change.answer(state.properties.etag, state.properties.last_modified)


HANDLERS: Final[Mapping[Operation, Handler]] = {
    Operation.LEASE_BLOB: lease_blob,
    Operation.LEASE_CONTAINER: lease_container,
}
