"""One request for every operation of the product, and what it takes to make it, from the REST pages.

`REQUESTS` must have an entry for each operation in operations.SPECS (a test compares), so a new operation cannot be
forgotten. The letters are written down here once more, from the tables of the REST pages "Create an account SAS" and
"Create a service SAS", and not read from the product: two tables that agree are better than one that agrees with
itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dataplane.blobapi.operations import Operation

_PUT: Final = {"x-ms-blob-type": "BlockBlob"}
_BATCH: Final = {"content-type": "multipart/mixed; boundary=b"}
_EMPTY_LIST: Final = b"<BlockList></BlockList>"
_SERVICE_XML: Final = b"<StorageServiceProperties></StorageServiceProperties>"


@dataclass(frozen=True, slots=True)
class Example:
    """A request whose permission is asked. `path` has {c} for the container; with `{b}` it is on a blob.

    `letters`: an account SAS needs one of them; "" means that no SAS will do. `types` is the srt letters of which one
    is needed. `service` tells whether a service SAS may call it at all. `public`: the access level that lets anybody
    in."""

    method: str
    path: str
    query: str
    letters: str
    types: str
    service: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    public: tuple[str, ...] = ()


_ANY: Final = "rwdlacupitfx"
_O: Final = Operation
_BLOB: Final = "/{c}/{b}"
_COPY: Final = {"x-ms-copy-source": "http://127.0.0.1:{port}/victim/{c}/absent-source"}

REQUESTS: Final[Mapping[Operation, Example]] = {
    _O.LIST_CONTAINERS: Example("GET", "/", "comp=list", "l", "s", False),
    _O.GET_SERVICE_PROPERTIES: Example("GET", "/", "restype=service&comp=properties", "r", "s", False),
    _O.SET_SERVICE_PROPERTIES: Example(
        "PUT", "/", "restype=service&comp=properties", "w", "s", False, body=_SERVICE_XML
    ),
    _O.GET_SERVICE_STATS: Example("GET", "/", "restype=service&comp=stats", "r", "s", False),
    _O.GET_USER_DELEGATION_KEY: Example("POST", "/", "restype=service&comp=userdelegationkey", "", "s", False),
    _O.GET_ACCOUNT_INFORMATION: Example(
        "GET", "/{c}", "restype=account&comp=properties", _ANY, "sco", public=("container",)
    ),
    _O.SERVICE_BATCH: Example("POST", "/", "comp=batch", _ANY, "sco", False, _BATCH, b"--b--\r\n"),
    _O.FIND_BLOBS_BY_TAGS: Example("GET", "/", "comp=blobs&where=a%3D%27b%27", "f", "so", False),
    _O.CREATE_CONTAINER: Example("PUT", "/{c}", "restype=container", "cw", "c", False),
    _O.DELETE_CONTAINER: Example("DELETE", "/{c}-scrap", "restype=container", "d", "c", False),
    _O.GET_CONTAINER_PROPERTIES: Example("GET", "/{c}", "restype=container", "r", "c", False, public=("container",)),
    _O.GET_CONTAINER_METADATA: Example(
        "GET", "/{c}", "restype=container&comp=metadata", "r", "c", False, public=("container",)
    ),
    _O.SET_CONTAINER_METADATA: Example("PUT", "/{c}", "restype=container&comp=metadata", "w", "c", False),
    _O.GET_CONTAINER_ACL: Example("GET", "/{c}", "restype=container&comp=acl", "", "c", False),
    _O.SET_CONTAINER_ACL: Example("PUT", "/{c}-scrap", "restype=container&comp=acl", "", "c", False),
    _O.LEASE_CONTAINER: Example(
        "PUT",
        "/{c}-scrap",
        "restype=container&comp=lease",
        "w",
        "c",
        False,
        {"x-ms-lease-action": "acquire", "x-ms-lease-duration": "15"},
    ),
    _O.LIST_BLOBS: Example("GET", "/{c}", "restype=container&comp=list", "l", "c", public=("container",)),
    _O.CONTAINER_BATCH: Example(
        "POST", "/{c}", "restype=container&comp=batch", _ANY, "sco", True, _BATCH, b"--b--\r\n"
    ),
    _O.FIND_BLOBS_IN_CONTAINER: Example("GET", "/{c}", "restype=container&comp=blobs&where=a%3D%27b%27", "f", "c"),
    _O.PUT_BLOB: Example("PUT", _BLOB, "", "cw", "o", headers=_PUT),
    _O.PUT_BLOB_FROM_URL: Example("PUT", _BLOB, "", "cw", "o", headers={**_PUT, **_COPY}),
    _O.GET_BLOB: Example("GET", _BLOB, "", "r", "o", public=("container", "blob")),
    _O.GET_BLOB_PROPERTIES: Example("HEAD", _BLOB, "", "r", "o", public=("container", "blob")),
    _O.SET_BLOB_PROPERTIES: Example("PUT", _BLOB, "comp=properties", "w", "o"),
    _O.GET_BLOB_METADATA: Example("GET", _BLOB, "comp=metadata", "r", "o", public=("container", "blob")),
    _O.SET_BLOB_METADATA: Example("PUT", _BLOB, "comp=metadata", "w", "o"),
    _O.DELETE_BLOB: Example("DELETE", "/{c}/absent", "", "d", "o"),
    _O.SNAPSHOT_BLOB: Example("PUT", _BLOB, "comp=snapshot", "cw", "o"),
    _O.LEASE_BLOB: Example(
        "PUT",
        "/{c}/absent",
        "comp=lease",
        "w",
        "o",
        headers={"x-ms-lease-action": "acquire", "x-ms-lease-duration": "15"},
    ),
    _O.COPY_BLOB: Example("PUT", _BLOB, "", "cw", "o", headers=_COPY),
    _O.COPY_BLOB_FROM_URL: Example("PUT", _BLOB, "", "cw", "o", headers={**_COPY, "x-ms-requires-sync": "true"}),
    _O.ABORT_COPY_BLOB: Example("PUT", _BLOB, "comp=copy&copyid=x", "w", "o", headers={"x-ms-copy-action": "abort"}),
    _O.SET_BLOB_TIER: Example("PUT", _BLOB, "comp=tier", "w", "o", headers={"x-ms-access-tier": "Hot"}),
    _O.GET_BLOB_TAGS: Example("GET", _BLOB, "comp=tags", "t", "o"),
    _O.SET_BLOB_TAGS: Example("PUT", _BLOB, "comp=tags", "t", "o", body=b"<Tags><TagSet></TagSet></Tags>"),
    _O.PUT_BLOCK: Example("PUT", "/{c}/blocks", "comp=block&blockid=MQ%3D%3D", "cw", "o", body=b"x"),
    _O.PUT_BLOCK_FROM_URL: Example("PUT", "/{c}/blocks", "comp=block&blockid=MQ%3D%3D", "cw", "o", headers=_COPY),
    _O.PUT_BLOCK_LIST: Example("PUT", _BLOB, "comp=blocklist", "cw", "o", body=_EMPTY_LIST),
    _O.GET_BLOCK_LIST: Example("GET", _BLOB, "comp=blocklist", "r", "o", public=("container", "blob")),
}
#: The one operation that needs no permission: it tells a browser what it may try, and reads nothing of the data.
OPEN: Final = frozenset({Operation.PREFLIGHT})
