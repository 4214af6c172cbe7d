"""A client that sends exactly the bytes of an attack, and reads answers so strictly that a split one shows.

It signs by the REST pages "Authorize with Shared Key", "Create an account SAS" and "Create a service SAS", with
nothing of the product, because some attacks need a valid signature over hostile text, which the product's own code
refuses to make."""

import base64
import hashlib
import hmac
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final
from urllib.parse import quote, unquote

VERSION: Final = "2023-11-03"
WAIT_SECONDS: Final = 30.0
SAS_VERSION: Final = "2022-11-02"
FAR: Final = "2099-01-01T00:00:00Z"
EVERY_LETTER: Final = "racwdxyltmeopif"

_SIGNED_HEADERS: Final = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
    "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip
_HEAD: Final = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*((?:\r\n[^\r\n]+)*)\Z")
_FIELD: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([^\r\n\0]*)\Z")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whole; header names in lower case, none twice."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    raw: bytes

    @property
    def code(self) -> str:
        return self.headers.get("x-ms-error-code", "")


class SplitAnswerError(AssertionError):
    """What came is not exactly one answer."""


def parse_answer(raw: bytes, method: str) -> tuple[Answer, bytes]:
    """(the first answer in `raw`, what is left). Raises SplitAnswerError, EOFError while it is not whole."""
    head, found, rest = raw.partition(b"\r\n\r\n")
    if not found:
        raise EOFError(raw)
    match = _HEAD.match(head)
    if match is None:
        raise SplitAnswerError(head)
    headers: dict[str, str] = {}
    for line in match[2].split(b"\r\n")[1:]:
        field = _FIELD.match(line)
        if field is None or field[1].decode().lower() in headers:
            raise SplitAnswerError(line)
        headers[field[1].decode().lower()] = field[2].decode("utf-8", "surrogateescape")
    status = int(match[1])
    length = 0 if method == "HEAD" or status in (100, 204, 304) else int(headers["content-length"])
    if len(rest) < length:
        raise EOFError(raw)
    whole = len(head) + 4 + length
    return Answer(status, headers, rest[:length], raw[:whole]), rest[length:]


class Stranger:
    """Sends requests over a kept connection; opens a new one when the endpoint closed it."""

    def __init__(self, port: int, account: str, key: str) -> None:
        self.port, self.account, self.key = port, account, key
        self._socket: socket.socket | None = None
        self.answers: list[Answer] = []

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # --- on the wire ---

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """Send exactly this and read the answer. A refusal that closes the connection is an answer as well."""
        sent = {"Host": f"127.0.0.1:{self.port}", **headers}
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
        return self.send_bytes("\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body, method)

    def send_bytes(self, data: bytes, method: str = "GET") -> Answer:
        """The same for bytes. The connection must then hold nothing else."""
        fresh = self._socket is None
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self.port), WAIT_SECONDS)
        try:
            self._socket.sendall(data)
            raw = self._receive(self._socket, method)
        except ConnectionError:
            self.close()
            if fresh:
                raise
            return self.send_bytes(data, method)
        if not raw:
            self.close()
            if fresh:
                raise EOFError("closed without an answer")
            return self.send_bytes(data, method)
        answer, rest = parse_answer(raw, method)
        if rest:
            raise SplitAnswerError(rest)
        if answer.headers.get("connection") == "close":
            self.close()
        self.answers.append(answer)
        return answer

    def _receive(self, connected: socket.socket, method: str) -> bytes:
        raw = b""
        while True:
            data = connected.recv(1 << 20)
            if not data:
                return raw
            raw += data
            try:
                parse_answer(raw, method)
            except EOFError:
                continue
            return raw

    # --- credentials ---

    def signed(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """A request with a Shared Key signature over whatever it holds. `path` starts behind the account and goes on
        the wire as it is, like `query`."""
        sent = self.dressed(method, headers, body)
        target = f"/{self.account}{path}"
        sent["authorization"] = self.authorization(method, target, query, sent)
        return self.send(method, target + ("?" + query if query else ""), sent, body)

    def bare(
        self, method: str, path: str, query: str = "", headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """The same without an Authorization header; a SAS may be in the query."""
        target = f"/{self.account}{path}" + ("?" + query if query else "")
        return self.send(method, target, self.dressed(method, headers, body), body)

    def dressed(self, method: str, headers: Mapping[str, str] | None, body: bytes) -> dict[str, str]:
        """The headers of an ordinary request with those of the attack over them, names in lower case."""
        sent = {"x-ms-version": VERSION, "x-ms-date": formatdate(time.time(), usegmt=True)}
        if body or method in ("PUT", "POST"):
            sent["content-length"] = str(len(body))
        return sent | {name.lower(): value for name, value in (headers or {}).items()}

    def authorization(self, method: str, target: str, query: str, headers: Mapping[str, str]) -> str:
        """The value of the Authorization header."""
        values = {name: value.strip() for name, value in headers.items()}
        if values.get("content-length") == "0":
            values["content-length"] = ""
        if "x-ms-date" in values:
            values["date"] = ""
        pairs = [part.partition("=") for part in query.split("&") if part]
        decoded = {unquote(name).lower(): unquote(value.replace("+", " ")) for name, _, value in pairs}
        lines = [method, *(values.get(name, "") for name in _SIGNED_HEADERS)]
        lines += [f"{name}:{values[name]}" for name in sorted(values) if name.startswith("x-ms-")]
        lines.append(f"/{self.account}{target}")
        lines += [f"{name}:{decoded[name]}" for name in sorted(decoded)]
        return f"SharedKey {self.account}:{signature(self.key, chr(10).join(lines))}"

    def account_sas(self, letters: str = EVERY_LETTER, **fields: str) -> str:
        """An account SAS as a query string; `fields` go over the defaults before it is signed."""
        token = {"sv": SAS_VERSION, "ss": "b", "srt": "sco", "sp": letters, "se": FAR} | fields
        names = ("sp", "ss", "srt", "st", "se", "sip", "spr", "sv", "ses")
        text = "\n".join([self.account, *(token.get(name, "") for name in names), ""])
        return encoded({**token, "sig": signature(self.key, text)})

    def service_sas(self, path: str, letters: str = EVERY_LETTER, snapshot: str = "", **fields: str) -> str:
        """A service SAS for `/container[/blob]`; `fields` go over the defaults before it is signed."""
        token = {"sv": SAS_VERSION, "sr": "c", "sp": letters, "se": FAR} | fields
        get = token.get
        lines = [get("sp", ""), get("st", ""), get("se", ""), f"/blob/{self.account}{path}"]
        lines += [get(name, "") for name in ("si", "sip", "spr", "sv", "sr")]
        lines += [snapshot, get("ses", ""), *(get(name, "") for name in ("rscc", "rscd", "rsce", "rscl", "rsct"))]
        return encoded({**token, "sig": signature(self.key, "\n".join(lines))})


def signature(key: str, text: str) -> str:
    """Base64 of HMAC-SHA256."""
    digest = hmac.new(base64.b64decode(key), text.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def encoded(fields: Mapping[str, str]) -> str:
    """A query string; empty values are left out."""
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in fields.items() if value)
