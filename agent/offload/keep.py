"""Keeping a version that something else is to take the place of: the service copies it beside the blob. Somebody
else's, before ours replaces it; ours, of which a stub may have been moved here (astray.py), and which `kept` finds
again; ours, of which a stub was found under another name (`elsewhere`).

It goes to `NAME.conflict-<ETag in hexadecimal>`, in the same container. The name is made of the version, so a copy that
was interrupted is found again, and the same version is never kept twice. Nothing goes through the node. The copy
is of that version only (If-Match of the source), and counts when it has the same length, MD5, properties,
metadata and number of tags. Rejected: a snapshot of the blob, which a delete of the blob takes along, and which
most tools do not show.
"""

import re
import time
from dataclasses import replace
from typing import Any, Final

from azure.core import MatchConditions
from azure.storage.blob import BlobClient, BlobProperties

from agent.offload.cloud import Cloud, seen_of
from agent.offload.failures import found
from agent.offload.transport import Errand
from agent.offload.verify import Seen
from dataplane.blobapi.model import Remote

NAME_CHARACTERS_MAX: Final = 1024  # REST page "Naming and referencing containers, blobs, and metadata"
COPY_SECONDS_MAX: Final = 600.0  # copies within an account take milliseconds to seconds
POLL_SECONDS: Final = 0.5
_SUFFIX: Final = ".conflict-"
_LISTED_CHARACTERS_MAX: Final = 900  # of a name, of which `conflict_name` leaves at least so much
_BROKEN: Final = ("failed", "aborted")


def conflict_name(name: str, etag: str) -> str:
    """Where the version with this ETag of the cloud's is kept. A name that would be too long for Azure is cut."""
    suffix = _SUFFIX + re.sub(r"[^0-9a-z]", "", etag.strip('"').lower().removeprefix("0x"))
    return name[: NAME_CHARACTERS_MAX - len(suffix)] + suffix


def is_beside(name: str, kept_as: str) -> bool:
    """Whether this is where a version of a blob would be kept."""
    _, suffix, etag = kept_as.rpartition(_SUFFIX)
    return bool(suffix) and conflict_name(name, etag) == kept_as


def beside(cloud: Cloud, container: str, name: str, seen: Seen, errand: Errand) -> str:
    """Have the version `seen` kept, verified; the name it has now. Raises CloudFailed; the blob is as it was then.
    A CONFLICT means that it is not the version any more that the cloud has."""
    kept_as = conflict_name(name, seen.etag)
    if _copied(cloud, cloud.blob(container, name), cloud.blob(container, kept_as), seen, errand) is None:
        raise found("CopyFailed", cloud.request("Copy Blob", "wr", container, kept_as))
    return kept_as


def kept(cloud: Cloud, remote: Remote, errand: Errand) -> tuple[str, Seen] | None:
    """Where the version that a stub stands for was kept beside its place: the name, and what is there. It is known by
    its size and MD5; by its ETag it is found without a listing, unless that had moved. Raises CloudFailed."""
    wanted = conflict_name(remote.name, remote.etag)
    seen = cloud.head(remote.container, wanted, errand)
    if seen is not None and is_of(remote, seen):
        return wanted, seen
    listing = cloud.request("List Blobs", "l", remote.container, "")
    prefix = (remote.name + _SUFFIX)[:_LISTED_CHARACTERS_MAX]
    container = cloud.container(remote.container)
    for each in cloud.call(listing, errand, lambda: list(container.list_blobs(name_starts_with=prefix))):
        if each.size == remote.size and is_beside(remote.name, each.name):
            seen = cloud.head(remote.container, each.name, errand)
            if seen is not None and is_of(remote, seen):
                return str(each.name), seen
    return None


def is_of(remote: Remote, seen: Seen) -> bool:
    """Whether this has the bytes that a stub stands for."""
    return (seen.facts.size, seen.md5) == (remote.size, remote.md5)


def elsewhere(
    cloud: Cloud, source: tuple[str, str], target: tuple[str, str], seen: Seen, errand: Errand
) -> tuple[str, str]:
    """Have the version `seen` of `source` at `target` as well, or beside that where something else is there: the name
    that it has, and its ETag. Raises CloudFailed as `beside` does."""
    container, wanted = target
    for name in (wanted, conflict_name(wanted, seen.etag)):
        etag = _copied(cloud, cloud.blob(*source), cloud.blob(container, name), seen, errand)
        if etag is not None:
            return name, etag
    raise found("CopyFailed", cloud.request("Copy Blob", "wr", container, wanted))


def whereabouts(cloud: Cloud, remote: Remote, target: tuple[str, str] | None, errand: Errand) -> Remote:
    """Have what a stub stands for at `target` too, or, with None, see where it is: what the stub is to say then. Raises
    CloudFailed; CopyGone when it is nowhere."""
    name, seen = remote.name, cloud.head(remote.container, remote.name, errand)
    if seen is None or not is_of(remote, seen):
        kept_there = kept(cloud, remote, errand)
        if kept_there is None:
            raise found("CopyGone", cloud.request("Get Blob Properties", "r", remote.container, remote.name))
        name, seen = kept_there
    elif target is None:
        return remote
    if target is None:
        return replace(remote, etag=seen.etag, name=name)
    name, etag = elsewhere(cloud, (remote.container, name), target, seen, errand)
    return replace(remote, etag=etag, container=target[0], name=name)


def _copied(cloud: Cloud, source: BlobClient, kept: BlobClient, seen: Seen, errand: Errand) -> str | None:
    """The ETag of the copy, verified. None when something else is there. Raises CloudFailed."""
    request = cloud.request("Copy Blob", "wr", str(kept.container_name), str(kept.blob_name))
    there = cloud.properties(kept, request, errand)
    if there is None or there.copy.status in _BROKEN:
        _start(cloud, source, kept, seen, there, errand)
    end = time.monotonic() + COPY_SECONDS_MAX
    while (there := cloud.properties(kept, request, errand)) is not None and there.copy.status == "pending":
        if time.monotonic() > end:
            raise found("CopyFailed", request)
        errand.rest(POLL_SECONDS)
    if there is None or there.copy.status in _BROKEN:
        raise found("CopyFailed", request)
    present = seen_of(there)
    return present.etag if present.facts == seen.facts else None


def _start(
    cloud: Cloud, source: BlobClient, kept: BlobClient, seen: Seen, broken: BlobProperties | None, errand: Errand
) -> None:
    """Copy Blob over nothing, or over a copy that broke. Tags do not come along by themselves."""
    container, name = str(source.container_name), str(source.blob_name)
    options: dict[str, Any] = {"match_condition": MatchConditions.IfMissing}
    if broken is not None:
        options = {"match_condition": MatchConditions.IfNotModified, "etag": broken.etag}
    if seen.facts.tags_count:
        tagging = cloud.request("Get Blob Tags", "t", container, name)
        options["tags"] = cloud.call(tagging, errand, source.get_blob_tags)
    cloud.call(
        cloud.request("Copy Blob", "wr", container, str(kept.blob_name)),
        errand,
        lambda: kept.start_copy_from_url(
            cloud.source_url(source),
            source_etag=f'"{seen.etag}"',
            source_match_condition=MatchConditions.IfNotModified,
            **options,
        ),
    )
