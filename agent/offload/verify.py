"""What the cloud is to have of a blob, what it has, and how they differ. Pure.

With the user's metadata go four entries of ours, which a restore and the next upload need:

    blobedge_etag      our ETag of the version
    blobedge_modified  its Last-Modified here, ISO 8601
    blobedge_node      the node that sent it
    blobedge_check     a hash over all of it: content, properties, metadata, the entries above

A version in the cloud whose `blobedge_check` is right and whose node is ours is our own upload, untouched by anybody
since: so an upload whose answer was lost, or that a crash forgot, is neither sent again nor taken for somebody
else's change. Azure takes 8 KiB of metadata (names and values). When the user's and ours do not fit, ours stay away,
all of them: user data is never shortened, and the blob is protected all the same. A restore then has the cloud's own
Last-Modified, and a forgotten upload of it counts as a conflict. Entries of the user's with our names are
replaced: they are left over from a restore with another tool.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from dataplane.blobapi.model import BlobProperties

ETAG: Final = "blobedge_etag"
MODIFIED: Final = "blobedge_modified"
NODE: Final = "blobedge_node"
CHECK: Final = "blobedge_check"
OURS: Final = (ETAG, MODIFIED, NODE, CHECK)
METADATA_BYTES_MAX: Final = 8192  # REST page "Setting and retrieving properties and metadata"
DEFAULT_TYPE: Final = "application/octet-stream"  # what Azure stores for none
BLOCK_BLOB: Final = "BlockBlob"
_CHECK_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Facts:
    """A blob as far as it is compared. Names of metadata are in lower case, as headers have none; values are whole."""

    size: int
    md5: bytes | None
    content_type: str = DEFAULT_TYPE
    content_encoding: str = ""
    content_language: str = ""
    content_disposition: str = ""
    cache_control: str = ""
    metadata: tuple[tuple[str, str], ...] = ()  # sorted
    tags_count: int = 0
    blob_type: str = BLOCK_BLOB

    def check(self) -> str:
        """The hash for blobedge_check: over everything but itself."""
        md5 = None if self.md5 is None else self.md5.hex()
        rest = [pair for pair in self.metadata if pair[0] != CHECK]
        text = json.dumps([
            self.size, md5, self.content_type, self.content_encoding, self.content_language,
            self.content_disposition, self.cache_control, rest, self.tags_count, self.blob_type,
        ])  # fmt: skip
        return hashlib.shake_256(text.encode()).hexdigest(_CHECK_BYTES)


@dataclass(frozen=True, slots=True)
class Seen:
    """A version in the cloud: the cloud's ETag of it, without quotes, and its facts."""

    etag: str
    facts: Facts

    def ours(self, name: str) -> str:
        """One of our metadata entries, "" without it."""
        return dict(self.facts.metadata).get(name, "")

    def written_by(self, node: str) -> bool:
        """Whether this is an upload of the node that nobody has touched since."""
        return self.ours(NODE) == node and self.ours(CHECK) == self.facts.check()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to send, and the facts that must be found afterwards. `metadata` keeps the user's case of names."""

    facts: Facts
    metadata: Mapping[str, str]
    tags: Mapping[str, str]
    tier: str  # "": the account's default


def wanted(size: int, md5: bytes, properties: BlobProperties, tier: str, node: str) -> Wanted:
    """What the cloud is to have of a version. `tier`: of the rule; "" takes the blob's own, if it was given one."""
    users = {name: value for name, value in properties.metadata.items() if name.lower() not in OURS}
    modified = datetime.fromtimestamp(properties.last_modified, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ours = {ETAG: properties.etag, MODIFIED: modified, NODE: node}
    facts = Facts(
        size,
        md5,
        properties.content_type or DEFAULT_TYPE,
        properties.content_encoding,
        properties.content_language,
        properties.content_disposition,
        properties.cache_control,
        sorted_metadata(users | ours),
        len(properties.tags),
    )
    metadata = users | ours | {CHECK: facts.check()}
    if metadata_bytes(metadata) > METADATA_BYTES_MAX:
        metadata = users
    own_tier = properties.access_tier.value if properties.access_tier else ""
    return Wanted(replace(facts, metadata=sorted_metadata(metadata)), metadata, dict(properties.tags), tier or own_tier)


def difference(want: Wanted, seen: Seen) -> str:
    """The first thing that the cloud has otherwise than it was sent, "" when it has all of it. Tags: their number only,
    as reading them takes another request. A tier that a lifecycle policy may have moved since is not compared."""
    if want.facts == seen.facts:
        return ""
    pairs = ((name, getattr(want.facts, name), getattr(seen.facts, name)) for name in Facts.__slots__)
    return next(name for name, here, there in pairs if here != there)


def sorted_metadata(metadata: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """As Facts hold it."""
    return tuple(sorted((name.lower(), value.strip()) for name, value in metadata.items()))


def metadata_bytes(metadata: Mapping[str, str]) -> int:
    """How Azure counts it: names and values."""
    return sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())
