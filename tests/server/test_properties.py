"""Set Blob Properties, Metadata and Tier, Snapshot Blob, Delete Blob over the wire, as recorded."""

import time
from collections.abc import Callable, Iterator

import pytest

from dataplane.blobapi import limits
from tests.support import Answer, InProcessServer, WireClient

BLOCK = {"x-ms-blob-type": "BlockBlob"}
RECORDED = "2018-11-09"
COMMON = {"date", "server", "x-ms-request-id", "x-ms-version", "content-length", "connection", "keep-alive"}
OTHER_ETAG = "0x111111111111111"

Later = Callable[[int], None]


@pytest.fixture
def later(server: InProcessServer) -> Iterator[Later]:
    """Moves the server's clock so many seconds ahead of the real one."""
    original = server.node.clock

    def move(seconds: int) -> None:
        server.node.clock = lambda: time.time_ns() + seconds * 1_000_000_000

    yield move
    server.node.clock = original


@pytest.fixture
def blob(client: WireClient, container: str) -> str:
    path = container + "/blob"
    headers = {**BLOCK, "x-ms-blob-content-type": "text/plain", "x-ms-meta-a": "b"}
    assert client.request("PUT", path, headers=headers, body=b"hello world").status == 201
    return path


def names(answer: Answer) -> set[str]:
    return set(answer.headers) - COMMON


def test_set_properties_replaces_all_of_them(client: WireClient, blob: str) -> None:
    before = client.request("HEAD", blob).headers
    sent = {"x-ms-blob-content-language": "spanish", "x-ms-blob-content-disposition": "inline"}
    answer = client.request("PUT", blob, {"comp": "properties"}, sent, version=RECORDED)
    assert answer.status == 200
    assert names(answer) == {"etag", "last-modified"}
    after = client.request("HEAD", blob).headers
    assert (after["content-language"], after["content-disposition"]) == ("spanish", "inline")
    assert "content-type" not in after
    assert "content-md5" not in after
    assert after["etag"] == answer.headers["etag"] != before["etag"]
    assert after["x-ms-creation-time"] == before["x-ms-creation-time"]
    assert after["x-ms-meta-a"] == "b"
    assert client.request("GET", blob).body == b"hello world"


def test_set_properties_keeps_what_it_is_given(client: WireClient, blob: str) -> None:
    md5 = "XrY7u+Ae7tCTyyK7j1rNww=="
    sent = {"x-ms-blob-content-md5": md5, "x-ms-blob-cache-control": "no-cache", "x-ms-blob-content-encoding": "gzip"}
    assert client.request("PUT", blob, {"comp": "properties"}, sent).status == 200
    after = client.request("HEAD", blob).headers
    assert (after["content-md5"], after["cache-control"], after["content-encoding"]) == (md5, "no-cache", "gzip")
    refused = client.request("PUT", blob, {"comp": "properties"}, {"x-ms-blob-content-md5": "AAAA"})
    assert (refused.status, refused.code) == (400, "InvalidMd5")


def test_set_metadata(client: WireClient, blob: str) -> None:
    before = client.request("HEAD", blob).headers["etag"]
    sent = {"x-ms-meta-hello": "world"}
    answer = client.request("PUT", blob, {"comp": "metadata"}, sent, version=RECORDED)
    assert answer.status == 200
    assert names(answer) == {"etag", "last-modified", "x-ms-request-server-encrypted"}
    assert answer.headers["x-ms-request-server-encrypted"] == "true"
    after = client.request("HEAD", blob).headers
    assert after["x-ms-meta-hello"] == "world"
    assert "x-ms-meta-a" not in after
    assert after["etag"] != before
    assert after["content-type"] == "text/plain"
    refused = client.request("PUT", blob, {"comp": "metadata"}, {"x-ms-meta-1a": "b"})
    assert (refused.status, refused.code) == (400, "InvalidMetadata")


@pytest.mark.parametrize("comp", ["properties", "metadata", "snapshot", ""])
def test_conditions_of_writes(client: WireClient, blob: str, comp: str) -> None:
    method, query = ("PUT", {"comp": comp}) if comp else ("DELETE", {})
    head = client.request("HEAD", blob).headers
    for condition in (
        {"if-match": OTHER_ETAG},
        {"if-none-match": head["etag"]},
        {"if-modified-since": "Fri, 31 Dec 2060 00:00:00 GMT"},
        {"if-unmodified-since": "Thu, 09 May 2019 00:27:16 GMT"},
    ):
        answer = client.request(method, blob, query, condition)
        assert (answer.status, answer.code) == (412, "ConditionNotMet")
    multiple = client.request(method, blob, query, {"if-match": head["etag"], "if-none-match": OTHER_ETAG})
    assert (multiple.status, multiple.code) == (400, "MultipleConditionHeadersNotSupported")
    passed = client.request(method, blob, query, {"if-none-match": "*"})
    assert passed.status in (200, 201, 202)


@pytest.mark.parametrize("comp", ["properties", "metadata", "snapshot", "tier", ""])
def test_what_is_not_there(client: WireClient, container: str, comp: str) -> None:
    method, query = ("PUT", {"comp": comp}) if comp else ("DELETE", {})
    headers = {"x-ms-access-tier": "Cool"} if comp == "tier" else {}
    for path, code in ((container + "/none", "BlobNotFound"), ("/nowhere/none", "ContainerNotFound")):
        answer = client.request(method, path, query, headers)
        assert (answer.status, answer.code) == (404, code)


def test_tiers(client: WireClient, blob: str) -> None:
    before = client.request("HEAD", blob).headers
    for tier in ("Cool", "Cold", "Hot"):
        answer = client.request("PUT", blob, {"comp": "tier"}, {"x-ms-access-tier": tier}, version=RECORDED)
        assert (answer.status, names(answer)) == (200, set())
        after = client.request("HEAD", blob).headers
        assert after["x-ms-access-tier"] == tier
        assert "x-ms-access-tier-change-time" in after
        assert "x-ms-access-tier-inferred" not in after
        assert (after["etag"], after["last-modified"]) == (before["etag"], before["last-modified"])
    assert client.request("PUT", blob, {"comp": "tier"}).code == "MissingRequiredHeader"
    assert client.request("PUT", blob, {"comp": "tier"}, {"x-ms-access-tier": "Warm"}).code == "InvalidHeaderValue"


def test_archive_and_back(client: WireClient, blob: str, later: Later) -> None:
    def tier(name: str, **more: str) -> Answer:
        headers = {"x-ms-access-tier": name, **{k.replace("_", "-"): v for k, v in more.items()}}
        return client.request("PUT", blob, {"comp": "tier"}, headers)

    assert tier("Archive").status == 200
    for request in (("GET", {}), ("PUT", {"comp": "metadata"}), ("PUT", {"comp": "snapshot"})):
        answer = client.request(request[0], blob, request[1])
        assert (answer.status, answer.code) == (409, "BlobArchived")
    assert client.request("GET", blob, {"comp": "metadata"}).status == 200
    assert tier("Hot").status == 202
    head = client.request("HEAD", blob).headers
    assert (head["x-ms-access-tier"], head["x-ms-archive-status"]) == ("Archive", "rehydrate-pending-to-hot")
    assert head["x-ms-rehydrate-priority"] == "Standard"
    assert client.request("GET", blob).code == "BlobBeingRehydrated"
    assert tier("Cool").code == "BlobBeingRehydrated"
    assert tier("Hot", x_ms_rehydrate_priority="High").status == 202
    later(limits.rehydrate_seconds_high + 1)
    head = client.request("HEAD", blob).headers
    assert (head["x-ms-access-tier"], "x-ms-archive-status" in head) == ("Hot", False)
    assert client.request("GET", blob).body == b"hello world"


def test_snapshots(client: WireClient, blob: str) -> None:
    base = client.request("HEAD", blob).headers
    answer = client.request("PUT", blob, {"comp": "snapshot"}, version=RECORDED)
    assert answer.status == 201
    assert names(answer) == {"etag", "last-modified", "x-ms-snapshot", "x-ms-request-server-encrypted"}
    assert answer.headers["x-ms-request-server-encrypted"] == "false"
    assert answer.headers["etag"] == base["etag"]
    snapshot = answer.headers["x-ms-snapshot"]
    assert client.request("PUT", blob, headers=BLOCK, body=b"changed").status == 201
    read = client.request("GET", blob, {"snapshot": snapshot})
    assert (read.body, read.headers["x-ms-snapshot"], read.headers["etag"]) == (b"hello world", snapshot, base["etag"])
    assert "x-ms-lease-state" not in read.headers
    assert read.headers["x-ms-meta-a"] == "b"


def test_a_snapshot_with_metadata_of_its_own(client: WireClient, blob: str) -> None:
    answer = client.request("PUT", blob, {"comp": "snapshot"}, {"x-ms-meta-new": "1"})
    assert answer.headers["x-ms-request-server-encrypted"] == "true"
    read = client.request("HEAD", blob, {"snapshot": answer.headers["x-ms-snapshot"]}).headers
    base = client.request("HEAD", blob).headers
    assert (read["x-ms-meta-new"], "x-ms-meta-a" in read, read["etag"] == base["etag"]) == ("1", False, False)
    assert "x-ms-meta-new" not in base


def test_delete(client: WireClient, blob: str) -> None:
    answer = client.request("DELETE", blob, version=RECORDED)
    assert (answer.status, names(answer)) == (202, {"x-ms-delete-type-permanent"})
    assert answer.headers["x-ms-delete-type-permanent"] == "true"
    again = client.request("DELETE", blob)
    assert (again.status, again.code) == (404, "BlobNotFound")


def test_delete_with_snapshots(client: WireClient, blob: str) -> None:
    def snap() -> str:
        return client.request("PUT", blob, {"comp": "snapshot"}).headers["x-ms-snapshot"]

    one, two = snap(), snap()
    assert one < two
    refused = client.request("DELETE", blob)
    assert (refused.status, refused.code) == (409, "SnapshotsPresent")
    both = client.request("DELETE", blob, {"snapshot": one}, {"x-ms-delete-snapshots": "only"})
    assert (both.status, both.code) == (400, "InvalidOperation")
    assert client.request("DELETE", blob, headers={"x-ms-delete-snapshots": "all"}).code == "InvalidHeaderValue"
    assert client.request("DELETE", blob, {"snapshot": one}).status == 202
    assert client.request("GET", blob, {"snapshot": one}).status == 404
    assert client.request("GET", blob, {"snapshot": two}).status == 200
    assert client.request("DELETE", blob, headers={"x-ms-delete-snapshots": "only"}).status == 202
    assert client.request("GET", blob, {"snapshot": two}).status == 404
    assert client.request("GET", blob).status == 200
    three = snap()
    assert client.request("DELETE", blob, headers={"x-ms-delete-snapshots": "include"}).status == 202
    assert client.request("GET", blob).status == client.request("GET", blob, {"snapshot": three}).status == 404


def test_an_empty_snapshot_parameter_deletes_nothing(client: WireClient, blob: str) -> None:
    assert client.request("DELETE", blob, {"snapshot": ""}).code == "InvalidQueryParameterValue"
    assert client.request("GET", blob).status == 200


def test_leases_of_writes(client: WireClient, blob: str) -> None:
    acquire = {"x-ms-lease-action": "acquire", "x-ms-lease-duration": "-1"}
    lease_id = client.request("PUT", blob, {"comp": "lease"}, acquire).headers["x-ms-lease-id"]
    for comp, more in (("properties", {}), ("metadata", {}), ("tier", {"x-ms-access-tier": "Cool"})):
        refused = client.request("PUT", blob, {"comp": comp}, more)
        assert (refused.status, refused.code) == (412, "LeaseIdMissing")
        assert client.request("PUT", blob, {"comp": comp}, {**more, "x-ms-lease-id": lease_id}).status == 200
    assert client.request("PUT", blob, {"comp": "snapshot"}).status == 201
    other = {"x-ms-lease-id": "29e0b239-ecda-4f69-bfa3-95f6af91464c"}
    assert client.request("PUT", blob, {"comp": "snapshot"}, other).code == "LeaseIdMismatchWithBlobOperation"
