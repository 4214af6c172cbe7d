"""The response headers of Get Blob and Get Blob Properties, by version and as recorded from the service.

HEAD answers tell the tier, GET answers from version 2026-10-06 on; a range moves the blob's MD5 from Content-MD5 to
x-ms-blob-content-md5; a snapshot has no lease. What depends on the record alone is built once and kept, because small
reads are answered so fast that a dozen strings are a good part of the work; what the clock changes (the lease) and what
the request changes (range, rsc* of a SAS) is added each time. A kept entry is used only when the whole record is equal,
as tags and tier change without a new ETag.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from dataplane.blobapi.checksums import encoded
from dataplane.blobapi.dates import http_date
from dataplane.blobapi.etag import quoted
from dataplane.blobapi.leases import lease_headers
from dataplane.blobapi.metadata import to_headers
from dataplane.blobapi.model import AccessTier, BlobProperties, BlobState, CopyState
from dataplane.blobapi.ranges import ByteRange

Header = tuple[str, str]

# The version that brought each header (REST pages "Get Blob", "Get Blob Properties").
_SERVER_ENCRYPTED_VERSION: Final = "2015-12-11"
_BLOB_CONTENT_MD5_VERSION: Final = "2016-05-31"
_TIER_VERSION: Final = "2017-04-17"
_CREATION_TIME_VERSION: Final = "2017-11-09"
_TAGS_VERSION: Final = "2019-12-12"  # x-ms-tag-count and x-ms-rehydrate-priority
_TIER_OF_GET_VERSION: Final = "2026-10-06"  # azure-rest-api-specs, pull request 42570

_RESIDENCY_HEADER: Final = "x-blobedge-residency"  # ours
_LOCAL: Final = (_RESIDENCY_HEADER, "local")
_REMOTE: Final = (_RESIDENCY_HEADER, "remote")

_KEPT_MAX: Final = 4096  # entries, of about 1 KiB
_kept: dict[tuple[str, str, str, bool], tuple[BlobProperties, tuple[Header, ...]]] = {}


def blob_headers(
    state: BlobState,
    version: str,
    now: int,
    *,
    head: bool,
    part: ByteRange | None = None,
    overrides: Sequence[Header] = (),
    residency: bool = False,
) -> list[Header]:
    """The headers of a blob's answer, without Content-Length.

    `head` is Get Blob Properties. `part` is the range that is sent. `overrides` replace headers of the same names: the
    rsc* parameters of a SAS, checked with the token. `residency` tells whether the bytes are on this node.
    """
    properties = state.properties
    headers = list(_record_headers(properties, state.snapshot, version, head))
    if not state.snapshot:
        headers += lease_headers(state.lease, now, properties.last_modified)
    if part is not None:
        headers.append(("Content-Range", part.content_range))
    if properties.content_md5 is not None:
        if part is None:
            headers.append(("Content-MD5", encoded(properties.content_md5)))
        elif version >= _BLOB_CONTENT_MD5_VERSION:
            headers.append(("x-ms-blob-content-md5", encoded(properties.content_md5)))
    if residency:
        headers.append(_LOCAL if properties.remote is None else _REMOTE)
    if overrides:
        replaced = {name for name, _ in overrides}
        headers = [header for header in headers if header[0] not in replaced] + list(overrides)
    return headers


def _record_headers(properties: BlobProperties, snapshot: str, version: str, head: bool) -> tuple[Header, ...]:
    key = (properties.etag, snapshot, version, head)
    kept = _kept.get(key)
    if kept is not None and (kept[0] is properties or kept[0] == properties):
        return kept[1]
    headers = tuple(_build(properties, snapshot, version, head))
    if len(_kept) >= _KEPT_MAX:
        _kept.clear()
    _kept[key] = (properties, headers)
    return headers


def _build(properties: BlobProperties, snapshot: str, version: str, head: bool) -> Iterator[Header]:
    yield "ETag", quoted(properties.etag)
    yield "Last-Modified", http_date(properties.last_modified)
    yield "Accept-Ranges", "bytes"
    yield "x-ms-blob-type", "BlockBlob"
    for name, value in (
        ("Content-Type", properties.content_type),
        ("Content-Encoding", properties.content_encoding),
        ("Content-Language", properties.content_language),
        ("Content-Disposition", properties.content_disposition),
        ("Cache-Control", properties.cache_control),
        ("x-ms-snapshot", snapshot),
    ):
        if value:
            yield name, value
    if version >= _CREATION_TIME_VERSION:
        yield "x-ms-creation-time", http_date(properties.created)
    if version >= _SERVER_ENCRYPTED_VERSION:
        yield "x-ms-server-encrypted", "true"
    if properties.tags and version >= _TAGS_VERSION:
        yield "x-ms-tag-count", str(len(properties.tags))
    if version >= (_TIER_VERSION if head else _TIER_OF_GET_VERSION):
        yield from _tier(properties, version)
    if properties.copy is not None:
        yield from _copy(properties.copy)
    yield from to_headers(properties.metadata)


def _tier(properties: BlobProperties, version: str) -> Iterator[Header]:
    if properties.access_tier is None:
        yield "x-ms-access-tier", AccessTier.HOT.value
        yield "x-ms-access-tier-inferred", "true"
    else:
        yield "x-ms-access-tier", properties.access_tier.value
    if properties.tier_changed is not None:
        yield "x-ms-access-tier-change-time", http_date(properties.tier_changed)
    if properties.rehydrate_to is not None:
        yield "x-ms-archive-status", f"rehydrate-pending-to-{properties.rehydrate_to.value.lower()}"
        if properties.rehydrate_priority and version >= _TAGS_VERSION:
            yield "x-ms-rehydrate-priority", properties.rehydrate_priority


def _copy(copy: CopyState) -> Iterator[Header]:
    yield "x-ms-copy-id", copy.copy_id
    yield "x-ms-copy-source", copy.source
    yield "x-ms-copy-status", copy.status.value
    if copy.description:
        yield "x-ms-copy-status-description", copy.description
    yield "x-ms-copy-progress", f"{copy.bytes_copied}/{copy.bytes_total}"
    if copy.completed is not None:
        yield "x-ms-copy-completion-time", http_date(copy.completed)
