"""A blob of the cloud as a stub here: with the ETag, the times and all properties that it had on the node that sent it.

What an upload left with the copy (verify.py) says what the blob was. A copy that somebody changed in the cloud since is
another version, and gets the cloud's own ETag and time: an ETag of ours must never stand for two contents.

A stub needs the MD5 of its bytes, by which a recall knows them again. A copy without one (of another program, sent in
blocks) is told and left alone.
"""

import time
from datetime import datetime
from typing import Final

from agent.offload.amounts import NANOSECONDS
from agent.offload.reconcile.listed import Entry, seconds_of
from agent.offload.verify import BLOCK_BLOB, ETAG, MODIFIED, OURS
from dataplane.blobapi.model import AccessTier, BlobProperties, ContainerProperties, Remote
from dataplane.store import trust
from dataplane.store.store import BlobRef, Store

MODE: Final = 0o644  # of a file that the service makes
_TIERS: Final = {each.value: each for each in AccessTier}


def properties_of(entry: Entry) -> BlobProperties | None:
    """What the stub is to say; None for a copy that no stub can stand for."""
    seen, facts = entry.seen, entry.facts
    if seen.md5 is None or facts.blob_type != BLOCK_BLOB:
        return None
    etag = _sent(entry) or entry.etag
    modified = modified_of(entry)
    return BlobProperties(
        etag=etag,
        last_modified=modified,
        created=min(seconds_of(entry.created) or modified, modified),
        content_type=facts.content_type,
        content_encoding=facts.content_encoding,
        content_language=facts.content_language,
        content_disposition=facts.content_disposition,
        cache_control=facts.cache_control,
        content_md5=facts.md5,
        metadata={name: value for name, value in entry.metadata.items() if name.lower() not in OURS},
        tags=dict(entry.tags),
        access_tier=_TIERS.get(entry.tier),
        remote=Remote(
            facts.size, seen.md5, entry.etag, entry.container, entry.name, etag, modified * NANOSECONDS, MODE
        ),
    )


def modified_of(entry: Entry) -> int:
    """The Last-Modified that a blob of this copy has here, in seconds since 1970."""
    here = _seconds(entry.seen.ours(MODIFIED)) if _sent(entry) else 0
    return here or seconds_of(entry.modified)


def container_properties(now: int) -> ContainerProperties:
    """Of a container that is made here for what comes back. `now`: ns since 1970."""
    return ContainerProperties(f"0x{now // 100:X}", now // NANOSECONDS)


def plant(store: Store, container: str, name: str, properties: BlobProperties) -> None:
    """Make the stub, and its container if there is none. Raises BlobError BlobAlreadyExists, NotEvictable,
    NameNotStorable, StoreError, and ValueError for properties that no record of ours may say."""
    trust.check_blob(properties)  # else it would be a stub that nobody believes
    if store.container(container) is None:
        store.run(store.create_container(container, container_properties(time.time_ns())))
    store.run(store.plant(BlobRef(container, name), properties))


def _sent(entry: Entry) -> str:
    """Our ETag of the version, "" when somebody changed the copy since, or others made it."""
    return entry.seen.ours(ETAG) if entry.seen.intact else ""


def _seconds(text: str) -> int:
    """blobedge_modified in seconds since 1970, 0 for what is none."""
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        return 0
