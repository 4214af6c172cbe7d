"""Access tiers of a block blob: what Set Blob Tier leads to, and when a blob comes back from Archive.

Azure shows a blob that leaves Archive as archived, with x-ms-archive-status, until its bytes are back (REST page "Set
Blob Tier", recording of Copy Blob with a rehydrate priority). Here the bytes never left, but clients wait for the
states, so the states are kept: a rehydration takes a fixed time, and its end follows from the clock as a lease's does.
No timer, nothing to resume after a restart. Every reader of a tier goes through settled().
"""

from dataclasses import dataclass, replace
from typing import Final

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import AccessTier, BlobProperties

STANDARD: Final = "Standard"
HIGH: Final = "High"
_SECONDS: Final = {STANDARD: limits.rehydrate_seconds_standard, HIGH: limits.rehydrate_seconds_high}
PRIORITY_HEADER: Final = "x-ms-rehydrate-priority"


def parse_priority(text: str | None) -> str | None:
    """x-ms-rehydrate-priority, None when it is absent. Raises BlobError InvalidHeaderValue."""
    if not text:
        return None
    priority = text.capitalize()
    if priority not in _SECONDS:
        raise BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name=PRIORITY_HEADER, header_value=text)
    return priority


def settled(properties: BlobProperties, now: int) -> BlobProperties:
    """The properties as they are at `now`: with the new tier once a rehydration is over."""
    if properties.rehydrate_to is None:
        return properties
    seconds = _SECONDS.get(properties.rehydrate_priority, limits.rehydrate_seconds_standard)
    if now < (properties.tier_changed or 0) + seconds:
        return properties
    return replace(properties, access_tier=properties.rehydrate_to, rehydrate_to=None, rehydrate_priority="")


def check_online(properties: BlobProperties, now: int) -> None:
    """Let an operation that needs the content, or changes the blob, go on. Raises BlobError 409 BlobArchived or
    BlobBeingRehydrated."""
    if properties.access_tier is not AccessTier.ARCHIVE:
        return
    current = settled(properties, now)
    if current.access_tier is AccessTier.ARCHIVE:
        coming = current.rehydrate_to is not None
        raise BlobError(ErrorCode.BLOB_BEING_REHYDRATED if coming else ErrorCode.BLOB_ARCHIVED)


@dataclass(frozen=True, slots=True)
class TierChange:
    """The properties that Set Blob Tier leads to, and its status: 202 when the blob has to come back first."""

    properties: BlobProperties
    status: int


def change_tier(properties: BlobProperties, tier: AccessTier, priority: str | None, now: int) -> TierChange:
    """Set Blob Tier at `now`. ETag and Last-Modified stay (recording).

    While a blob comes back, only its priority may be raised. Raises BlobError 409 BlobBeingRehydrated.
    """
    current = settled(properties, now)
    if current.rehydrate_to is not None:
        if tier is not current.rehydrate_to or priority != HIGH:
            raise BlobError(ErrorCode.BLOB_BEING_REHYDRATED)
        return TierChange(replace(current, rehydrate_priority=HIGH), 202)
    if current.access_tier is AccessTier.ARCHIVE and tier is not AccessTier.ARCHIVE:
        coming = replace(current, rehydrate_to=tier, rehydrate_priority=priority or STANDARD, tier_changed=now)
        return TierChange(coming, 202)
    if current.access_tier is tier:
        return TierChange(current, 200)
    return TierChange(replace(current, access_tier=tier, tier_changed=now), 200)
