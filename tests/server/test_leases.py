"""Leases over the wire: the recorded sequences of blobs and containers, with a clock that the test moves."""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.support import Answer, InProcessServer, WireClient

BLOCK = {"x-ms-blob-type": "BlockBlob"}
PROPOSED = "00000000-1111-2222-3333-444444444444"
OTHER = "29e0b239-ecda-4f69-bfa3-95f6af91464c"

Later = Callable[[int], None]


@pytest.fixture
def later(server: InProcessServer) -> Iterator[Later]:
    """Moves the server's clock so many seconds ahead of the real one."""
    original = server.node.clock

    def move(seconds: int) -> None:
        server.node.clock = lambda: time.time_ns() + seconds * 1_000_000_000

    yield move
    server.node.clock = original


class Leased:
    """A blob or a container, and lease operations on it."""

    def __init__(self, client: WireClient, path: str, container: bool) -> None:
        self._client = client
        self.path = path
        self._query = {"restype": "container"} if container else {}

    def act(self, action: str, **headers: object) -> Answer:
        sent = {"x-ms-" + name.replace("_", "-"): str(value) for name, value in headers.items()}
        query = {**self._query, "comp": "lease"}
        return self._client.request("PUT", self.path, query, {"x-ms-lease-action": action, **sent})

    def state(self) -> list[str]:
        headers = self._client.request("HEAD", self.path, self._query).headers
        return [headers.get(f"x-ms-lease-{name}", "") for name in ("status", "state", "duration")]


@pytest.fixture(params=["blob", "container"])
def leased(request: pytest.FixtureRequest, client: WireClient, container: str) -> Leased:
    if request.param == "container":
        return Leased(client, container, True)
    return _blob(client, container)


def _blob(client: WireClient, container: str) -> Leased:
    path = container + "/blob"
    assert client.request("PUT", path, headers=BLOCK, body=b"x").status == 201
    return Leased(client, path, False)


def test_acquire_renew_change_release(leased: Leased) -> None:
    acquired = leased.act("acquire", lease_duration=-1, proposed_lease_id=PROPOSED)
    assert (acquired.status, acquired.headers["x-ms-lease-id"]) == (201, PROPOSED)
    assert leased.state() == ["locked", "leased", "infinite"]
    renewed = leased.act("renew", lease_id=PROPOSED)
    assert (renewed.status, renewed.headers["x-ms-lease-id"]) == (200, PROPOSED)
    changed = leased.act("change", lease_id=PROPOSED, proposed_lease_id=OTHER)
    assert (changed.status, changed.headers["x-ms-lease-id"]) == (200, OTHER)
    assert leased.act("renew", lease_id=PROPOSED).code == "LeaseIdMismatchWithLeaseOperation"
    released = leased.act("release", lease_id=OTHER)
    assert (released.status, "x-ms-lease-id" in released.headers) == (200, False)
    assert leased.state() == ["unlocked", "available", ""]
    etags = {answer.headers["etag"] for answer in (acquired, renewed, changed, released)}
    assert len(etags) == 1


def test_a_second_acquire(leased: Leased, later: Later) -> None:
    first = leased.act("acquire", lease_duration=15)
    assert leased.state() == ["locked", "leased", "fixed"]
    second = leased.act("acquire", lease_duration=-1)
    assert (second.status, second.code) == (409, "LeaseAlreadyPresent")
    later(15)
    assert leased.state() == ["unlocked", "expired", ""]
    third = leased.act("acquire", lease_duration=-1)
    assert third.status == 201
    assert third.headers["x-ms-lease-id"] != first.headers["x-ms-lease-id"]


def test_break(leased: Leased, later: Later) -> None:
    assert leased.act("break").code == "LeaseNotPresentWithLeaseOperation"
    lease_id = leased.act("acquire", lease_duration=60).headers["x-ms-lease-id"]
    broken = leased.act("break", lease_break_period=20)
    assert (broken.status, broken.headers["x-ms-lease-time"]) == (202, "20")
    assert "x-ms-lease-id" not in broken.headers
    assert leased.state() == ["locked", "breaking", ""]
    later(5)
    assert 14 <= int(leased.act("break", lease_break_period=60).headers["x-ms-lease-time"]) <= 15
    assert leased.act("renew", lease_id=lease_id).code == "LeaseIsBrokenAndCannotBeRenewed"
    later(21)
    assert leased.state() == ["unlocked", "broken", ""]
    assert leased.act("release", lease_id=lease_id).status == 200
    assert leased.state() == ["unlocked", "available", ""]


def test_break_of_an_infinite_lease(leased: Leased) -> None:
    leased.act("acquire", lease_duration=-1)
    broken = leased.act("break")
    assert (broken.status, broken.headers["x-ms-lease-time"]) == (202, "0")
    assert leased.state() == ["unlocked", "broken", ""]


def test_conditions(client: WireClient, leased: Leased) -> None:
    def acquire(headers: dict[str, str]) -> tuple[int, str]:
        query = {"comp": "lease"} if leased.path.count("/") == 2 else {"comp": "lease", "restype": "container"}
        sent = {"x-ms-lease-action": "acquire", "x-ms-lease-duration": "-1", **headers}
        answer = client.request("PUT", leased.path, query, sent)
        return answer.status, answer.code

    past, future = "Thu, 09 May 2019 00:27:16 GMT", "Fri, 31 Dec 2060 00:00:00 GMT"
    assert acquire({"if-modified-since": future}) == (412, "ConditionNotMet")
    assert acquire({"if-unmodified-since": past}) == (412, "ConditionNotMet")
    assert acquire({"if-unmodified-since": future}) == (201, "")
    if leased.path.count("/") == 2:
        assert acquire({"if-match": "0x111111111111111"}) == (412, "ConditionNotMet")
        etag = client.request("HEAD", leased.path).headers["etag"]
        assert acquire({"if-none-match": etag}) == (412, "ConditionNotMet")


def test_writes_to_a_leased_blob(client: WireClient, container: str, later: Later) -> None:
    blob = _blob(client, container)
    lease_id = blob.act("acquire", lease_duration=15).headers["x-ms-lease-id"]

    def write(headers: dict[str, str]) -> tuple[int, str]:
        answer = client.request("PUT", blob.path, headers={**BLOCK, **headers}, body=b"y")
        return answer.status, answer.code

    assert write({}) == (412, "LeaseIdMissing")
    assert write({"x-ms-lease-id": OTHER}) == (412, "LeaseIdMismatchWithBlobOperation")
    assert write({"x-ms-lease-id": lease_id}) == (201, "")
    assert write({"x-ms-lease-id": lease_id, "if-none-match": "*"}) == (201, "")
    assert blob.state() == ["locked", "leased", "fixed"]
    later(16)
    assert write({"x-ms-lease-id": lease_id, "if-none-match": "*"}) == (412, "LeaseLost")
    assert blob.act("renew", lease_id=lease_id).status == 200
    later(40)
    assert write({}) == (201, "")
    assert blob.state() == ["unlocked", "available", ""]
    assert blob.act("renew", lease_id=lease_id).code == "LeaseIdMismatchWithLeaseOperation"
    assert write({"x-ms-lease-id": lease_id}) == (412, "LeaseNotPresentWithBlobOperation")


def test_reads_of_a_leased_blob(client: WireClient, container: str) -> None:
    blob = _blob(client, container)
    lease_id = blob.act("acquire", lease_duration=-1).headers["x-ms-lease-id"]
    for method in ("GET", "HEAD"):
        assert client.request(method, blob.path).status == 200
        assert client.request(method, blob.path, headers={"x-ms-lease-id": lease_id.upper()}).status == 200
        wrong = client.request(method, blob.path, headers={"x-ms-lease-id": OTHER})
        assert (wrong.status, wrong.code) == (412, "LeaseIdMismatchWithBlobOperation")
        bad = client.request(method, blob.path, headers={"x-ms-lease-id": "abcdefg"})
        assert (bad.status, bad.code) == (400, "InvalidHeaderValue")


def test_deleting_what_is_leased(client: WireClient, container: str) -> None:
    blob = _blob(client, container)
    lease_id = blob.act("acquire", lease_duration=-1).headers["x-ms-lease-id"]
    assert client.request("DELETE", blob.path).code == "LeaseIdMissing"
    assert client.request("DELETE", blob.path, headers={"x-ms-lease-id": lease_id}).status == 202
    again = _blob(client, container)
    assert again.state() == ["unlocked", "available", ""]
    whole = Leased(client, container, True)
    lease_id = whole.act("acquire", lease_duration=-1).headers["x-ms-lease-id"]
    assert client.request("DELETE", container, {"restype": "container"}).code == "LeaseIdMissing"
    deleted = client.request("DELETE", container, {"restype": "container"}, {"x-ms-lease-id": lease_id})
    assert deleted.status == 202


def test_what_is_not_there(client: WireClient, container: str) -> None:
    assert Leased(client, container + "/none", False).act("acquire", lease_duration=-1).code == "BlobNotFound"
    assert Leased(client, "/nowhere/none", False).act("acquire", lease_duration=-1).code == "ContainerNotFound"
    assert Leased(client, "/nowhere", True).act("acquire", lease_duration=-1).code == "ContainerNotFound"


def test_bad_requests(leased: Leased) -> None:
    assert leased.act("steal").code == "InvalidHeaderValue"
    assert leased.act("acquire").code == "MissingRequiredHeader"
    assert leased.act("acquire", lease_duration=10).code == "InvalidHeaderValue"
    assert leased.act("renew", lease_id="abcdefg").code == "InvalidHeaderValue"


@pytest.mark.parametrize("change", [{"comp": "metadata"}, {"comp": "properties"}, {}])
def test_a_write_ends_a_broken_lease_within_the_same_second(
    client: WireClient, container: str, change: dict[str, str]
) -> None:
    leased = _blob(client, container)
    leased.act("acquire", lease_duration=-1, proposed_lease_id=PROPOSED)
    assert leased.act("break", lease_break_period=0).status == 202
    for query, headers in (({"comp": "tags"}, {}), ({"comp": "tier"}, {"x-ms-access-tier": "Cool"})):
        body = b"<Tags><TagSet/></Tags>" if query["comp"] == "tags" else b""
        assert client.request("PUT", leased.path, query, headers, body).status in (200, 204)
        assert leased.state()[1] == "broken"  # neither is a change of the blob
    assert client.request("PUT", leased.path, change, BLOCK if not change else {}, b"").status in (200, 201)
    assert leased.state() == ["unlocked", "available", ""]
    assert leased.act("renew", lease_id=PROPOSED).code == "LeaseIdMismatchWithLeaseOperation"
