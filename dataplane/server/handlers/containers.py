"""Operations on one container: create, delete, properties, metadata, access policy.

Conditions and the lease are checked in the closures that the store calls under the container's lock, so a change that
another worker made a moment ago counts.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from dataplane.blobapi import acl, leases, limits, metadata
from dataplane.blobapi.conditions import check_container, parse_conditions
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.leases import Use
from dataplane.blobapi.message import Response
from dataplane.blobapi.model import ContainerProperties, ContainerState, PublicAccess
from dataplane.blobapi.operations import Operation
from dataplane.server.call import Call, Handler
from dataplane.server.handlers.shared import XML, entity, existing_container, lease_id

#: Containers that the service makes for itself and that no client may create or delete.
_SERVICE_CONTAINERS: Final = frozenset({"$logs", "$blobchangefeed"})
_ENCRYPTION_SHOWN_SINCE: Final = "2019-07-07"
_VERSIONED_IMMUTABILITY_SHOWN_SINCE: Final = "2020-10-02"


Change = Callable[[ContainerProperties], ContainerProperties]


async def create_container(call: Call) -> Response:
    """REST page "Create Container". Raises BlobError ContainerAlreadyExists."""
    name = call.request.resource.container
    if name in _SERVICE_CONTAINERS:
        raise BlobError(ErrorCode.INVALID_RESOURCE_NAME)
    properties = ContainerProperties(
        etag=call.new_etag(),
        last_modified=call.now,
        metadata=metadata.from_headers(call.request.headers),
        public_access=acl.parse_public_access(call.request.headers.get(acl.PUBLIC_ACCESS_HEADER)),
    )
    if not await call.write(call.store.create_container(name, properties)):
        raise BlobError(ErrorCode.CONTAINER_ALREADY_EXISTS)
    return Response(201, entity(properties.etag, properties.last_modified))


async def delete_container(call: Call) -> Response:
    """REST page "Delete Container". Raises BlobError ContainerNotFound, ConditionNotMet, and those of leases."""
    name = call.request.resource.container
    if name in call.account.mapped or name in _SERVICE_CONTAINERS:
        message = "The container is mapped onto a directory of this node and can only be removed from its settings."
        raise BlobError(ErrorCode.AUTHORIZATION_FAILURE, message=message)
    conditions = parse_conditions(call.request.headers)
    given = lease_id(call)

    def decide(current: ContainerState | None) -> None:
        properties = _present(current)
        leases.check_container_use(properties.lease, given, call.node.now(), Use.WRITE)
        check_container(conditions, properties.last_modified)

    await call.write(call.store.delete_container(name, decide))
    return Response(202)


async def get_container_properties(call: Call) -> Response:
    """REST page "Get Container Properties"."""
    properties = await _readable(call)
    headers = [
        *metadata.to_headers(properties.metadata),
        *entity(properties.etag, properties.last_modified),
        *leases.lease_headers(properties.lease, call.now),
        *_public_access(properties),
        ("x-ms-has-immutability-policy", "false"),
        ("x-ms-has-legal-hold", "false"),
    ]
    if call.version >= _ENCRYPTION_SHOWN_SINCE:
        headers += [
            ("x-ms-default-encryption-scope", "$account-encryption-key"),
            ("x-ms-deny-encryption-scope-override", "false"),
        ]
    if call.version >= _VERSIONED_IMMUTABILITY_SHOWN_SINCE:
        headers.append(("x-ms-immutable-storage-with-versioning-enabled", "false"))
    return Response(200, headers)


async def get_container_metadata(call: Call) -> Response:
    """REST page "Get Container Metadata"."""
    properties = await _readable(call)
    headers = [*metadata.to_headers(properties.metadata), *entity(properties.etag, properties.last_modified)]
    return Response(200, headers)


async def set_container_metadata(call: Call) -> Response:
    """REST page "Set Container Metadata": all metadata is replaced; If-Modified-Since is its only condition."""
    changed = metadata.from_headers(call.request.headers)
    state = await _update(call, lambda properties: replace(properties, metadata=changed), unmodified=False)
    return Response(200, entity(state.properties.etag, state.properties.last_modified))


async def get_container_acl(call: Call) -> Response:
    """REST page "Get Container ACL"."""
    properties = await _readable(call)
    headers = [*_public_access(properties), *entity(properties.etag, properties.last_modified), XML]
    return Response(200, headers, acl.render(properties.policies))


async def set_container_acl(call: Call) -> Response:
    """REST page "Set Container ACL": replaces the policies and the public access, absent ones being none."""
    public_access = acl.parse_public_access(call.request.headers.get(acl.PUBLIC_ACCESS_HEADER))
    policies = acl.parse(await call.body.read_all(limits.signed_identifiers_bytes_max))
    state = await _update(
        call, lambda properties: replace(properties, public_access=public_access, policies=policies), unmodified=True
    )
    return Response(200, entity(state.properties.etag, state.properties.last_modified))


async def _readable(call: Call) -> ContainerProperties:
    """The container's properties for a read, which takes no conditions. Raises BlobError ContainerNotFound, and
    LeaseIdMismatchWithContainerOperation for a lease id that is another's."""
    state = await existing_container(call)
    leases.check_container_use(state.properties.lease, lease_id(call), call.now, Use.READ)
    return state.properties


async def _update(call: Call, change: Change, *, unmodified: bool) -> ContainerState:
    """Apply a change with a new ETag, when conditions and lease allow it."""
    conditions = parse_conditions(call.request.headers)
    given, etag = lease_id(call), call.new_etag()

    def decide(current: ContainerState | None) -> ContainerProperties:
        properties = _present(current)
        now = call.node.now()
        leases.check_container_use(properties.lease, given, now, Use.READ)
        check_container(conditions, properties.last_modified, unmodified=unmodified)
        return change(replace(properties, etag=etag, last_modified=now))

    return await call.write(call.store.update_container(call.request.resource.container, decide))


def _present(current: ContainerState | None) -> ContainerProperties:
    if current is None:
        raise BlobError(ErrorCode.CONTAINER_NOT_FOUND)
    return current.properties


def _public_access(properties: ContainerProperties) -> list[tuple[str, str]]:
    if properties.public_access is PublicAccess.NONE:
        return []
    return [(acl.PUBLIC_ACCESS_HEADER, properties.public_access.value)]


HANDLERS: Final[Mapping[Operation, Handler]] = {
    Operation.CREATE_CONTAINER: create_container,
    Operation.DELETE_CONTAINER: delete_container,
    Operation.GET_CONTAINER_PROPERTIES: get_container_properties,
    Operation.GET_CONTAINER_METADATA: get_container_metadata,
    Operation.SET_CONTAINER_METADATA: set_container_metadata,
    Operation.GET_CONTAINER_ACL: get_container_acl,
    Operation.SET_CONTAINER_ACL: set_container_acl,
}
