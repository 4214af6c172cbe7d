"""What every request goes through: versions, permissions, generic refusals, the headers and errors of every answer."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataplane.blobapi.operations import Operation
from dataplane.blobapi.versions import NEWEST
from dataplane.ipc.settings import MappedContainer
from dataplane.server.handlers import HANDLERS
from dataplane.store.errors import NameNotStorable, NoSpace, StorageUnavailable
from tests.support import KEY, SECOND_KEY, InProcessServer, WireClient

BLOCK_BLOB = {"x-ms-blob-type": "BlockBlob"}


def test_every_operation_has_a_handler() -> None:
    assert set(HANDLERS) == set(Operation)


# --- headers of every answer ---


def test_common_headers(client: WireClient, container: str) -> None:
    sent = {"x-ms-client-request-id": "me-1"}
    answer = client.request("GET", container, {"restype": "container"}, sent, version="2021-12-02")
    assert answer.status == 200
    assert answer.headers["x-ms-version"] == "2021-12-02"
    assert answer.headers["x-ms-client-request-id"] == "me-1"
    assert len(answer.headers["x-ms-request-id"]) == 36
    assert answer.headers["server"].startswith("Windows-Azure-Blob/1.0")
    assert answer.headers["date"].endswith(" GMT")


def test_request_ids_differ(client: WireClient, container: str) -> None:
    ids = {client.request("GET", container, {"restype": "container"}).headers["x-ms-request-id"] for _ in range(5)}
    assert len(ids) == 5


def test_error_answer(client: WireClient) -> None:
    answer = client.request("GET", "/absent", {"restype": "container"}, {"x-ms-client-request-id": "me-2"})
    assert (answer.status, answer.code) == (404, "ContainerNotFound")
    assert answer.headers["content-type"] == "application/xml"
    assert answer.headers["x-ms-client-request-id"] == "me-2"
    error = answer.xml()
    assert error.findtext("Code") == "ContainerNotFound"
    message = error.findtext("Message") or ""
    assert message.startswith("The specified container does not exist.\nRequestId:" + answer.headers["x-ms-request-id"])
    assert "\nTime:" in message


def test_error_answer_to_head_has_no_body_and_no_type(client: WireClient) -> None:
    answer = client.request("HEAD", "/absent", {"restype": "container"})
    assert (answer.status, answer.code, answer.body) == (404, "ContainerNotFound", b"")
    assert "content-type" not in answer.headers


@pytest.mark.parametrize("client_id", ["x" * 1025, "tab\there", "snow\u2603"])
def test_client_request_id_is_echoed_only_when_harmless(client: WireClient, client_id: str) -> None:
    answer = client.request(
        "GET", "/absent", {"restype": "container"}, {"x-ms-client-request-id": client_id}, sign=False
    )
    assert "x-ms-client-request-id" not in answer.headers


# --- versions ---


@pytest.mark.parametrize("version", ["2014-02-14", "2026-10-06", "2031-01-01"])
def test_any_version_is_taken(client: WireClient, container: str, version: str) -> None:
    answer = client.request("GET", container, {"restype": "container"}, version=version)
    assert (answer.status, answer.headers["x-ms-version"]) == (200, version)


@pytest.mark.parametrize("version", ["2013-08-15", "2020-13-01", "latest"])
def test_version_that_is_none(client: WireClient, container: str, version: str) -> None:
    answer = client.request("GET", container, {"restype": "container"}, version=version)
    assert (answer.status, answer.code) == (400, "InvalidHeaderValue")
    assert answer.xml().findtext("HeaderName") == "x-ms-version"


def test_a_request_without_a_version_gets_the_accounts_default(client: WireClient, container: str) -> None:
    def answered_as() -> str:
        return client.request("GET", container, {"restype": "container"}, version=None).headers["x-ms-version"]

    properties = {"restype": "service", "comp": "properties"}
    document = "<StorageServiceProperties><DefaultServiceVersion>{}</DefaultServiceVersion></StorageServiceProperties>"
    assert answered_as() == NEWEST
    assert client.request("PUT", "/", properties, None, document.format("2015-04-05").encode()).status == 202
    assert answered_as() == "2015-04-05"
    assert client.request("PUT", "/", properties, None, document.format("").encode()).status == 202
    assert answered_as() == NEWEST


# --- who may ---


def test_second_key(server: InProcessServer, container: str) -> None:
    for key, status in ((SECOND_KEY, 200), (KEY[::-1].lstrip("=") + "=", 403)):
        other = server.client(key=key)
        assert other.request("GET", container, {"restype": "container"}).status == status
        other.close()


def test_no_credentials(client: WireClient, container: str) -> None:
    answer = client.request("GET", container, {"restype": "container"}, sign=False)
    assert (answer.status, answer.code) == (401, "NoAuthenticationInformation")


def test_signature_of_another_request(client: WireClient, container: str) -> None:
    headers = {"x-ms-date": "Thu, 01 Jan 1970 00:00:00 GMT"}
    answer = client.request("GET", container, {"restype": "container"}, headers)
    assert (answer.status, answer.code) == (403, "AuthenticationFailed")


def test_unknown_account(server: InProcessServer) -> None:
    stranger = server.client(account="stranger")
    assert stranger.request("GET", "/c", {"restype": "container"}).code == "AuthenticationFailed"
    assert stranger.request("GET", "/c", {"restype": "container"}, sign=False).code == "ResourceNotFound"
    stranger.close()


def test_host_style(client: WireClient, container: str) -> None:
    host = f"{client.account}.blob.core.windows.net"
    assert client.request("GET", container, {"restype": "container"}, host=host).status == 200


def test_secondary_is_read_only(client: WireClient, container: str) -> None:
    assert client.request("GET", container, {"restype": "container"}, secondary=True).status == 200
    answer = client.request("PUT", container + "/a", None, BLOCK_BLOB, b"x", secondary=True)
    assert (answer.status, answer.code) == (403, "AuthorizationFailure")


# --- what is refused for every operation ---


@pytest.mark.parametrize(
    ("name", "code"),
    [("ab", "OutOfRangeInput"), ("a" * 64, "OutOfRangeInput"), ("Upper", "InvalidResourceName"),
     ("a--b", "InvalidResourceName"), ("-ab", "InvalidResourceName"), ("%E5%95%8A", "InvalidResourceName"),
     ("..", "InvalidResourceName"), (".blobedge", "InvalidResourceName")],
)  # fmt: skip
def test_container_names(client: WireClient, name: str, code: str) -> None:
    answer = client.request("PUT", "/" + name, {"restype": "container"})
    assert (answer.status, answer.code) == (400, code)


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"x-ms-encryption-key": "a", "x-ms-encryption-key-sha256": "b"}, "x-ms-encryption-key"),
        ({"x-ms-encryption-scope": "s"}, "x-ms-encryption-scope"),
        ({"x-ms-legal-hold": "true"}, "x-ms-legal-hold"),
    ],
)
def test_headers_that_would_be_ignored(client: WireClient, container: str, headers: dict[str, str], name: str) -> None:
    answer = client.request("PUT", container + "/a", None, {**BLOCK_BLOB, **headers}, b"x")
    assert (answer.status, answer.code) == (400, "FeatureNotSupported")
    assert answer.xml().findtext("HeaderName") == name


def test_snapshot_on_a_write(client: WireClient, container: str) -> None:
    query = {"snapshot": "2026-01-01T00:00:00.0000000Z"}
    answer = client.request("PUT", container + "/a", query, BLOCK_BLOB, b"x")
    assert (answer.status, answer.code) == (400, "InvalidQueryParameterValue")


@pytest.mark.parametrize(
    ("method", "query", "status", "code"),
    [
        ("GET", {"comp": "nonsense"}, 400, "InvalidQueryParameterValue"),
        ("PUT", {"comp": "appendblock"}, 400, "FeatureNotSupported"),
        ("PUT", {"comp": "undelete"}, 400, "FeatureNotSupported"),
        ("PATCH", {}, 405, "UnsupportedHttpVerb"),
    ],
)
def test_no_such_operation(
    client: WireClient, container: str, method: str, query: dict[str, str], status: int, code: str
) -> None:
    answer = client.request(method, container + "/a", query)
    assert (answer.status, answer.code) == (status, code)


# --- read-only containers ---


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[InProcessServer, Path]]:
    """A server with a directory mapped as a read-only container."""
    directory = tmp_path_factory.mktemp("library")
    (directory / "book.txt").write_bytes(b"words")
    containers = (MappedContainer("library", str(directory), read_only=True),)
    started = InProcessServer(tmp_path_factory.mktemp("root"), containers)
    yield started, directory
    started.close()


@pytest.mark.parametrize(
    ("method", "path", "query", "headers"),
    [
        ("PUT", "/library/new", {}, BLOCK_BLOB),
        ("PUT", "/library/book.txt", {}, BLOCK_BLOB),
        ("PUT", "/library/book.txt", {"comp": "block", "blockid": "MQ=="}, {}),
        ("PUT", "/library", {"restype": "container", "comp": "metadata"}, {}),
        ("DELETE", "/library", {"restype": "container"}, {}),
    ],
)
def test_read_only_container(
    mapped: tuple[InProcessServer, Path], method: str, path: str, query: dict[str, str], headers: dict[str, str]
) -> None:
    server, directory = mapped
    client = server.client()
    answer = client.request(method, path, query, headers, b"x" if method == "PUT" else b"")
    client.close()
    assert (answer.status, answer.code) == (403, "AuthorizationFailure")
    assert [entry.name for entry in directory.iterdir()] == ["book.txt"]
    assert (directory / "book.txt").read_bytes() == b"words"


# --- our own faults ---


def test_a_bug_is_an_internal_error_that_tells_nothing(
    server: InProcessServer, client: WireClient, container: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    store = server.node.accounts[client.account].store

    def broken(name: str) -> None:
        raise RuntimeError("/secret/path")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(store, "container", broken)
        answer = client.request("GET", container, {"restype": "container"})
    assert (answer.status, answer.code) == (500, "InternalError")
    assert b"secret" not in answer.body
    assert answer.headers["x-ms-request-id"] in caplog.text
    assert "/secret/path" in caplog.text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StorageUnavailable("open", OSError(5, "x", "/secret/path")), "ServerBusy"),
        (NoSpace("write", OSError(28, "x", "/secret/path")), "InsufficientStorage"),
    ],
)
def test_a_fault_of_the_storage_is_to_be_tried_again(
    server: InProcessServer, client: WireClient, container: str, monkeypatch: pytest.MonkeyPatch, error: Exception,
    code: str,
) -> None:  # fmt: skip
    def failing(name: str) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(server.node.accounts[client.account].store, "container", failing)
        answer = client.request("GET", container, {"restype": "container"})
    assert (answer.status, answer.code) == (503, code)
    assert int(answer.headers["retry-after"]) > 0
    assert b"secret" not in answer.body


def test_a_name_that_the_mount_refuses(
    server: InProcessServer, client: WireClient, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(name: str) -> None:
        raise NameNotStorable("open")

    with monkeypatch.context() as patch:
        patch.setattr(server.node.accounts[client.account].store, "container", failing)
        answer = client.request("GET", container, {"restype": "container"})
    assert (answer.status, answer.code) == (400, "InvalidResourceName")


# --- a mount that is not quick enough for the event loop ---


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WireClient]:
    """A client of a server whose store says that it is not local, so that every look at it takes a thread."""
    started = InProcessServer(tmp_path_factory.mktemp("root"))
    for account in started.node.accounts.values():
        account.store.local = lambda: False  # type: ignore[method-assign]
    opened = started.client()
    yield opened
    opened.close()
    started.close()


def test_everything_works_from_threads(remote: WireClient) -> None:
    public = {"x-ms-blob-public-access": "blob"}
    assert remote.request("PUT", "/far", {"restype": "container"}, public).status == 201
    assert remote.request("PUT", "/far/b", None, BLOCK_BLOB, b"hello").status == 201
    for sign in (True, False):
        answer = remote.request("GET", "/far/b", None, {"Origin": "https://a.example"}, sign=sign, version=None)
        assert (answer.status, answer.body, answer.headers["x-ms-version"]) == (200, b"hello", NEWEST)
    assert remote.request("GET", "/far", {"restype": "container"}, sign=False).status == 401
    assert remote.request("GET", "/far", {"restype": "container", "comp": "list"}).status == 200
    assert remote.request("DELETE", "/far/b").status == 202
    assert remote.request("GET", "/far/b").status == 404
