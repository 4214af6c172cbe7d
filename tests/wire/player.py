"""Carry out rows against a server, over a real socket, with a container of its own for each."""

import datetime as dt
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Final
from urllib.parse import urlencode

from tests.support import Answer, WireClient
from tests.wire.rows import COMMON, GUID, KEY, OTHER_GUID, PAST, Row
from tests.wire.scenes import BREAK_NOW, SCENES
from tests.wire.tokens import account_sas, service_sas

CLIENT_REQUEST_ID: Final = "a-row"
#: Header of an answer -> the name under which later asks refer to its value.
_REMEMBERED: Final[Mapping[str, str]] = {
    "etag": "etag",
    "last-modified": "modified",
    "x-ms-lease-id": "lease",
    "x-ms-snapshot": "snapshot",
    "x-ms-copy-id": "copy",
}
#: A key that is not the account's.
_STRANGERS_KEY: Final = "A" * 86 + "=="
_numbers = itertools.count(1)


class SceneFailed(Exception):
    """What a row needs beforehand could not be brought about: the answer says why."""


@dataclass(frozen=True, slots=True)
class Server:
    """An endpoint that serves `account` by path style on the loopback. `outside` is the URL of a copy source that is
    not the endpoint's, "" when it may not read from one."""

    name: str
    port: int
    account: str
    key: str
    outside: str = ""

    @property
    def url(self) -> str:
        """The account's URL."""
        return f"http://127.0.0.1:{self.port}/{self.account}"


class Stage:
    """One row's run: its container, and the values that `{names}` stand for."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._client = WireClient(server.port, server.account, server.key)
        self._now = dt.datetime.now(dt.UTC)
        self.container = f"row-{next(_numbers)}"
        self.values = {
            "container": self.container,
            "absent": "absent-container",
            "account": server.account,
            "url": server.url,
            "outside": server.outside,
            "sas": urlencode(account_sas(server.account, server.key, {}, self._now)),
            "guid": GUID,
            "other": OTHER_GUID,
            "past": PAST,
            "future": format_datetime(self._now + dt.timedelta(days=1), usegmt=True),
        }

    def close(self) -> None:
        """Leave nothing in the account that a later listing of containers would show, as far as leases allow."""
        self._client.key = self.server.key
        if "copy" in self.values:  # a worker has room for so many pending copies only
            self.send(Row("PUT b?comp=lease", 202, BREAK_NOW))
            self.send(Row("PUT b?comp=copy&copyid={copy}", 204, {"x-ms-copy-action": "abort"}))
        self._client.request("DELETE", f"/{self.container}", {"restype": "container"})
        self._client.close()

    def set(self, scenes: str) -> None:
        """Make the container and play the scenes. Raises SceneFailed."""
        self._must(Row("PUT ?restype=container", 201))
        for name in scenes.split():
            for step in SCENES[name]:
                self._must(step)

    def send(self, row: Row) -> Answer:
        """Send a row's request."""
        method, _, target = row.ask.partition(" ")
        path, _, query_text = target.partition("?")
        parts = (part.partition("=") for part in query_text.split("&") if part)
        query = {name: self.filled(value) for name, _, value in parts}
        headers = {name: self.filled(value) for name, value in row.headers.items()}
        headers.setdefault("x-ms-client-request-id", CLIENT_REQUEST_ID)
        path = self._path(self.filled(path))
        query |= self._token(row.who, path)
        if row.who.startswith("raw "):
            headers["authorization"] = row.who[4:]
        body = self.filled(row.body.decode()).encode() if b"{" in row.body else row.body
        self._client.key = self.server.key if row.who != "wrong key" else _STRANGERS_KEY
        signed = row.who in (KEY, "wrong key")
        return self._client.request(method, path, query, headers, body, sign=signed, version=row.version)

    def filled(self, text: str) -> str:
        """The text with its `{names}` replaced."""
        if "{" in text:
            for name, value in self.values.items():
                text = text.replace(f"{{{name}}}", value)
        return text

    def _must(self, step: Row) -> None:
        answer = self.send(step)
        if answer.status != step.status:
            raise SceneFailed(f"{step.ask}: {answer.status} {answer.code} {answer.body[:300]!r}")
        for header, name in _REMEMBERED.items():
            if header in answer.headers:
                self.values[name] = answer.headers[header]

    def _path(self, path: str) -> str:
        if path.startswith("/"):
            return "" if path == "/" else path
        return f"/{self.container}/{path}" if path else f"/{self.container}"

    def _token(self, who: str, path: str) -> dict[str, str]:
        kind, _, text = who.partition(" ")
        if kind not in ("account", "service"):
            return {}
        fields = {name: self.filled(value) for name, _, value in (part.partition("=") for part in text.split("&"))}
        if kind == "account":
            return account_sas(self.server.account, self.server.key, fields, self._now)
        # What a token is made out to: the blob, the container, or that many directories below it.
        names = {"b": None, "bs": None, "d": 2 + int(fields.get("sdd", "0"))}.get(fields.get("sr", "c"), 2)
        made_out = "/".join(path.split("/")[:names])
        return service_sas(self.server.account, self.server.key, fields, made_out, self._now)


def play(server: Server, row: Row) -> tuple[Answer, Stage]:
    """The answer to a row's request after its scenes, and the stage whose values its expectations refer to."""
    stage = Stage(server)
    try:
        stage.set(row.given)
        return stage.send(row), stage
    finally:
        stage.close()


def check(row: Row, answer: Answer, stage: Stage) -> None:
    """Compare an answer with what the row wants, and with what every answer has to have."""
    told = f"{answer.status} {answer.code} {answer.body[:400]!r}"
    assert answer.status == row.status, told
    if isinstance(row.want, int):
        assert not answer.code, told
    else:
        assert answer.code == row.want.code, told
        _check_error_body(row, answer)
    for name in COMMON:
        assert answer.headers.get(name), name
    if row.version is not None and answer.code != "InvalidHeaderValue":
        assert answer.headers["x-ms-version"] == row.version
    assert answer.headers["x-ms-client-request-id"] == CLIENT_REQUEST_ID
    _check_headers(row, answer, stage)
    body = answer.body.decode("utf-8-sig", "replace")
    for piece in row.text:
        assert stage.filled(piece) in body, body[:2000]


def _check_headers(row: Row, answer: Answer, stage: Stage) -> None:
    for entry in row.shows.split():
        name, equals, value = entry.partition("=")
        assert name in answer.headers, f"{name} is missing: {dict(answer.headers)}"
        if equals:
            assert answer.headers[name] == stage.filled(value).replace("~", " "), name
    for name in row.hides.split():
        assert name not in answer.headers, f"{name}: {answer.headers[name]}"


def _check_error_body(row: Row, answer: Answer) -> None:
    if row.ask.startswith("HEAD ") or answer.status == 304:
        assert not answer.body
        assert "content-type" not in answer.headers
        return
    assert answer.headers["content-type"] == "application/xml"
    document = answer.xml()
    assert document.findtext("Code") == answer.code
    assert f"RequestId:{answer.headers['x-ms-request-id']}" in (document.findtext("Message") or "")
