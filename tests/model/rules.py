"""The rules that many operations share, for the model: conditions, leases, and what a blob is.

REST pages "Specifying conditional headers for Blob service operations", "Lease Blob" (the table of use attempts), "Blob
service error codes"; recorded answers of the service where they are silent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ANY = -1  # the wildcard as an ETag


class Refused(Exception):
    """The request fails with one of these statuses and x-ms-error-codes, and changes nothing. There is a choice where
    two reasons apply and no reference tells which one is named."""

    def __init__(self, *allowed: tuple[int, str]) -> None:
        super().__init__(allowed)
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class Conditions:
    """Conditional headers. For the two dates it is only told whether they hold."""

    if_match: int | None = None
    if_none_match: int | None = None
    modified: bool | None = None
    unmodified: bool | None = None
    if_tag: tuple[str, str] | None = None  # the tag (name, value) is there

    def check_read(self, blob: Blob) -> None:
        """Reads: If-Match, If-Unmodified-Since, tags, and one of If-None-Match and If-Modified-Since have to hold."""
        if self.if_none_match == ANY:
            raise Refused((400, "UnsatisfiableCondition"))
        if self.if_match not in (None, ANY, blob.etag) or self.unmodified is False:
            raise Refused((412, "ConditionNotMet"))
        new = None if self.if_none_match is None else self.if_none_match != blob.etag
        if any(v is False for v in (new, self.modified)) and not (new or self.modified):
            raise Refused((304, "ConditionNotMet"))
        self._check_tag(blob)

    def check_write(self, blob: Blob, *, creates: bool = False, leased: bool = False) -> None:
        """Writes take If-Match with If-Unmodified-Since or If-None-Match with If-Modified-Since; the ETag decides.

        `creates`: the operation makes a blob, and may be told not to replace one by If-None-Match: * (409), which a
        request that holds the active lease (`leased`) may do all the same (recorded).
        """
        if self.if_none_match == ANY and creates and not leased:
            raise Refused((409, "BlobAlreadyExists"))
        if self.if_match is not None:
            holds = self.if_match in (ANY, blob.etag)
        elif self.if_none_match is not None:
            holds = self.if_none_match != blob.etag
        else:
            holds = self.modified is not False and self.unmodified is not False
        if not holds:
            raise Refused((412, "ConditionNotMet"))
        self._check_tag(blob)

    def check_combination(self) -> None:
        """Whatever the write is about, it must not have conditions that do not go together."""
        same = self.if_match is not None or self.unmodified is not None
        other = self.if_none_match is not None or self.modified is not None
        if same and other:
            raise Refused((400, "MultipleConditionHeadersNotSupported"))

    def cannot_hold(self) -> bool:
        """Whether no absent blob meets them."""
        return self.if_match is not None or self.if_tag is not None

    def _check_tag(self, blob: Blob) -> None:
        if self.if_tag is not None and blob.tags.get(self.if_tag[0]) != self.if_tag[1]:
            raise Refused((412, "ConditionNotMet"))


def absent(cond: Conditions) -> Refused:
    """The refusal of a request on a blob that has to be there."""
    return Refused((404, "BlobNotFound"), *[(412, "ConditionNotMet")] * cond.cannot_hold())


@dataclass(slots=True)
class Lease:
    """A lease; `state` is leased, breaking or broken. A blob without one is available."""

    id: str
    fixed: bool
    state: str = "leased"


@dataclass(frozen=True, slots=True)
class New:
    """What a request that makes a blob says of it."""

    content_type: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    tier: str = ""


@dataclass(slots=True)
class Blob:
    """A blob or a snapshot. `tier` is "" when it follows from the account's."""

    content: bytes
    etag: int
    content_type: str
    md5: bytes | None
    metadata: dict[str, str]
    tags: dict[str, str]
    tier: str
    blocks: list[tuple[str, bytes]]
    lease: Lease | None = None

    def check_lease(self, lease_id: str, *, write: bool) -> None:
        """Page "Lease Blob", table of use attempts. A read needs no id, but one that is given has to be right."""
        lease = self.lease
        if lease is None:
            check_no_lease(lease_id)
            return
        if lease_id and lease_id != lease.id:
            raise Refused((412, "LeaseIdMismatchWithBlobOperation"))
        if lease_id and lease.state == "broken":
            raise Refused((412, "LeaseLost"))
        if write and not lease_id and lease.state != "broken":
            raise Refused((412, "LeaseIdMissing"))

    def holds_lease(self, lease_id: str) -> bool:
        """Whether the id is that of the active lease."""
        return self.lease is not None and self.lease.state != "broken" and self.lease.id == lease_id

    def written(self) -> None:
        """A write to a blob whose lease was broken makes it available."""
        if self.lease is not None and self.lease.state == "broken":
            self.lease = None


def check_no_lease(lease_id: str) -> None:
    """There is no lease, so no id can be right."""
    if lease_id:
        raise Refused((412, "LeaseNotPresentWithBlobOperation"))
