"""Rows of the operations on blocks and of the copies; what all of them have in common is in matrix.py."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Final

from dataplane.blobapi.errors import ErrorCode as E
from dataplane.blobapi.operations import Operation as O
from tests.wire.rows import (
    CONTENT,
    CONTENT_CRC64,
    CONTENT_MD5,
    OLD_VERSION,
    PUT,
    WRONG_CRC64,
    WRONG_MD5,
    Row,
    structured,
)
from tests.wire.rows_blob import metadata_refusals, tag_refusals

_ENTITY: Final = "etag last-modified"
_WRITTEN: Final = f"{_ENTITY} x-ms-request-server-encrypted=true"
_BLOCK: Final = "PUT b?comp=block&blockid=YWFh"
_LIST: Final = "PUT b?comp=blocklist"
_GET_LIST: Final = "GET b?comp=blocklist"
_SOURCE: Final = {"x-ms-copy-source": "{url}/{container}/source"}
_SYNC: Final = {**_SOURCE, "x-ms-requires-sync": "true"}
_UPLOAD: Final = {**_SOURCE, **PUT}


def _blocks(*entries: str) -> bytes:
    """A block list; an entry is `Latest:ID`, `Committed:ID` or `Uncommitted:ID`."""
    pairs = (entry.split(":") for entry in entries)
    return f"<BlockList>{''.join(f'<{kind}>{name}</{kind}>' for kind, name in pairs)}</BlockList>".encode()


_BOTH: Final = _blocks("Latest:YWFh", "Latest:YmJi")
_BOTH_MD5: Final = base64.b64encode(hashlib.md5(_BOTH).digest()).decode()
_TOO_MANY: Final = _blocks(*["Latest:YWFh"] * 50_001)


def source_rows(ask: str, headers: Mapping[str, str], ok: int, *, asynchronous: bool = False) -> tuple[Row, ...]:
    """What the copies have in common: the source and what is asked of it."""
    absent = E.BLOB_NOT_FOUND if asynchronous else E.CANNOT_VERIFY_COPY_SOURCE_404
    failed = E.SOURCE_CONDITION_NOT_MET if asynchronous else E.CANNOT_VERIFY_COPY_SOURCE_412
    fresh = E.SOURCE_CONDITION_NOT_MET if asynchronous else E.CANNOT_VERIFY_COPY_SOURCE_304

    def row(want: int | E, given: str = "source", url: str = "{url}/{container}/source", **more: str) -> Row:
        sent = {"x-ms-" + name.replace("_", "-"): value for name, value in more.items()}
        return Row(ask, want, {**headers, "x-ms-copy-source": url, **sent}, given=given)

    return (
        row(ok, source_if_match="{etag}"),
        row(ok, source_if_none_match='"0x0"'),
        row(ok, source_if_modified_since="{past}"),
        row(ok, source_if_unmodified_since="{future}"),
        row(ok, given="tagged-source", source_if_tags="\"a\" = '1'"),
        row(failed, source_if_match='"0x0"'),
        row(fresh, source_if_none_match="{etag}"),
        row(fresh, source_if_modified_since="{future}"),
        row(failed, source_if_unmodified_since="{past}"),
        row(failed, given="tagged-source", source_if_tags="\"a\" = '2'"),
        row(E.INVALID_HEADER_VALUE, source_if_modified_since="yesterday"),
        row(absent, url="{url}/{container}/nothing"),
        row(E.CANNOT_VERIFY_COPY_SOURCE_404, url="https://elsewhere.example/blob"),
        row(absent, url="{url}/{container}"),
        row(E.CANNOT_VERIFY_COPY_SOURCE_403, url="{url}/{container}/source?sig=junk&sv=2022-11-02"),
        row(E.INVALID_HEADER_VALUE, url="/{container}/source"),
        row(E.INVALID_HEADER_VALUE, url="ftp://host/blob"),
        row(E.INVALID_HEADER_VALUE, copy_source_authorization="Basic abc"),
        row(E.INVALID_HEADER_VALUE, url="{url}/{container}/source?snapshot=junk"),
        row(E.INVALID_SOURCE_BLOB_TYPE, given="", url="{outside}/page"),
        row(E.BLOB_ARCHIVED, given="source archive-source"),
        Row(ask, E.INVALID_HEADER_VALUE, {**headers, **_SOURCE}, b"body", given="source", why="a body"),
    )


BLOCK_ROWS: Final[Mapping[O, tuple[Row, ...]]] = {
    O.PUT_BLOCK: (
        Row(_BLOCK, 201, {}, CONTENT, shows="x-ms-request-server-encrypted=true x-ms-content-crc64"),
        Row(_BLOCK, 201, {"content-md5": CONTENT_MD5}, CONTENT, shows=f"content-md5={CONTENT_MD5}"),
        Row(
            _BLOCK,
            201,
            {"x-ms-structured-body": "XSM/1.0; properties=crc64", "x-ms-structured-content-length": "11"},
            structured(CONTENT),
            shows="x-ms-structured-body",
        ),
        Row(_BLOCK, 201, {"x-ms-content-crc64": CONTENT_CRC64}, CONTENT, shows="x-ms-content-crc64"),
        Row(_BLOCK, 201, {}, CONTENT, version=OLD_VERSION, shows="content-md5", hides="x-ms-content-crc64"),
        Row(_BLOCK, E.MD5_MISMATCH, {"content-md5": WRONG_MD5}, CONTENT),
        Row(_BLOCK, E.INVALID_MD5, {"content-md5": "short"}, CONTENT),
        Row(_BLOCK, E.CRC64_MISMATCH, {"x-ms-content-crc64": WRONG_CRC64}, CONTENT),
        Row(_BLOCK, E.BOTH_CHECKSUMS, {"content-md5": CONTENT_MD5, "x-ms-content-crc64": WRONG_CRC64}, CONTENT),
        Row("PUT b?comp=block", E.MISSING_REQUIRED_QUERY_PARAMETER, {}, CONTENT),
        Row("PUT b?comp=block&blockid=!!", E.INVALID_BLOCK_ID, {}, CONTENT),
        Row("PUT b?comp=block&blockid=" + "QUFB" * 22, E.INVALID_BLOCK_ID, {}, CONTENT, why="66 bytes"),
        Row("PUT b?comp=block&blockid=YWFhYWFh", E.INVALID_BLOB_OR_BLOCK, {}, CONTENT, given="block"),
        Row(_BLOCK, E.INVALID_HEADER_VALUE, {}, b"", why="an empty block"),
        Row(
            _BLOCK,
            E.MISSING_REQUIRED_HEADER,
            {"x-ms-structured-body": "XSM/1.0; properties=crc64"},
            CONTENT,
            why="no structured length",
        ),
        Row(
            _BLOCK,
            E.INVALID_INPUT,
            {"x-ms-structured-body": "XSM/1.0; properties=crc64", "x-ms-structured-content-length": "11"},
            b"x" * 58,
        ),
        Row(_BLOCK, E.PENDING_COPY_OPERATION, {}, CONTENT, given="pending"),
    ),
    O.PUT_BLOCK_LIST: (
        Row(_LIST, 201, {}, _BOTH, given="blocks", shows=f"{_WRITTEN} x-ms-content-crc64"),
        Row(
            _LIST,
            201,
            {
                "x-ms-blob-content-type": "text/plain",
                "x-ms-blob-content-encoding": "identity",
                "x-ms-blob-content-language": "en",
                "x-ms-blob-content-disposition": "inline",
                "x-ms-blob-cache-control": "no-cache",
                "x-ms-blob-content-md5": CONTENT_MD5,
                "x-ms-meta-color": "red",
                "x-ms-tags": "a=1",
                "x-ms-access-tier": "Cool",
                "content-type": "application/xml",
            },
            _BOTH,
            given="blocks",
        ),
        Row(_LIST, 201, {}, _blocks("Uncommitted:YWFh"), given="blocks"),
        Row(_LIST, 201, {"content-md5": _BOTH_MD5}, _BOTH, given="blocks", shows=f"content-md5={_BOTH_MD5}"),
        Row(_LIST, 201, {}, b"<BlockList />", why="an empty blob"),
        Row(_LIST, E.INVALID_BLOCK_LIST, {}, _blocks("Committed:YWFh"), given="blocks"),
        Row(_LIST, E.INVALID_BLOCK_LIST, {}, _blocks("Latest:Y2Nj"), given="blocks"),
        Row(_LIST, E.INVALID_BLOCK_ID, {}, _blocks("Latest:!!"), given="blocks"),
        Row(_LIST, E.INVALID_XML_DOCUMENT, {}, b"<BlockList><Other>YWFh</Other></BlockList>", given="blocks"),
        Row(_LIST, E.INVALID_XML_DOCUMENT, {}, b"junk", given="blocks"),
        Row(_LIST, E.BLOCK_LIST_TOO_LONG, {}, _TOO_MANY, given="blocks", why="50,001 blocks"),
        Row(_LIST, E.MD5_MISMATCH, {"content-md5": WRONG_MD5}, _BOTH, given="blocks"),
        Row(_LIST, E.CRC64_MISMATCH, {"x-ms-content-crc64": WRONG_CRC64}, _BOTH, given="blocks"),
        Row(_LIST, E.INVALID_MD5, {"x-ms-blob-content-md5": "short"}, _BOTH, given="blocks"),
        Row(
            _LIST,
            E.BOTH_CHECKSUMS,
            {"content-md5": CONTENT_MD5, "x-ms-content-crc64": WRONG_CRC64},
            _BOTH,
            given="blocks",
        ),
        Row(_LIST, E.INVALID_HEADER_VALUE, {"x-ms-access-tier": "Tepid"}, _BOTH, given="blocks"),
        Row(_LIST, E.BLOB_ALREADY_EXISTS, {"if-none-match": "*"}, b"<BlockList />", given="blob"),
        Row(_LIST, E.UNAUTHORIZED_BLOB_OVERWRITE, {}, b"<BlockList />", given="blob", who="service sr=c&sp=c"),
        Row(_LIST, E.PENDING_COPY_OPERATION, {}, b"<BlockList />", given="pending"),
        *metadata_refusals(_LIST, {}, "blocks"),
        *tag_refusals(_LIST, {}, "blocks"),
    ),
    O.GET_BLOCK_LIST: (
        Row(
            _GET_LIST + "&blocklisttype=all",
            200,
            given="blob block",
            shows=f"{_ENTITY} content-type=application/xml x-ms-blob-content-length=11",
            text=("<CommittedBlocks />", "<UncommittedBlocks><Block><Name>YWFh</Name><Size>4</Size></Block>"),
        ),
        Row(_GET_LIST + "&blocklisttype=uncommitted", 200, given="block", hides="etag", text=("YWFh",)),
        Row(_GET_LIST, 200, given="blob", text=("<CommittedBlocks />",)),
        Row(_GET_LIST + "&snapshot={snapshot}", 200, given="blob snapshot", shows="x-ms-blob-content-length=11"),
        Row(_GET_LIST + "&blocklisttype=some", E.INVALID_QUERY_PARAMETER_VALUE, given="blob"),
        Row(_GET_LIST, E.CONDITION_NOT_MET, {"x-ms-if-tags": "\"a\" = '2'"}, given="tagged"),
        Row(_GET_LIST, 200, {"x-ms-if-tags": "\"a\" = '1'"}, given="tagged"),
    ),
    O.COPY_BLOB: (
        Row("PUT b", 202, _SOURCE, given="source", shows=f"{_ENTITY} x-ms-copy-id x-ms-copy-status=success"),
        Row(
            "PUT b",
            202,
            {
                **_SOURCE,
                "x-ms-meta-own": "1",
                "x-ms-tags": "a=1",
                "x-ms-access-tier": "Cool",
                "x-ms-rehydrate-priority": "High",
            },
            given="source",
        ),
        Row("PUT b", 202, {"x-ms-copy-source": "{outside}/slow"}, shows="x-ms-copy-status=pending"),
        Row(
            "PUT b",
            202,
            {**_SOURCE, "x-ms-access-tier": "Hot"},
            given="source archive-source",
            why="rehydrated by the copy",
        ),
        Row("PUT b", E.UNSUPPORTED_HEADER, {**_SOURCE, "x-ms-source-range": "bytes=0-1"}, given="source"),
        Row("PUT b", E.PENDING_COPY_OPERATION, {"x-ms-copy-source": "{outside}/slow"}, given="pending"),
        Row("PUT b", E.BLOB_ALREADY_EXISTS, {**_SOURCE, "if-none-match": "*"}, given="source blob"),
        Row("PUT b", E.UNAUTHORIZED_BLOB_OVERWRITE, _SOURCE, given="blob", who="service sr=c&sp=c"),
        *source_rows("PUT b", {}, 202, asynchronous=True),
        *metadata_refusals("PUT b", _SOURCE, "source"),
        *tag_refusals("PUT b", _SOURCE, "source"),
    ),
    O.COPY_BLOB_FROM_URL: (
        Row("PUT b", 202, _SYNC, given="source", shows=f"{_ENTITY} x-ms-copy-id x-ms-copy-status=success"),
        Row(
            "PUT b",
            202,
            {**_SYNC, "x-ms-source-content-md5": CONTENT_MD5},
            given="source",
            shows=f"content-md5={CONTENT_MD5}",
        ),
        Row(
            "PUT b",
            202,
            {**_SYNC, "x-ms-source-content-crc64": CONTENT_CRC64},
            given="source",
            shows="x-ms-content-crc64",
        ),
        Row(
            "PUT b",
            202,
            {**_SYNC, "x-ms-meta-own": "1", "x-ms-tags": "a=1", "x-ms-access-tier": "Cool"},
            given="source",
        ),
        Row("PUT b", 202, {**_SYNC, "x-ms-copy-source-tag-option": "COPY"}, given="tagged-source"),
        Row("PUT b", E.INVALID_HEADER_VALUE, {**_SYNC, "x-ms-copy-source-tag-option": "STEAL"}, given="source"),
        Row("PUT b", E.MD5_MISMATCH, {**_SYNC, "x-ms-source-content-md5": WRONG_MD5}, given="source"),
        Row("PUT b", E.INVALID_MD5, {**_SYNC, "x-ms-source-content-md5": "short"}, given="source"),
        Row("PUT b", E.BLOB_ALREADY_EXISTS, {**_SYNC, "if-none-match": "*"}, given="source blob"),
        Row("PUT b", E.PENDING_COPY_OPERATION, {**_SYNC, "x-ms-copy-source": "{outside}/slow"}, given="pending"),
        Row("PUT b", E.UNAUTHORIZED_BLOB_OVERWRITE, _SYNC, given="blob", who="service sr=c&sp=c"),
        *source_rows("PUT b", {"x-ms-requires-sync": "true"}, 202),
        *metadata_refusals("PUT b", _SYNC, "source"),
        *tag_refusals("PUT b", _SYNC, "source"),
    ),
    O.ABORT_COPY_BLOB: (
        Row("PUT b?comp=copy&copyid={copy}", 204, {"x-ms-copy-action": "abort"}, given="pending"),
        Row(
            "PUT b?comp=copy&copyid={copy}",
            E.NO_PENDING_COPY_OPERATION,
            {"x-ms-copy-action": "abort"},
            given="source copied",
        ),
        Row("PUT b?comp=copy&copyid={guid}", E.COPY_ID_MISMATCH, {"x-ms-copy-action": "abort"}, given="pending"),
        Row("PUT b?comp=copy", E.MISSING_REQUIRED_QUERY_PARAMETER, {"x-ms-copy-action": "abort"}, given="blob"),
        Row("PUT b?comp=copy&copyid={guid}", E.MISSING_REQUIRED_HEADER, given="blob"),
        Row("PUT b?comp=copy&copyid={guid}", E.INVALID_HEADER_VALUE, {"x-ms-copy-action": "stop"}, given="blob"),
    ),
    O.PUT_BLOB_FROM_URL: (
        Row(
            "PUT b",
            201,
            _UPLOAD,
            given="source",
            shows=f"{_WRITTEN} content-md5={CONTENT_MD5} x-ms-content-crc64",
        ),
        Row(
            "PUT b",
            201,
            {
                **_UPLOAD,
                "x-ms-copy-source-blob-properties": "false",
                "x-ms-source-content-md5": CONTENT_MD5,
                "x-ms-blob-content-type": "text/css",
                "x-ms-blob-content-encoding": "br",
                "x-ms-blob-content-language": "de",
                "x-ms-blob-content-disposition": "inline",
                "x-ms-blob-cache-control": "private",
                "x-ms-blob-content-md5": CONTENT_MD5,
                "x-ms-meta-own": "1",
                "x-ms-tags": "a=1",
                "x-ms-access-tier": "Cool",
            },
            given="source",
        ),
        Row("PUT b", 201, {**_UPLOAD, "x-ms-copy-source-tag-option": "COPY"}, given="tagged-source"),
        Row("PUT b", E.MD5_MISMATCH, {**_UPLOAD, "x-ms-source-content-md5": WRONG_MD5}, given="source"),
        Row("PUT b", E.INVALID_MD5, {**_UPLOAD, "x-ms-source-content-md5": "short"}, given="source"),
        Row(
            "PUT b",
            E.BOTH_CHECKSUMS,
            {**_UPLOAD, "x-ms-source-content-md5": CONTENT_MD5, "x-ms-source-content-crc64": WRONG_CRC64},
            given="source",
        ),
        Row("PUT b", E.CRC64_MISMATCH, {**_UPLOAD, "x-ms-source-content-crc64": WRONG_CRC64}, given="source"),
        Row("PUT b", E.FEATURE_NOT_SUPPORTED, {**_SOURCE, "x-ms-blob-type": "PageBlob"}, given="source"),
        Row("PUT b", E.INVALID_HEADER_VALUE, {**_UPLOAD, "x-ms-copy-source-blob-properties": "some"}, given="source"),
        Row("PUT b", E.INVALID_HEADER_VALUE, {**_UPLOAD, "x-ms-access-tier": "Tepid"}, given="source"),
        Row("PUT b", E.BLOB_ALREADY_EXISTS, {**_UPLOAD, "if-none-match": "*"}, given="source blob"),
        Row("PUT b", E.PENDING_COPY_OPERATION, {**_UPLOAD, "x-ms-copy-source": "{outside}/slow"}, given="pending"),
        Row("PUT b", E.UNAUTHORIZED_BLOB_OVERWRITE, _UPLOAD, given="blob", who="service sr=c&sp=c"),
        *source_rows("PUT b", PUT, 201),
        *metadata_refusals("PUT b", _UPLOAD, "source"),
        *tag_refusals("PUT b", _UPLOAD, "source"),
    ),
    O.PUT_BLOCK_FROM_URL: (
        Row(_BLOCK, 201, _SOURCE, given="source", shows="x-ms-request-server-encrypted=true x-ms-content-crc64"),
        Row(_BLOCK, 201, {**_SOURCE, "x-ms-source-range": "bytes=0-4"}, given="source"),
        Row(
            _BLOCK,
            201,
            {**_SOURCE, "x-ms-source-content-md5": CONTENT_MD5},
            given="source",
            shows=f"content-md5={CONTENT_MD5}",
        ),
        Row(_BLOCK, E.MD5_MISMATCH, {**_SOURCE, "x-ms-source-content-md5": WRONG_MD5}, given="source"),
        Row(_BLOCK, E.CRC64_MISMATCH, {**_SOURCE, "x-ms-source-content-crc64": WRONG_CRC64}, given="source"),
        Row(_BLOCK, E.INVALID_RANGE, {**_SOURCE, "x-ms-source-range": "bytes=11-"}, given="source"),
        Row(_BLOCK, E.INVALID_HEADER_VALUE, {**_SOURCE, "x-ms-source-range": "bytes=4-0"}, given="source"),
        Row("PUT b?comp=block", E.MISSING_REQUIRED_QUERY_PARAMETER, _SOURCE, given="source"),
        Row("PUT b?comp=block&blockid=!!", E.INVALID_BLOCK_ID, _SOURCE, given="source"),
        Row("PUT b?comp=block&blockid=YWFhYWFh", E.INVALID_BLOB_OR_BLOCK, _SOURCE, given="source block"),
        Row(_BLOCK, E.PENDING_COPY_OPERATION, {"x-ms-copy-source": "{outside}/slow"}, given="pending"),
        *source_rows(_BLOCK, {}, 201),
    ),
}
