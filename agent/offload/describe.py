"""A blob in the cloud whose bytes stay: its tags, tier, metadata and properties become those of a version here.

Several requests, as Azure has none for all of it. The ETag of what was seen guards the first that changes one, and each
answer's ETag the next. The order makes a kill between any two of them harmless:

    1  Set Blob Tags, Set Blob Tier   change no ETag: the copy is still the one that the queue, or a stub, knows
    2  Set Blob Metadata              with blobedge_check of the end, and blobedge_before of just this state
    3  Set Blob Properties            now blobedge_check is right
    4  Set Blob Tier to Archive       last, as nothing can be changed afterwards

So each state in between is known for our own work (verify.py), and what is there already is not sent again; only a
kill before 4 leaves the tier as it was. Azure does not guard 1 by ETags: if somebody replaces the blob in that moment,
his version gets our tags, and step 2 stops.
A tier is set once it is wanted otherwise than by the version before; what a lifecycle policy moved stays moved.
Rejected: Put Block List of the committed blocks, which does it in one request, but not for what Put Blob made;
a copy of the blob onto itself, which needs more permissions and forgets the content type.
"""

from collections.abc import Callable
from typing import Any, Final

from azure.core import MatchConditions
from azure.storage.blob import BlobClient, ContentSettings, StandardBlobTier

from agent.offload.cloud import Cloud
from agent.offload.failures import CloudFailed, found
from agent.offload.transport import Errand
from agent.offload.verify import DEFAULT_TYPE, EXTRAS, Facts, Seen, Wanted

ARCHIVE: Final = "Archive"
_SETTINGS: Final = (
    "md5", "content_type", "content_encoding", "content_language", "content_disposition", "cache_control",
)  # fmt: skip


def describe(cloud: Cloud, blob: Callable[[], BlobClient], want: Wanted, seen: Seen, errand: Errand) -> str:
    """Bring `seen` to what is wanted; the cloud's ETag of it. `blob` makes a client of it for each request.

    Raises CloudFailed; a CONFLICT means that it is not the version any more that was seen.
    """
    container, name = str(blob().container_name), str(blob().blob_name)

    def call(action: str, permission: str, function: Callable[[], Any]) -> Any:
        return cloud.call(cloud.request(action, permission, container, name), errand, function)

    def changed(action: str, function: Callable[[], Any]) -> str:
        """The ETag that the answer says; the next request cannot do without it."""
        etag = str((call(action, "w", function) or {}).get("etag") or "").strip('"')
        if not etag:
            raise found("NotVerified", cloud.request(action, "w", container, name))
        return etag

    def tier() -> None:
        call("Set Blob Tier", "w", lambda: blob().set_standard_blob_tier(StandardBlobTier(want.tier)))

    etag = seen.etag
    extras = dict(want.facts.metadata).get(EXTRAS, "") != seen.ours(EXTRAS) or not seen.intact
    if (extras and want.tags) or want.facts.tags_count != seen.facts.tags_count:
        call("Set Blob Tags", "t", lambda: blob().set_blob_tags(dict(want.tags)))
    if extras and want.tier not in ("", ARCHIVE):
        tier()
    if want.facts.metadata != seen.facts.metadata:
        metadata = dict(want.metadata)
        etag = changed("Set Blob Metadata", lambda: blob().set_blob_metadata(metadata, **condition(etag)))
    if _settings(want.facts) != _settings(seen.facts):
        headers = content_settings(want.facts)
        etag = changed("Set Blob Properties", lambda: blob().set_http_headers(headers, **condition(etag)))
    if extras and want.tier == ARCHIVE:
        tier()
    return etag


def content_settings(facts: Facts) -> ContentSettings:
    """The properties that headers carry, as the SDK takes them."""
    return ContentSettings(
        content_type=facts.content_type or DEFAULT_TYPE,
        content_encoding=facts.content_encoding or None,
        content_language=facts.content_language or None,
        content_disposition=facts.content_disposition or None,
        cache_control=facts.cache_control or None,
        content_md5=bytearray(facts.md5 or b""),
    )


def condition(etag: str) -> dict[str, Any]:
    """If-Match, as the SDK takes it."""
    return {"etag": f'"{etag}"', "match_condition": MatchConditions.IfNotModified}


def refused_archived(failed: CloudFailed) -> bool:
    """Whether the blob cannot be described as it is archived."""
    return failed.fault.code in ("BlobArchived", "BlobBeingRehydrated")


def _settings(facts: Facts) -> tuple[object, ...]:
    return tuple(getattr(facts, name) for name in _SETTINGS)
