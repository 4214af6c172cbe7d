"""Put Block, Put Block List and Get Block List on the wire."""

import base64
import hashlib
import os
from collections.abc import Mapping
from types import MappingProxyType

import pytest

from dataplane.blobapi import limits
from dataplane.blobapi.checksums import crc64, crc64_bytes, encoded
from tests.support import Answer, WireClient

LEASE_ID = "5f2d7a0e-8a7b-4b57-9c1f-0d6ad0b3b6f1"
NONE: Mapping[str, str] = MappingProxyType({})
OLD = "2018-11-09"


def md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def crc(data: bytes) -> str:
    return encoded(crc64_bytes(crc64(data)))


def block_id(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def put_block(
    client: WireClient, path: str, name: str, body: bytes = b"block", headers: Mapping[str, str] = NONE,
    version: str = "2023-11-03",
) -> Answer:  # fmt: skip
    return client.request("PUT", path, {"comp": "block", "blockid": block_id(name)}, headers, body, version=version)


def commit(
    client: WireClient, path: str, *entries: tuple[str, str], headers: Mapping[str, str] = NONE,
    version: str = "2023-11-03",
) -> Answer:  # fmt: skip
    items = "".join(f"<{where}>{block_id(name)}</{where}>" for where, name in entries)
    body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{items}</BlockList>'.encode()
    return client.request("PUT", path, {"comp": "blocklist"}, headers, body, version=version)


def block_list(client: WireClient, path: str, kind: str = "all") -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    answer = client.request("GET", path, {"comp": "blocklist", "blocklisttype": kind})
    assert answer.status == 200
    found = []
    for tag in ("CommittedBlocks", "UncommittedBlocks"):
        blocks = answer.xml().findall(f"{tag}/Block")
        names = [base64.b64decode(block.findtext("Name") or "").decode() for block in blocks]
        found.append(list(zip(names, [int(block.findtext("Size") or "") for block in blocks], strict=True)))
    return found[0], found[1]


def refused(answer: Answer) -> tuple[int, str]:
    assert answer.xml().findtext("Code") == answer.code
    return answer.status, answer.code


# --- Put Block ---


def test_blocks_make_a_blob(client: WireClient, container: str) -> None:
    path = container + "/b"
    bodies = {
        name: os.urandom(size) for name, size in (("1", 3), ("2", limits.small_body_bytes_max + 1), ("3", 70_000))
    }
    for name in "312":
        answer = put_block(client, path, name, bodies[name])
        assert (answer.status, answer.body) == (201, b"")
        assert answer.headers["x-ms-content-crc64"] == crc(bodies[name])
        assert answer.headers["x-ms-request-server-encrypted"] == "true"
        assert "content-md5" not in answer.headers
        assert "etag" not in answer.headers
    assert refused(client.request("GET", path)) == (404, "BlobNotFound")
    assert sorted(block_list(client, path)[1]) == sorted((name, len(body)) for name, body in bodies.items())
    answer = commit(client, path, *(("Latest", name) for name in "123"))
    assert (answer.status, answer.body) == (201, b"")
    assert answer.headers["x-ms-request-server-encrypted"] == "true"
    found = client.request("GET", path)
    assert found.body == bodies["1"] + bodies["2"] + bodies["3"]
    assert found.headers["etag"] == answer.headers["etag"]
    assert "content-md5" not in found.headers
    assert block_list(client, path) == ([(name, len(bodies[name])) for name in "123"], [])


@pytest.mark.parametrize(
    ("version", "sent", "echoed"),
    [(OLD, "", "md5"), ("2023-11-03", "", "crc"), ("2023-11-03", "md5", "md5"), ("2023-11-03", "crc", "crc")],
)
def test_checksums(client: WireClient, container: str, version: str, sent: str, echoed: str) -> None:
    name = {"md5": "content-md5", "crc": "x-ms-content-crc64"}
    value = {"md5": md5(b"block"), "crc": crc(b"block")}
    headers = {name[sent]: value[sent]} if sent else {}
    answer = put_block(client, container + "/b", "1", b"block", headers, version)
    assert answer.status == 201
    for kind in ("md5", "crc"):
        assert answer.headers.get(name[kind]) == (value[kind] if kind == echoed else None)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"content-md5": md5(b"other")}, "Md5Mismatch"),
        ({"content-md5": "c2hvcnQ="}, "InvalidMd5"),
        ({"x-ms-content-crc64": crc(b"other")}, "Crc64Mismatch"),
        ({"x-ms-content-crc64": "c2hvcnQ="}, "InvalidHeaderValue"),
        ({"content-md5": md5(b"block"), "x-ms-content-crc64": crc(b"block")}, "BothCrc64AndMd5HeaderPresent"),
        ({"x-ms-lease-id": "none"}, "InvalidHeaderValue"),
    ],
)
def test_put_block_headers_refused(client: WireClient, container: str, headers: dict[str, str], code: str) -> None:
    assert refused(put_block(client, container + "/b", "1", b"block", headers)) == (400, code)
    assert client.request("GET", container + "/b", {"comp": "blocklist"}).status == 404


def test_put_block_ignores_the_blobs_md5(client: WireClient, container: str) -> None:
    assert put_block(client, container + "/b", "1", b"block", {"x-ms-blob-content-md5": "nonsense"}).status == 201


def test_block_ids(client: WireClient, container: str) -> None:
    path = container + "/b"

    def put(value: str | None) -> tuple[int, str]:
        query = {"comp": "block"} if value is None else {"comp": "block", "blockid": value}
        return refused(client.request("PUT", path, query, None, b"x"))

    assert put(None) == (400, "MissingRequiredQueryParameter")
    assert put("not base64") == (400, "InvalidBlockId")
    assert put(block_id("x" * 65)) == (400, "InvalidBlockId")
    assert put_block(client, path, "x" * 64).status == 201
    assert refused(put_block(client, path, "short")) == (400, "InvalidBlobOrBlock")
    assert commit(client, path, ("Latest", "x" * 64)).status == 201
    assert put_block(client, path, "short").status == 201  # after a commit any length


def test_put_block_again_replaces(client: WireClient, container: str) -> None:
    path = container + "/b"
    assert put_block(client, path, "1", b"first").status == 201
    assert put_block(client, path, "1", b"second!").status == 201
    assert block_list(client, path) == ([], [("1", 7)])
    assert commit(client, path, ("Latest", "1")).status == 201
    assert client.request("GET", path).body == b"second!"


def test_put_block_sizes(client: WireClient, container: str) -> None:
    path = container + "/b"
    assert refused(put_block(client, path, "1", b"")) == (400, "InvalidHeaderValue")
    for version, bytes_max in ((OLD, 100), ("2015-04-05", 4), ("2019-12-12", 4000)):
        headers = {"content-length": str(bytes_max * limits.MIB + 1), "expect": "100-continue"}
        query = {"comp": "block", "blockid": block_id("1")}
        answer = client.request("PUT", path, query, headers, version=version)
        assert refused(answer) == (413, "RequestBodyTooLarge")
        client.close()


def test_put_block_needs_a_container(client: WireClient) -> None:
    for size in (5, limits.small_body_bytes_max + 1):
        assert refused(put_block(client, "/absent/b", "1", b"x" * size)) == (404, "ContainerNotFound")


def test_put_block_and_leases(client: WireClient, container: str) -> None:
    path = container + "/b"
    assert commit(client, path).status == 201
    headers = {"x-ms-lease-action": "acquire", "x-ms-lease-duration": "-1", "x-ms-proposed-lease-id": LEASE_ID}
    assert client.request("PUT", path, {"comp": "lease"}, headers).status == 201
    for size in (5, limits.small_body_bytes_max + 1):
        assert refused(put_block(client, path, "1", b"x" * size)) == (412, "LeaseIdMissing")
    assert put_block(client, path, "1", b"x", {"x-ms-lease-id": LEASE_ID}).status == 201
    assert refused(commit(client, path, ("Latest", "1"))) == (412, "LeaseIdMissing")
    assert commit(client, path, ("Latest", "1"), headers={"x-ms-lease-id": LEASE_ID}).status == 201


# --- Put Block List ---


def test_commit_chooses_blocks(client: WireClient, container: str) -> None:
    path = container + "/b"
    for name in "12":
        assert put_block(client, path, name, b"old" + name.encode()).status == 201
    assert commit(client, path, ("Uncommitted", "1"), ("Uncommitted", "2")).status == 201
    assert put_block(client, path, "1", b"new1").status == 201
    assert put_block(client, path, "3", b"new3").status == 201
    entries = [("Committed", "1"), ("Latest", "1"), ("Latest", "2"), ("Committed", "1")]
    assert commit(client, path, *entries).status == 201
    assert client.request("GET", path).body == b"old1" + b"new1" + b"old2" + b"old1"
    assert block_list(client, path)[1] == []  # what was not listed is gone


@pytest.mark.parametrize("entry", [("Committed", "1"), ("Uncommitted", "2"), ("Latest", "9")])
def test_commit_of_what_is_not_there(client: WireClient, container: str, entry: tuple[str, str]) -> None:
    path = container + "/b"
    assert put_block(client, path, "2").status == 201
    assert commit(client, path, ("Latest", "2")).status == 201
    assert put_block(client, path, "1").status == 201
    assert refused(commit(client, path, entry)) == (400, "InvalidBlockList")
    assert client.request("GET", path).body == b"block"
    assert block_list(client, path) == ([("2", 5)], [("1", 5)])


def test_an_empty_list_makes_an_empty_blob(client: WireClient, container: str) -> None:
    assert commit(client, container + "/b").status == 201
    found = client.request("GET", container + "/b")
    assert (found.status, found.body) == (200, b"")


def test_commit_sets_properties_and_keeps_the_creation_time(client: WireClient, container: str) -> None:
    path = container + "/b"
    assert commit(client, path).status == 201
    created = client.request("HEAD", path).headers["x-ms-creation-time"]
    headers = {
        "content-type": "application/xml",
        "x-ms-blob-content-type": "image/png",
        "x-ms-blob-content-md5": md5(b"not verified"),
        "x-ms-meta-a": "1",
        "x-ms-tags": "a=1",
        "x-ms-access-tier": "Cool",
    }
    assert commit(client, path, headers=headers).status == 201
    found = client.request("HEAD", path).headers
    assert found["x-ms-creation-time"] == created
    assert found["content-type"] == "image/png"
    assert found["content-md5"] == md5(b"not verified")
    assert (found["x-ms-meta-a"], found["x-ms-tag-count"], found["x-ms-access-tier"]) == ("1", "1", "Cool")
    assert commit(client, path, headers={"content-type": "application/xml"}).status == 201
    found = client.request("HEAD", path).headers
    assert found["content-type"] == "application/octet-stream"
    assert "content-md5" not in found


def test_checksums_of_the_list(client: WireClient, container: str) -> None:
    body = b'<?xml version="1.0" encoding="utf-8"?><BlockList></BlockList>'
    path = container + "/b"
    assert commit(client, path).headers["x-ms-content-crc64"] == crc(body)
    assert commit(client, path, version=OLD).headers["content-md5"] == md5(body)
    assert commit(client, path, headers={"content-md5": md5(body)}).headers["content-md5"] == md5(body)
    assert refused(commit(client, path, headers={"content-md5": md5(b"x")})) == (400, "Md5Mismatch")
    assert refused(commit(client, path, headers={"x-ms-content-crc64": crc(b"x")})) == (400, "Crc64Mismatch")
    assert refused(commit(client, path, headers={"x-ms-blob-content-md5": "c2hvcnQ="})) == (400, "InvalidMd5")


def test_commit_conditions(client: WireClient, container: str) -> None:
    path = container + "/b"
    assert refused(commit(client, path, headers={"if-match": "*"})) == (412, "ConditionNotMet")
    etag = commit(client, path, headers={"if-none-match": "*"}).headers["etag"]
    assert refused(commit(client, path, headers={"if-none-match": "*"})) == (409, "BlobAlreadyExists")
    assert refused(commit(client, path, headers={"if-none-match": etag})) == (412, "ConditionNotMet")
    assert commit(client, path, headers={"if-match": etag}).status == 201
    assert refused(commit(client, path, headers={"if-match": etag})) == (412, "ConditionNotMet")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "InvalidXmlDocument"),
        (b"<BlockList>", "InvalidXmlDocument"),
        (b"<Blocks/>", "InvalidXmlDocument"),
        (b"<BlockList><Newest>MQ==</Newest></BlockList>", "InvalidXmlDocument"),
        (b"<BlockList><Latest>!</Latest></BlockList>", "InvalidBlockId"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><BlockList/>", "InvalidXmlDocument"),
        (b"<BlockList>" + b"<Latest>MQ==</Latest>" * 50_001 + b"</BlockList>", "BlockListTooLong"),
    ],
)
def test_commit_bodies_refused(client: WireClient, container: str, body: bytes, code: str) -> None:
    answer = client.request("PUT", container + "/b", {"comp": "blocklist"}, None, body)
    assert refused(answer) == (400, code)


def test_commit_needs_a_container(client: WireClient) -> None:
    assert refused(commit(client, "/absent/b")) == (404, "ContainerNotFound")


# --- Get Block List ---


def test_get_block_list(client: WireClient, container: str) -> None:
    path = container + "/b"
    assert put_block(client, path, "1", b"one").status == 201
    headers = client.request("GET", path, {"comp": "blocklist", "blocklisttype": "all"}).headers
    assert headers["content-type"] == "application/xml"
    assert "etag" not in headers
    assert "x-ms-blob-content-length" not in headers
    etag = commit(client, path, ("Latest", "1")).headers["etag"]
    assert put_block(client, path, "2", b"second").status == 201
    assert block_list(client, path, "committed") == ([("1", 3)], [])
    assert block_list(client, path, "uncommitted") == ([], [("2", 6)])
    assert block_list(client, path, "all") == ([("1", 3)], [("2", 6)])
    answer = client.request("GET", path, {"comp": "blocklist"})
    assert (answer.headers["etag"], answer.headers["x-ms-blob-content-length"]) == (etag, "3")
    assert answer.xml().find("UncommittedBlocks") is None
    assert client.request("PUT", path, None, {"x-ms-blob-type": "BlockBlob"}, b"whole").status == 201
    assert block_list(client, path) == ([], [])  # Put Blob takes the uncommitted ones along


@pytest.mark.parametrize(
    ("query", "headers", "expected"),
    [
        ({"blocklisttype": "some"}, {}, (400, "InvalidQueryParameterValue")),
        ({}, {"x-ms-lease-id": LEASE_ID}, (412, "LeaseNotPresentWithBlobOperation")),
        ({}, {"x-ms-if-tags": "a = '2'"}, (412, "ConditionNotMet")),
        ({}, {"x-ms-if-tags": "a = '1'"}, (200, "")),
    ],
)
def test_get_block_list_refused(
    client: WireClient, container: str, query: dict[str, str], headers: dict[str, str], expected: tuple[int, str]
) -> None:
    assert commit(client, container + "/b", headers={"x-ms-tags": "a=1"}).status == 201
    answer = client.request("GET", container + "/b", {"comp": "blocklist", **query}, headers)
    assert (answer.status, answer.code) == expected


def test_get_block_list_of_nothing(client: WireClient, container: str) -> None:
    query = {"comp": "blocklist", "blocklisttype": "all"}
    assert refused(client.request("GET", container + "/absent", query)) == (404, "BlobNotFound")
    assert refused(client.request("GET", "/absent/b", query)) == (404, "ContainerNotFound")


def test_block_list_of_a_snapshot(client: WireClient, container: str) -> None:
    path = container + "/b"
    assert put_block(client, path, "1", b"one").status == 201
    assert commit(client, path, ("Latest", "1")).status == 201
    snapshot = client.request("PUT", path, {"comp": "snapshot"}).headers["x-ms-snapshot"]
    assert put_block(client, path, "2", b"second").status == 201
    assert commit(client, path, ("Latest", "2")).status == 201
    answer = client.request("GET", path, {"comp": "blocklist", "blocklisttype": "all", "snapshot": snapshot})
    assert [block.findtext("Name") for block in answer.xml().findall("CommittedBlocks/Block")] == [block_id("1")]
    assert answer.xml().find("UncommittedBlocks") is None
