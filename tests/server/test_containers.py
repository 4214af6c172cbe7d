"""Operations on containers, on the wire: headers, conditions, leases, and each refusal."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dataplane.blobapi.dates import http_date
from tests.support import Answer, InProcessServer, WireClient

CONTAINER = {"restype": "container"}
METADATA = {"restype": "container", "comp": "metadata"}
ACL = {"restype": "container", "comp": "acl"}
LEASE = {"restype": "container", "comp": "lease"}
LEASE_ID = "5f2d7a0e-8a7b-4b57-9c1f-0d6ad0b3b6f1"
OTHER_ID = "00000000-0000-4000-8000-000000000000"
PAST, FUTURE = http_date(1_000_000_000), http_date(4_000_000_000)


def acquire(client: WireClient, container: str) -> None:
    headers = {"x-ms-lease-action": "acquire", "x-ms-lease-duration": "-1", "x-ms-proposed-lease-id": LEASE_ID}
    assert client.request("PUT", container, LEASE, headers).status == 201


def refused(answer: Answer) -> tuple[int, str]:
    assert answer.xml().findtext("Code") == answer.code
    return answer.status, answer.code


# --- create and delete ---


def test_create(client: WireClient) -> None:
    headers = {"x-ms-meta-Purpose": "test", "x-ms-blob-public-access": "container"}
    answer = client.request("PUT", "/create-me", CONTAINER, headers)
    assert answer.status == 201
    assert answer.headers["etag"].startswith('"0x8D')
    assert answer.headers["last-modified"].endswith(" GMT")
    assert answer.headers["content-length"] == "0"
    found = client.request("GET", "/create-me", CONTAINER)
    assert found.headers["etag"] == answer.headers["etag"]
    assert found.headers["x-ms-meta-purpose"] == "test"
    assert found.headers["x-ms-blob-public-access"] == "container"


@pytest.mark.parametrize("name", ["/$root", "/$web"])
def test_create_special(client: WireClient, name: str) -> None:
    assert client.request("PUT", name, CONTAINER).status == 201
    assert client.request("GET", name, CONTAINER).status == 200
    assert client.request("DELETE", name, CONTAINER).status == 202


def test_create_what_is_the_services_own(client: WireClient) -> None:
    assert refused(client.request("PUT", "/$logs", CONTAINER)) == (400, "InvalidResourceName")


def test_create_what_exists(client: WireClient, container: str) -> None:
    before = client.request("GET", container, CONTAINER)
    assert refused(client.request("PUT", container, CONTAINER)) == (409, "ContainerAlreadyExists")
    assert client.request("GET", container, CONTAINER).headers["etag"] == before.headers["etag"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-ms-blob-public-access": "everybody"}, "InvalidHeaderValue"),
        ({"x-ms-meta-1digit": "a"}, "InvalidMetadata"),
        ({"x-ms-meta-a": "x" * 9000}, "MetadataTooLarge"),
    ],
)
def test_create_refused(client: WireClient, headers: dict[str, str], code: str) -> None:
    assert refused(client.request("PUT", "/never-made", CONTAINER, headers)) == (400, code)
    assert client.request("GET", "/never-made", CONTAINER).status == 404


def test_delete_and_create_again(client: WireClient, container: str) -> None:
    assert client.request("PUT", container + "/blob", None, {"x-ms-blob-type": "BlockBlob"}, b"x").status == 201
    answer = client.request("DELETE", container, CONTAINER)
    assert (answer.status, answer.body) == (202, b"")
    assert refused(client.request("GET", container, CONTAINER)) == (404, "ContainerNotFound")
    assert refused(client.request("DELETE", container, CONTAINER)) == (404, "ContainerNotFound")
    assert client.request("PUT", container, CONTAINER).status == 201
    assert refused(client.request("GET", container + "/blob")) == (404, "BlobNotFound")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if-modified-since": PAST}, 202),
        ({"if-modified-since": FUTURE}, 412),
        ({"if-unmodified-since": PAST}, 412),
        ({"if-unmodified-since": FUTURE}, 202),
        ({"if-match": "*"}, 400),
    ],
)
def test_delete_with_conditions(client: WireClient, container: str, headers: dict[str, str], status: int) -> None:
    assert client.request("DELETE", container, CONTAINER, headers).status == status


def test_delete_a_leased_one(client: WireClient, container: str) -> None:
    acquire(client, container)
    assert refused(client.request("DELETE", container, CONTAINER)) == (412, "LeaseIdMissing")
    wrong = client.request("DELETE", container, CONTAINER, {"x-ms-lease-id": OTHER_ID})
    assert refused(wrong) == (412, "LeaseIdMismatchWithContainerOperation")
    assert client.request("DELETE", container, CONTAINER, {"x-ms-lease-id": LEASE_ID}).status == 202


# --- properties and metadata ---


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_properties(client: WireClient, container: str, method: str) -> None:
    acquire(client, container)
    answer = client.request(method, container, CONTAINER, {"x-ms-lease-id": LEASE_ID})
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
    assert answer.headers["x-ms-lease-status"] == "locked"
    assert answer.headers["x-ms-lease-state"] == "leased"
    assert answer.headers["x-ms-lease-duration"] == "infinite"
    assert answer.headers["x-ms-has-immutability-policy"] == "false"
    assert answer.headers["x-ms-has-legal-hold"] == "false"
    assert answer.headers["x-ms-immutable-storage-with-versioning-enabled"] == "false"
    assert answer.headers["x-ms-default-encryption-scope"] == "$account-encryption-key"
    assert "x-ms-blob-public-access" not in answer.headers


def test_properties_of_an_old_version(client: WireClient, container: str) -> None:
    headers = client.request("GET", container, CONTAINER, version="2018-11-09").headers
    assert "x-ms-default-encryption-scope" not in headers
    assert "x-ms-immutable-storage-with-versioning-enabled" not in headers


def test_properties_with_a_lease_id_that_is_none(client: WireClient, container: str) -> None:
    answer = client.request("GET", container, CONTAINER, {"x-ms-lease-id": LEASE_ID})
    assert refused(answer) == (412, "LeaseNotPresentWithContainerOperation")
    answer = client.request("GET", container, CONTAINER, {"x-ms-lease-id": "nonsense"})
    assert refused(answer) == (400, "InvalidHeaderValue")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_metadata(client: WireClient, container: str, method: str) -> None:
    before = client.request("GET", container, METADATA)
    answer = client.request("PUT", container, METADATA, {"x-ms-meta-a": "1", "x-ms-meta-b": "2"})
    assert answer.status == 200
    assert answer.headers["etag"] != before.headers["etag"]
    found = client.request(method, container, METADATA)
    assert (found.headers["x-ms-meta-a"], found.headers["x-ms-meta-b"]) == ("1", "2")
    assert found.headers["etag"] == answer.headers["etag"]
    assert client.request("PUT", container, METADATA).status == 200
    assert not [name for name in client.request("GET", container, METADATA).headers if name.startswith("x-ms-meta-")]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"if-modified-since": FUTURE}, (412, "ConditionNotMet")),
        ({"if-unmodified-since": FUTURE}, (400, "ConditionHeadersNotSupported")),
        ({"x-ms-lease-id": LEASE_ID}, (412, "LeaseNotPresentWithContainerOperation")),
        ({"x-ms-meta-a-b": "hyphen"}, (400, "InvalidMetadata")),
    ],
)
def test_metadata_refused(
    client: WireClient, container: str, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    assert refused(client.request("PUT", container, METADATA, headers)) == expected
    assert refused(client.request("PUT", "/absent", METADATA)) == (404, "ContainerNotFound")


def test_a_lease_does_not_guard_metadata(client: WireClient, container: str) -> None:
    acquire(client, container)
    assert client.request("PUT", container, METADATA, {"x-ms-meta-a": "1"}).status == 200


# --- access policies ---

POLICY = (
    b"<SignedIdentifiers><SignedIdentifier><Id>reader</Id><AccessPolicy><Start>2026-01-01T00:00:00Z</Start>"
    b"<Expiry>2036-01-01</Expiry><Permission>rl</Permission></AccessPolicy></SignedIdentifier>"
    b"<SignedIdentifier><Id>bare</Id></SignedIdentifier></SignedIdentifiers>"
)


def test_acl(client: WireClient, container: str) -> None:
    empty = client.request("GET", container, ACL)
    assert empty.status == 200
    assert len(empty.xml()) == 0
    answer = client.request("PUT", container, ACL, {"x-ms-blob-public-access": "blob"}, POLICY)
    assert answer.status == 200
    assert answer.headers["etag"] != empty.headers["etag"]
    found = client.request("GET", container, ACL)
    assert found.headers["x-ms-blob-public-access"] == "blob"
    assert found.headers["etag"] == answer.headers["etag"]
    identifiers = {item.findtext("Id"): item for item in found.xml()}
    assert identifiers["reader"].findtext("AccessPolicy/Permission") == "rl"
    assert identifiers["reader"].findtext("AccessPolicy/Expiry") == "2036-01-01T00:00:00.0000000Z"
    assert identifiers["bare"].find("AccessPolicy") is None
    assert client.request("PUT", container, ACL).status == 200  # absent means none
    cleared = client.request("GET", container, ACL)
    assert (len(cleared.xml()), "x-ms-blob-public-access" in cleared.headers) == (0, False)


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"if-modified-since": FUTURE}, POLICY, (412, "ConditionNotMet")),
        ({"if-unmodified-since": PAST}, POLICY, (412, "ConditionNotMet")),
        ({"x-ms-lease-id": LEASE_ID}, POLICY, (412, "LeaseNotPresentWithContainerOperation")),
        ({"x-ms-blob-public-access": "all"}, POLICY, (400, "InvalidHeaderValue")),
        ({}, POLICY.replace(b"bare", b"reader"), (400, "InvalidXmlDocument")),
        ({}, b"<SignedIdentifiers>", (400, "InvalidXmlDocument")),
        ({}, b"<a>" * 20, (400, "InvalidXmlDocument")),
        ({}, b" " * 70_000, (413, "RequestBodyTooLarge")),
    ],
)
def test_acl_refused(
    client: WireClient, container: str, headers: dict[str, str], body: bytes, expected: tuple[int, str]
) -> None:
    before = client.request("GET", container, ACL)
    assert refused(client.request("PUT", container, ACL, headers, body)) == expected
    after = client.request("GET", container, ACL)
    assert (after.body, after.headers["etag"]) == (before.body, before.headers["etag"])


@pytest.fixture
def neighbour(server: InProcessServer, client: WireClient) -> Iterator[WireClient]:
    """A client of a second worker on the same root."""
    other = InProcessServer(Path(server.node.accounts[client.account].settings.root))
    opened = other.client()
    yield opened
    opened.close()
    other.close()


def test_public_access_counts_for_another_worker_at_once(
    client: WireClient, neighbour: WireClient, container: str
) -> None:
    assert neighbour.request("GET", container, CONTAINER, sign=False).status == 401
    assert client.request("PUT", container, ACL, {"x-ms-blob-public-access": "container"}).status == 200
    assert neighbour.request("GET", container, CONTAINER, sign=False).status == 200
    assert client.request("PUT", container, ACL).status == 200
    assert neighbour.request("GET", container, CONTAINER, sign=False).status == 401
