"""The oracle of the lab finds a planted difference of each kind, and nothing where there is none.

Two containers of the lab's cloud stand for the node and for its cloud, so that both sides are real.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.storage.blob import BlobClient, BlobServiceClient, ContentSettings

from tests.offload.lab import need
from tests.offload.lab.cloud import lab
from tests.offload.lab.faults import Request
from tests.offload.lab.oracle import Finding, Freed, Ledger, compare, freed_too_early, look, lost, sent_twice
from tests.offload.lab.traffic import Blob, Exchange, Traffic

NODE, CLOUD = "node", "cloud"
CONTENT = b"what the blob holds"
NAMES = ("a", "a/b c", "a/b/\u00fc")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlobServiceClient]:
    need()
    with lab(tmp_path_factory.mktemp("lab")) as made, made.straight() as service:
        yield service


@pytest.fixture
def pair(service: BlobServiceClient) -> Iterator[BlobServiceClient]:
    """Both sides with the same three blobs, each with one of everything that is compared."""
    for container in (NODE, CLOUD):
        service.create_container(container)
    for name in NAMES:
        here = service.get_blob_client(NODE, name)
        put(here, {"Owner": "line4"})
        properties = here.get_blob_properties()
        kept = {"blobedge_etag": properties.etag, "blobedge_modified": properties.last_modified.isoformat()}
        put(service.get_blob_client(CLOUD, name), {"owner": "line4", **kept})
    yield service
    for container in (NODE, CLOUD):
        service.delete_container(container)


def put(blob: BlobClient, metadata: dict[str, str], content: bytes = CONTENT, **settings: Any) -> None:
    md5 = bytearray(hashlib.md5(content).digest())
    given = {"content_type": "text/x-log", "content_language": "de", "cache_control": "no-store", "content_md5": md5}
    blob.upload_blob(
        content,
        overwrite=True,
        metadata=metadata,
        tags={"k": "v"},
        content_settings=ContentSettings(**given | settings),
    )


def again(blob: BlobClient, content: bytes = CONTENT, **settings: Any) -> None:
    """Replace a blob of the cloud, all else as it was."""
    put(blob, blob.get_blob_properties().metadata, content, **settings)


def with_metadata(blob: BlobClient, **changes: str) -> None:
    blob.set_blob_metadata({**blob.get_blob_properties().metadata, **changes})


def where(blob: Blob) -> Blob:
    return CLOUD, blob[1]


def findings(service: BlobServiceClient) -> list[Finding]:
    return compare(look(service, [NODE]), look(service, [CLOUD, "never-made"]), where)


def test_the_same_is_the_same(pair: BlobServiceClient) -> None:
    assert findings(pair) == []


PLANTED: dict[str, Callable[[BlobClient], object]] = {
    "not in the cloud": lambda blob: blob.delete_blob(),
    "size": lambda blob: again(blob, CONTENT + b"!"),
    "bytes": lambda blob: again(blob, CONTENT[::-1]),
    "stored MD5": lambda blob: blob.set_http_headers(
        ContentSettings("text/x-log", None, "de", None, "no-store", bytearray(16))
    ),
    "content_type": lambda blob: again(blob, content_type="text/plain"),
    "content_encoding": lambda blob: again(blob, content_encoding="gzip"),
    "content_language": lambda blob: again(blob, content_language="en"),
    "content_disposition": lambda blob: again(blob, content_disposition="inline"),
    "cache_control": lambda blob: again(blob, cache_control="no-cache"),
    "metadata": lambda blob: with_metadata(blob, owner="line5"),
    "tags": lambda blob: blob.set_blob_tags({"k": "w"}),
    "source ETag": lambda blob: with_metadata(blob, blobedge_etag='"0x1"'),
    "source Last-Modified": lambda blob: with_metadata(blob, blobedge_modified="2020-01-01T00:00:00+00:00"),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_difference_is_found(pair: BlobServiceClient, what: str) -> None:
    PLANTED[what](pair.get_blob_client(CLOUD, NAMES[1]))
    found = findings(pair)
    assert what in {finding.what for finding in found}
    assert {finding.blob for finding in found} == {(NODE, NAMES[1])}
    assert {finding.what for finding in found} <= {what, "bytes"}, "bytes of another size are other bytes too"


def test_a_blob_that_only_the_cloud_has_is_found(pair: BlobServiceClient) -> None:
    pair.get_blob_client(CLOUD, "more").upload_blob(b"")
    assert findings(pair) == [Finding((CLOUD, "more"), "not at the node")]


def test_what_was_acknowledged_is_held_against_the_node(pair: BlobServiceClient) -> None:
    ledger = Ledger()
    for name in NAMES:
        ledger.wrote(NODE, name, CONTENT)
    assert lost(ledger, look(pair, [NODE])) == []
    ledger.wrote(NODE, "gone", CONTENT)
    ledger.wrote(NODE, NAMES[0], b"newer")
    ledger.deleted(NODE, NAMES[1])
    ledger.deleted(NODE, "well deleted")
    assert {(finding.blob[1], finding.what) for finding in lost(ledger, look(pair, [NODE]))} == {
        ("gone", "lost"),
        (NAMES[0], "other bytes than acknowledged"),
        (NAMES[1], "came back"),
    }


def record(traffic: Traffic, operation: str, etag: str = "", status: int | None = 201, act: str = "") -> Exchange:
    exchange = traffic.begin(float(len(traffic.all())), operation, CLOUD, "a", "")
    exchange.source_etag, exchange.cloud_status, exchange.act = etag, status, act
    return exchange


def test_a_version_that_was_committed_twice_is_found() -> None:
    traffic = Traffic()
    record(traffic, "PutBlob", "0x1", 412)  # refused: it made no version
    record(traffic, "PutBlob", "0x1", None)  # never arrived
    record(traffic, "PutBlob", "0x1", act="spoil")  # arrived as something else
    record(traffic, "PutBlob", "0x1")
    record(traffic, "PutBlockList", "0x2")
    assert sent_twice(traffic) == []
    twice = record(traffic, "PutBlockList", "0x1")
    assert sent_twice(traffic) == [Finding((CLOUD, "a"), "committed twice", "0x1", twice.number)]
    record(traffic, "GetBlobProperties", status=200, act="wrong-md5")  # what the edge saw was not what it had sent
    record(traffic, "PutBlob", "0x1")
    assert len(sent_twice(traffic)) == 1


def test_bytes_that_went_before_their_copy_was_looked_at_are_found() -> None:
    traffic = Traffic()

    def judged(etag: str = "0x1") -> list[str]:
        freed = Freed((NODE, "a"), etag, float(len(traffic.all())))
        return [finding.what for finding in freed_too_early([freed], traffic, where)]

    record(traffic, "GetBlobProperties", status=200)
    assert judged() == ["freed before it was committed"]
    record(traffic, "PutBlob", "0x1")
    assert judged() == ["freed before it was verified"]
    record(traffic, "GetBlobProperties", status=404)
    assert judged() == ["freed before it was verified"]
    record(traffic, "GetBlobProperties", status=200)
    assert judged() == []
    assert judged("0x2") == ["freed before it was committed"]
    record(traffic, "SetBlobMetadata", "0x2")  # the same bytes, described anew
    assert judged("0x2") == ["freed before it was verified"]
    record(traffic, "GetBlobProperties", status=200)
    assert judged("0x2") == []
    too_soon = [Freed((NODE, "a"), "0x1", 0.5)]
    assert [f.what for f in freed_too_early(too_soon, traffic, where)] == ["freed before it was committed"]


def test_the_record_counts_how_often_the_same_was_asked() -> None:
    traffic = Traffic()
    asked = [("PutBlock", "a", "1"), ("PutBlock", "a", "2"), ("PutBlock", "a", "1"), ("PutBlock", "b", "1")]
    for operation, name, part in asked:
        traffic.begin(0.0, operation, CLOUD, name, part)
    assert [exchange.request for exchange in traffic.all()] == [
        Request("PutBlock", CLOUD, "a", "1", 0),
        Request("PutBlock", CLOUD, "a", "2", 0),
        Request("PutBlock", CLOUD, "a", "1", 1),
        Request("PutBlock", CLOUD, "b", "1", 0),
    ]
    assert [exchange.number for exchange in traffic.all(since=2)] == [2, 3]
