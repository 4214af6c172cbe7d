"""Copies as pure functions: the source's URL, what the headers ask for, and what the destination is made of.

Sources: REST pages "Copy Blob", "Copy Blob From URL", "Put Blob From URL", "Put Block From URL", "Abort Copy Blob".

A pending copy is a blob of zero bytes whose CopyState says `pending`, as on the service. Whoever carries it out writes
its progress down every few seconds, which moves Last-Modified. So a copy whose worker or node died needs no clean-up
and no list of open copies: a pending state that has been silent for too long *reads* as failed (`observed`), on every
node alike, and everything that decides on copies asks that function. Rejected: finishing such a copy elsewhere, because
the source's credential would have to be stored for it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

from dataplane.blobapi import checksums, conditions, limits, metadata, tags, tiers
from dataplane.blobapi.conditions import ConditionalHeaders
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import AccessTier, BlobProperties, BlobState, CopyState, CopyStatus
from dataplane.blobapi.ranges import RangeRequest, parse_range_value
from dataplane.blobapi.uri import parse_query

SOURCE_HEADER: Final = "x-ms-copy-source"
INTERRUPTED: Final = "The copy was interrupted: the server that carried it out has stopped."

_PORTS: Final = {"http": 80, "https": 443}
_URL_CHARS: Final = re.compile(r"[\x21-\x7e\x80-\U0010ffff]+\Z")
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)\Z")
_NAT64: Final = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class SourceUrl:
    """An absolute URL. `host` is lower-case, without port and brackets; `shown` is the URL without its query, except
    for a snapshot: what properties tell of the source, as a SAS is a secret."""

    text: str
    scheme: str
    host: str
    port: int
    authority: str
    shown: str


def parse_source_url(text: str) -> SourceUrl:
    """x-ms-copy-source. Raises BlobError InvalidHeaderValue for anything but an absolute http or https URL with a host
    (a relative one is answered so by the service, too), without user, password or fragment."""
    if len(text) > limits.request_target_bytes_max or _URL_CHARS.match(text) is None:
        raise _invalid(SOURCE_HEADER)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise _invalid(SOURCE_HEADER) from None
    scheme = parts.scheme.lower()
    authority = parts.netloc.lower()
    bare = authority.rpartition(":")[0] if port is not None else authority.removesuffix(":")
    if scheme not in _PORTS or "#" in text or "\\" in parts.netloc or _HOST.match(bare) is None:
        raise _invalid(SOURCE_HEADER)
    host = bare.strip("[]").rstrip(".")
    return SourceUrl(text, scheme, host, port or _PORTS[scheme], authority, _without_secrets(text))


def _without_secrets(text: str) -> str:
    base, _, query = text.partition("?")
    snapshot = parse_query(query).get("snapshot")
    return base if snapshot is None else f"{base}?snapshot={snapshot}"


def is_public_address(address: str) -> bool:
    """Whether an address belongs to the open internet. IPv6 forms that carry an IPv4 address are judged by both."""
    found = ip_address(address)
    if isinstance(found, IPv6Address):
        embedded = [found.ipv4_mapped, found.sixtofour, *(found.teredo or ())]
        if found in _NAT64:
            embedded.append(IPv4Address(int(found) & 0xFFFFFFFF))
        if any(inner is not None and not _is_public(inner) for inner in embedded):
            return False
        if found.ipv4_mapped is not None:
            return _is_public(found.ipv4_mapped)
    return _is_public(found)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not address.is_multicast


class TagOption(Enum):
    """x-ms-copy-source-tag-option."""

    REPLACE = "REPLACE"
    COPY = "COPY"


@dataclass(frozen=True, slots=True)
class SourceHeaders:
    """What a From URL request or Copy Blob says of its source. Checksums are of the bytes that are copied."""

    url: SourceUrl
    conditions: ConditionalHeaders
    range: RangeRequest | None
    md5: bytes | None
    crc64: bytes | None
    tag_option: TagOption
    properties: bool  # x-ms-copy-source-blob-properties
    bearer: str  # x-ms-copy-source-authorization, "" without one


def parse_source_headers(headers: Mapping[str, str]) -> SourceHeaders:
    """Raises BlobError MissingRequiredHeader, InvalidHeaderValue, InvalidMd5, BothCrc64AndMd5HeaderPresent."""
    text = headers.get(SOURCE_HEADER)
    if not text:
        raise BlobError(ErrorCode.MISSING_REQUIRED_HEADER, header_name=SOURCE_HEADER)
    md5 = checksums.parse_md5(headers, "x-ms-source-content-md5")
    crc64 = checksums.parse_crc64(headers, "x-ms-source-content-crc64")
    if md5 is not None and crc64 is not None:
        raise BlobError(ErrorCode.BOTH_CHECKSUMS)
    wanted = headers.get("x-ms-source-range")
    found = parse_range_value(wanted) if wanted else None
    if wanted and (found is None or found.first is None):
        raise _invalid("x-ms-source-range")
    bearer = headers.get("x-ms-copy-source-authorization", "")
    if bearer and not bearer.lower().startswith("bearer "):
        raise _invalid("x-ms-copy-source-authorization")
    return SourceHeaders(
        url=parse_source_url(text),
        conditions=conditions.parse_source_conditions(headers),
        range=found,
        md5=md5,
        crc64=crc64,
        tag_option=_tag_option(headers),
        properties=_flag(headers, "x-ms-copy-source-blob-properties", default=True),
        bearer=bearer,
    )


def _tag_option(headers: Mapping[str, str]) -> TagOption:
    """COPY and tags of one's own exclude each other (REST page "Copy Blob From URL")."""
    name = "x-ms-copy-source-tag-option"
    text = headers.get(name) or TagOption.REPLACE.value
    if text.upper() not in TagOption.__members__ or (text.upper() == "COPY" and headers.get(tags.HEADER)):
        raise _invalid(name)
    return TagOption[text.upper()]


def _flag(headers: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = (headers.get(name) or str(default)).lower()
    if text not in ("true", "false"):
        raise _invalid(name)
    return text == "true"


def _invalid(name: str) -> BlobError:
    """Without the value: a copy source may carry a signature."""
    return BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name=name)


# --- what the destination is made of ---


def copied_properties(
    source: BlobProperties,
    headers: Mapping[str, str],
    *,
    etag: str,
    now: int,
    access_tier: AccessTier | None,
    copy_tags: bool = False,
) -> BlobProperties:
    """The destination of Copy Blob and Copy Blob From URL: the source's properties and, unless the request has any of
    its own, its metadata; tags only from the request or by COPY. From an archived source it comes back from there as
    after Set Blob Tier. Raises BlobError as metadata and tags do, and for x-ms-rehydrate-priority."""
    own = metadata.from_headers(headers)
    priority = tiers.parse_priority(headers.get(tiers.PRIORITY_HEADER))
    coming = source.access_tier is AccessTier.ARCHIVE and access_tier not in (None, AccessTier.ARCHIVE)
    return BlobProperties(
        etag=etag,
        last_modified=now,
        created=now,
        content_type=source.content_type,
        content_encoding=source.content_encoding,
        content_language=source.content_language,
        content_disposition=source.content_disposition,
        cache_control=source.cache_control,
        content_md5=source.content_md5,
        metadata=own or source.metadata,
        tags=source.tags if copy_tags else tags.from_header(headers.get(tags.HEADER)),
        access_tier=AccessTier.ARCHIVE if coming else access_tier,
        tier_changed=now if access_tier is not None else None,
        rehydrate_to=access_tier if coming else None,
        rehydrate_priority=(priority or tiers.STANDARD) if coming else "",
    )


_OWN_HEADERS: Final = {
    "content_type": "x-ms-blob-content-type",
    "content_encoding": "x-ms-blob-content-encoding",
    "content_language": "x-ms-blob-content-language",
    "content_disposition": "x-ms-blob-content-disposition",
    "cache_control": "x-ms-blob-cache-control",
}


def uploaded_properties(
    source: BlobProperties, asked: SourceHeaders, headers: Mapping[str, str], base: BlobProperties
) -> BlobProperties:
    """The destination of Put Blob From URL. `base` is what Put Blob would make of the request's headers; the source
    fills in the content headers that the request leaves out, unless told not to, and tags by COPY. Metadata is the
    request's alone."""
    taken: dict[str, str] = {}
    if asked.properties:
        taken = {
            name: getattr(source, name)
            for name, header in _OWN_HEADERS.items()
            if not headers.get(header) and getattr(source, name)
        }
    tagged = source.tags if asked.tag_option is TagOption.COPY else base.tags
    return replace(base, tags=tagged, **taken)  # type: ignore[arg-type]


def check_archived(source: BlobProperties, access_tier: AccessTier | None, now: int) -> None:
    """An archived source can only be copied to an online tier that the request names, which rehydrates it (REST page
    "Copy Blob", "Copying archived blobs"). Raises BlobError BlobArchived, BlobBeingRehydrated."""
    if access_tier is None or access_tier is AccessTier.ARCHIVE:
        tiers.check_online(source, now)


# --- pending copies ---


def observed(properties: BlobProperties, now: int) -> BlobProperties:
    """The properties as they are at `now`: a pending copy that has been silent for too long has failed."""
    copy = properties.copy
    if copy is None or copy.status is not CopyStatus.PENDING:
        return properties
    if now - properties.last_modified <= limits.copy_silence_seconds_max:
        return properties
    failed = replace(copy, status=CopyStatus.FAILED, completed=properties.last_modified, description=INTERRUPTED)
    return replace(properties, copy=failed)


def is_pending(properties: BlobProperties, now: int) -> bool:
    """Whether a copy to this blob is under way."""
    if properties.copy is None:
        return False
    copy = observed(properties, now).copy
    return copy is not None and copy.status is CopyStatus.PENDING


def check_no_pending(current: BlobState | None, now: int) -> None:
    """For everything that writes to a blob. Raises BlobError 409 PendingCopyOperation."""
    if current is not None and is_pending(current.properties, now):
        raise BlobError(ErrorCode.PENDING_COPY_OPERATION)


def progressed(current: BlobState | None, copy_id: str, bytes_copied: int, now: int) -> BlobProperties | None:
    """The destination with progress written down; None when this copy is not, or no longer, the pending one."""
    copy = _own(current, copy_id)
    if current is None or copy is None:
        return None
    return replace(current.properties, last_modified=now, copy=replace(copy, bytes_copied=bytes_copied))


def ended(current: BlobState | None, copy_id: str, status: CopyStatus, description: str, now: int) -> BlobProperties:
    """The destination of a copy that failed or was aborted; it stays empty. Raises BlobError NoPendingCopyOperation
    when this copy is not, or no longer, the pending one."""
    copy = _own(current, copy_id)
    if current is None or copy is None:
        raise BlobError(ErrorCode.NO_PENDING_COPY_OPERATION)
    done = replace(copy, status=status, completed=now, description=description)
    return replace(current.properties, last_modified=now, copy=done)


def completed(current: BlobState | None, copy_id: str, etag: str, now: int) -> BlobProperties:
    """The destination once the bytes are there: a new version. Raises BlobError NoPendingCopyOperation as `ended`."""
    copy = _own(current, copy_id)
    if current is None or copy is None:
        raise BlobError(ErrorCode.NO_PENDING_COPY_OPERATION)
    done = replace(copy, status=CopyStatus.SUCCESS, bytes_copied=copy.bytes_total, completed=now)
    return replace(current.properties, etag=etag, last_modified=now, copy=done)


def aborted(current: BlobState, copy_id: str, now: int) -> BlobProperties:
    """Abort Copy Blob. Raises BlobError NoPendingCopyOperation, CopyIdMismatch."""
    copy = observed(current.properties, now).copy
    if copy is None or copy.status is not CopyStatus.PENDING:
        raise BlobError(ErrorCode.NO_PENDING_COPY_OPERATION)
    if copy.copy_id != copy_id:
        raise BlobError(ErrorCode.COPY_ID_MISMATCH)
    return ended(current, copy_id, CopyStatus.ABORTED, "", now)


def _own(current: BlobState | None, copy_id: str) -> CopyState | None:
    copy = current.properties.copy if current is not None else None
    return copy if copy is not None and copy.copy_id == copy_id and copy.status is CopyStatus.PENDING else None
