"""The list of operations: how a request is told apart, and the permission that each needs. One table, nothing else
routes.

A SAS operation is allowed when the token's permissions hold any of `sas` (REST pages "Create a service SAS" and "Create
an account SAS", the tables of permissions per operation); `resource_type` is the account SAS's `srt` letter. What a
service SAS may not do at all (account and most container operations) has `service_sas` False. `public` is the least
anonymous access that allows it. Entra ID gets its place with `action`, the data action of Azure RBAC; until an issue of
its own gives that scheme a handler, a bearer token is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from typing import Final, NoReturn

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.message import Level, Request
from dataplane.blobapi.model import PublicAccess


class Operation(Enum):
    """Azure's operations, by the names of its logs (REST page "Storage Analytics Logged Operations")."""

    PREFLIGHT = auto()
    LIST_CONTAINERS = auto()
    GET_SERVICE_PROPERTIES = auto()
    SET_SERVICE_PROPERTIES = auto()
    GET_SERVICE_STATS = auto()
    GET_USER_DELEGATION_KEY = auto()
    GET_ACCOUNT_INFORMATION = auto()
    SERVICE_BATCH = auto()
    FIND_BLOBS_BY_TAGS = auto()

    CREATE_CONTAINER = auto()
    DELETE_CONTAINER = auto()
    GET_CONTAINER_PROPERTIES = auto()
    GET_CONTAINER_METADATA = auto()
    SET_CONTAINER_METADATA = auto()
    GET_CONTAINER_ACL = auto()
    SET_CONTAINER_ACL = auto()
    LEASE_CONTAINER = auto()
    LIST_BLOBS = auto()
    CONTAINER_BATCH = auto()
    FIND_BLOBS_IN_CONTAINER = auto()

    PUT_BLOB = auto()
    PUT_BLOB_FROM_URL = auto()
    GET_BLOB = auto()
    GET_BLOB_PROPERTIES = auto()
    SET_BLOB_PROPERTIES = auto()
    GET_BLOB_METADATA = auto()
    SET_BLOB_METADATA = auto()
    DELETE_BLOB = auto()
    SNAPSHOT_BLOB = auto()
    LEASE_BLOB = auto()
    COPY_BLOB = auto()
    COPY_BLOB_FROM_URL = auto()
    ABORT_COPY_BLOB = auto()
    SET_BLOB_TIER = auto()
    GET_BLOB_TAGS = auto()
    SET_BLOB_TAGS = auto()
    PUT_BLOCK = auto()
    PUT_BLOCK_FROM_URL = auto()
    PUT_BLOCK_LIST = auto()
    GET_BLOCK_LIST = auto()


UNKNOWN_API: Final = "Unknown"
_API_NAMES: Final = {
    "": UNKNOWN_API,
    "PREFLIGHT": "BlobPreflightRequest",
    "GET_SERVICE_PROPERTIES": "GetBlobServiceProperties",
    "SET_SERVICE_PROPERTIES": "SetBlobServiceProperties",
    "GET_SERVICE_STATS": "GetBlobServiceStats",
}


@cache
def api_name(operation: str) -> str:
    """Azure's name of an operation in its logs and metrics, of the name of an Operation ("" for none): GET_BLOB is
    GetBlob."""
    return _API_NAMES.get(operation) or "".join(word.title() for word in operation.split("_"))


@dataclass(frozen=True, slots=True)
class OperationSpec:
    """What one operation needs of its caller.

    `overwrite_sas`: letters of which one is needed when the destination exists already (create alone may not
    overwrite). `write`: it changes something, so read-only containers refuse it.
    """

    operation: Operation
    level: Level
    resource_type: str  # account SAS srt: s, c or o
    sas: str  # any of these sp letters
    action: str  # Azure RBAC data action, under Microsoft.Storage/storageAccounts/blobServices/
    write: bool = False
    service_sas: bool = True
    overwrite_sas: str = ""
    public: PublicAccess | None = None
    anonymous: bool = False


def _spec(
    operation: Operation, resource_type: str, sas: str, action: str, write: bool = False, **more: object
) -> OperationSpec:
    level = {"s": Level.SERVICE, "c": Level.CONTAINER, "o": Level.BLOB}[resource_type]
    return OperationSpec(operation, level, resource_type, sas, action, write, **more)  # type: ignore[arg-type]


_BLOBS: Final = "containers/blobs/"
_O: Final = Operation

SPECS: Final[Mapping[Operation, OperationSpec]] = {
    spec.operation: spec
    for spec in (
        _spec(_O.PREFLIGHT, "s", "", "", anonymous=True, service_sas=False),
        _spec(_O.LIST_CONTAINERS, "s", "l", "containers/read", service_sas=False),
        _spec(_O.GET_SERVICE_PROPERTIES, "s", "r", "read", service_sas=False),
        _spec(_O.SET_SERVICE_PROPERTIES, "s", "w", "write", True, service_sas=False),
        _spec(_O.GET_SERVICE_STATS, "s", "r", "read", service_sas=False),
        _spec(_O.GET_USER_DELEGATION_KEY, "s", "", "generateUserDelegationKey/action", service_sas=False),
        _spec(_O.GET_ACCOUNT_INFORMATION, "s", "rwdlacupitfx", "read", public=PublicAccess.CONTAINER),
        _spec(_O.SERVICE_BATCH, "s", "rwdlacupitfx", "read", service_sas=False),  # each part is authorised on its own
        _spec(_O.FIND_BLOBS_BY_TAGS, "s", "f", _BLOBS + "filter/action", service_sas=False),
        _spec(_O.CREATE_CONTAINER, "c", "cw", "containers/write", True, service_sas=False),
        _spec(_O.DELETE_CONTAINER, "c", "d", "containers/delete", True, service_sas=False),
        _spec(
            _O.GET_CONTAINER_PROPERTIES,
            "c",
            "r",
            "containers/read",
            service_sas=False,
            public=PublicAccess.CONTAINER,
        ),
        _spec(
            _O.GET_CONTAINER_METADATA,
            "c",
            "r",
            "containers/read",
            service_sas=False,
            public=PublicAccess.CONTAINER,
        ),
        _spec(_O.SET_CONTAINER_METADATA, "c", "w", "containers/write", True, service_sas=False),
        _spec(_O.GET_CONTAINER_ACL, "c", "", "containers/getAcl/action", service_sas=False),
        _spec(_O.SET_CONTAINER_ACL, "c", "", "containers/setAcl/action", True, service_sas=False),
        _spec(_O.LEASE_CONTAINER, "c", "w", "containers/write", True, service_sas=False),
        _spec(_O.LIST_BLOBS, "c", "l", _BLOBS + "read", public=PublicAccess.CONTAINER),
        _spec(_O.CONTAINER_BATCH, "c", "rwdlacupitfx", "containers/read"),
        _spec(_O.FIND_BLOBS_IN_CONTAINER, "c", "f", _BLOBS + "filter/action"),
        _spec(_O.PUT_BLOB, "o", "cw", _BLOBS + "write", True, overwrite_sas="w"),
        _spec(_O.PUT_BLOB_FROM_URL, "o", "cw", _BLOBS + "write", True, overwrite_sas="w"),
        _spec(_O.GET_BLOB, "o", "r", _BLOBS + "read", public=PublicAccess.BLOB),
        _spec(_O.GET_BLOB_PROPERTIES, "o", "r", _BLOBS + "read", public=PublicAccess.BLOB),
        _spec(_O.SET_BLOB_PROPERTIES, "o", "w", _BLOBS + "write", True),
        _spec(_O.GET_BLOB_METADATA, "o", "r", _BLOBS + "read", public=PublicAccess.BLOB),
        _spec(_O.SET_BLOB_METADATA, "o", "w", _BLOBS + "write", True),
        _spec(_O.DELETE_BLOB, "o", "d", _BLOBS + "delete", True),
        _spec(_O.SNAPSHOT_BLOB, "o", "cw", _BLOBS + "write", True),
        _spec(_O.LEASE_BLOB, "o", "w", _BLOBS + "write", True),
        _spec(_O.COPY_BLOB, "o", "cw", _BLOBS + "write", True, overwrite_sas="w"),
        _spec(_O.COPY_BLOB_FROM_URL, "o", "cw", _BLOBS + "write", True, overwrite_sas="w"),
        _spec(_O.ABORT_COPY_BLOB, "o", "w", _BLOBS + "write", True),
        _spec(_O.SET_BLOB_TIER, "o", "w", _BLOBS + "write", True),
        _spec(_O.GET_BLOB_TAGS, "o", "t", _BLOBS + "tags/read"),
        _spec(_O.SET_BLOB_TAGS, "o", "t", _BLOBS + "tags/write", True),
        _spec(_O.PUT_BLOCK, "o", "cw", _BLOBS + "write", True),
        _spec(_O.PUT_BLOCK_FROM_URL, "o", "cw", _BLOBS + "write", True),
        _spec(_O.PUT_BLOCK_LIST, "o", "cw", _BLOBS + "write", True, overwrite_sas="w"),
        _spec(_O.GET_BLOCK_LIST, "o", "r", _BLOBS + "read", public=PublicAccess.BLOB),
    )
}

#: Azure's operations outside this server's list, by comp: a clear FeatureNotSupported instead of a parse error.
_UNSUPPORTED_COMPS: Final = frozenset(
    {
        "appendblock", "seal", "page", "pagelist", "incrementalcopy", "query", "undelete", "expiry",
        "immutabilitypolicies", "legalhold", "rename", "stats", "userdelegationkey",
    }
)  # fmt: skip

_SERVICE: Final[Mapping[tuple[str, str, str], Operation]] = {
    ("GET", "", "list"): _O.LIST_CONTAINERS,
    ("GET", "service", "properties"): _O.GET_SERVICE_PROPERTIES,
    ("PUT", "service", "properties"): _O.SET_SERVICE_PROPERTIES,
    ("GET", "service", "stats"): _O.GET_SERVICE_STATS,
    ("POST", "service", "userdelegationkey"): _O.GET_USER_DELEGATION_KEY,
    ("POST", "", "batch"): _O.SERVICE_BATCH,
    ("POST", "container", "batch"): _O.SERVICE_BATCH,  # what the Node SDK sends when the account is in the path
    ("GET", "", "blobs"): _O.FIND_BLOBS_BY_TAGS,
}
_CONTAINER: Final[Mapping[tuple[str, str], Operation]] = {
    ("PUT", ""): _O.CREATE_CONTAINER,
    ("DELETE", ""): _O.DELETE_CONTAINER,
    ("GET", ""): _O.GET_CONTAINER_PROPERTIES,
    ("HEAD", ""): _O.GET_CONTAINER_PROPERTIES,
    ("GET", "metadata"): _O.GET_CONTAINER_METADATA,
    ("HEAD", "metadata"): _O.GET_CONTAINER_METADATA,
    ("PUT", "metadata"): _O.SET_CONTAINER_METADATA,
    ("GET", "acl"): _O.GET_CONTAINER_ACL,
    ("HEAD", "acl"): _O.GET_CONTAINER_ACL,
    ("PUT", "acl"): _O.SET_CONTAINER_ACL,
    ("PUT", "lease"): _O.LEASE_CONTAINER,
    ("GET", "list"): _O.LIST_BLOBS,
    ("POST", "batch"): _O.CONTAINER_BATCH,
    ("GET", "blobs"): _O.FIND_BLOBS_IN_CONTAINER,
}
_BLOB: Final[Mapping[tuple[str, str], Operation]] = {
    ("GET", ""): _O.GET_BLOB,
    ("HEAD", ""): _O.GET_BLOB_PROPERTIES,
    ("PUT", ""): _O.PUT_BLOB,
    ("DELETE", ""): _O.DELETE_BLOB,
    ("PUT", "properties"): _O.SET_BLOB_PROPERTIES,
    ("GET", "metadata"): _O.GET_BLOB_METADATA,
    ("HEAD", "metadata"): _O.GET_BLOB_METADATA,
    ("PUT", "metadata"): _O.SET_BLOB_METADATA,
    ("PUT", "snapshot"): _O.SNAPSHOT_BLOB,
    ("PUT", "lease"): _O.LEASE_BLOB,
    ("PUT", "copy"): _O.ABORT_COPY_BLOB,
    ("PUT", "tier"): _O.SET_BLOB_TIER,
    ("GET", "tags"): _O.GET_BLOB_TAGS,
    ("PUT", "tags"): _O.SET_BLOB_TAGS,
    ("PUT", "block"): _O.PUT_BLOCK,
    ("PUT", "blocklist"): _O.PUT_BLOCK_LIST,
    ("GET", "blocklist"): _O.GET_BLOCK_LIST,
}


def route(request: Request) -> OperationSpec:
    """The operation of a request. Raises BlobError when there is none:
    UnsupportedHttpVerb, InvalidQueryParameterValue, FeatureNotSupported."""
    operation = _match(request)
    if operation is None:
        _refuse(request)
    return SPECS[operation]


def _match(request: Request) -> Operation | None:
    method, query = request.method, request.query
    comp = query.get("comp", "").lower()
    restype = query.get("restype", "").lower()
    if method == "OPTIONS":
        return _O.PREFLIGHT
    if restype == "account" and comp == "properties" and method in ("GET", "HEAD"):
        return _O.GET_ACCOUNT_INFORMATION
    level = request.resource.level
    if level is Level.SERVICE:
        return _SERVICE.get((method, restype, comp))
    if level is Level.CONTAINER and restype == "container":
        return _CONTAINER.get((method, comp))
    if level is Level.CONTAINER or restype:
        return None
    operation = _BLOB.get((method, comp))
    if "x-ms-copy-source" in request.headers:
        return _from_url(operation, request.headers)
    return operation


def _from_url(operation: Operation | None, headers: Mapping[str, str]) -> Operation | None:
    """Put Blob and Put Block with a copy source are operations of their own."""
    if operation is _O.PUT_BLOCK:
        return _O.PUT_BLOCK_FROM_URL
    if operation is not _O.PUT_BLOB:
        return operation
    if "x-ms-blob-type" in headers:
        return _O.PUT_BLOB_FROM_URL
    if headers.get("x-ms-requires-sync", "").lower() == "true":
        return _O.COPY_BLOB_FROM_URL
    return _O.COPY_BLOB


def _refuse(request: Request) -> NoReturn:
    comp = request.query.get("comp", "").lower()
    if comp in _UNSUPPORTED_COMPS:
        raise BlobError(ErrorCode.FEATURE_NOT_SUPPORTED, query_name="comp", query_value=comp)
    known = {key[-1] for key in (*_SERVICE, *_CONTAINER, *_BLOB)}
    if comp not in known:
        raise BlobError(ErrorCode.INVALID_QUERY_PARAMETER_VALUE, query_name="comp", query_value=comp)
    raise BlobError(ErrorCode.UNSUPPORTED_HTTP_VERB)
