"""What the operations share that make a blob or replace one: its properties from headers, and whether they may.

REST pages "Put Blob" and "Put Block List"; the order of the checks (lease, conditions, permission to overwrite) is that
of the recordings.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from dataplane.blobapi import conditions, leases, metadata, tags
from dataplane.blobapi.conditions import ConditionalHeaders
from dataplane.blobapi.copysource import check_no_pending
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.leases import Use
from dataplane.blobapi.model import AccessTier, BlobProperties, BlobState
from dataplane.server.call import Call
from dataplane.server.handlers.shared import blob_ref, existing_container, lease_id, tags_match

DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"
TIER_HEADER: Final = "x-ms-access-tier"

Decide = Callable[[BlobState | None], BlobProperties]
_TIERS: Final = {tier.value.lower(): tier for tier in AccessTier}


def parse_tier(value: str | None) -> AccessTier | None:
    """x-ms-access-tier; None when it is absent. Raises BlobError InvalidHeaderValue for no tier of a block blob."""
    if not value:
        return None
    tier = _TIERS.get(value.lower())
    if tier is None:
        raise BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name=TIER_HEADER, header_value=value)
    return tier


@dataclass(frozen=True, slots=True)
class NewBlob:
    """What the headers of a write say about the blob that it makes."""

    content_type: str
    content_encoding: str
    content_language: str
    content_disposition: str
    cache_control: str
    metadata: Mapping[str, str]
    tags: Mapping[str, str]
    access_tier: AccessTier | None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str], *, plain: bool) -> "NewBlob":
        """Read them. `plain` lets Content-Type and its like describe the blob where x-ms-blob-* does not (Put Blob; the
        body of Put Block List is a document of its own). Raises BlobError as metadata, tags and parse_tier do."""

        def value(name: str) -> str:
            return headers.get(f"x-ms-blob-{name}") or (headers.get(name, "") if plain else "")

        return cls(
            content_type=value("content-type") or DEFAULT_CONTENT_TYPE,
            content_encoding=value("content-encoding"),
            content_language=value("content-language"),
            content_disposition=headers.get("x-ms-blob-content-disposition", ""),
            cache_control=value("cache-control"),
            metadata=metadata.from_headers(headers),
            tags=tags.from_header(headers.get(tags.HEADER)),
            access_tier=parse_tier(headers.get(TIER_HEADER)),
        )

    def properties(self, etag: str, now: int, created: int, content_md5: bytes | None) -> BlobProperties:
        """The blob's properties when it is written at `now`."""
        return BlobProperties(
            etag=etag,
            last_modified=now,
            created=created,
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            content_language=self.content_language,
            content_disposition=self.content_disposition,
            cache_control=self.cache_control,
            content_md5=content_md5,
            metadata=self.metadata,
            tags=self.tags,
            access_tier=self.access_tier,
            tier_changed=now if self.access_tier is not None else None,
        )


class Overwrite:
    """The request's own say on whether it may make or replace its blob."""

    def __init__(self, call: Call) -> None:
        """Read conditions and lease id. Raises BlobError InvalidHeaderValue, MultipleConditionHeadersNotSupported."""
        self._call = call
        self._conditions: ConditionalHeaders = conditions.parse_conditions(call.request.headers)
        conditions.check_combination(self._conditions)
        self._lease_id = lease_id(call)

    def check(self, current: BlobState | None) -> None:
        """Let the write go on over the blob as it is. Raises BlobError: those of leases, ConditionNotMet,
        BlobAlreadyExists, UnauthorizedBlobOverwrite, PendingCopyOperation."""
        if current is None:
            leases.check_blob_use(None, self._lease_id, 0, 0, Use.WRITE)
            conditions.check_absent(self._conditions)
            return
        now, properties = self._call.node.now(), current.properties
        check_no_pending(current, now)
        leases.check_blob_use(current.lease, self._lease_id, now, properties.last_modified, Use.WRITE)
        held = leases.holds(current.lease, self._lease_id, now, properties.last_modified)
        conditions.check_create(
            self._conditions, properties.etag, properties.last_modified, properties.tags, tags_match, lease_held=held
        )
        self._call.caller.require_overwrite(self._call.spec)

    async def check_early(self) -> None:
        """The same before a long body is read; the store asks again under the lock. Raises also ContainerNotFound."""
        current = await self._call.read(self._call.store.stat_blob, blob_ref(self._call))
        if current is None:
            await existing_container(self._call)
        self.check(current)
