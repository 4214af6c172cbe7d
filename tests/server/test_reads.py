"""Get Blob, Get Blob Properties, Get Blob Metadata over the wire: headers as recorded, ranges, conditions, refusals."""

import hashlib
import os
from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from azure.storage.blob import BlobSasPermissions, generate_blob_sas

from dataplane.blobapi import limits
from dataplane.blobapi.checksums import crc64, crc64_bytes
from tests.support import ACCOUNT, KEY, Answer, WireClient

BODY = b"hello world"
MD5 = "XrY7u+Ae7tCTyyK7j1rNww=="
RECORDED = "2018-11-09"
BLOCK = {"x-ms-blob-type": "BlockBlob"}

#: Names that a recorded answer has; what every answer has is left out.
COMMON = {"date", "server", "x-ms-request-id", "x-ms-version", "content-length", "connection", "keep-alive"}
GET = {
    "accept-ranges", "content-type", "etag", "last-modified", "x-ms-blob-type", "x-ms-creation-time",
    "x-ms-lease-state", "x-ms-lease-status", "x-ms-server-encrypted",
}  # fmt: skip


def put(client: WireClient, path: str, body: bytes = BODY, **headers: str) -> Answer:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.request("PUT", path, headers={**BLOCK, **sent}, body=body)
    assert answer.status == 201
    return answer


def names(answer: Answer) -> set[str]:
    return set(answer.headers) - COMMON


@pytest.fixture
def blob(client: WireClient, container: str) -> str:
    """The path of a blob with BODY."""
    put(client, container + "/blob1")
    return container + "/blob1"


def test_whole_blob(client: WireClient, blob: str) -> None:
    answer = client.request("GET", blob, version=RECORDED)
    assert (answer.status, answer.body) == (200, BODY)
    assert names(answer) == GET | {"content-md5"}
    assert answer.headers["content-md5"] == MD5
    assert answer.headers["content-length"] == "11"


def test_a_range(client: WireClient, blob: str) -> None:
    answer = client.request("GET", blob, headers={"x-ms-range": "bytes=0-33554431"}, version=RECORDED)
    assert (answer.status, answer.body) == (206, BODY)
    assert names(answer) == GET | {"content-range", "x-ms-blob-content-md5"}
    assert answer.headers["content-range"] == "bytes 0-10/11"
    answer = client.request("GET", blob, headers={"range": "bytes=6-"})
    assert (answer.status, answer.body, answer.headers["content-length"]) == (206, b"world", "5")


def test_ranges_that_are_ignored_or_refused(client: WireClient, container: str, blob: str) -> None:
    answer = client.request("GET", blob, headers={"x-ms-range": "bytes=0--1"})
    assert (answer.status, answer.body) == (200, BODY)
    answer = client.request("GET", blob, headers={"x-ms-range": "bytes=11-"})
    assert (answer.status, answer.code, answer.headers["content-range"]) == (416, "InvalidRange", "bytes */11")
    put(client, container + "/empty", b"")
    answer = client.request("GET", container + "/empty", headers={"x-ms-range": "bytes=0-5"})
    assert (answer.status, answer.code, answer.headers["content-range"]) == (416, "InvalidRange", "bytes */0")


def test_an_empty_blob(client: WireClient, container: str) -> None:
    put(client, container + "/empty", b"")
    for method in ("GET", "HEAD"):
        answer = client.request(method, container + "/empty")
        assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")


def test_properties(client: WireClient, blob: str) -> None:
    answer = client.request("HEAD", blob, version=RECORDED)
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "11")
    assert names(answer) == GET | {"content-md5", "x-ms-access-tier", "x-ms-access-tier-inferred"}
    assert answer.headers["x-ms-access-tier"] == "Hot"


def test_metadata(client: WireClient, container: str) -> None:
    put(client, container + "/m", x_ms_meta_hello="world", x_ms_meta_number="42")
    answer = client.request("GET", container + "/m", {"comp": "metadata"}, version=RECORDED)
    assert (answer.status, answer.body) == (200, b"")
    assert names(answer) == {"etag", "last-modified", "x-ms-meta-hello", "x-ms-meta-number"}
    answer = client.request("HEAD", container + "/m", {"comp": "metadata"})
    assert answer.headers["x-ms-meta-number"] == "42"
    assert client.request("GET", container + "/m").headers["x-ms-meta-hello"] == "world"


@pytest.mark.parametrize("query", [{}, {"comp": "metadata"}])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditions(client: WireClient, blob: str, method: str, query: dict[str, str]) -> None:
    def status(headers: dict[str, str]) -> tuple[int, str]:
        answer = client.request(method, blob, query, headers)
        if answer.status == 304:
            assert answer.body == b""
            assert "content-type" not in answer.headers
        return answer.status, answer.code

    head = client.request("HEAD", blob).headers
    etag, future = head["etag"], "Fri, 31 Dec 2060 00:00:00 GMT"
    assert status({"if-match": etag}) == (200, "")
    assert status({"if-match": etag.strip('"')}) == (200, "")
    assert status({"if-match": "0x111111111111111"}) == (412, "ConditionNotMet")
    assert status({"if-none-match": etag}) == (304, "ConditionNotMet")
    assert status({"if-none-match": "*"}) == (400, "UnsatisfiableCondition")
    assert status({"if-modified-since": future}) == (304, "ConditionNotMet")
    assert status({"if-modified-since": head["last-modified"]}) == (304, "ConditionNotMet")
    assert status({"if-unmodified-since": head["last-modified"]}) == (200, "")
    assert status({"if-unmodified-since": "Thu, 09 May 2019 00:27:16 GMT"}) == (412, "ConditionNotMet")
    assert status({"x-ms-if-tags": "\"a\"='b'"}) == (412, "ConditionNotMet")


def test_what_is_not_there(client: WireClient, container: str) -> None:
    for method in ("GET", "HEAD"):
        answer = client.request(method, container + "/nothing")
        assert (answer.status, answer.code) == (404, "BlobNotFound")
        assert ("content-type" in answer.headers) is (method == "GET")
        answer = client.request(method, "/nowhere/nothing")
        assert (answer.status, answer.code) == (404, "ContainerNotFound")
        answer = client.request(method, container + "/nothing", headers={"if-match": "*"})
        assert (answer.status, answer.code) == (412, "ConditionNotMet")


@pytest.mark.parametrize("snapshot", ["1", "", "yesterday"])
@pytest.mark.parametrize("query", [{}, {"comp": "metadata"}])
def test_snapshots_that_are_none(client: WireClient, blob: str, snapshot: str, query: dict[str, str]) -> None:
    answer = client.request("GET", blob, {**query, "snapshot": snapshot})
    assert (answer.status, answer.code) == (400, "InvalidQueryParameterValue")
    assert answer.xml().findtext("QueryParameterName") == "snapshot"
    absent = client.request("GET", blob, {**query, "snapshot": "2019-05-09T00:53:01.3826986Z"})
    assert (absent.status, absent.code) == (404, "BlobNotFound")


def test_checksums_of_ranges(client: WireClient, blob: str) -> None:
    part = {"x-ms-range": "bytes=0-4"}
    answer = client.request("GET", blob, headers={**part, "x-ms-range-get-content-md5": "true"})
    assert (answer.status, answer.body) == (206, b"hello")
    assert answer.headers["content-md5"] == b64encode(hashlib.md5(b"hello").digest()).decode()
    assert answer.headers["x-ms-blob-content-md5"] == MD5
    answer = client.request("GET", blob, headers={**part, "x-ms-range-get-content-crc64": "true"})
    assert answer.headers["x-ms-content-crc64"] == b64encode(crc64_bytes(crc64(b"hello"))).decode()
    assert "content-md5" not in answer.headers
    answer = client.request("GET", blob, headers={**part, "x-ms-range-get-content-md5": "false"})
    assert (answer.body, "content-md5" in answer.headers) == (b"hello", False)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-ms-range-get-content-md5": "true"}, "InvalidHeaderValue"),
        ({"x-ms-range-get-content-md5": "yes", "range": "bytes=0-1"}, "InvalidHeaderValue"),
        ({"x-ms-structured-body": "XSM/9"}, "InvalidHeaderValue"),
        (
            {
                "x-ms-range-get-content-md5": "true",
                "x-ms-range-get-content-crc64": "true",
                "range": "bytes=0-1",
            },
            "BothCrc64AndMd5HeaderPresent",
        ),
    ],
)
def test_checksums_that_are_refused(client: WireClient, blob: str, headers: dict[str, str], code: str) -> None:
    answer = client.request("GET", blob, headers=headers)
    assert (answer.status, answer.code) == (400, code)


def test_a_checksum_over_too_much(client: WireClient, container: str) -> None:
    put(client, container + "/big", bytes(limits.range_checksum_bytes_max + 1))
    for end, status in ((limits.range_checksum_bytes_max - 1, 206), (limits.range_checksum_bytes_max, 400)):
        headers = {"x-ms-range": f"bytes=0-{end}", "x-ms-range-get-content-md5": "true"}
        assert client.request("GET", container + "/big", headers=headers).status == status


def test_a_large_blob_and_a_slice_of_it(client: WireClient, container: str) -> None:
    data = hashlib.shake_256(b"large").digest(3 * limits.MIB + 17)
    put(client, container + "/large", data)
    assert client.request("GET", container + "/large").body == data
    answer = client.request("GET", container + "/large", headers={"range": "bytes=1000000-2999999"})
    assert answer.body == data[1_000_000:3_000_000]


def test_headers_that_a_sas_overrides(client: WireClient, container: str, blob: str) -> None:
    token = generate_blob_sas(
        ACCOUNT, container[1:], "blob1", account_key=KEY, permission=BlobSasPermissions(read=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
        content_type="text/plain", content_disposition="attachment; filename=a", cache_control="no-store",
    )  # fmt: skip
    for method in ("GET", "HEAD"):
        answer = client.send(method, f"/{ACCOUNT}{blob}?{token}", {"host": "127.0.0.1", "x-ms-version": RECORDED})
        assert answer.status == 200
        found = [answer.headers[name] for name in ("content-type", "content-disposition", "cache-control")]
        assert found == ["text/plain", "attachment; filename=a", "no-store"]


def test_no_descriptor_is_left(client: WireClient, container: str, blob: str) -> None:
    """The server is in this process, so its descriptors are ours to count."""
    put(client, container + "/empty", b"")
    requests: list[tuple[str, dict[str, str]]] = [
        (blob, {}),
        (blob, {"x-ms-range": "bytes=2-3"}),
        (blob, {"x-ms-range": "bytes=99-"}),
        (blob, {"if-match": "0x1"}),
        (blob, {"x-ms-lease-id": "nonsense"}),
        (blob, {"x-ms-structured-body": "XSM/1.0; properties=crc64"}),
        (blob, {"x-ms-range": "bytes=0-1", "x-ms-range-get-content-md5": "true"}),
        (blob, {"x-ms-range-get-content-md5": "true"}),
        (container + "/empty", {}),
        (container + "/none", {}),
    ]
    for path, headers in requests:
        client.request("GET", path, headers=headers)
    before = len(os.listdir("/proc/self/fd"))
    for path, headers in requests * 5:
        client.request("GET", path, headers=headers)
        client.request("HEAD", path, headers=headers)
    assert len(os.listdir("/proc/self/fd")) <= before
