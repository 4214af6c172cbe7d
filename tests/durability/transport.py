"""Blob requests over one keep-alive connection, with the errors of a crashing server told apart."""

import base64
import hashlib
import http.client
import re
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from .history import Found, Version

VERSION = "2021-12-02"
TIMEOUT_S = 60.0
METADATA_PREFIX = "x-ms-meta-"


class ConnectionRefused(Exception):
    """Nobody listens: never allowed while the supervisor lives."""


class ConnectionLost(Exception):
    """The connection broke before a whole answer came."""

    def __init__(self, opened_at: float, sent_at: float, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.opened_at = opened_at
        self.sent_at = sent_at
        self.lost_at = time.monotonic()


class UnexpectedAnswer(Exception):
    """A status that the operation does not have in a healthy server."""

    def __init__(self, operation: str, status: int, body: bytes) -> None:
        super().__init__(f"{operation}: {status} {body[:300]!r}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server answers: host, port, path of the account, and a query that authorises."""

    host: str
    port: int
    base: str
    sas: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers with lower-case names, body."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Content:
    """What a client sends as one version of a blob."""

    body: bytes
    content_type: str
    metadata: dict[str, str] = field(default_factory=dict)

    def version(self) -> Version:
        """Return the version that this content is."""
        digest = hashlib.sha256(self.body).hexdigest()
        return Version(digest, len(self.body), self.content_type, tuple(sorted(self.metadata.items())))

    def metadata_headers(self) -> dict[str, str]:
        """Return the x-ms-meta- headers."""
        return {METADATA_PREFIX + name: value for name, value in self.metadata.items()}


class Transport:
    """One client's connection to one container; not for use by two threads."""

    def __init__(self, target: Target, container: str) -> None:
        self.target = target
        self.container = container
        self._connection: http.client.HTTPConnection | None = None
        self._opened_at = 0.0

    def __enter__(self) -> "Transport":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def request(
        self, method: str, blob: str, query: dict[str, str], headers: dict[str, str], body: bytes = b""
    ) -> Answer:
        """Send one request. Raises ConnectionRefused or ConnectionLost."""
        path = f"{self.target.base}/{self.container}" + (f"/{quote(blob)}" if blob else "")
        url = f"{path}?{'&'.join(part for part in (urlencode(query), self.target.sas) if part)}"
        if self._connection is None:
            connection = http.client.HTTPConnection(self.target.host, self.target.port, timeout=TIMEOUT_S)
            try:
                connection.connect()
            except ConnectionRefusedError as error:
                raise ConnectionRefused(str(error)) from error
            self._connection, self._opened_at = connection, time.monotonic()
        sent_at = time.monotonic()
        try:
            self._connection.request(method, url, body, {"x-ms-version": VERSION, **headers})
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ConnectionLost(self._opened_at, sent_at, error) from error
        named = {name.lower(): value for name, value in answer.getheaders()}
        if answer.will_close:
            self.close()
        return Answer(answer.status, named, content)

    def expect(
        self,
        allowed: tuple[int, ...],
        method: str,
        blob: str,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """Send one request; raises UnexpectedAnswer unless its status is one of `allowed`."""
        answer = self.request(method, blob, query or {}, headers or {}, body)
        if answer.status not in allowed:
            raise UnexpectedAnswer(f"{method} {blob} {query}", answer.status, answer.body)
        return answer

    def create_container(self) -> None:
        """Create Container; one that is there already is fine."""
        self.expect((201, 409), "PUT", "", {"restype": "container"})

    def put_blob(self, blob: str, content: Content) -> str:
        """Put Blob; return the ETag."""
        headers = {"x-ms-blob-type": "BlockBlob", "x-ms-blob-content-type": content.content_type}
        headers |= content.metadata_headers()
        return self.expect((201,), "PUT", blob, {}, headers, content.body).headers.get("etag", "")

    def put_block(self, blob: str, block_id: str, body: bytes) -> None:
        """Put Block."""
        self.expect((201,), "PUT", blob, {"comp": "block", "blockid": block_id}, {}, body)

    def put_block_list(self, blob: str, block_ids: list[str], content: Content) -> str:
        """Put Block List with each block as Latest; return the ETag."""
        items = "".join(f"<Latest>{block_id}</Latest>" for block_id in block_ids)
        body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{items}</BlockList>'.encode()
        headers = {"x-ms-blob-content-type": content.content_type, **content.metadata_headers()}
        answer = self.expect((201,), "PUT", blob, {"comp": "blocklist"}, headers, body)
        return answer.headers.get("etag", "")

    def set_metadata(self, blob: str, metadata: dict[str, str]) -> str:
        """Set Blob Metadata; return the ETag."""
        headers = {METADATA_PREFIX + name: value for name, value in metadata.items()}
        return self.expect((200,), "PUT", blob, {"comp": "metadata"}, headers).headers.get("etag", "")

    def delete(self, blob: str) -> bool:
        """Delete Blob; False if there was none."""
        return self.expect((202, 404), "DELETE", blob).status == 202

    def get(self, blob: str) -> Found | None:
        """Get Blob; None if there is none. Raises AssertionError if Content-MD5 is not the body's."""
        answer = self.expect((200, 404), "GET", blob)
        if answer.status == 404:
            return None
        md5 = answer.headers.get("content-md5")
        if md5 is not None:
            assert md5 == base64.b64encode(hashlib.md5(answer.body).digest()).decode(), f"{blob}: Content-MD5"
        metadata = {
            name.removeprefix(METADATA_PREFIX): value
            for name, value in answer.headers.items()
            if name.startswith(METADATA_PREFIX)
        }
        content = Content(answer.body, answer.headers.get("content-type", ""), metadata)
        return Found(content.version(), answer.headers.get("etag", ""))

    def list_names(self) -> set[str]:
        """List Blobs, all pages; return the names, none if the container itself is lost."""
        names: set[str] = set()
        marker = ""
        while True:
            query = {"restype": "container", "comp": "list", "marker": marker}
            answer = self.expect((200, 404), "GET", "", query)
            if answer.status == 404:
                return names
            page = ElementTree.fromstring(answer.body)
            names |= {name.text or "" for name in page.iterfind("./Blobs/Blob/Name")}
            marker = page.findtext("NextMarker") or ""
            if not marker:
                return names

    def uncommitted_blocks(self, blob: str) -> dict[str, int]:
        """Get Block List, uncommitted; return id -> length, empty if the blob does not exist."""
        answer = self.expect((200, 404), "GET", blob, {"comp": "blocklist", "blocklisttype": "uncommitted"})
        if answer.status == 404:
            return {}
        found = re.findall(rb"<Block><Name>([^<]*)</Name><Size>(\d+)</Size></Block>", answer.body)
        return {name.decode(): int(size) for name, size in found}
