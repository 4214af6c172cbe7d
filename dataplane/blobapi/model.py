"""What a blob, a container and a lease are: the values that handlers decide on and the store keeps.

All are frozen: a change is a new value made with dataclasses.replace, so a decision can never leave half an update.
Times are whole seconds since the epoch unless a name says otherwise. ETags are held without their quotes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final

EMPTY: Final[Mapping[str, str]] = MappingProxyType({})


def _empty() -> Mapping[str, str]:
    return EMPTY


class AccessTier(Enum):
    """Tiers of a block blob (REST page "Set Blob Tier")."""

    HOT = "Hot"
    COOL = "Cool"
    COLD = "Cold"
    ARCHIVE = "Archive"


class PublicAccess(Enum):
    """Anonymous read of a container (REST page "Set Container ACL")."""

    NONE = ""
    BLOB = "blob"
    CONTAINER = "container"


class CopyStatus(Enum):
    """x-ms-copy-status."""

    PENDING = "pending"
    SUCCESS = "success"
    ABORTED = "aborted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class CopyState:
    """The last Copy Blob that had this blob as its destination."""

    copy_id: str
    source: str
    status: CopyStatus
    bytes_copied: int
    bytes_total: int
    completed: int | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class Remote:
    """Where the bytes of a blob are while only a stub stands here: `size` bytes with this MD5, in the cloud.

    `etag` is the cloud's of the version that was verified before the bytes went, `version` is ours of it: properties
    that were changed since have another. `mtime_ns` and `mode` are those of the file that comes back. A stub that has
    lost its record has a Remote without a container (LOST).
    """

    size: int
    md5: bytes
    etag: str
    container: str
    name: str
    version: str
    mtime_ns: int
    mode: int


#: Of a stub that says nothing any more: the file is there, and nobody knows what it stands for.
LOST: Final = Remote(0, b"", "", "", "", "", 0, 0)


@dataclass(frozen=True, slots=True)
class BlobProperties:
    """Everything about a blob that its bytes do not say; one record on disk holds it.

    `block_list` names the stored list of committed blocks, "" for a blob that was not made by Put Block List.
    `foreign` marks a file that another writer put on the mount: its ETag comes from its stat. `remote` is set while the
    bytes are in the cloud and only a stub is here.
    """

    etag: str
    last_modified: int
    created: int
    content_type: str = ""
    content_encoding: str = ""
    content_language: str = ""
    content_disposition: str = ""
    cache_control: str = ""
    content_md5: bytes | None = None
    metadata: Mapping[str, str] = field(default_factory=_empty)
    tags: Mapping[str, str] = field(default_factory=_empty)
    access_tier: AccessTier | None = None  # None: inferred, Azure's default Hot
    tier_changed: int | None = None
    rehydrate_to: AccessTier | None = None  # set while an archived blob comes back
    rehydrate_priority: str = ""
    copy: CopyState | None = None
    block_list: str = ""
    foreign: bool = False
    remote: Remote | None = None  # set for a stub


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it was last changed; its state at a moment follows from it (dataplane.blobapi.leases).

    `duration` is in seconds, -1 for one without end. `expires` is when a fixed one runs out. `breaks` is when a lease
    that was asked to break is broken; `broken_etag` is the blob's ETag when it was broken at once. `modified_since`
    tells that the resource was written after the lease ran out or was broken, which ends it.
    """

    lease_id: str
    duration: int
    expires: int | None
    breaks: int | None = None
    released: bool = False
    modified_since: bool = False
    broken_etag: str = ""


@dataclass(slots=True)
class BlobState:
    """A blob at a moment: its properties, its size in bytes, wherever they are, its lease, and its snapshot.

    `snapshot` is the snapshot's id as on the wire, "" for the base blob. Nobody changes one; it is not frozen because
    each read makes one, and a frozen one takes three times as long to make.
    """

    name: str
    size: int
    properties: BlobProperties
    lease: Lease | None = None
    snapshot: str = ""
    has_snapshots: bool = False


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """A stored access policy (signed identifier). Absent fields are None: the SAS token has to give them."""

    policy_id: str
    start: str | None = None  # as written by the client, an ISO 8601 instant
    expiry: str | None = None
    permissions: str | None = None


@dataclass(frozen=True, slots=True)
class ContainerProperties:
    """What is kept of a container."""

    etag: str
    last_modified: int
    metadata: Mapping[str, str] = field(default_factory=_empty)
    public_access: PublicAccess = PublicAccess.NONE
    policies: tuple[AccessPolicy, ...] = ()
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class ContainerState:
    """A container at a moment. `read_only` ones are mapped onto a directory that may not be changed."""

    name: str
    properties: ContainerProperties
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a block list: its id as on the wire (base64) and its size in bytes."""

    block_id: str
    size: int
