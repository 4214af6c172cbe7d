"""No line of any log has a credential in it: every operation, let in by a key and by a SAS, refused, failed and slow.

All requests of this server are slow by its settings, so each has an access line and a line of the worker's own log; for
the second half the storage is broken, so that there are tracebacks too.
"""

import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest

from dataplane.blobapi.operations import Operation, api_name
from dataplane.ipc import logs
from dataplane.server import slow
from dataplane.store.store import Store
from tests.support import KEY, SECOND_KEY, VERSION, Answer, InProcessServer, WireClient

BLOCK = {"comp": "block", "blockid": "MQ=="}
BLOB = {"x-ms-blob-type": "BlockBlob"}
LEASE = {"x-ms-lease-action": "break"}
LIST = b"<BlockList><Latest>MQ==</Latest></BlockList>"
#: Operation, method, path, query, headers, body. In an order in which most of them succeed.
REQUESTS: tuple[tuple[str, str, str, dict[str, str], dict[str, str], bytes], ...] = (
    ("PREFLIGHT", "OPTIONS", "/cont/b", {}, {"origin": "https://a.b", "access-control-request-method": "GET"}, b""),
    ("GET_SERVICE_PROPERTIES", "GET", "/", {"restype": "service", "comp": "properties"}, {}, b""),
    ("SET_SERVICE_PROPERTIES", "PUT", "/", {"restype": "service", "comp": "properties"}, {},
     b"<StorageServiceProperties/>"),
    ("GET_SERVICE_STATS", "GET", "/", {"restype": "service", "comp": "stats"}, {}, b""),
    ("GET_USER_DELEGATION_KEY", "POST", "/", {"restype": "service", "comp": "userdelegationkey"}, {}, b""),
    ("GET_ACCOUNT_INFORMATION", "GET", "/", {"restype": "account", "comp": "properties"}, {}, b""),
    ("LIST_CONTAINERS", "GET", "/", {"comp": "list"}, {}, b""),
    ("SERVICE_BATCH", "POST", "/", {"comp": "batch"}, {"content-type": "multipart/mixed; boundary=b"}, b"--b--"),
    ("FIND_BLOBS_BY_TAGS", "GET", "/", {"comp": "blobs", "where": "a='b'"}, {}, b""),
    ("CREATE_CONTAINER", "PUT", "/cont", {"restype": "container"}, {}, b""),
    ("GET_CONTAINER_PROPERTIES", "GET", "/cont", {"restype": "container"}, {}, b""),
    ("GET_CONTAINER_METADATA", "GET", "/cont", {"restype": "container", "comp": "metadata"}, {}, b""),
    ("SET_CONTAINER_METADATA", "PUT", "/cont", {"restype": "container", "comp": "metadata"}, {"x-ms-meta-a": "b"}, b""),
    ("GET_CONTAINER_ACL", "GET", "/cont", {"restype": "container", "comp": "acl"}, {}, b""),
    ("SET_CONTAINER_ACL", "PUT", "/cont", {"restype": "container", "comp": "acl"}, {}, b"<SignedIdentifiers/>"),
    ("CONTAINER_BATCH", "POST", "/cont", {"restype": "container", "comp": "batch"},
     {"content-type": "multipart/mixed; boundary=b"}, b"--b--"),
    ("FIND_BLOBS_IN_CONTAINER", "GET", "/cont", {"restype": "container", "comp": "blobs", "where": "a='b'"}, {}, b""),
    ("PUT_BLOB", "PUT", "/cont/b", {}, BLOB, b"hello"),
    ("GET_BLOB", "GET", "/cont/b", {}, {}, b""),
    ("GET_BLOB_PROPERTIES", "HEAD", "/cont/b", {}, {}, b""),
    ("SET_BLOB_PROPERTIES", "PUT", "/cont/b", {"comp": "properties"}, {}, b""),
    ("GET_BLOB_METADATA", "GET", "/cont/b", {"comp": "metadata"}, {}, b""),
    ("SET_BLOB_METADATA", "PUT", "/cont/b", {"comp": "metadata"}, {"x-ms-meta-a": "b"}, b""),
    ("SNAPSHOT_BLOB", "PUT", "/cont/b", {"comp": "snapshot"}, {}, b""),
    ("SET_BLOB_TIER", "PUT", "/cont/b", {"comp": "tier"}, {"x-ms-access-tier": "Cool"}, b""),
    ("GET_BLOB_TAGS", "GET", "/cont/b", {"comp": "tags"}, {}, b""),
    ("SET_BLOB_TAGS", "PUT", "/cont/b", {"comp": "tags"}, {}, b"<Tags><TagSet/></Tags>"),
    ("PUT_BLOB_FROM_URL", "PUT", "/cont/b2", {}, {**BLOB, "x-ms-copy-source": "SOURCE"}, b""),
    ("COPY_BLOB", "PUT", "/cont/b3", {}, {"x-ms-copy-source": "SOURCE"}, b""),
    ("COPY_BLOB_FROM_URL", "PUT", "/cont/b4", {}, {"x-ms-copy-source": "SOURCE", "x-ms-requires-sync": "true"}, b""),
    ("ABORT_COPY_BLOB", "PUT", "/cont/b3", {"comp": "copy", "copyid": "5f2d7a0e-8a7b-4b57-9c1f-0d6ad0b3b6f1"},
     {"x-ms-copy-action": "abort"}, b""),
    ("PUT_BLOCK", "PUT", "/cont/b5", BLOCK, {}, b"hello"),
    ("PUT_BLOCK_FROM_URL", "PUT", "/cont/b6", BLOCK, {"x-ms-copy-source": "SOURCE"}, b""),
    ("GET_BLOCK_LIST", "GET", "/cont/b5", {"comp": "blocklist", "blocklisttype": "all"}, {}, b""),
    ("PUT_BLOCK_LIST", "PUT", "/cont/b5", {"comp": "blocklist"}, {}, LIST),
    ("LIST_BLOBS", "GET", "/cont", {"restype": "container", "comp": "list", "include": "copy,snapshots"}, {}, b""),
    ("LEASE_BLOB", "PUT", "/cont/b", {"comp": "lease"}, LEASE, b""),
    ("LEASE_CONTAINER", "PUT", "/cont", {"restype": "container", "comp": "lease"}, LEASE, b""),
    ("DELETE_BLOB", "DELETE", "/cont/b5", {}, {}, b""),
    ("DELETE_CONTAINER", "DELETE", "/cont", {"restype": "container"}, {}, b""),
)  # fmt: skip


class Stranger(WireClient):
    """Remembers every signature that it sends."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.secrets: set[str] = set()

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        if "authorization" in headers:
            self.secrets.add(headers["authorization"].rpartition(":")[2])
        return super().send(method, target, headers, body)

    def token(self, forged: bool = False) -> dict[str, str]:
        """An account SAS for everything (REST page "Create an account SAS")."""
        fields = {"sv": "2023-11-03", "ss": "b", "srt": "sco", "sp": "rwdlacupitfx", "se": "2099-01-01T00:00:00Z"}
        lines = [self.account, fields["sp"], "b", "sco", "", fields["se"], "", "", fields["sv"], "", ""]
        key = b"another key" if forged else base64.b64decode(self.key)
        digest = hmac.new(key, "\n".join(lines).encode(), hashlib.sha256).digest()
        signature = base64.b64encode(digest).decode()
        self.secrets |= {signature, quote(signature, safe="")}
        return {**fields, "sig": signature}


class Lines(logging.Handler):
    """Every record of every logger as both formats write it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        for style in ("text", "json"):
            self.text.append(logs.formatter(style, "worker", 0).format(record))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, root = Lines(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


def ask_everything(stranger: Stranger, port: int) -> None:
    """Every operation three times: signed with the key, with a good token, with a forged one."""
    for forged, signed in ((True, False), (False, True), (False, False)):
        for _, method, path, query, headers, body in REQUESTS:
            token = stranger.token(forged)
            words = "&".join(f"{name}={quote(value, safe='')}" for name, value in token.items())
            source = f"http://127.0.0.1:{port}/{stranger.account}/cont/b?{words}"
            sent = {name: source if value == "SOURCE" else value for name, value in headers.items()}
            asked = query if signed else {**query, **token}
            stranger.request(method, path, asked, sent, body, sign=signed, version=VERSION)


def test_no_line_has_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Lines) -> None:
    monkeypatch.setattr(slow, "LINES_MAX", 1_000_000)
    server = InProcessServer(tmp_path / "root", slow_seconds=1e-9)
    stranger = Stranger(server.port)
    try:
        ask_everything(stranger, server.port)
        answered = {line["operationName"] for line in server.log() if line["statusCode"] < 300}
        for broken in ("open_blob", "stat_blob", "container", "put"):
            monkeypatch.setattr(Store, broken, _broken)
        ask_everything(stranger, server.port)
        access = server.log()
    finally:
        stranger.close()
        server.close()
    named = {line["operationName"] for line in access}
    assert named >= {api_name(operation.name) for operation in Operation}
    unanswered = {api_name(operation.name) for operation in Operation} - answered
    assert len(unanswered) < len(Operation) * 0.2, unanswered
    everything = "\n".join([*lines.text, b"".join(server.log_lines).decode()])
    assert everything.count("slow request") >= len(access)
    assert "Traceback" in everything
    assert len(stranger.secrets) > len(REQUESTS)
    for secret in (*stranger.secrets, KEY, SECOND_KEY, "SharedKey ", "sig="):
        assert secret not in everything
    for text in lines.text[1::2]:
        assert json.loads(text)["message"]


def _broken(*_: object, **__: object) -> None:
    raise ZeroDivisionError("the storage is broken")
