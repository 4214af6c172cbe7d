"""Rows of the operations on a blob as a whole; what all of them have in common is in matrix.py."""

from collections.abc import Mapping
from typing import Final

from dataplane.blobapi.errors import ErrorCode as E
from dataplane.blobapi.operations import Operation as O
from tests.wire.rows import CONTENT, CONTENT_CRC64, CONTENT_MD5, GUID, PUT, WRONG_CRC64, WRONG_MD5, Row, structured
from tests.wire.rows_container import lease_rows

_ENTITY: Final = "etag last-modified"
_WRITTEN: Final = f"{_ENTITY} x-ms-request-server-encrypted=true"
_DESCRIBED: Final = (
    f"{_ENTITY} content-length=11 content-type=text/plain content-encoding=identity content-language=en "
    f"content-disposition=inline cache-control=no-cache content-md5={CONTENT_MD5} accept-ranges=bytes "
    "x-ms-blob-type=BlockBlob x-ms-creation-time x-ms-server-encrypted=true x-ms-tag-count=2 x-ms-meta-color=red "
    "x-ms-lease-status=locked x-ms-lease-state=leased x-ms-lease-duration=infinite"
)
_COPIED: Final = (
    "x-ms-copy-id x-ms-copy-status=success x-ms-copy-progress=11/11 x-ms-copy-completion-time "
    "x-ms-copy-source={url}/{container}/source"
)
_STRUCTURED: Final = {"x-ms-structured-body": "XSM/1.0; properties=crc64"}


def _put(want: int | E, why: str = "", body: bytes = CONTENT, shows: str = "", **headers: str) -> Row:
    """A Put Blob; keyword names are header names with underscores."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return Row("PUT b", want, {**PUT, **sent}, body, shows=shows, why=why)


def metadata_refusals(ask: str, headers: Mapping[str, str], given: str) -> tuple[Row, ...]:
    """What every operation that takes metadata refuses of it."""
    return tuple(
        Row(ask, want, {**headers, name: value}, given=given)
        for want, name, value in (
            (E.INVALID_METADATA, "x-ms-meta-a-b", "x"),
            (E.EMPTY_METADATA_KEY, "x-ms-meta-", "x"),
            (E.METADATA_TOO_LARGE, "x-ms-meta-a", "x" * 8192),
        )
    )


def tag_refusals(ask: str, headers: Mapping[str, str], given: str) -> tuple[Row, ...]:
    """What every operation that takes x-ms-tags refuses of it."""
    many = "&".join(f"k{number}=v" for number in range(11))
    return tuple(
        Row(ask, want, {**headers, "x-ms-tags": text}, given=given)
        for want, text in (
            (E.INVALID_HEADER_VALUE, "novalue"),
            (E.INVALID_TAG, "a=%21"),
            (E.EMPTY_TAG_NAME, "=v"),
            (E.DUPLICATE_TAG_NAMES, "a=1&a=2"),
            (E.TAGS_TOO_LARGE, many),
            (E.TAGS_TOO_LARGE, "a=" + "x" * 257),
        )
    )


_PUT_ROWS: Final = (
    _put(201, shows=f"{_WRITTEN} content-md5={CONTENT_MD5} x-ms-content-crc64"),
    _put(201, content_md5=CONTENT_MD5),
    _put(201, x_ms_blob_content_md5=CONTENT_MD5, content_md5=WRONG_MD5, why="the blob's own MD5 counts"),
    _put(201, x_ms_blob_content_md5="", why="AzCopy sends an empty one"),
    _put(201, body=b"", shows=_WRITTEN, why="empty"),
    _put(201, x_ms_content_crc64=CONTENT_CRC64, shows=f"x-ms-content-crc64={CONTENT_CRC64}"),
    _put(
        201,
        x_ms_structured_body=_STRUCTURED["x-ms-structured-body"],
        x_ms_structured_content_length="11",
        body=structured(CONTENT),
        shows="x-ms-structured-body",
    ),
    _put(
        201,
        x_ms_blob_content_type="text/plain",
        x_ms_blob_content_encoding="identity",
        x_ms_blob_content_language="en",
        x_ms_blob_content_disposition="inline",
        x_ms_blob_cache_control="no-cache",
        x_ms_meta_color="red",
        x_ms_tags="a=1",
        x_ms_access_tier="Cool",
    ),
    _put(E.MD5_MISMATCH, content_md5=WRONG_MD5),
    _put(E.MD5_MISMATCH, x_ms_blob_content_md5=WRONG_MD5),
    _put(E.INVALID_MD5, content_md5="short"),
    _put(E.CRC64_MISMATCH, x_ms_content_crc64=WRONG_CRC64),
    _put(E.INVALID_HEADER_VALUE, x_ms_content_crc64="AAAA"),
    _put(E.BOTH_CHECKSUMS, content_md5=CONTENT_MD5, x_ms_content_crc64=WRONG_CRC64),
    _put(E.INVALID_HEADER_VALUE, x_ms_access_tier="Tepid"),
    _put(E.INVALID_HEADER_VALUE, x_ms_blob_type="SquareBlob"),
    _put(E.FEATURE_NOT_SUPPORTED, x_ms_blob_type="AppendBlob", body=b""),
    _put(E.FEATURE_NOT_SUPPORTED, x_ms_blob_type="PageBlob", x_ms_blob_content_length="512", body=b""),
    _put(E.MISSING_REQUIRED_HEADER, x_ms_structured_body="XSM/1.0; properties=crc64", why="no structured length"),
    _put(E.INVALID_HEADER_VALUE, x_ms_structured_body="XSM/9", x_ms_structured_content_length="11"),
    _put(
        E.INVALID_INPUT,
        x_ms_structured_body=_STRUCTURED["x-ms-structured-body"],
        x_ms_structured_content_length="11",
        body=b"x" * 58,
        why="no structured message",
    ),
    Row("PUT b", E.MISSING_REQUIRED_HEADER, {}, CONTENT),
    Row("PUT b", E.BLOB_ALREADY_EXISTS, {**PUT, "if-none-match": "*"}, CONTENT, given="blob"),
    Row("PUT b", 201, {**PUT, "if-none-match": "*"}, CONTENT),
    Row(
        "PUT b",
        201,
        {**PUT, "if-none-match": "*", "x-ms-lease-id": GUID},
        CONTENT,
        given="blob lease",
        why="the lease's holder may overwrite (recording)",
    ),
    Row("PUT b", E.CONDITION_NOT_MET, {**PUT, "if-match": "*"}, CONTENT, why="no blob"),
    Row("PUT b", E.PENDING_COPY_OPERATION, PUT, CONTENT, given="pending"),
    Row("PUT b", E.UNAUTHORIZED_BLOB_OVERWRITE, PUT, CONTENT, given="blob", who="service sr=c&sp=c"),
    Row("PUT b", 201, PUT, CONTENT, who="service sr=c&sp=c"),
    Row("PUT b?snapshot=2026-01-01T00:00:00.0000000Z", E.INVALID_QUERY_PARAMETER_VALUE, PUT, CONTENT),
    Row("PUT /locked/b", E.AUTHORIZATION_FAILURE, PUT, CONTENT, why="a container mapped read-only"),
    Row("PUT b?comp=nonsense", E.INVALID_QUERY_PARAMETER_VALUE, PUT, CONTENT),
    Row("PATCH b", E.UNSUPPORTED_HTTP_VERB, PUT, CONTENT),
    *metadata_refusals("PUT b", PUT, ""),
    *tag_refusals("PUT b", PUT, ""),
)

_GET_ROWS: Final = (
    Row("GET b", 200, given="rich lease", shows=_DESCRIBED, text=("hello world",), hides="x-ms-access-tier"),
    Row("GET b", 200, given="source copied", shows=_COPIED),
    Row(
        "GET b",
        200,
        given="blob",
        version="2026-10-06",
        shows="x-ms-access-tier=Hot x-ms-access-tier-inferred=true",
    ),
    Row(
        "GET b",
        200,
        given="cool",
        version="2026-10-06",
        shows="x-ms-access-tier=Cool x-ms-access-tier-change-time",
        hides="x-ms-access-tier-inferred",
    ),
    Row(
        "GET b",
        206,
        {"x-ms-range": "bytes=0-4"},
        given="blob",
        shows=f"content-range=bytes~0-4/11 content-length=5 x-ms-blob-content-md5={CONTENT_MD5}",
        hides="content-md5",
    ),
    Row("GET b", 206, {"range": "bytes=6-"}, given="blob", shows="content-range=bytes~6-10/11", text=("world",)),
    Row("GET b", 206, {"range": "bytes=6-99"}, given="blob", shows="content-length=5"),
    Row("GET b", 206, {"range": "bytes=-5"}, given="blob", text=("world",)),
    Row("GET b", 206, {"range": "bytes=0-0", "x-ms-range": "bytes=6-10"}, given="blob", text=("world",)),
    Row("GET b", 200, {"range": "bytes=4-0"}, given="blob", hides="content-range", why="malformed: ignored"),
    Row(
        "GET b",
        206,
        {"x-ms-range": "bytes=0-4", "x-ms-range-get-content-md5": "true"},
        given="blob",
        shows="content-md5=XUFAKrxLKna5cZ2REBfFkg==",
    ),
    Row(
        "GET b",
        206,
        {"x-ms-range": "bytes=0-4", "x-ms-range-get-content-crc64": "true"},
        given="blob",
        shows="x-ms-content-crc64",
    ),
    Row("GET b", 200, _STRUCTURED, given="blob", shows="x-ms-structured-body x-ms-structured-content-length=11"),
    Row("GET b?snapshot={snapshot}", 200, given="blob snapshot", hides="x-ms-lease-state"),
    Row(
        "GET b",
        200,
        given="blob",
        who="service sr=b&sp=r&rscc=private&rscd=attachment&rsce=br&rscl=de&rsct=text/css",
        shows="cache-control=private content-disposition=attachment content-encoding=br content-language=de "
        "content-type=text/css",
    ),
    Row("GET b", 200, given="blob public", who="nobody", version=None),
    Row("GET b", 200, given="blob public-blobs", who="nobody", version=None),
    Row("GET b", 200, given="blob policy", who="service sr=c&si=reader"),
    Row("GET b?snapshot={snapshot}", 200, given="blob snapshot", who="service sr=bs&sp=r&snapshot={snapshot}"),
    Row("GET dir/one", 200, given="tree", who="service sr=d&sdd=1&sp=r"),
    Row("GET a", E.AUTHENTICATION_FAILED, given="tree", who="service sr=d&sdd=2&sp=r"),
    Row("GET b", E.INVALID_RANGE, {"x-ms-range": "bytes=11-"}, given="blob", shows="content-range=bytes~*/11"),
    Row("GET b", E.INVALID_RANGE, {"x-ms-range": "bytes=0-"}, given="empty", shows="content-range=bytes~*/0"),
    Row("GET b", E.INVALID_HEADER_VALUE, {"x-ms-range-get-content-md5": "true"}, given="blob", why="no range"),
    Row("GET b", E.INVALID_HEADER_VALUE, {"x-ms-range-get-content-md5": "maybe"}, given="blob"),
    Row(
        "GET b",
        E.BOTH_CHECKSUMS,
        {"x-ms-range": "bytes=0-4", "x-ms-range-get-content-md5": "true", "x-ms-range-get-content-crc64": "true"},
        given="blob",
    ),
    Row("GET b", E.BLOB_ARCHIVED, given="blob archive"),
    Row("GET b", E.BLOB_BEING_REHYDRATED, given="blob archive rehydrate"),
    Row("GET b?snapshot=yesterday", E.INVALID_QUERY_PARAMETER_VALUE, given="blob"),
    Row("GET b?snapshot=", E.INVALID_QUERY_PARAMETER_VALUE, given="blob"),
    Row("GET b?snapshot=2001-01-01T00:00:00.0000000Z", E.BLOB_NOT_FOUND, given="blob"),
    Row("GET b", E.BLOB_NOT_FOUND, given="block", why="blocks alone are no blob"),
    Row("GET absent", E.CONDITION_NOT_MET, {"if-match": "*"}, given="blob"),
    Row("GET b", E.UNSATISFIABLE_CONDITION, {"if-none-match": "*"}, given="blob"),
    Row("GET b", E.AUTHENTICATION_FAILED, given="blob", who="service sr=c&sp=r&sig=AAAA"),
    Row("GET /{container}/%ZZ", E.INVALID_URI),
)

_HEAD_ROWS: Final = (
    Row(
        "HEAD b",
        200,
        given="rich lease",
        shows=f"{_DESCRIBED} x-ms-access-tier=Hot x-ms-access-tier-inferred=true",
    ),
    Row("HEAD b", 200, given="source copied", shows=_COPIED),
    Row(
        "HEAD b",
        200,
        given="blob archive rehydrate",
        shows="x-ms-access-tier=Archive x-ms-archive-status=rehydrate-pending-to-hot "
        "x-ms-rehydrate-priority=Standard x-ms-access-tier-change-time",
        hides="x-ms-access-tier-inferred",
    ),
    Row("HEAD b?snapshot={snapshot}", 200, given="blob snapshot", hides="x-ms-lease-state"),
    Row("HEAD b", 200, given="blob", version="2015-02-21", hides="x-ms-access-tier x-ms-server-encrypted"),
    Row("HEAD b?snapshot=yesterday", E.INVALID_QUERY_PARAMETER_VALUE, given="blob"),
    Row("HEAD b", E.UNSATISFIABLE_CONDITION, {"if-none-match": "*"}, given="blob"),
    Row("HEAD b", 200, given="pending", shows="x-ms-copy-status=pending x-ms-copy-progress=0/1048576"),
)

BLOB_ROWS: Final[Mapping[O, tuple[Row, ...]]] = {
    O.PUT_BLOB: _PUT_ROWS,
    O.GET_BLOB: _GET_ROWS,
    O.GET_BLOB_PROPERTIES: _HEAD_ROWS,
    O.SET_BLOB_PROPERTIES: (
        Row(
            "PUT b?comp=properties",
            200,
            {
                "x-ms-blob-content-type": "text/css",
                "x-ms-blob-content-encoding": "br",
                "x-ms-blob-content-language": "de",
                "x-ms-blob-content-disposition": "inline",
                "x-ms-blob-cache-control": "private",
                "x-ms-blob-content-md5": CONTENT_MD5,
            },
            given="blob",
            shows=_ENTITY,
        ),
        Row("PUT b?comp=properties", E.INVALID_MD5, {"x-ms-blob-content-md5": "short"}, given="blob"),
        Row("PUT b?comp=properties", E.BLOB_ARCHIVED, given="blob archive"),
        Row("PUT b?comp=properties", E.PENDING_COPY_OPERATION, given="pending"),
        Row("PUT b?comp=properties&snapshot={snapshot}", E.INVALID_QUERY_PARAMETER_VALUE, given="blob snapshot"),
    ),
    O.GET_BLOB_METADATA: (
        Row("GET b?comp=metadata", 200, given="blob", shows=f"{_ENTITY} x-ms-meta-color=red", hides="content-md5"),
        Row("HEAD b?comp=metadata", 200, given="blob", shows=f"{_ENTITY} x-ms-meta-color=red"),
        Row("GET b?comp=metadata&snapshot={snapshot}", 200, given="blob snapshot", shows="x-ms-meta-color=red"),
        Row("GET b?comp=metadata", E.UNSATISFIABLE_CONDITION, {"if-none-match": "*"}, given="blob"),
        Row("GET b?comp=metadata&snapshot=junk", E.INVALID_QUERY_PARAMETER_VALUE, given="blob"),
    ),
    O.SET_BLOB_METADATA: (
        Row("PUT b?comp=metadata", 200, {"x-ms-meta-color": "blue"}, given="blob", shows=_WRITTEN),
        Row("PUT b?comp=metadata", E.BLOB_ARCHIVED, given="blob archive"),
        Row("PUT b?comp=metadata", E.PENDING_COPY_OPERATION, given="pending"),
        *metadata_refusals("PUT b?comp=metadata", {}, "blob"),
    ),
    O.DELETE_BLOB: (
        Row("DELETE b", 202, given="blob", shows="x-ms-delete-type-permanent=true"),
        Row("DELETE b", 202, {"x-ms-delete-snapshots": "include"}, given="blob snapshot"),
        Row("DELETE b", 202, {"x-ms-delete-snapshots": "only"}, given="blob snapshot"),
        Row("DELETE b?snapshot={snapshot}", 202, given="blob snapshot"),
        Row("DELETE b", 202, given="block", why="a cancelled upload's blocks go with it"),
        Row("DELETE b?deletetype=permanent", 202, given="blob", who="account sp=y", why="as every delete is here"),
        Row("DELETE b?deletetype=permanent", E.AUTHORIZATION_PERMISSION_MISMATCH, given="blob", who="account sp=d"),
        Row("DELETE b", 202, given="blob archive", why="an archived blob may go"),
        Row("DELETE b", 202, {"if-none-match": "*"}, given="blob"),
        Row("DELETE b", E.SNAPSHOTS_PRESENT, given="blob snapshot"),
        Row("DELETE b", E.INVALID_HEADER_VALUE, {"x-ms-delete-snapshots": "some"}, given="blob snapshot"),
        Row(
            "DELETE b?snapshot={snapshot}",
            E.INVALID_OPERATION,
            {"x-ms-delete-snapshots": "include"},
            given="blob snapshot",
        ),
        Row("DELETE b?snapshot=junk", E.INVALID_QUERY_PARAMETER_VALUE, given="blob"),
        Row("DELETE b", E.PENDING_COPY_OPERATION, given="pending"),
        Row("DELETE b", 202, {"x-ms-access-tier-if-modified-since": "{past}"}, given="blob archive"),
        Row("DELETE b", 202, {"x-ms-access-tier-if-unmodified-since": "{future}"}, given="blob archive"),
        Row("DELETE b", E.CONDITION_NOT_MET, {"x-ms-access-tier-if-modified-since": "{future}"}, given="blob archive"),
        Row("DELETE b", E.CONDITION_NOT_MET, {"x-ms-access-tier-if-unmodified-since": "{past}"}, given="blob archive"),
    ),
    O.SNAPSHOT_BLOB: (
        Row(
            "PUT b?comp=snapshot",
            201,
            given="blob",
            shows=f"{_ENTITY} x-ms-snapshot x-ms-request-server-encrypted=false",
        ),
        Row(
            "PUT b?comp=snapshot",
            201,
            {"x-ms-meta-own": "1"},
            given="blob",
            shows="x-ms-request-server-encrypted=true",
        ),
        Row("PUT b?comp=snapshot", E.BLOB_ARCHIVED, given="blob archive"),
        *metadata_refusals("PUT b?comp=snapshot", {}, "blob"),
    ),
    O.LEASE_BLOB: lease_rows("PUT b?comp=lease", "blob", "lease", "break", "breaking"),
    O.SET_BLOB_TIER: (
        Row("PUT b?comp=tier", 200, {"x-ms-access-tier": "Cool"}, given="blob"),
        Row("PUT b?comp=tier", 200, {"x-ms-access-tier": "Archive"}, given="blob"),
        Row("PUT b?comp=tier", 200, {"x-ms-access-tier": "Cold"}, given="blob"),
        Row("PUT b?comp=tier", 202, {"x-ms-access-tier": "Hot"}, given="blob archive"),
        Row(
            "PUT b?comp=tier",
            202,
            {"x-ms-access-tier": "Hot", "x-ms-rehydrate-priority": "High"},
            given="blob archive rehydrate",
        ),
        Row("PUT b?comp=tier&snapshot={snapshot}", 200, {"x-ms-access-tier": "Cool"}, given="blob snapshot"),
        Row("PUT b?comp=tier", E.MISSING_REQUIRED_HEADER, given="blob"),
        Row("PUT b?comp=tier", E.INVALID_HEADER_VALUE, {"x-ms-access-tier": "Tepid"}, given="blob"),
        Row("PUT b?comp=tier", E.INVALID_HEADER_VALUE, {"x-ms-access-tier": "P10"}, given="blob"),
        Row(
            "PUT b?comp=tier",
            E.INVALID_HEADER_VALUE,
            {"x-ms-access-tier": "Hot", "x-ms-rehydrate-priority": "Soon"},
            given="blob archive",
        ),
        Row(
            "PUT b?comp=tier",
            E.BLOB_BEING_REHYDRATED,
            {"x-ms-access-tier": "Cool"},
            given="blob archive rehydrate",
        ),
        Row("PUT b?comp=tier", E.PENDING_COPY_OPERATION, {"x-ms-access-tier": "Cool"}, given="pending"),
    ),
    O.GET_BLOB_TAGS: (
        Row(
            "GET b?comp=tags",
            200,
            given="tagged",
            shows="content-type=application/xml",
            text=("<Key>a</Key><Value>1</Value>",),
        ),
        Row("GET b?comp=tags", 200, given="blob", text=("<TagSet />",)),
        Row("GET b?comp=tags&snapshot={snapshot}", 200, given="tagged snapshot", text=("<Key>a</Key>",)),
        Row("GET b?comp=tags&snapshot=junk", E.INVALID_QUERY_PARAMETER_VALUE, given="blob"),
    ),
    O.SET_BLOB_TAGS: (
        Row(
            "PUT b?comp=tags",
            204,
            {"content-type": "application/xml"},
            b"<Tags><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tags>",
            given="blob",
        ),
        Row("PUT b?comp=tags", 204, body=b"<Tags><TagSet /></Tags>", given="blob"),
        Row("PUT b?comp=tags", E.INVALID_XML_DOCUMENT, body=b"<a", given="blob"),
        Row("PUT b?comp=tags", E.MD5_MISMATCH, {"content-md5": WRONG_MD5}, b"<Tags><TagSet /></Tags>", given="blob"),
        Row(
            "PUT b?comp=tags",
            E.CRC64_MISMATCH,
            {"x-ms-content-crc64": WRONG_CRC64},
            b"<Tags><TagSet /></Tags>",
            given="blob",
        ),
        Row("PUT b?comp=tags", E.REQUEST_BODY_TOO_LARGE, body=b" " * 70_000, given="blob", why="70,000 bytes"),
        *(
            Row("PUT b?comp=tags", want, body=f"<Tags><TagSet>{inner}</TagSet></Tags>".encode(), given="blob")
            for want, inner in (
                (E.INVALID_TAG, "<Tag><Key>!</Key><Value /></Tag>"),
                (E.EMPTY_TAG_NAME, "<Tag><Key /><Value /></Tag>"),
                (E.DUPLICATE_TAG_NAMES, "<Tag><Key>a</Key><Value /></Tag>" * 2),
                (E.TAGS_TOO_LARGE, "".join(f"<Tag><Key>k{n}</Key><Value /></Tag>" for n in range(11))),
            )
        ),
    ),
}
