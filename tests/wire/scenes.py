"""What has happened before a row's request: named lists of requests, in the notation of rows.py."""

from collections.abc import Mapping
from typing import Final

from tests.wire.rows import CONTENT, GUID, PUT, Row

ACQUIRE: Final = {"x-ms-lease-action": "acquire", "x-ms-lease-duration": "-1", "x-ms-proposed-lease-id": GUID}
BREAK_NOW: Final = {"x-ms-lease-action": "break", "x-ms-lease-break-period": "0"}
BREAK_LATER: Final = {"x-ms-lease-action": "break", "x-ms-lease-break-period": "60"}
POLICY: Final = (
    b'<?xml version="1.0" encoding="utf-8"?><SignedIdentifiers><SignedIdentifier><Id>reader</Id><AccessPolicy>'
    b"<Expiry>2099-01-01T00:00:00Z</Expiry><Permission>r</Permission></AccessPolicy></SignedIdentifier>"
    b"</SignedIdentifiers>"
)
CORS: Final = (
    b'<?xml version="1.0" encoding="utf-8"?><StorageServiceProperties><Cors><CorsRule>'
    b"<AllowedOrigins>https://a.example</AllowedOrigins><AllowedMethods>GET,PUT</AllowedMethods>"
    b"<AllowedHeaders>x-ms-*</AllowedHeaders><ExposedHeaders>etag</ExposedHeaders>"
    b"<MaxAgeInSeconds>60</MaxAgeInSeconds></CorsRule></Cors></StorageServiceProperties>"
)
_LEASE: Final = "PUT b?comp=lease"
_CONTAINER_LEASE: Final = "PUT ?restype=container&comp=lease"
_TIER: Final = "PUT b?comp=tier"

SCENES: Final[Mapping[str, tuple[Row, ...]]] = {
    "blob": (Row("PUT b", 201, {**PUT, "content-type": "text/plain", "x-ms-meta-color": "red"}, CONTENT),),
    "rich": (
        Row(
            "PUT b",
            201,
            {
                **PUT,
                "x-ms-blob-content-type": "text/plain",
                "x-ms-blob-content-encoding": "identity",
                "x-ms-blob-content-language": "en",
                "x-ms-blob-content-disposition": "inline",
                "x-ms-blob-cache-control": "no-cache",
                "x-ms-meta-color": "red",
                "x-ms-tags": "a=1&b=2",
            },
            CONTENT,
        ),
    ),
    "empty": (Row("PUT b", 201, PUT),),
    "tagged": (Row("PUT b", 201, {**PUT, "x-ms-tags": "a=1"}, CONTENT),),
    "source": (Row("PUT source", 201, {**PUT, "content-type": "text/plain", "x-ms-meta-from": "here"}, CONTENT),),
    "tagged-source": (Row("PUT source", 201, {**PUT, "x-ms-tags": "a=1"}, CONTENT),),
    "tree": tuple(Row(f"PUT {name}", 201, PUT, CONTENT) for name in ("a", "dir/one", "dir/two", "z")),
    "lease": (Row(_LEASE, 201, ACQUIRE),),
    "fixed": (Row(_LEASE, 201, {**ACQUIRE, "x-ms-lease-duration": "60"}),),
    "break": (Row(_LEASE, 202, BREAK_NOW),),
    "breaking": (Row(_LEASE, 202, BREAK_LATER),),
    "container-metadata": (Row("PUT ?restype=container&comp=metadata", 200, {"x-ms-meta-color": "red"}),),
    "container-lease": (Row(_CONTAINER_LEASE, 201, ACQUIRE),),
    "container-break": (Row(_CONTAINER_LEASE, 202, BREAK_NOW),),
    "container-breaking": (Row(_CONTAINER_LEASE, 202, BREAK_LATER),),
    "snapshot": (Row("PUT b?comp=snapshot", 201),),
    "cool": (Row("PUT b", 201, {**PUT, "x-ms-access-tier": "Cool"}, CONTENT),),
    "archive": (Row(_TIER, 200, {"x-ms-access-tier": "Archive"}),),
    "archive-source": (Row("PUT source?comp=tier", 200, {"x-ms-access-tier": "Archive"}),),
    "rehydrate": (Row(_TIER, 202, {"x-ms-access-tier": "Hot"}),),
    "block": (Row("PUT b?comp=block&blockid=YWFh", 201, {}, b"one "),),
    "blocks": (
        Row("PUT b?comp=block&blockid=YWFh", 201, {}, b"one "),
        Row("PUT b?comp=block&blockid=YmJi", 201, {}, b"two"),
    ),
    "public": (Row("PUT ?restype=container&comp=acl", 200, {"x-ms-blob-public-access": "container"}),),
    "public-blobs": (Row("PUT ?restype=container&comp=acl", 200, {"x-ms-blob-public-access": "blob"}),),
    "policy": (Row("PUT ?restype=container&comp=acl", 200, {}, POLICY),),
    "cors": (Row("PUT /?restype=service&comp=properties", 202, {}, CORS),),
    "copied": (Row("PUT b", 202, {"x-ms-copy-source": "{url}/{container}/source"}),),
    "pending": (Row("PUT b", 202, {"x-ms-copy-source": "{outside}/slow"}),),
}
