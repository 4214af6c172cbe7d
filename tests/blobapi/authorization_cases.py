"""What the authorisation tests share: an account, requests as the server's parser would build them, and a clock."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from dataplane.blobapi.authorization import AccountKeys, Caller, SasCache, authorize
from dataplane.blobapi.message import Request
from dataplane.blobapi.model import AccessPolicy, PublicAccess
from dataplane.blobapi.operations import Operation, OperationSpec, route
from dataplane.blobapi.uri import parse_query, parse_resource, split_target

ACCOUNT = "edgeacct"
KEY1 = bytes(range(64))
KEY2 = bytes(range(64, 128))
NOW = 1_750_000_000  # Sun, 15 Jun 2025 15:06:40 GMT
DATE = "Sun, 15 Jun 2025 15:06:40 GMT"
LATER = "2025-06-15T16:00:00Z"
EARLIER = "2025-06-15T15:00:00Z"
VERSION = "2023-11-03"
KEYS = AccountKeys(ACCOUNT, (KEY1, KEY2))
POLICIES = {
    "pics": (
        AccessPolicy("full", None, LATER, "racwdl"),
        AccessPolicy("expiry-only", None, LATER, None),
        AccessPolicy("empty"),
        AccessPolicy("over", None, EARLIER, "r"),
    )
}


def request(method: str, target: str, headers: Mapping[str, str] | None = None, **more: Any) -> Request:
    """A path-style request; `target` is what would stand in the request line."""
    path, query = split_target(target)
    given = {"x-ms-version": VERSION, **(headers or {})}
    made = Request(method, target, given, parse_resource(path, None), parse_query(query), VERSION)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def admit(
    made: Request,
    *,
    spec: OperationSpec | None = None,
    account: AccountKeys = KEYS,
    access: PublicAccess = PublicAccess.NONE,
    now: int = NOW,
    cache: SasCache | None = None,
    policies: Mapping[str, tuple[AccessPolicy, ...]] = POLICIES,
    **more: Any,
) -> Caller:
    """authorize with the account above, routed as the server would."""
    return authorize(
        made,
        spec or route(made),
        {ACCOUNT: account},
        policies.get,
        lambda container: access,
        now,
        cache=cache,
        **more,
    )


def target(container: str = "", blob: str = "", query: str = "") -> str:
    path = "/".join([quote(part, safe="/") for part in (ACCOUNT, container, blob) if part])
    return f"/{path}?{query}" if query else f"/{path}"


#: One request for each operation: method, container and blob to ask for, query, headers.
REQUESTS: Mapping[Operation, tuple[str, str, str, str, dict[str, str]]] = {
    Operation.PREFLIGHT: ("OPTIONS", "pics", "cat", "", {}),
    Operation.LIST_CONTAINERS: ("GET", "", "", "comp=list", {}),
    Operation.GET_SERVICE_PROPERTIES: ("GET", "", "", "restype=service&comp=properties", {}),
    Operation.SET_SERVICE_PROPERTIES: ("PUT", "", "", "restype=service&comp=properties", {}),
    Operation.GET_SERVICE_STATS: ("GET", "", "", "restype=service&comp=stats", {}),
    Operation.GET_USER_DELEGATION_KEY: ("POST", "", "", "restype=service&comp=userdelegationkey", {}),
    Operation.GET_ACCOUNT_INFORMATION: ("GET", "", "", "restype=account&comp=properties", {}),
    Operation.SERVICE_BATCH: ("POST", "", "", "comp=batch", {}),
    Operation.FIND_BLOBS_BY_TAGS: ("GET", "", "", "comp=blobs", {}),
    Operation.CREATE_CONTAINER: ("PUT", "pics", "", "restype=container", {}),
    Operation.DELETE_CONTAINER: ("DELETE", "pics", "", "restype=container", {}),
    Operation.GET_CONTAINER_PROPERTIES: ("GET", "pics", "", "restype=container", {}),
    Operation.GET_CONTAINER_METADATA: ("GET", "pics", "", "restype=container&comp=metadata", {}),
    Operation.SET_CONTAINER_METADATA: ("PUT", "pics", "", "restype=container&comp=metadata", {}),
    Operation.GET_CONTAINER_ACL: ("GET", "pics", "", "restype=container&comp=acl", {}),
    Operation.SET_CONTAINER_ACL: ("PUT", "pics", "", "restype=container&comp=acl", {}),
    Operation.LEASE_CONTAINER: ("PUT", "pics", "", "restype=container&comp=lease", {}),
    Operation.LIST_BLOBS: ("GET", "pics", "", "restype=container&comp=list", {}),
    Operation.CONTAINER_BATCH: ("POST", "pics", "", "restype=container&comp=batch", {}),
    Operation.FIND_BLOBS_IN_CONTAINER: ("GET", "pics", "", "restype=container&comp=blobs", {}),
    Operation.PUT_BLOB: ("PUT", "pics", "cat", "", {"x-ms-blob-type": "BlockBlob"}),
    Operation.PUT_BLOB_FROM_URL: (
        "PUT", "pics", "cat", "", {"x-ms-blob-type": "BlockBlob", "x-ms-copy-source": "https://h/c/b"},
    ),
    Operation.GET_BLOB: ("GET", "pics", "cat", "", {}),
    Operation.GET_BLOB_PROPERTIES: ("HEAD", "pics", "cat", "", {}),
    Operation.SET_BLOB_PROPERTIES: ("PUT", "pics", "cat", "comp=properties", {}),
    Operation.GET_BLOB_METADATA: ("GET", "pics", "cat", "comp=metadata", {}),
    Operation.SET_BLOB_METADATA: ("PUT", "pics", "cat", "comp=metadata", {}),
    Operation.DELETE_BLOB: ("DELETE", "pics", "cat", "", {}),
    Operation.SNAPSHOT_BLOB: ("PUT", "pics", "cat", "comp=snapshot", {}),
    Operation.LEASE_BLOB: ("PUT", "pics", "cat", "comp=lease", {"x-ms-lease-action": "acquire"}),
    Operation.COPY_BLOB: ("PUT", "pics", "cat", "", {"x-ms-copy-source": "https://h/c/b"}),
    Operation.COPY_BLOB_FROM_URL: (
        "PUT", "pics", "cat", "", {"x-ms-copy-source": "https://h/c/b", "x-ms-requires-sync": "true"},
    ),
    Operation.ABORT_COPY_BLOB: ("PUT", "pics", "cat", "comp=copy&copyid=1", {}),
    Operation.SET_BLOB_TIER: ("PUT", "pics", "cat", "comp=tier", {}),
    Operation.GET_BLOB_TAGS: ("GET", "pics", "cat", "comp=tags", {}),
    Operation.SET_BLOB_TAGS: ("PUT", "pics", "cat", "comp=tags", {}),
    Operation.PUT_BLOCK: ("PUT", "pics", "cat", "comp=block&blockid=AA", {}),
    Operation.PUT_BLOCK_FROM_URL: (
        "PUT", "pics", "cat", "comp=block&blockid=AA", {"x-ms-copy-source": "https://h/c/b"},
    ),
    Operation.PUT_BLOCK_LIST: ("PUT", "pics", "cat", "comp=blocklist", {}),
    Operation.GET_BLOCK_LIST: ("GET", "pics", "cat", "comp=blocklist", {}),
}  # fmt: skip


def request_for(operation: Operation, token: str = "", headers: Mapping[str, str] | None = None) -> Request:
    """A request for an operation, with a SAS token or other headers added."""
    method, container, blob, query, own = REQUESTS[operation]
    joined = "&".join(part for part in (query, token) if part)
    return request(method, target(container, blob, joined), {**own, **(headers or {})})
