"""What the cloud is to have of a blob, what it has, and how they differ. Pure.

With the user's metadata go entries of ours, which a restore and the next upload need:

    blobedge_etag      our ETag of the version
    blobedge_modified  its Last-Modified here, ISO 8601
    blobedge_node      who sent it: NAME/INSTANCE (identity.py); NAME alone of versions before there were instances
    blobedge_check     a hash over all of it: content, properties, metadata, the entries above and below
    blobedge_extras    a hash of tags and tier, which change no ETag; only where there are any
    blobedge_md5       the MD5 of the bytes, where the stored Content-MD5 is another: a client's word (below)
    blobedge_before    the check of the state between two requests that describe a blob (describe.py)

A version in the cloud whose `blobedge_check` is right and whose node is ours is our own upload, untouched by anybody
since: so an upload whose answer was lost, or that a crash forgot, is neither sent again nor taken for somebody
else's change. Azure takes 8 KiB of metadata (names and values). When the user's and ours do not fit, ours stay away,
all of them: user data is never shortened, and the blob is protected all the same. A restore then has the cloud's own
Last-Modified, and a forgotten upload of it counts as a conflict. Entries of the user's with our names are
replaced: they are left over from a restore with another tool.

The stored Content-MD5 of a blob is not always that of its bytes: Azure keeps what a client says in Put Block List and
in Set Blob Properties unseen, and so do we, here and there. So whoever compares bytes (a recall, an eviction, a
reconciliation) takes `Seen.md5`, or `content_md5` of a listing's metadata, and never the stored value alone.
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
EXTRAS: Final = "blobedge_extras"
MD5: Final = "blobedge_md5"
BEFORE: Final = "blobedge_before"
OURS: Final = (ETAG, MODIFIED, NODE, CHECK, EXTRAS, MD5, BEFORE)
_UNCHECKED: Final = frozenset({CHECK, BEFORE})  # a hash cannot be over itself
_NOT_COMPARED: Final = frozenset({NODE, CHECK, BEFORE})  # who sent a version, and how, makes it no other
METADATA_BYTES_MAX: Final = 8192  # REST page "Setting and retrieving properties and metadata"
DEFAULT_TYPE: Final = "application/octet-stream"  # what Azure stores for none
BLOCK_BLOB: Final = "BlockBlob"
_CHECK_BYTES: Final = 16
_EXTRAS_BYTES: Final = 8


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

    def check(self, tags_count: int = 0) -> str:
        """The hash for blobedge_check: over everything but itself, blobedge_before and the tags, whose change is none
        of the version. `tags_count`: as versions before this one counted them in."""
        md5 = None if self.md5 is None else self.md5.hex()
        rest = [pair for pair in self.metadata if pair[0] not in _UNCHECKED]
        text = json.dumps([
            self.size, md5, self.content_type, self.content_encoding, self.content_language,
            self.content_disposition, self.cache_control, rest, tags_count, self.blob_type,
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

    @property
    def intact(self) -> bool:
        """Whether this is an upload of ours, of whichever node, that nobody has touched since."""
        check = self.facts.check()
        said = self.ours(CHECK)
        if check in (said, self.ours(BEFORE)):
            return True
        return bool(self.facts.tags_count) and said == self.facts.check(self.facts.tags_count)

    @property
    def md5(self) -> bytes | None:
        """The MD5 of the bytes as far as it is known: ours where we left one, else the stored Content-MD5."""
        entry = self.ours(MD5)
        return content_md5(self.facts.md5, entry if entry and self.intact else "")

    def written_by(self, node: str) -> bool:
        """Whether this is an upload of the node that nobody has touched since. `node`: NAME/INSTANCE; what an older
        version of this program sent under the bare NAME counts as well."""
        return self.ours(NODE) in (node, node.partition("/")[0]) and self.intact


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to send, and the facts that must be found afterwards. `metadata` keeps the user's case of names."""

    facts: Facts
    metadata: Mapping[str, str]
    tags: Mapping[str, str]
    tier: str  # "": the account's default


def wanted(
    size: int, md5: bytes, properties: BlobProperties, tier: str, node: str, before: Facts | None = None
) -> Wanted:
    """What the cloud is to have of a version. `md5`: of the bytes. `tier`: of the rule; "" takes the blob's own, if it
    was given one. `before`: what the cloud has, if that is to be described anew: then with blobedge_before."""
    users = {name: value for name, value in properties.metadata.items() if name.lower() not in OURS}
    tier = tier or (properties.access_tier.value if properties.access_tier else "")
    stored = properties.content_md5 or md5
    ours = {ETAG: properties.etag, MODIFIED: _iso(properties.last_modified), NODE: node}
    if extras := _extras(properties.tags, tier):
        ours[EXTRAS] = extras
    if stored != md5:
        ours[MD5] = md5.hex()
    facts = Facts(
        size,
        stored,
        properties.content_type or DEFAULT_TYPE,
        properties.content_encoding,
        properties.content_language,
        properties.content_disposition,
        properties.cache_control,
        sorted_metadata(users | ours),
        len(properties.tags),
    )
    metadata = users | ours | {CHECK: facts.check()}
    if before is not None:
        between = replace(before, metadata=facts.metadata, tags_count=facts.tags_count)
        metadata |= {} if between == facts else {BEFORE: between.check()}
    if metadata_bytes(metadata) > METADATA_BYTES_MAX:
        metadata, facts = users, replace(facts, md5=md5)  # no entry says another one than the stored
    return Wanted(replace(facts, metadata=sorted_metadata(metadata)), metadata, dict(properties.tags), tier)


def difference(want: Wanted, seen: Seen) -> str:
    """The first thing that the cloud has otherwise than it was sent, "" when it has all of it, whoever sent it. Tags:
    their number, and the hash that we left, as reading them takes another request. A tier that a lifecycle policy may
    have moved since is not compared."""
    if want.facts == seen.facts:
        return ""
    here, there = _compared(want.facts), _compared(seen.facts)
    if here == there:
        return "" if CHECK not in want.metadata or seen.intact else CHECK
    pairs = ((name, getattr(here, name), getattr(there, name)) for name in Facts.__slots__)
    return next(name for name, mine, theirs in pairs if mine != theirs)


def content_md5(stored: bytes | None, entry: str) -> bytes | None:
    """The MD5 of a blob's bytes: what our entry blobedge_md5 says, "" for none, else the stored Content-MD5."""
    try:
        return bytes.fromhex(entry) or stored
    except ValueError:
        return stored


def _compared(facts: Facts) -> Facts:
    return replace(facts, metadata=tuple(pair for pair in facts.metadata if pair[0] not in _NOT_COMPARED))


def _extras(tags: Mapping[str, str], tier: str) -> str:
    """What tells tags and tier apart, "" for none of either."""
    text = json.dumps([sorted(tags.items()), tier])
    return hashlib.shake_256(text.encode()).hexdigest(_EXTRAS_BYTES) if tags or tier else ""


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def sorted_metadata(metadata: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """As Facts hold it."""
    return tuple(sorted((name.lower(), value.strip()) for name, value in metadata.items()))


def metadata_bytes(metadata: Mapping[str, str]) -> int:
    """How Azure counts it: names and values."""
    return sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())
