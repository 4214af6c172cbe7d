"""Put Blob on the wire: content, checksums, headers, conditions, leases, and each refusal."""

import base64
import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

import pytest
from azure.storage.blob._shared.streams import StructuredMessageEncodeStream, StructuredMessageProperties

from dataplane.blobapi import limits, sas
from dataplane.blobapi.checksums import crc64, crc64_bytes, encoded
from dataplane.blobapi.dates import http_date
from tests.support import ACCOUNT, KEY, Answer, InProcessServer, WireClient

BLOCK_BLOB = {"x-ms-blob-type": "BlockBlob"}
LEASE_ID = "5f2d7a0e-8a7b-4b57-9c1f-0d6ad0b3b6f1"
OTHER_ID = "00000000-0000-4000-8000-000000000000"
PAST, FUTURE = http_date(1_000_000_000), http_date(4_000_000_000)
#: Lengths around every way that a body takes: none, hashed here, hashed elsewhere, in memory, in a file, many pieces.
SIZES = [
    0, 1, limits.hash_inline_bytes_max, limits.hash_inline_bytes_max + 1, limits.small_body_bytes_max,
    limits.small_body_bytes_max + 1, limits.body_piece_bytes_max * 3 + 17,
]  # fmt: skip


def put(
    client: WireClient, path: str, body: bytes = b"hello", headers: Mapping[str, str] = MappingProxyType({})
) -> Answer:
    return client.request("PUT", path, None, {**BLOCK_BLOB, **headers}, body)


def md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def crc(data: bytes) -> str:
    return encoded(crc64_bytes(crc64(data)))


def refused(answer: Answer) -> tuple[int, str]:
    assert answer.xml().findtext("Code") == answer.code
    return answer.status, answer.code


def file_of(server: InProcessServer, path: str) -> Path:
    """The plain file of a blob with an ordinary name."""
    return Path(next(iter(server.node.accounts.values())).settings.root) / path.lstrip("/")


def staged_files(server: InProcessServer) -> list[str]:
    return [str(path) for path in file_of(server, "/.blobedge/staging").rglob("*") if path.is_file()]


# --- content ---


@pytest.mark.parametrize("size", SIZES)
def test_content(server: InProcessServer, client: WireClient, container: str, size: int) -> None:
    body = os.urandom(size)
    answer = put(client, container + "/dir/blob", body)
    assert (answer.status, answer.body) == (201, b"")
    assert answer.headers["etag"].startswith('"0x8D')
    assert answer.headers["content-md5"] == md5(body)
    assert answer.headers["x-ms-content-crc64"] == crc(body)
    assert answer.headers["x-ms-request-server-encrypted"] == "true"
    assert file_of(server, container + "/dir/blob").read_bytes() == body
    found = client.request("GET", container + "/dir/blob")
    assert (found.status, found.body) == (200, body)
    assert found.headers["etag"] == answer.headers["etag"]
    assert found.headers["last-modified"] == answer.headers["last-modified"]
    assert found.headers["content-md5"] == md5(body)
    assert staged_files(server) == []


def test_an_old_version_answers_no_crc64(client: WireClient, container: str) -> None:
    answer = client.request("PUT", container + "/b", None, BLOCK_BLOB, b"hello", version="2018-11-09")
    assert answer.headers["content-md5"] == md5(b"hello")
    assert "x-ms-content-crc64" not in answer.headers


def test_chunked_body(client: WireClient, container: str) -> None:
    piece = os.urandom(limits.small_body_bytes_max)
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for _ in range(3)) + b"0\r\n\r\n"
    client_sas = _account_sas()
    headers = {**BLOCK_BLOB, "host": "x", "x-ms-version": "2023-11-03", "transfer-encoding": "chunked"}
    answer = client.send("PUT", f"/{client.account}{container}/chunked?{client_sas}", headers, chunked)
    assert answer.status == 201
    assert client.request("GET", container + "/chunked").body == piece * 3


def _account_sas() -> str:
    return sas.issue(sas.account_token("rwdlac", "2036-01-01T00:00:00Z"), ACCOUNT, base64.b64decode(KEY)).query()


# --- properties ---


def test_properties_from_headers(client: WireClient, container: str) -> None:
    headers = {
        "x-ms-blob-content-type": "text/csv",
        "content-type": "text/plain",
        "x-ms-blob-content-encoding": "gzip",
        "x-ms-blob-content-language": "en",
        "x-ms-blob-content-disposition": "attachment",
        "x-ms-blob-cache-control": "no-cache",
        "x-ms-meta-Key": "value",
        "x-ms-tags": "a=1&b=2%203",
        "x-ms-access-tier": "Cool",
    }
    assert put(client, container + "/b", b"x", headers=headers).status == 201
    found = client.request("HEAD", container + "/b")
    assert found.headers["content-type"] == "text/csv"
    assert found.headers["content-encoding"] == "gzip"
    assert found.headers["content-language"] == "en"
    assert found.headers["content-disposition"] == "attachment"
    assert found.headers["cache-control"] == "no-cache"
    assert found.headers["x-ms-meta-key"] == "value"
    assert found.headers["x-ms-tag-count"] == "2"
    assert found.headers["x-ms-access-tier"] == "Cool"
    assert "x-ms-access-tier-inferred" not in found.headers
    assert "x-ms-access-tier-change-time" in found.headers
    assert put(client, container + "/b", b"y").status == 201  # everything is replaced
    found = client.request("HEAD", container + "/b")
    assert found.headers["content-type"] == "application/octet-stream"
    assert found.headers["x-ms-access-tier-inferred"] == "true"
    for name in ("content-encoding", "content-language", "content-disposition", "cache-control", "x-ms-meta-key"):
        assert name not in found.headers


def test_plain_headers_count_too(client: WireClient, container: str) -> None:
    headers = {"content-type": "text/plain", "content-encoding": "br", "content-language": "de"}
    assert put(client, container + "/b", b"x", headers={**headers, "cache-control": "max-age=1"}).status == 201
    found = client.request("HEAD", container + "/b").headers
    assert (found["content-type"], found["content-encoding"], found["content-language"], found["cache-control"]) == (
        "text/plain", "br", "de", "max-age=1",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "expected", "name"),
    [
        ({"x-ms-blob-type": "AppendBlob"}, (400, "FeatureNotSupported"), "x-ms-blob-type"),
        ({"x-ms-blob-type": "PageBlob"}, (400, "FeatureNotSupported"), "x-ms-blob-type"),
        ({"x-ms-blob-type": "TreeBlob"}, (400, "InvalidHeaderValue"), "x-ms-blob-type"),
        ({"x-ms-blob-type": ""}, (400, "MissingRequiredHeader"), "x-ms-blob-type"),
        ({"x-ms-access-tier": "P10"}, (400, "InvalidHeaderValue"), "x-ms-access-tier"),
        ({"x-ms-lease-id": "no guid"}, (400, "InvalidHeaderValue"), "x-ms-lease-id"),
        ({"if-modified-since": "yesterday"}, (400, "InvalidHeaderValue"), "if-modified-since"),
        ({"x-ms-meta-a-b": "x"}, (400, "InvalidMetadata"), None),
        ({"x-ms-meta-a": "x" * 9000}, (400, "MetadataTooLarge"), None),
        ({"x-ms-tags": "&".join(f"k{i}=v" for i in range(11))}, (400, "TagsTooLarge"), None),
        ({"x-ms-tags": "a=1&a=2"}, (400, "DuplicateTagNames"), None),
    ],
)
def test_headers_refused(
    client: WireClient, container: str, headers: dict[str, str], expected: tuple[int, str], name: str | None
) -> None:
    answer = put(client, container + "/b", headers=headers)
    assert refused(answer) == expected
    assert answer.xml().findtext("HeaderName") == name
    assert client.request("HEAD", container + "/b").status == 404


# --- checksums ---


@pytest.mark.parametrize("size", [5, limits.small_body_bytes_max + 5])
@pytest.mark.parametrize(
    ("name", "code"),
    [("content-md5", "Md5Mismatch"), ("x-ms-blob-content-md5", "Md5Mismatch"), ("x-ms-content-crc64", "Crc64Mismatch")],
)
def test_checksums(
    server: InProcessServer, client: WireClient, container: str, size: int, name: str, code: str
) -> None:
    body, other = os.urandom(size), os.urandom(size)
    compute = crc if "crc" in name else md5
    assert put(client, container + "/good", body, headers={name: compute(body)}).status == 201
    answer = put(client, container + "/bad", body, headers={name: compute(other)})
    assert refused(answer) == (400, code)
    assert client.request("HEAD", container + "/bad").status == 404
    assert staged_files(server) == []


def test_checksum_headers_that_are_none(client: WireClient, container: str) -> None:
    assert put(client, container + "/b", headers={"x-ms-blob-content-md5": ""}).status == 201  # AzCopy sends this
    assert refused(put(client, container + "/b", headers={"content-md5": "c2hvcnQ="})) == (400, "InvalidMd5")
    assert refused(put(client, container + "/b", headers={"x-ms-content-crc64": "c2hvcnQ="})) == (
        400,
        "InvalidHeaderValue",
    )
    both = {"content-md5": md5(b"hello"), "x-ms-content-crc64": crc(b"hello")}
    assert refused(put(client, container + "/b", headers=both)) == (400, "BothCrc64AndMd5HeaderPresent")
    hidden = {"x-ms-blob-content-md5": md5(b"hello"), "content-md5": md5(b"other")}
    assert put(client, container + "/b", headers=hidden).status == 201


@pytest.mark.parametrize("size", [1, limits.small_body_bytes_max, limits.small_body_bytes_max + 1, 9 * limits.MIB])
def test_structured_body(client: WireClient, container: str, size: int) -> None:
    body = os.urandom(size)
    message = StructuredMessageEncodeStream(BytesIO(body), size, StructuredMessageProperties.CRC64).read()
    headers = {"x-ms-structured-body": "XSM/1.0; properties=crc64", "x-ms-structured-content-length": str(size)}
    answer = put(client, container + "/s", message, headers=headers)
    assert answer.status == 201
    assert answer.headers["x-ms-structured-body"] == "XSM/1.0; properties=crc64"
    assert client.request("GET", container + "/s").body == body
    broken = bytearray(message)
    broken[30 if size > 10 else 23] ^= 1
    assert refused(put(client, container + "/t", bytes(broken), headers=headers)) == (400, "Crc64Mismatch")
    assert refused(put(client, container + "/t", message[:-1], headers=headers))[0] == 400
    assert client.request("HEAD", container + "/t").status == 404


# --- what is there already ---


def test_conditions(client: WireClient, container: str) -> None:
    path = container + "/b"
    assert refused(put(client, path, headers={"if-match": "*"})) == (412, "ConditionNotMet")
    first = put(client, path, b"1", {"if-none-match": "*"})
    assert first.status == 201
    etag = first.headers["etag"]
    assert refused(put(client, path, headers={"if-none-match": "*"})) == (409, "BlobAlreadyExists")
    assert refused(put(client, path, headers={"if-none-match": etag})) == (412, "ConditionNotMet")
    assert refused(put(client, path, headers={"if-match": '"0x8D0000000000000"'})) == (412, "ConditionNotMet")
    assert refused(put(client, path, headers={"if-modified-since": FUTURE})) == (412, "ConditionNotMet")
    assert refused(put(client, path, headers={"if-unmodified-since": PAST})) == (412, "ConditionNotMet")
    assert refused(put(client, path, headers={"x-ms-if-tags": "a = '1'"})) == (412, "ConditionNotMet")
    assert client.request("GET", path).body == b"1"
    second = put(client, path, b"2", headers={"if-match": etag})
    assert second.status == 201
    assert second.headers["etag"] != etag
    assert put(client, path, b"3", headers={"if-match": second.headers["etag"].strip('"')}).status == 201


def test_one_of_many_creators_wins(server: InProcessServer, container: str) -> None:
    statuses: list[int] = []

    def create() -> None:
        own = server.client()
        statuses.append(put(own, container + "/one", headers={"if-none-match": "*"}).status)
        own.close()

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201] + [409] * 7


def test_leases(client: WireClient, container: str) -> None:
    path = container + "/b"
    assert put(client, path, b"1").status == 201
    assert refused(put(client, path, headers={"x-ms-lease-id": LEASE_ID})) == (412, "LeaseNotPresentWithBlobOperation")
    headers = {"x-ms-lease-action": "acquire", "x-ms-lease-duration": "-1", "x-ms-proposed-lease-id": LEASE_ID}
    assert client.request("PUT", path, {"comp": "lease"}, headers).status == 201
    assert refused(put(client, path)) == (412, "LeaseIdMissing")
    assert refused(put(client, path, headers={"x-ms-lease-id": OTHER_ID})) == (412, "LeaseIdMismatchWithBlobOperation")
    assert put(client, path, b"2", headers={"x-ms-lease-id": LEASE_ID}).status == 201
    # The holder of the lease overwrites even with If-None-Match: * (a recording of the service).
    assert put(client, path, b"3", headers={"x-ms-lease-id": LEASE_ID, "if-none-match": "*"}).status == 201
    found = client.request("HEAD", path)
    assert (found.headers["x-ms-lease-state"], found.headers["content-length"]) == ("leased", "1")


def test_create_permission_does_not_overwrite(client: WireClient, container: str) -> None:
    token = sas.issue(
        sas.service_token("c", "c", "2036-01-01T00:00:00Z"), ACCOUNT, base64.b64decode(KEY), container
    ).query()
    headers = {**BLOCK_BLOB, "host": "x", "x-ms-version": "2023-11-03", "content-length": "1"}
    target = f"/{ACCOUNT}{container}/b?{token}"
    assert client.send("PUT", target, headers, b"1").status == 201
    assert refused(client.send("PUT", target, headers, b"2")) == (403, "UnauthorizedBlobOverwrite")


def test_no_container(client: WireClient) -> None:
    for size in (5, limits.small_body_bytes_max + 1):
        assert refused(put(client, "/absent/b", b"x" * size)) == (404, "ContainerNotFound")


# --- sizes and early refusals ---


@pytest.mark.parametrize(
    ("version", "bytes_max"),
    [("2014-02-14", 64 * limits.MIB), ("2018-11-09", 256 * limits.MIB), ("2023-11-03", 5000 * limits.MIB)],
)
def test_too_large(client: WireClient, container: str, version: str, bytes_max: int) -> None:
    headers = {**BLOCK_BLOB, "content-length": str(bytes_max + 1), "expect": "100-continue"}
    answer = client.request("PUT", container + "/b", None, headers, version=version)
    assert refused(answer) == (413, "RequestBodyTooLarge")
    assert answer.xml().findtext("MaxLimit") == str(bytes_max)


def test_no_length(client: WireClient, container: str) -> None:
    target = f"/{client.account}{container}/b?{_account_sas()}"
    answer = client.send("PUT", target, {**BLOCK_BLOB, "host": "x", "x-ms-version": "2023-11-03"})
    assert refused(answer) == (411, "MissingContentLengthHeader")


def test_a_large_body_is_refused_before_it_is_sent(client: WireClient, container: str) -> None:
    """The client waits for "100 Continue" and gets the final status instead."""
    assert put(client, container + "/b").status == 201
    headers = {**BLOCK_BLOB, "content-length": "1000000", "expect": "100-continue", "if-none-match": "*"}
    answer = client.request("PUT", container + "/b", None, headers)
    assert refused(answer) == (409, "BlobAlreadyExists")


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessServer]:
    """A server that syncs, as a real one does."""
    started = InProcessServer(tmp_path_factory.mktemp("root"), strict=True)
    yield started
    started.close()


def test_with_strict_durability(strict_server: InProcessServer) -> None:
    client = strict_server.client()
    assert client.request("PUT", "/strict", {"restype": "container"}).status == 201
    for size in SIZES:
        body = os.urandom(size)
        assert put(client, f"/strict/{size}", body).status == 201
        assert client.request("GET", f"/strict/{size}").body == body
    client.close()
