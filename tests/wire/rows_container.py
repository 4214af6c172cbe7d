"""Rows of the operations on a container; what all of them have in common is in matrix.py."""

from collections.abc import Mapping
from typing import Final

from dataplane.blobapi.errors import ErrorCode as E
from dataplane.blobapi.operations import Operation as O
from tests.wire.rows import GUID, OLD_VERSION, OTHER_GUID, Row
from tests.wire.rows_service import batch
from tests.wire.scenes import ACQUIRE, POLICY

_C: Final = "?restype=container"
_ENTITY: Final = "etag last-modified"
_LEASE: Final = f"PUT {_C}&comp=lease"
_LIST: Final = f"GET {_C}&comp=list"
_BATCH_TYPE: Final = {"content-type": "multipart/mixed; boundary=b"}
_IDENTIFIERS: Final = "<SignedIdentifiers>{}</SignedIdentifiers>"
_NEW: Final = "PUT /{container}-new?restype=container"


def _identifiers(*inner: str) -> bytes:
    return _IDENTIFIERS.format("".join(f"<SignedIdentifier>{text}</SignedIdentifier>" for text in inner)).encode()


def _action(action: str, lease_id: str = "", **more: str) -> dict[str, str]:
    """The headers of a lease operation."""
    headers = {"x-ms-lease-action": action} | {"x-ms-" + name.replace("_", "-"): text for name, text in more.items()}
    return headers | ({"x-ms-lease-id": lease_id} if lease_id else {})


def lease_rows(ask: str, blob: str, lease: str, broken: str, breaking: str) -> tuple[Row, ...]:
    """The rows of Lease Blob and Lease Container, which differ in their scenes alone."""
    leased = f"{blob} {lease}".strip()
    gone, going = f"{leased} {broken}", f"{leased} {breaking}"
    return (
        Row(ask, 201, ACQUIRE, given=blob, shows=f"{_ENTITY} x-ms-lease-id={GUID}"),
        Row(ask, 201, {"x-ms-lease-action": "acquire", "x-ms-lease-duration": "15"}, given=blob, shows="x-ms-lease-id"),
        Row(ask, 201, ACQUIRE, given=leased, why="again by its holder"),
        Row(ask, 200, _action("renew", GUID), given=leased, shows=f"{_ENTITY} x-ms-lease-id={GUID}"),
        Row(
            ask,
            200,
            _action("change", GUID, proposed_lease_id=OTHER_GUID),
            given=leased,
            shows=f"{_ENTITY} x-ms-lease-id={OTHER_GUID}",
        ),
        Row(ask, 200, _action("release", GUID), given=leased, shows=_ENTITY, hides="x-ms-lease-id"),
        Row(ask, 202, _action("break"), given=leased, shows=f"{_ENTITY} x-ms-lease-time=0", hides="x-ms-lease-id"),
        Row(ask, 202, _action("break", lease_break_period="60"), given=leased, shows="x-ms-lease-time=60"),
        Row(ask, 202, _action("break"), given=gone, shows="x-ms-lease-time=0", why="already broken"),
        Row(ask, 200, _action("release", GUID), given=gone),
        Row(ask, E.MISSING_REQUIRED_HEADER, {}, given=blob),
        Row(ask, E.INVALID_HEADER_VALUE, _action("borrow"), given=blob),
        Row(ask, E.MISSING_REQUIRED_HEADER, _action("acquire"), given=blob, why="no duration"),
        Row(ask, E.INVALID_HEADER_VALUE, _action("acquire", lease_duration="14"), given=blob),
        Row(ask, E.INVALID_HEADER_VALUE, _action("acquire", lease_duration="61"), given=blob),
        Row(ask, E.INVALID_HEADER_VALUE, {**ACQUIRE, "x-ms-proposed-lease-id": "abc"}, given=blob),
        Row(ask, E.INVALID_HEADER_VALUE, _action("break", lease_break_period="61"), given=leased),
        Row(ask, E.MISSING_REQUIRED_HEADER, _action("renew"), given=leased),
        Row(ask, E.MISSING_REQUIRED_HEADER, _action("release"), given=leased),
        Row(ask, E.MISSING_REQUIRED_HEADER, _action("change", GUID), given=leased),
        Row(ask, E.LEASE_ALREADY_PRESENT, {**ACQUIRE, "x-ms-proposed-lease-id": OTHER_GUID}, given=leased),
        Row(ask, E.LEASE_ALREADY_PRESENT, {**ACQUIRE, "x-ms-proposed-lease-id": OTHER_GUID}, given=going),
        Row(ask, E.LEASE_ID_MISMATCH_WITH_LEASE_OPERATION, _action("renew", OTHER_GUID), given=leased),
        Row(ask, E.LEASE_ID_MISMATCH_WITH_LEASE_OPERATION, _action("release", OTHER_GUID), given=leased),
        Row(ask, E.LEASE_ID_MISMATCH_WITH_LEASE_OPERATION, _action("renew", GUID), given=blob),
        Row(ask, E.LEASE_NOT_PRESENT_WITH_LEASE_OPERATION, _action("break"), given=blob),
        Row(
            ask,
            E.LEASE_NOT_PRESENT_WITH_LEASE_OPERATION,
            _action("change", GUID, proposed_lease_id=OTHER_GUID),
            given=gone,
        ),
        Row(ask, E.LEASE_IS_BREAKING_AND_CANNOT_BE_ACQUIRED, ACQUIRE, given=going),
        Row(
            ask,
            E.LEASE_IS_BREAKING_AND_CANNOT_BE_CHANGED,
            _action("change", GUID, proposed_lease_id=OTHER_GUID),
            given=going,
        ),
        Row(ask, E.LEASE_IS_BROKEN_AND_CANNOT_BE_RENEWED, _action("renew", GUID), given=gone),
    )


CONTAINER_ROWS: Final[Mapping[O, tuple[Row, ...]]] = {
    O.CREATE_CONTAINER: (
        Row(
            _NEW,
            201,
            {"x-ms-meta-color": "red", "x-ms-blob-public-access": "blob"},
            shows=_ENTITY,
        ),
        Row(f"PUT {_C}", E.CONTAINER_ALREADY_EXISTS),
        Row(_NEW, E.INVALID_HEADER_VALUE, {"x-ms-blob-public-access": "everybody"}),
        Row(_NEW, E.INVALID_METADATA, {"x-ms-meta-1st": "x"}),
        Row(_NEW, E.EMPTY_METADATA_KEY, {"x-ms-meta-": "x"}),
        Row(_NEW, E.METADATA_TOO_LARGE, {"x-ms-meta-a": "x" * 8192}),
        Row("PUT /$logs?restype=container", E.INVALID_RESOURCE_NAME),
        Row(_NEW, E.FEATURE_NOT_SUPPORTED, {"x-ms-default-encryption-scope": "s"}),
        Row(_NEW, 201, {"x-ms-deny-encryption-scope-override": "false"}),
        Row("POST " + _C, E.UNSUPPORTED_HTTP_VERB),
    ),
    O.DELETE_CONTAINER: (
        Row(f"DELETE {_C}", 202, given="blob"),
        Row(f"DELETE {_C}", 202, {"x-ms-lease-id": GUID}, given="container-lease"),
        Row(f"DELETE {_C}", E.LEASE_ID_MISSING, given="container-lease"),
        Row(f"DELETE {_C}", E.LEASE_ID_MISSING, given="container-lease container-breaking"),
        Row(f"DELETE {_C}", 202, given="container-lease container-break"),
        Row(f"DELETE {_C}", E.LEASE_LOST, {"x-ms-lease-id": GUID}, given="container-lease container-break"),
        Row("DELETE /$logs?restype=container", E.AUTHORIZATION_FAILURE),
    ),
    O.GET_CONTAINER_PROPERTIES: (
        Row(
            f"GET {_C}",
            200,
            given="container-lease",
            shows=f"{_ENTITY} x-ms-lease-status=locked x-ms-lease-state=leased x-ms-lease-duration=infinite "
            "x-ms-has-immutability-policy=false x-ms-has-legal-hold=false "
            "x-ms-immutable-storage-with-versioning-enabled=false x-ms-default-encryption-scope "
            "x-ms-deny-encryption-scope-override=false",
        ),
        Row(f"HEAD {_C}", 200, shows=f"{_ENTITY} x-ms-lease-state=available", hides="x-ms-blob-public-access"),
        Row(f"GET {_C}", 200, given="public", shows="x-ms-blob-public-access=container"),
        Row(f"GET {_C}", 200, given="public", who="nobody"),
        Row(f"GET {_C}", 200, given="container-metadata", shows="x-ms-meta-color=red"),
        Row(f"GET {_C}", 200, version=OLD_VERSION, hides="x-ms-default-encryption-scope"),
    ),
    O.GET_CONTAINER_METADATA: (
        Row(f"GET {_C}&comp=metadata", 200, given="container-metadata", shows=f"{_ENTITY} x-ms-meta-color=red"),
        Row(f"HEAD {_C}&comp=metadata", 200, shows=_ENTITY),
    ),
    O.SET_CONTAINER_METADATA: (
        Row(f"PUT {_C}&comp=metadata", 200, {"x-ms-meta-color": "red"}, shows=_ENTITY),
        Row(f"PUT {_C}&comp=metadata", E.INVALID_METADATA, {"x-ms-meta-a-b": "x"}),
        Row(f"PUT {_C}&comp=metadata", E.METADATA_TOO_LARGE, {"x-ms-meta-a": "x" * 8192}),
        Row(f"PUT {_C}&comp=metadata", E.EMPTY_METADATA_KEY, {"x-ms-meta-": "x"}),
        Row(f"PUT {_C}&comp=metadata", E.CONDITION_HEADERS_NOT_SUPPORTED, {"if-unmodified-since": "{future}"}),
    ),
    O.GET_CONTAINER_ACL: (
        Row(
            f"GET {_C}&comp=acl",
            200,
            given="policy",
            shows=f"{_ENTITY} content-type=application/xml",
            text=("<Id>reader</Id>", "<Expiry>2099-01-01T00:00:00.0000000Z</Expiry>", "<Permission>r</Permission>"),
        ),
        Row(f"GET {_C}&comp=acl", 200, given="public", shows="x-ms-blob-public-access=container"),
        Row(f"HEAD {_C}&comp=acl", 200, shows=_ENTITY),
    ),
    O.SET_CONTAINER_ACL: (
        Row(
            f"PUT {_C}&comp=acl",
            200,
            {"x-ms-blob-public-access": "container", "content-type": "application/xml"},
            POLICY,
            shows=_ENTITY,
        ),
        Row(f"PUT {_C}&comp=acl", 200, body=_identifiers("<Id>only</Id>"), why="an id alone"),
        Row(f"PUT {_C}&comp=acl", 200, why="no body"),
        Row(f"PUT {_C}&comp=acl", E.INVALID_HEADER_VALUE, {"x-ms-blob-public-access": "everybody"}),
        Row(f"PUT {_C}&comp=acl", E.INVALID_XML_DOCUMENT, body=b"<a", why="not well formed"),
        Row(
            f"PUT {_C}&comp=acl",
            E.INVALID_XML_DOCUMENT,
            body=_identifiers(*(f"<Id>{number}</Id>" for number in range(6))),
            why="six policies",
        ),
        Row(f"PUT {_C}&comp=acl", E.INVALID_XML_DOCUMENT, body=_identifiers("<Id>" + "x" * 65 + "</Id>"), why="65"),
        Row(
            f"PUT {_C}&comp=acl",
            E.INVALID_XML_DOCUMENT,
            body=_identifiers("<Id>a</Id><AccessPolicy><Permission>Q</Permission></AccessPolicy>"),
            why="no such permission",
        ),
        Row(f"PUT {_C}&comp=acl", E.REQUEST_BODY_TOO_LARGE, body=b" " * 70_000, why="70,000 bytes"),
    ),
    O.LEASE_CONTAINER: lease_rows(_LEASE, "", "container-lease", "container-break", "container-breaking"),
    O.LIST_BLOBS: (
        Row(
            _LIST,
            200,
            given="rich",
            shows="content-type=application/xml",
            text=(
                "<Name>b</Name>",
                "<Creation-Time>",
                "<Last-Modified>",
                "<Etag>0x",
                "<Content-Length>11</Content-Length>",
                "<Content-Type>text/plain</Content-Type>",
                "<Content-Encoding>identity</Content-Encoding>",
                "<Content-Language>en</Content-Language>",
                "<Content-CRC64 />",
                "<Content-MD5>",
                "<Cache-Control>no-cache</Cache-Control>",
                "<Content-Disposition>inline</Content-Disposition>",
                "<BlobType>BlockBlob</BlobType>",
                "<AccessTier>Hot</AccessTier>",
                "<AccessTierInferred>true</AccessTierInferred>",
                "<LeaseStatus>unlocked</LeaseStatus>",
                "<LeaseState>available</LeaseState>",
                "<ServerEncrypted>true</ServerEncrypted>",
                "<TagCount>2</TagCount>",
                "<NextMarker />",
            ),
        ),
        Row(_LIST + "&include=metadata,tags", 200, given="rich", text=("<color>red</color>", "<Key>a</Key>")),
        Row(_LIST + "&include=snapshots", 200, given="blob snapshot", text=("<Snapshot>{snapshot}</Snapshot>",)),
        Row(_LIST + "&include=uncommittedblobs", 200, given="block", text=("<Content-Length>0</Content-Length>",)),
        Row(_LIST, 200, given="block", text=("<Blobs />",), why="blocks alone are no blob"),
        Row(_LIST + "&include=copy", 200, given="source copied", text=("<CopyStatus>success</CopyStatus>",)),
        Row(
            _LIST + "&delimiter=/",
            200,
            given="tree",
            text=("<BlobPrefix><Name>dir/</Name></BlobPrefix>", "<Delimiter>/</Delimiter>"),
        ),
        Row(_LIST + "&prefix=dir/", 200, given="tree", text=("<Prefix>dir/</Prefix>", "<Name>dir/two</Name>")),
        Row(_LIST + "&maxresults=1", 200, given="tree", text=("<MaxResults>1</MaxResults>", "<NextMarker>")),
        Row(_LIST + "&startFrom=dir/two", 200, given="tree", text=("<Blobs><Blob><Name>dir/two</Name>",)),
        Row(_LIST + "&maxresults=0", E.OUT_OF_RANGE_QUERY_PARAMETER_VALUE),
        Row(_LIST + "&maxresults=many", E.INVALID_QUERY_PARAMETER_VALUE),
        Row(_LIST + "&include=everything", E.INVALID_QUERY_PARAMETER_VALUE),
        Row(_LIST + "&marker=junk", E.INVALID_QUERY_PARAMETER_VALUE),
        Row(_LIST + "&showonly=deleted", E.INVALID_QUERY_PARAMETER_VALUE),
        Row("PUT " + _C + "&comp=list", E.UNSUPPORTED_HTTP_VERB),
    ),
    O.CONTAINER_BATCH: (
        Row(
            f"POST {_C}&comp=batch",
            202,
            _BATCH_TYPE,
            batch("DELETE {path}?{sas}"),
            given="blob",
            shows="content-type",
            text=("HTTP/1.1 202 Accepted", "Content-ID: 0", "x-ms-request-id"),
        ),
        Row(f"POST {_C}&comp=batch", E.INVALID_HEADER_VALUE, {"content-type": "text/plain"}),
        Row(f"POST {_C}&comp=batch", E.MISSING_REQUIRED_HEADER),
        Row(f"POST {_C}&comp=batch", 202, _BATCH_TYPE, b"junk", text=("InvalidInput",)),
        Row(
            f"POST {_C}&comp=batch",
            202,
            _BATCH_TYPE,
            batch("DELETE /{account}/another/b"),
            text=("InvalidInput",),
            why="another container's blob",
        ),
    ),
    O.FIND_BLOBS_IN_CONTAINER: (
        Row(
            f"GET {_C}&comp=blobs&where=a = '1'",
            200,
            given="tagged",
            shows="content-type=application/xml",
            text=("<Name>b</Name>", "<ContainerName>{container}</ContainerName>", "<Value>1</Value>"),
        ),
        Row(f"GET {_C}&comp=blobs&where=a = '2'&maxresults=1&marker=", 200, given="tagged", text=("<Blobs />",)),
        Row(f"GET {_C}&comp=blobs", E.MISSING_REQUIRED_QUERY_PARAMETER),
        Row(f"GET {_C}&comp=blobs&where=nonsense", E.INVALID_QUERY_PARAMETER_VALUE),
        Row(f"GET {_C}&comp=blobs&where=a = '1'&maxresults=0", E.OUT_OF_RANGE_QUERY_PARAMETER_VALUE),
    ),
}
