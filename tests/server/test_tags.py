"""Get and Set Blob Tags over the wire: round trips, conditions, leases, refusals."""

import base64
import hashlib
import itertools
from collections.abc import Iterator, Mapping

import pytest

from tests.support import Answer, InProcessServer, WireClient

TAGS = {"comp": "tags"}
LEASE = "a0e6c241-96ea-45a3-a44b-6ae868bc14d0"
OTHER_LEASE = "b831fc5e-5698-4e4e-a897-d8a9fd515ade"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path_factory.mktemp("store") / "root")
    client = running.client()
    assert client.request("PUT", "/tags", {"restype": "container"}).status == 201
    client.close()
    yield running
    running.close()


@pytest.fixture
def client(server: InProcessServer) -> Iterator[WireClient]:
    found = server.client()
    yield found
    found.close()


@pytest.fixture
def blob(client: WireClient) -> str:
    path = f"/tags/blob{next(_numbers)}"
    headers = {"x-ms-blob-type": "BlockBlob", "x-ms-tags": "k=1&other=a+b"}
    assert client.request("PUT", path, None, headers, b"x").status == 201
    return path


def _document(tags: Mapping[str, str]) -> bytes:
    items = "".join(f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>" for key, value in tags.items())
    return f"<Tags><TagSet>{items}</TagSet></Tags>".encode()


def _set(client: WireClient, blob: str, tags: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Answer:
    return client.request("PUT", blob, TAGS, headers, _document(tags))


def _get(client: WireClient, blob: str, headers: Mapping[str, str] | None = None) -> dict[str, str]:
    answer = client.request("GET", blob, TAGS, headers)
    assert answer.status == 200
    return {tag.findtext("Key") or "": tag.findtext("Value") or "" for tag in answer.xml().iterfind("TagSet/Tag")}


def test_tags_of_put_blob_are_replaced_and_removed(client: WireClient, blob: str) -> None:
    assert _get(client, blob) == {"k": "1", "other": "a b"}
    before = client.request("HEAD", blob)
    answer = _set(client, blob, {"new": "", "x:y": "1/2"})
    assert (answer.status, answer.body) == (204, b"")
    assert _get(client, blob) == {"new": "", "x:y": "1/2"}
    assert _set(client, blob, {}).status == 204
    assert _get(client, blob) == {}
    after = client.request("HEAD", blob)
    assert [before.headers[name] for name in ("etag", "last-modified")] == [
        after.headers[name] for name in ("etag", "last-modified")
    ]


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ({"x-ms-if-tags": "k='1'"}, 204),
        ({"x-ms-if-tags": "k='2' OR other='a b'"}, 204),
        ({"x-ms-if-tags": "k<>'1'"}, 412),
        ({"x-ms-if-tags": "missing<>'1'"}, 412),
        ({"x-ms-if-tags": "k"}, 400),
        ({"x-ms-blob-if-match": "*"}, 204),
        ({"if-match": '"0x8D0000000000000"'}, 412),
        ({"if-match": '"0x8D0000000000000"', "x-ms-blob-if-match": "*"}, 204),
        ({"x-ms-blob-if-match": '"0x8D0000000000000"'}, 412),
        ({"x-ms-blob-if-unmodified-since": "Mon, 01 Jan 2018 00:00:00 GMT"}, 412),
    ],
)
def test_conditions(client: WireClient, blob: str, condition: dict[str, str], status: int) -> None:
    assert _set(client, blob, {"k": "new"}, condition).status == status
    assert _get(client, blob)["k"] == ("new" if status == 204 else "1")


def test_a_condition_on_reading(client: WireClient, blob: str) -> None:
    assert _get(client, blob, {"x-ms-if-tags": "k='1'"})
    answer = client.request("GET", blob, TAGS, {"x-ms-if-tags": "k='2'"})
    assert (answer.status, answer.code) == (412, "ConditionNotMet")


def test_a_leased_blob(client: WireClient, blob: str) -> None:
    acquire = {"x-ms-lease-action": "acquire", "x-ms-lease-duration": "-1", "x-ms-proposed-lease-id": LEASE}
    assert client.request("PUT", blob, {"comp": "lease"}, acquire).status == 201
    assert _set(client, blob, {"k": "2"}).code == "LeaseIdMissing"
    assert _set(client, blob, {"k": "2"}, {"x-ms-lease-id": OTHER_LEASE}).code == "LeaseIdMismatchWithBlobOperation"
    assert _set(client, blob, {"k": "2"}, {"x-ms-lease-id": LEASE}).status == 204
    assert _get(client, blob) == {"k": "2"}
    assert client.request("GET", blob, TAGS, {"x-ms-lease-id": OTHER_LEASE}).status == 412
    assert client.request("GET", blob, TAGS, {"x-ms-lease-id": "'not a guid'"}).status == 400


def test_checksums(client: WireClient, blob: str) -> None:
    md5 = base64.b64encode(hashlib.md5(_document({"k": "2"})).digest()).decode()
    assert _set(client, blob, {"k": "2"}, {"content-md5": md5}).status == 204
    assert _set(client, blob, {"k": "3"}, {"content-md5": md5}).code == "Md5Mismatch"
    assert _get(client, blob) == {"k": "2"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "InvalidXmlDocument"),
        (_document({"": "1"}), "EmptyTagName"),
        (_document({"k": "a,b"}), "InvalidTags"),
        (_document({f"k{n}": "v" for n in range(11)}), "TagsTooLarge"),
        (_document({"k": "1"}) * 2, "InvalidXmlDocument"),
    ],
)
def test_documents_that_are_refused(client: WireClient, blob: str, body: bytes, code: str) -> None:
    answer = client.request("PUT", blob, TAGS, None, body)
    assert (answer.status, answer.code) == (400, code)


@pytest.mark.parametrize(("path", "code"), [("/tags/none", "BlobNotFound"), ("/nosuch/none", "ContainerNotFound")])
def test_what_is_not_there(client: WireClient, path: str, code: str) -> None:
    assert client.request("GET", path, TAGS).code == code
    assert _set(client, path, {"k": "1"}).code == code


def test_a_snapshot_keeps_its_tags(client: WireClient, blob: str) -> None:
    snapshot = client.request("PUT", blob, {"comp": "snapshot"}).headers["x-ms-snapshot"]
    assert _set(client, blob, {"k": "2"}).status == 204
    answer = client.request("GET", blob, {**TAGS, "snapshot": snapshot})
    assert answer.status == 200
    assert [tag.findtext("Value") for tag in answer.xml().iterfind("TagSet/Tag")] == ["1", "a b"]
    assert client.request("GET", blob, {**TAGS, "snapshot": ""}).status == 400
