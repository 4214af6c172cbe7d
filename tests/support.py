"""What the server's tests share: a raw client that signs for itself, and a server in a thread of this process.

The client is written against the REST page "Authorize with Shared Key" and imports nothing of the product, so a
mistake in the product's signing cannot hide behind the same mistake here.
"""

import base64
import hashlib
import hmac
import http.client
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final
from urllib.parse import quote

ACCOUNT: Final = "testaccount"
KEY: Final = base64.b64encode(hashlib.sha256(b"key one of the tests").digest()).decode()
SECOND_KEY: Final = base64.b64encode(hashlib.sha256(b"key two of the tests").digest()).decode()
VERSION: Final = "2023-11-03"
ANSWER_SECONDS_MAX: Final = 30.0

_SIGNED_HEADERS: Final = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
    "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; header names are lower-case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """x-ms-error-code, "" without one."""
        return self.headers.get("x-ms-error-code", "")

    def xml(self) -> ET.Element:
        """The body, which has to be an XML document with a byte order mark, as Azure's are."""
        assert self.body.startswith(b"\xef\xbb\xbf<?xml")
        return ET.fromstring(self.body.decode("utf-8-sig"))


class WireClient:
    """Sends requests over one connection, path style, signed with the account's key unless told otherwise."""

    def __init__(self, port: int, account: str = ACCOUNT, key: str = KEY, host: str = "127.0.0.1") -> None:
        self.account, self.key, self.port = account, key, port
        self._host = host
        self._connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS_MAX)

    def close(self) -> None:
        self._connection.close()

    def request(
        self,
        method: str,
        path: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        sign: bool = True,
        version: str | None = VERSION,
        secondary: bool = False,
        host: str | None = None,
    ) -> Answer:
        """Send one request and read its answer. `path` is what follows the account, as it goes on the wire; `host`
        makes the request host style."""
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        sent.setdefault("host", host or f"{self._host}:{self.port}")
        if body or method in ("PUT", "POST"):
            sent.setdefault("content-length", str(len(body)))
        if version is not None:
            sent.setdefault("x-ms-version", version)
        prefix = "" if host else f"/{self.account}"
        if sign:
            sent.setdefault("x-ms-date", formatdate(time.time(), usegmt=True))
            sent["authorization"] = self._authorization(method, prefix + path, query or {}, sent)
        target = prefix + ("-secondary" if secondary else "") + path
        if query:
            target += "?" + "&".join(f"{quote(n, safe='')}={quote(v, safe='')}" for n, v in query.items())
        return self.send(method, target or "/", sent, body)

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """Send exactly this."""
        link = self._connection
        link.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            link.putheader(name, value.encode("utf-8"))
        link.endheaders(body or None)
        reply = link.getresponse()
        data = reply.read()
        found = {name.lower(): value for name, value in reply.getheaders()}
        return Answer(reply.status, reply.reason, found, data)

    def _authorization(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
        values = dict(headers)
        if values.get("content-length") == "0":
            values["content-length"] = ""
        if "x-ms-date" in values:
            values["date"] = ""
        lines = [method, *(values.get(name, "") for name in _SIGNED_HEADERS)]
        lines += [f"{name}:{values[name]}" for name in sorted(values) if name.startswith("x-ms-")]
        lines.append(f"/{self.account}{path or '/'}")
        lines += [f"{name.lower()}:{query[name]}" for name in sorted(query)]
        digest = hmac.new(base64.b64decode(self.key), "\n".join(lines).encode(), hashlib.sha256).digest()
        return f"SharedKey {self.account}:{base64.b64encode(digest).decode()}"
