"""Blob Batch over the wire: every part is a request of its own, and fails or succeeds on its own."""

import email
import email.policy
import itertools
from collections.abc import Iterator, Mapping, Sequence

import pytest

from tests.support import ACCOUNT, KEY, SECOND_KEY, Answer, InProcessServer, WireClient

BOUNDARY = "batch_357de4f7-6d0b-4e02-8cd2-6361411a9525"
BLOCK_BLOB = {"x-ms-blob-type": "BlockBlob"}
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path_factory.mktemp("store") / "root")
    yield running
    running.close()


@pytest.fixture
def client(server: InProcessServer) -> Iterator[WireClient]:
    found = server.client()
    yield found
    found.close()


@pytest.fixture
def container(client: WireClient) -> str:
    name = f"batch{next(_numbers)}"
    assert client.request("PUT", f"/{name}", {"restype": "container"}).status == 201
    for blob in ("a", "b", "c"):
        assert client.request("PUT", f"/{name}/{blob}", None, BLOCK_BLOB, b"x").status == 201
    return name


class _PartSigner(WireClient):
    """Signs a part and keeps it, instead of sending it."""

    lines = ""

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        kept = {name: value for name, value in headers.items() if name not in ("host", "x-ms-version")}
        self.lines = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in kept.items())
        return Answer(0, "", {}, b"")


def _part(method: str, path: str, *, key: str = KEY, sign: bool = True, **headers: str) -> str:
    query = {"comp": "tier"} if method == "PUT" else None
    signer = _PartSigner(0, key=key)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    signer.request(method, path, query, named, version=None, sign=sign)
    return signer.lines


def _submit(client: WireClient, parts: Sequence[str], container: str = "") -> Answer:
    body = "".join(
        f"--{BOUNDARY}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n"
        f"Content-ID: {number}\r\n\r\n{part}\r\n"
        for number, part in enumerate(parts)
    )
    restype = {"restype": "container"} if container else {}
    return client.request(
        "POST",
        f"/{container}",
        {**restype, "comp": "batch"},
        {"content-type": f"multipart/mixed; boundary={BOUNDARY}"},
        f"{body}--{BOUNDARY}--\r\n".encode(),
    )


def _answers(answer: Answer) -> list[tuple[str, str]]:
    """(status line, x-ms-error-code) of the parts, in order; checks that each is whole."""
    assert answer.status == 202
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + answer.body, policy=email.policy.HTTP)
    found = []
    for number, part in enumerate(message.iter_parts()):
        assert part["Content-ID"] in (str(number), None)
        assert part.get_content_type() == "application/http"
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        status, _, rest = payload.partition(b"\r\n")
        headers = email.message_from_bytes(rest, policy=email.policy.HTTP)
        assert headers["x-ms-request-id"]
        assert headers["x-ms-version"] == answer.headers["x-ms-version"]
        found.append((status.decode(), headers["x-ms-error-code"] or ""))
    return found


def _whole(answer: Answer) -> str:
    """The x-ms-error-code of a batch that was refused whole: one part, which belongs to no request."""
    assert b"Content-ID" not in answer.body
    ((status, code),) = _answers(answer)
    assert status.startswith("HTTP/1.1 400 ")
    return code


def _names(client: WireClient, container: str) -> list[str]:
    root = client.request("GET", f"/{container}", {"restype": "container", "comp": "list"}).xml()
    return [name.text or "" for name in root.iterfind("Blobs/Blob/Name")]


def test_deletes_succeed_and_fail_one_by_one(client: WireClient, container: str) -> None:
    parts = [_part("DELETE", f"/{container}/{blob}") for blob in ("a", "none", "c")]
    assert _answers(_submit(client, parts)) == [
        ("HTTP/1.1 202 Accepted", ""),
        ("HTTP/1.1 404 The specified blob does not exist.", "BlobNotFound"),
        ("HTTP/1.1 202 Accepted", ""),
    ]
    assert _names(client, container) == ["b"]


def test_tiers_below_a_container(client: WireClient, container: str) -> None:
    parts = [_part("PUT", f"/{container}/{blob}", x_ms_access_tier="Cool") for blob in "abc"]
    assert _answers(_submit(client, parts, container)) == [("HTTP/1.1 200 OK", "")] * 3
    assert client.request("HEAD", f"/{container}/b").headers["x-ms-access-tier"] == "Cool"


def test_the_batch_of_an_account_in_the_path(client: WireClient, container: str) -> None:
    """The Node SDK takes the account in a path-style address for a container."""
    body = (
        f"--{BOUNDARY}\r\nContent-Type: application/http\r\n\r\n{_part('DELETE', f'/{container}/a')}\r\n--{BOUNDARY}--"
    )
    headers = {"content-type": f"multipart/mixed; boundary={BOUNDARY}"}
    answer = client.request("POST", "", {"restype": "container", "comp": "batch"}, headers, body.encode())
    assert answer.status == 202
    assert _names(client, container) == ["b", "c"]


def test_as_many_parts_as_allowed(client: WireClient, container: str) -> None:
    parts = [_part("DELETE", f"/{container}/none{number}") for number in range(256)]
    assert {code for _, code in _answers(_submit(client, parts))} == {"BlobNotFound"}
    assert _whole(_submit(client, [*parts, parts[0]])) == "ExceedsMaxBatchRequestCount"


def test_every_part_needs_its_own_permission(client: WireClient, container: str) -> None:
    wrong_key = "d3Jvbmc="
    parts = [
        _part("DELETE", f"/{container}/a", key=wrong_key),
        _part("DELETE", f"/{container}/b", sign=False),
        _part("DELETE", f"/{container}/c", key=SECOND_KEY),
    ]
    answers = _answers(_submit(client, parts))
    assert [code for _, code in answers[:2]] == ["AuthenticationFailed", "ResourceNotFound"]
    assert answers[2] == ("HTTP/1.1 202 Accepted", "")
    assert _names(client, container) == ["a", "b"]


def test_parts_stay_where_their_batch_is(client: WireClient, container: str) -> None:
    assert client.request("PUT", f"/{container}x", {"restype": "container"}).status == 201
    (first,) = _answers(_submit(client, [_part("DELETE", f"/{container}/a")], f"{container}x"))
    foreign = _part("DELETE", f"/{container}/a", sign=False).replace(f"/{ACCOUNT}/", "/otheraccount/")
    (second,) = _answers(_submit(client, [foreign]))
    assert first[1] == "InvalidInput"
    assert second[0].startswith("HTTP/1.1 4")
    assert "a" in _names(client, container)


@pytest.mark.parametrize(
    "part",
    [
        "GET /testaccount/c/b HTTP/1.1\r\n",
        "PUT /testaccount/c/b HTTP/1.1\r\n",
        "POST /testaccount/?comp=batch HTTP/1.1\r\n",
        "DELETE /testaccount/c?restype=container HTTP/1.1\r\n",
        "not a request\r\n",
    ],
)
def test_other_operations_fail_the_whole_batch(client: WireClient, container: str, part: str) -> None:
    assert _whole(_submit(client, [_part("DELETE", f"/{container}/a"), part])) == "InvalidInput"
    assert "a" in _names(client, container)


def test_a_delete_of_a_container_in_disguise(client: WireClient, container: str) -> None:
    """Without restype the target is a blob of $root, never the container."""
    (answer,) = _answers(_submit(client, [_part("DELETE", f"/{container}")]))
    assert answer[0].startswith("HTTP/1.1 4")
    assert _names(client, container) == ["a", "b", "c"]


def test_mixed_operations_are_refused(client: WireClient, container: str) -> None:
    parts = [_part("DELETE", f"/{container}/a"), _part("PUT", f"/{container}/b", x_ms_access_tier="Cool")]
    assert _whole(_submit(client, parts)) == "InvalidInput"
    assert _names(client, container) == ["a", "b", "c"]


def test_what_is_wrong_with_the_request_itself(client: WireClient) -> None:
    answer = client.request("POST", "", {"comp": "batch"}, {"content-type": "text/plain"}, b"x")
    assert (answer.status, answer.code) == (400, "InvalidHeaderValue")
    assert client.request("POST", "", {"comp": "batch"}, None, b"x").code == "MissingRequiredHeader"


def test_parts_are_logged_as_requests(server: InProcessServer, client: WireClient, container: str) -> None:
    before = len(server.log())
    _submit(client, [_part("DELETE", f"/{container}/a")])
    operations = [entry["operationName"] for entry in server.log()[before:]]
    assert len(operations) == 2
