"""The judge: a node against its cloud, blob by blob, and both against what the applications were told.

`compare` looks at both sides with Azure's own client, nothing of the product's. It reads every byte of both. Three
questions that no comparison of the two sides answers are judged from the record of the proxy and from the ledger of
what was acknowledged: was something lost on both sides, was something sent twice, was something freed too early.

Rejected: reading the node's files (names are escaped and properties are elsewhere; the endpoint is what has to agree).
That files are the bytes which the endpoint serves is the business of other tests.
"""

import datetime as dt
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from azure.storage.blob import BlobServiceClient

from .traffic import VERIFICATIONS, Blob, Traffic, duplicates

SOURCE_ETAG: Final = "blobedge_etag"
SOURCE_MODIFIED: Final = "blobedge_modified"
OURS_PREFIX: Final = "blobedge_"
CONTENT_SETTINGS: Final = (
    "content_type",
    "content_encoding",
    "content_language",
    "content_disposition",
    "cache_control",
)

Where = Callable[[Blob], Blob]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `what` is a word for it, `here` and `there` the values at the node and in the cloud."""

    blob: Blob
    what: str
    here: object = None
    there: object = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A blob as a side shows it."""

    etag: str
    modified: dt.datetime
    size: int
    digest: bytes
    stored_md5: bytes | None
    settings: Mapping[str, str | None]
    metadata: Mapping[str, str]
    tags: Mapping[str, str]


class Version(NamedTuple):
    """What tells two versions of a blob apart: tags have a part of their own, as they do not change the ETag."""

    etag: str
    tags: tuple[tuple[str, str], ...]


class Ledger:
    """What applications were told: the digest of each blob's last acknowledged content, None once it was deleted."""

    def __init__(self) -> None:
        self.digests: dict[Blob, bytes | None] = {}

    def wrote(self, container: str, name: str, content: bytes) -> None:
        """An application wrote this and was told that it is there."""
        self.digests[container, name] = _md5(content)

    def deleted(self, container: str, name: str) -> None:
        """An application deleted it and was told that it is gone."""
        self.digests[container, name] = None


@dataclass(frozen=True, slots=True)
class Freed:
    """A blob whose bytes were seen to be gone from the node's disk. `when` as time.monotonic()."""

    blob: Blob
    source_etag: str
    when: float


def look(service: BlobServiceClient, containers: Iterable[str]) -> dict[Blob, Seen]:
    """Read all blobs of some containers, a container that is not there is empty. Raises the client's errors."""
    found = {}
    for container in containers:
        client = service.get_container_client(container)
        if client.exists():
            for item in client.list_blobs(include=["metadata", "tags"]):
                found[container, str(item.name)] = _seen(client.download_blob(item.name, decompress=False), item)
    return found


def versions(service: BlobServiceClient, container: str) -> dict[Blob, Version]:
    """Return the node's blobs with their versions; quick, as it reads no content."""
    items = service.get_container_client(container).list_blobs(include=["tags"])
    return {(container, str(item.name)): Version(_bare(item.etag), _tags(item)) for item in items}


def copies(cloud: BlobServiceClient, container: str) -> dict[Blob, Version]:
    """Return the cloud's blobs with the versions of the node that they say they are."""
    items = cloud.get_container_client(container).list_blobs(include=["metadata", "tags"])
    return {
        (container, str(item.name)): Version(_bare((item.metadata or {}).get(SOURCE_ETAG, "")), _tags(item))
        for item in items
    }


def compare(here: Mapping[Blob, Seen], there: Mapping[Blob, Seen], where: Where = lambda blob: blob) -> list[Finding]:
    """Return every difference between the node and the cloud. `where`: the cloud's place of a node's blob."""
    expected = {where(blob): blob for blob in here}
    findings = [Finding(blob, "not at the node") for blob in there if blob not in expected]
    for place, blob in expected.items():
        if place in there:
            findings += [Finding(blob, *difference) for difference in _differences(here[blob], there[place])]
        else:
            findings.append(Finding(blob, "not in the cloud"))
    return findings


def lost(ledger: Ledger, here: Mapping[Blob, Seen]) -> list[Finding]:
    """Return what was acknowledged and is not so at the node: lost, other bytes, or there after it was deleted."""
    findings = []
    for blob, digest in ledger.digests.items():
        seen = here.get(blob)
        if digest is None and seen is not None:
            findings.append(Finding(blob, "came back"))
        elif digest is not None and seen is None:
            findings.append(Finding(blob, "lost"))
        elif digest is not None and seen is not None and seen.digest != digest:
            findings.append(Finding(blob, "other bytes than acknowledged", seen.digest.hex(), digest.hex()))
    return findings


def sent_twice(traffic: Traffic) -> list[Finding]:
    """Return the commits that made a version which the cloud had already."""
    return [
        Finding(blob, "committed twice", exchange.source_etag, exchange.number)
        for blob, exchanges in traffic.by_blob().items()
        for exchange in duplicates(exchanges)
    ]


def freed_too_early(freed: Iterable[Freed], traffic: Traffic, where: Where = lambda blob: blob) -> list[Finding]:
    """Return the blobs whose bytes went before their version was committed in the cloud and looked at there."""
    exchanges = traffic.all()
    findings = []
    for each in freed:
        place = where(each.blob)
        of_blob = [exchange for exchange in exchanges if exchange.blob == place and exchange.when <= each.when]
        made = (e for e in of_blob if (e.committed or e.described) and e.source_etag == each.source_etag)
        commit = next(made, None)
        if commit is None:
            findings.append(Finding(each.blob, "freed before it was committed", each.source_etag))
        elif not any(_verifies(e.request.operation, e.cloud_status) and e.number > commit.number for e in of_blob):
            findings.append(Finding(each.blob, "freed before it was verified", each.source_etag))
    return findings


def _verifies(operation: str, status: int | None) -> bool:
    return operation in VERIFICATIONS and status is not None and status < 300


def _differences(here: Seen, there: Seen) -> Iterator[tuple[str, object, object]]:
    if here.size != there.size:
        yield "size", here.size, there.size
    if here.digest != there.digest:
        yield "bytes", here.digest.hex(), there.digest.hex()
    if there.stored_md5 != there.digest:
        yield "stored MD5", here.digest.hex(), _hex(there.stored_md5)
    for name in CONTENT_SETTINGS:
        if here.settings[name] != there.settings[name]:
            yield name, here.settings[name], there.settings[name]
    theirs = {name: value for name, value in there.metadata.items() if not name.startswith(OURS_PREFIX)}
    if here.metadata != theirs:
        yield "metadata", here.metadata, theirs
    if here.tags != there.tags:
        yield "tags", here.tags, there.tags
    if (kept := _bare(there.metadata.get(SOURCE_ETAG, ""))) != here.etag:
        yield "source ETag", here.etag, kept
    if (modified := _time(there.metadata.get(SOURCE_MODIFIED, ""))) != here.modified:
        yield "source Last-Modified", here.modified, modified


def _seen(download: Any, item: Any) -> Seen:
    digest = hashlib.md5(usedforsecurity=False)
    for piece in download.chunks():
        digest.update(piece)
    settings = item.content_settings
    stored = settings.content_md5
    return Seen(
        _bare(item.etag),
        item.last_modified,
        item.size,
        digest.digest(),
        bytes(stored) if stored is not None else None,
        {name: getattr(settings, name) or None for name in CONTENT_SETTINGS},
        {name.lower(): value for name, value in (item.metadata or {}).items()},
        dict(item.tags or {}),
    )


def _time(text: str) -> dt.datetime | None:
    """Both forms of HTTP and of ISO 8601; None for neither."""
    for read in (_http_time, dt.datetime.fromisoformat):
        try:
            return read(text)
        except ValueError:
            continue
    return None


def _http_time(text: str) -> dt.datetime:
    return dt.datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=dt.UTC)


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def _tags(item: Any) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((item.tags or {}).items()))


def _bare(etag: str) -> str:
    """Listings have ETags without quotes, headers with them."""
    return etag.strip('"')


def _hex(digest: bytes | None) -> str | None:
    return digest.hex() if digest is not None else None
