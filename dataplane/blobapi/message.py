"""A request and an answer as values: what the server's parser produces and what a handler returns.

A target is decoded exactly once, in uri.py; authorisation and the store get the same Resource, so one string can never
have two readings. Header names are lower-case, but for user metadata, whose names keep their case after x-ms-meta-;
values are text decoded as UTF-8 with surrogateescape, so that signing sees the very bytes that were sent.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeVar

T = TypeVar("T")


class Level(Enum):
    """What a target names."""

    SERVICE = "service"
    CONTAINER = "container"
    BLOB = "blob"


@dataclass(frozen=True, slots=True)
class Resource:
    """The account, container and blob that a target names, decoded once.

    `raw_path` is the whole path as sent, still escaped, without the query; Shared Key signs "/" + account + raw_path.
    `path_style` tells that the account was the first path segment.
    """

    account: str
    container: str
    blob: str
    raw_path: str
    path_style: bool

    @property
    def level(self) -> Level:
        if self.blob:
            return Level.BLOB
        return Level.CONTAINER if self.container else Level.SERVICE


@dataclass(slots=True)
class Request:
    """One request's head. `query` has lower-case names and decoded values; a repeated name was refused before.

    `secure` tells that it came over TLS; `peer` is the address of the other end of the connection.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    resource: Resource
    query: Mapping[str, str]
    version: str = ""
    secure: bool = False
    peer: str = ""
    host: str = ""
    content_length: int | None = None  # None: no body, or a chunked one
    chunked: bool = False

    def header(self, name: str) -> str | None:
        """The value of a header, None when it is absent or empty (Azure treats both alike)."""
        return self.headers.get(name) or None


class Sending(Protocol):
    """Whoever wants to know where the time goes while a file is sent."""

    async def on_thread(self, run: Callable[..., Awaitable[T]], function: Callable[..., T], *args: object) -> T:
        """Call by `run`, which is a pool's: the file is read."""

    def over(self) -> None:
        """All is sent, or will never be. Called once."""


@dataclass(slots=True)
class FileBody:
    """A range of an open file as an answer's body. Whoever sends it closes the descriptor, also on failure, and tells
    `sending`."""

    fd: int
    offset: int
    length: int
    sending: Sending | None = None


class Arriving(Protocol):
    """Bytes that become readable in a file one after another."""

    async def readable(self, offset: int) -> tuple[int, int]:
        """(descriptor, end): from `offset`, where all before was read, up to `end` (beyond it) the file can be read at
        the bytes' own offsets. Waits for them; raises what ends the answer. The descriptor stays good until the next
        call or close()."""

    def close(self) -> None:
        """No more is wanted. May be called again."""


@dataclass(slots=True)
class RecallBody:
    """A range of a blob as an answer's body while it arrives from the cloud. Whoever sends it closes `source`, also on
    failure, tells `sending`, and adds to `waited_ns` what it waited for `source`."""

    source: Arriving
    offset: int
    length: int
    sending: Sending | None = None
    waited_ns: int = 0

    def close(self) -> None:
        """It is sent, or will never be."""
        self.source.close()
        if self.sending is not None:
            self.sending.over()


@dataclass(slots=True)
class Response:
    """An answer: status, headers in order as (name, value), and a body. HEAD answers carry the length, never bytes.

    `content_length` overrides the body's length for HEAD. The server adds Date, Server, x-ms-request-id,
    x-ms-version, x-ms-client-request-id and CORS headers.
    """

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | FileBody | RecallBody = b""
    content_length: int | None = None
    close: bool = False
