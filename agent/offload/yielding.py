"""cloud-wins: what somebody else did to a blob in the cloud becomes so here. Blocking: runs on a thread.

    they changed it   the blob here becomes a stub of their version: their content, properties, metadata and tags
    they deleted it   the blob here is deleted; its snapshots keep it, as they would for a client

Theirs is known before ours goes: its ETag, its size and its MD5, which is read out of its bytes when nobody left one;
and it is all of one version. Ours is replaced under its lock, and only while it is the version that lost. Whoever
writes here meanwhile, holds a lease, or has the file open for writing, is not overruled: the blob stays, and this is
tried again later. Clients see an overwrite: a new ETag, a new Last-Modified.
Rejected: fetching theirs whole first (it may never be read here, and a slow link would hold up the uploads).
"""

import functools
import hashlib
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from azure.storage.blob import BlobClient
from azure.storage.blob import BlobProperties as TheirProperties

from agent.offload.cloud import Cloud, seen_of
from agent.offload.describe import condition
from agent.offload.failures import found
from agent.offload.transport import Errand
from agent.offload.upload import Target
from agent.offload.verify import OURS, Seen
from dataplane.blobapi.etag import RANDOM_BITS, new_etag
from dataplane.blobapi.leases import LeaseState, state_of
from dataplane.blobapi.model import AccessTier, BlobProperties, BlobState, Remote
from dataplane.store.deletejob import DeleteScope
from dataplane.store.errors import NotEvictable
from dataplane.store.store import BlobRef, Store

_CHUNK_BYTES: Final = 4 << 20
_HELD: Final = (LeaseState.LEASED, LeaseState.BREAKING)


def delete_here(store: Store, ref: BlobRef, etag: str) -> None:
    """Delete the version with this ETag. Raises NotEvictable when it has to stay, and StoreError."""

    def decide(state: BlobState | None) -> DeleteScope:
        if _loser(state, etag).has_snapshots:
            raise NotEvictable("it has snapshots")
        return DeleteScope.BLOB

    store.run(store.delete(ref, decide, yields=True))


def take_theirs(
    cloud: Cloud, store: Store, ref: BlobRef, etag: str, target: Target, theirs: Seen, errand: Errand
) -> tuple[BlobProperties, Remote]:
    """Put a stub of theirs in the place of the version with this ETag; what it says.

    Raises CloudFailed; NotEvictable when ours has to stay; StoreError.
    """
    remote, properties = _known(cloud, target, theirs, errand)
    here = store.stat_blob(ref)
    _loser(here, etag)
    assert here is not None
    properties = replace(properties, created=here.properties.created, remote=remote)
    if here.properties.remote is None:
        store.run(store.evict(ref, etag, remote, properties))
        return properties, remote

    def decide(state: BlobState | None) -> BlobProperties:
        before = _loser(state, etag).properties.remote
        if before is None:
            raise NotEvictable("it has changed")
        return replace(properties, remote=replace(remote, mtime_ns=before.mtime_ns, mode=before.mode))

    store.run(store.update(ref, decide))
    return properties, remote


def _loser(state: BlobState | None, etag: str) -> BlobState:
    """The blob, if it is still the version that lost. Raises NotEvictable."""
    if state is None or state.properties.etag != etag:
        raise NotEvictable("it has changed")
    if state_of(state.lease, int(time.time()), state.properties.last_modified) in _HELD:
        raise NotEvictable("somebody holds a lease on it here")
    return state


def _known(cloud: Cloud, target: Target, theirs: Seen, errand: Errand) -> tuple[Remote, BlobProperties]:
    """All of their version. Raises CloudFailed; a CONFLICT when it is another by now."""
    blob = cloud.blob(target.container, target.name)
    request = cloud.request("Get Blob Properties", "r", target.container, target.name)
    there = cloud.properties(blob, request, errand)
    if there is None or seen_of(there).etag != theirs.etag:
        raise found("ConditionNotMet", request)
    tags: Mapping[str, str] = {}
    if there.tag_count:
        tagging = cloud.request("Get Blob Tags", "t", target.container, target.name)
        tags = cloud.call(tagging, errand, blob.get_blob_tags)
    md5 = theirs.md5 or _md5_of(cloud, target, theirs, blob, errand)
    version = new_etag(random.getrandbits(RANDOM_BITS))
    now = int(time.time())
    remote = Remote(theirs.facts.size, md5, theirs.etag, target.container, target.name, version, now * 10**9, 0o644)
    return remote, _properties(there, theirs, tags, version, now)


def _properties(
    there: TheirProperties, theirs: Seen, tags: Mapping[str, str], version: str, now: int
) -> BlobProperties:
    facts = theirs.facts
    users = {name: value for name, value in (there.metadata or {}).items() if name.lower() not in OURS}
    tier = None if there.blob_tier_inferred else str(getattr(there.blob_tier, "value", there.blob_tier) or "")
    return BlobProperties(
        version,
        now,
        now,
        content_type=facts.content_type,
        content_encoding=facts.content_encoding,
        content_language=facts.content_language,
        content_disposition=facts.content_disposition,
        cache_control=facts.cache_control,
        content_md5=facts.md5,
        metadata=users,
        tags=dict(tags),
        access_tier=AccessTier(tier) if tier in {each.value for each in AccessTier} else None,
    )


def _md5_of(cloud: Cloud, target: Target, theirs: Seen, blob: BlobClient, errand: Errand) -> bytes:
    """The MD5 of their bytes, read a piece at a time."""
    request = cloud.request("Get Blob", "r", target.container, target.name)
    md5 = hashlib.md5(usedforsecurity=False)
    options: dict[str, Any] = {**condition(theirs.etag), "decompress": False}

    def piece(at: int) -> bytes:
        size = min(_CHUNK_BYTES, theirs.facts.size - at)
        return bytes(blob.download_blob(at, size, max_concurrency=1, **options).readall())

    for at in range(0, theirs.facts.size, _CHUNK_BYTES):
        md5.update(cloud.call(request, errand, functools.partial(piece, at)))
    return md5.digest()
