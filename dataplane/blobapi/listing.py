"""The documents of List Blobs, List Containers and Find Blobs by Tags, and their markers.

Element order, which elements are empty and which are left out, and what came with which x-ms-version follow recorded
answers of the service from 2018-11-09 to 2026; the REST pages "List Blobs" and "List Containers" differ from it in
places. A page of 5,000 blobs must not hold a worker for long, so what is the same for many blobs (content headers,
dates, the tier of most) is rendered once per page, and the rest is one f-string per blob.

A marker is opaque to clients: base64 of a version byte and the first name of the next page. It is not signed; whatever
name one carries, the listing that it continues shows only what its own prefix and authorisation allow.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dataplane.blobapi import limits, tags, xmlcodec
from dataplane.blobapi.copysource import observed
from dataplane.blobapi.dates import http_date
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.leases import lease_headers
from dataplane.blobapi.model import (
    AccessTier,
    BlobProperties,
    BlobState,
    ContainerState,
    CopyState,
    Lease,
    PublicAccess,
)
from dataplane.blobapi.tiers import settled
from dataplane.blobapi.xmlcodec import name_node, node

_CRC64_SINCE: Final = "2019-02-02"
_ENCRYPTION_SCOPE_SINCE: Final = "2019-02-02"
_TAGS_SINCE: Final = "2019-12-12"  # TagCount, OrMetadata, tiers of snapshots
_IMMUTABLE_VERSIONS_SINCE: Final = "2020-10-02"
_MARKER_VERSION: Final = b"\x01"
_DEFAULT_TYPE: Final = "application/octet-stream"
_NO_LEASE: Final = "<LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState>"
_LEASE_NODES: Final = {
    "x-ms-lease-status": "LeaseStatus",
    "x-ms-lease-state": "LeaseState",
    "x-ms-lease-duration": "LeaseDuration",
}
_INFERRED_TIER: Final = "<AccessTier>Hot</AccessTier><AccessTierInferred>true</AccessTierInferred>"


@dataclass(frozen=True, slots=True)
class Include:
    """The datasets of `include` that change what is rendered."""

    metadata: bool = False
    tags: bool = False
    copy: bool = False


@dataclass(frozen=True, slots=True)
class PageHead:
    """What the head of a page repeats of the request. "" and None are left out. `endpoint` ends with a slash."""

    endpoint: str
    container: str = ""
    prefix: str = ""
    marker: str = ""
    max_results: int | None = None
    delimiter: str = ""


class BlobRenderer:
    """Renders the blobs of one page; what they have in common is computed once."""

    def __init__(self, include: Include, version: str, now: int) -> None:
        self._include = include
        self._now = now
        self._tagged = version >= _TAGS_SINCE
        self._crc64 = "<Content-CRC64 />" if version >= _CRC64_SINCE else ""
        self._end = "<OrMetadata /></Blob>" if self._tagged else "</Blob>"
        self._contents: dict[tuple[str, str, str, str, str], tuple[str, str]] = {}

    def blob(self, state: BlobState) -> str:
        """One Blob element."""
        properties = state.properties
        before_md5, after_md5 = self._content(properties)
        md5 = properties.content_md5
        md5_node = "<Content-MD5 />" if md5 is None else f"<Content-MD5>{_base64(md5)}</Content-MD5>"
        if state.snapshot:
            head = f"<Blob>{name_node('Name', state.name)}<Snapshot>{state.snapshot}</Snapshot>"
            situation = _tier(settled(properties, self._now)) if self._tagged else ""
        else:
            head = f"<Blob>{name_node('Name', state.name)}"
            situation = _tier(settled(properties, self._now)) + _lease(state.lease, self._now, properties.last_modified)
        return (
            f"{head}<Properties><Creation-Time>{http_date(properties.created)}</Creation-Time>"
            f"<Last-Modified>{http_date(properties.last_modified)}</Last-Modified><Etag>{properties.etag}</Etag>"
            f"<Content-Length>{state.size}</Content-Length>{before_md5}{md5_node}{after_md5}"
            f"<BlobType>BlockBlob</BlobType>{situation}{self._rest(properties)}{self._end}"
        )

    def uncommitted(self, name: str) -> str:
        """A blob that has uncommitted blocks only, with the few properties that such a one has (recorded)."""
        return (
            f"<Blob>{name_node('Name', name)}<Properties><Content-Length>0</Content-Length>"
            f"<BlobType>BlockBlob</BlobType>{_INFERRED_TIER}{_NO_LEASE}<ServerEncrypted>false</ServerEncrypted>"
            f"</Properties>{self._end}"
        )

    def prefix(self, name: str) -> str:
        """A BlobPrefix element."""
        return f"<BlobPrefix>{name_node('Name', name)}</BlobPrefix>"

    def _content(self, properties: BlobProperties) -> tuple[str, str]:
        """The content headers before and after Content-MD5."""
        key = (
            properties.content_type,
            properties.content_encoding,
            properties.content_language,
            properties.cache_control,
            properties.content_disposition,
        )
        found = self._contents.get(key)
        if found is None:
            found = (
                node("Content-Type", key[0] or _DEFAULT_TYPE)
                + node("Content-Encoding", key[1])
                + node("Content-Language", key[2])
                + self._crc64,
                node("Cache-Control", key[3]) + node("Content-Disposition", key[4]),
            )
            self._contents[key] = found
        return found

    def _rest(self, properties: BlobProperties) -> str:
        """From the copy state to the tags."""
        include = self._include
        text = "<ServerEncrypted>true</ServerEncrypted>"
        if include.copy and (copy := observed(properties, self._now).copy) is not None:
            text = _copy(copy) + text
        if properties.tags and self._tagged:
            text += f"<TagCount>{len(properties.tags)}</TagCount>"
        text += "</Properties>"
        if include.metadata:
            text += _metadata(properties.metadata)
        if include.tags and properties.tags:
            text += f"<Tags>{tags.tag_set(properties.tags)}</Tags>"
        return text


def render_blobs(head: PageHead, blobs: Iterable[str], next_marker: str) -> bytes:
    """A page of List Blobs from the elements that a BlobRenderer made."""
    items = "".join(blobs)
    middle = f"<Blobs>{items}</Blobs>" if items else "<Blobs />"
    return xmlcodec.document((_page_head(head), middle, _page_tail(next_marker)))


def render_containers(
    head: PageHead,
    containers: Iterable[ContainerState],
    next_marker: str,
    *,
    metadata: bool,
    version: str,
    now: int,
) -> bytes:
    """A page of List Containers; `metadata` is include=metadata."""
    items = "".join(_container(state, metadata, version, now) for state in containers)
    middle = f"<Containers>{items}</Containers>" if items else "<Containers />"
    return xmlcodec.document((_page_head(head), middle, _page_tail(next_marker)))


def render_found(
    endpoint: str, where: str, blobs: Iterable[tuple[str, str, Mapping[str, str]]], next_marker: str
) -> bytes:
    """The answer of Find Blobs by Tags; `blobs` are container, name and those tags that the expression names."""
    items = "".join(
        f"<Blob>{name_node('Name', name)}{node('ContainerName', container)}<Tags>{tags.tag_set(found)}</Tags></Blob>"
        for container, name, found in blobs
    )
    middle = f"<Blobs>{items}</Blobs>" if items else "<Blobs />"
    return xmlcodec.document(
        (_page_head(PageHead(endpoint)), node("Where", where), middle, _page_tail(next_marker)),
    )


def _page_head(head: PageHead) -> str:
    container = f' ContainerName="{xmlcodec.escape_attribute(head.container)}"' if head.container else ""
    text = f'<EnumerationResults ServiceEndpoint="{xmlcodec.escape_attribute(head.endpoint)}"{container}>'
    if head.prefix:
        text += name_node("Prefix", head.prefix)
    if head.marker:
        text += node("Marker", head.marker)
    if head.max_results is not None:
        text += f"<MaxResults>{head.max_results}</MaxResults>"
    if head.delimiter:
        text += name_node("Delimiter", head.delimiter)
    return text


def _page_tail(next_marker: str) -> str:
    return node("NextMarker", next_marker) + "</EnumerationResults>"


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def _metadata(metadata: Mapping[str, str]) -> str:
    if not metadata:
        return "<Metadata />"
    return f"<Metadata>{''.join(node(name, value) for name, value in metadata.items())}</Metadata>"


def _tier(properties: BlobProperties) -> str:
    tier = properties.access_tier
    if tier is None:
        return _INFERRED_TIER
    text = f"<AccessTier>{tier.value}</AccessTier>"
    if tier is AccessTier.ARCHIVE and properties.rehydrate_to is not None:
        text += f"<ArchiveStatus>rehydrate-pending-to-{properties.rehydrate_to.value.lower()}</ArchiveStatus>"
        text += node("RehydratePriority", properties.rehydrate_priority or "Standard")
    if properties.tier_changed is not None:
        text += f"<AccessTierChangeTime>{http_date(properties.tier_changed)}</AccessTierChangeTime>"
    return text


def _lease(lease: Lease | None, now: int, last_modified: int = 0) -> str:
    if lease is None:
        return _NO_LEASE
    headers = lease_headers(lease, now, last_modified)
    return "".join(node(_LEASE_NODES[name], value) for name, value in headers)


def _copy(copy: CopyState) -> str:
    completed = node("CopyCompletionTime", http_date(copy.completed)) if copy.completed is not None else ""
    description = node("CopyStatusDescription", copy.description) if copy.description else ""
    return (
        f"{node('CopyId', copy.copy_id)}{node('CopySource', copy.source)}{node('CopyStatus', copy.status.value)}"
        f"<CopyProgress>{copy.bytes_copied}/{copy.bytes_total}</CopyProgress>{completed}{description}"
    )


def _container(state: ContainerState, metadata: bool, version: str, now: int) -> str:
    properties = state.properties
    access = properties.public_access
    public = "" if access is PublicAccess.NONE else f"<PublicAccess>{access.value}</PublicAccess>"
    scope = ""
    if version >= _ENCRYPTION_SCOPE_SINCE:
        scope = (
            "<DefaultEncryptionScope>$account-encryption-key</DefaultEncryptionScope>"
            "<DenyEncryptionScopeOverride>false</DenyEncryptionScopeOverride>"
        )
    immutable = "<HasImmutabilityPolicy>false</HasImmutabilityPolicy><HasLegalHold>false</HasLegalHold>"
    if version >= _IMMUTABLE_VERSIONS_SINCE:
        immutable += "<ImmutableStorageWithVersioningEnabled>false</ImmutableStorageWithVersioningEnabled>"
    return (
        f"<Container>{node('Name', state.name)}"
        f"<Properties><Last-Modified>{http_date(properties.last_modified)}</Last-Modified>"
        f'<Etag>"{properties.etag}"</Etag>'
        f"{_lease(properties.lease, now)}{public}{scope}{immutable}</Properties>"
        f"{_metadata(properties.metadata) if metadata else ''}</Container>"
    )


def encode_marker(*names: str) -> str:
    """The NextMarker for a page that starts at a name; Find Blobs gives two, container and blob. "" for no name."""
    if not any(names):
        return ""
    data = _MARKER_VERSION + "\0".join(names).encode("utf-8")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_marker(marker: str, count: int = 1) -> tuple[str, ...]:
    """The names of a marker; "" for each when there is none.

    Raises BlobError InvalidQueryParameterValue for anything that `encode_marker` does not write.
    """
    if not marker:
        return ("",) * count
    try:
        data = base64.b64decode(marker.encode("ascii") + b"=" * (-len(marker) % 4), altchars=b"-_", validate=True)
        names = tuple(data.removeprefix(_MARKER_VERSION).decode("utf-8").split("\0"))
    except ValueError:  # binascii.Error and UnicodeError are ones
        data, names = b"", ()
    if not data.startswith(_MARKER_VERSION) or len(names) != count or encode_marker(*names) != marker:
        raise BlobError(ErrorCode.INVALID_QUERY_PARAMETER_VALUE, query_name="marker", query_value=marker[: limits.KIB])
    return names
