"""How requests to the cloud get onto the wire: stoppable, paced, counted, in bounded memory.

An Errand is one piece of work. While `with errand:` is in force on a thread, the bodies of requests made on that thread
go out in pieces of PIECE_BYTES_MAX; before each one the errand is asked whether it goes on, and when. `stop` also
shuts the sockets of requests that are under way, so a request that waits for an answer that never comes, or comes a
byte at a time, ends at once (one that still connects, with its timeout): whoever keeps a deadline calls it. The SDK
knows nothing of all this; it is given a session.

A connection that was idle for IDLE_SECONDS_MAX is not used again: the service, or a firewall on the way, may have
forgotten it, and a healthy link would seem to be down. One whose request is given up is reset, also when this process
is killed: else the kernel would go on sending what it has of the request, for minutes and behind our back, and the
service would do it once the link is there again, after what we did since.

Rejected: trying once more what failed on a connection that was idle, as who forgets a connection often answers nothing
at all, and the first try then costs its whole timeout; generators as bodies of the SDK's own upload, which it reads
whole into memory first.
"""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import certifi
import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from agent.offload.failures import CloudFailed, Request, found
from agent.offload.pace import Turn

if TYPE_CHECKING:
    from urllib3._base_connection import BaseHTTPConnection

PIECE_BYTES_MAX: Final = 64 * 1024
CONNECTIONS_MAX: Final = 64  # kept open, idle ones included
IDLE_SECONDS_MAX: Final = 3.0  # before a connection's next request; Azurite ends one after 5 s, others later
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER, on, for 0 s: close(2) throws away what was not sent
_FINISH_AT_CLOSE: Final = struct.pack("ii", 0, 0)

_current = threading.local()


def _at_once(count: int) -> Turn:
    return Turn(0.0)


def _untold(count: int) -> None:
    pass


class Errand:
    """One piece of work: may be stopped from any thread, asks `pace` before each piece, tells `progress` after it.

    `deadline`: on `clock`, in seconds; looked at before each piece and each request. `progress` gets bytes handed to
    the kernel since the last call, 0 while a file is read, and may be called from several threads.
    """

    def __init__(
        self,
        *,
        pace: Callable[[int], Turn] = _at_once,
        progress: Callable[[int], None] = _untold,
        deadline: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pace: Final = pace
        self._progress: Final = progress
        self._deadline: Final = deadline
        self._clock: Final = clock
        self._stopped: Final = threading.Event()
        self._lock: Final = threading.Lock()
        self._connections: set[HTTPConnection] = set()
        self._sent = 0

    @property
    def bytes_sent(self) -> int:
        """Bytes of bodies that were handed to the kernel."""
        return self._sent

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """End the work: what waits, for its turn or for an answer, fails at once. Any thread, any number of times."""
        self._stopped.set()
        with self._lock:
            for connection in self._connections:
                _shut(connection, self)

    def check(self) -> None:
        """Raises CloudFailed once the errand was stopped or its deadline has passed."""
        if self._stopped.is_set():
            raise found("Cancelled")
        if self._deadline is not None and self._clock() >= self._deadline:
            raise found("DeadlinePassed")

    def before(self, count: int) -> None:
        """Wait for the turn of `count` bytes. Raises CloudFailed when there is none for long, or the errand ends."""
        while True:
            self.check()
            turn = self._pace(count)
            if turn.wait_seconds <= 0:
                return
            if turn.closed:
                fault = found("PaceClosed", wait_seconds=turn.wait_seconds).fault
                raise CloudFailed(replace(fault, text=turn.closed))
            left = turn.wait_seconds if self._deadline is None else self._deadline - self._clock()
            self._stopped.wait(max(min(turn.wait_seconds, left), 0.0))

    def rest(self, seconds: float) -> None:
        """Wait. Raises CloudFailed when the errand ends meanwhile."""
        self._stopped.wait(seconds)
        self.check()

    def after(self, count: int) -> None:
        """`count` bytes went out."""
        with self._lock:
            self._sent += count
        self._progress(count)

    def holds(self, connection: HTTPConnection) -> None:
        """A request of this errand uses the connection."""
        with self._lock:
            self._connections.add(connection)
            if self._stopped.is_set():
                _shut(connection, self)

    def __enter__(self) -> Self:
        """In force on this thread until the block ends."""
        _current.errand = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _current.errand = None
        with self._lock:
            self._connections -= getattr(_current, "used", set())
        _current.used = set()


class FileBody:
    """Part of an open file as a request's body. Reads as it is sent, so it costs one piece of memory."""

    def __init__(self, fd: int, offset: int, size: int, request: Request) -> None:
        self._fd: Final = fd
        self._offset: Final = offset
        self._size: Final = size
        self._request: Final = request

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        """The bytes. Raises CloudFailed, never OSError, which the layers above would take for the connection's."""
        at, end = self._offset, self._offset + self._size
        while at < end:
            try:
                piece = os.pread(self._fd, min(PIECE_BYTES_MAX, end - at), at)
            except OSError:
                raise found("ReadFailed", self._request) from None
            if not piece:
                raise found("SourceChanged", self._request)
            yield from _paced(piece)
            at += len(piece)


class _BytesBody:
    """Bytes as a body in pieces."""

    def __init__(self, data: bytes) -> None:
        self._data: Final = data

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[bytes]:
        for at in range(0, len(self._data), PIECE_BYTES_MAX):
            yield from _paced(self._data[at : at + PIECE_BYTES_MAX])


def _paced(piece: bytes) -> Iterator[bytes]:
    """The piece when its turn has come; who asks for the next one has sent it."""
    errand: Errand | None = getattr(_current, "errand", None)
    if errand is None:
        yield piece
        return
    errand.before(len(piece))
    yield piece
    errand.after(len(piece))


def _shut(connection: HTTPConnection, errand: Errand) -> None:
    """End what the errand does there. One that went back to the pool may be somebody else's by now."""
    sock = connection.sock
    if sock is not None and getattr(connection, "errand", None) is errand:
        with suppress(OSError):
            # Below TLS: an SSLSocket's own shutdown takes its state away from the thread that reads.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _linger(connection: "HTTPConnection | BaseHTTPConnection", how: bytes) -> None:
    """What becomes of bytes that were not sent yet when the connection is closed."""
    sock = connection.__dict__.get("sock")
    if isinstance(sock, socket.socket):
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)


def _note(connection: HTTPConnection) -> None:
    """The thread's errand, if any, uses the connection now."""
    _linger(connection, _RESET_AT_CLOSE)
    errand: Errand | None = getattr(_current, "errand", None)
    connection.__dict__["errand"] = errand
    if errand is not None:
        used = _current.__dict__.setdefault("used", set())
        used.add(connection)
        errand.holds(connection)


def _idle(connection: "BaseHTTPConnection | None") -> "BaseHTTPConnection | None":
    """The connection as it goes back to its pool."""
    if connection is not None:
        _linger(connection, _FINISH_AT_CLOSE)
        connection.__dict__["idle_since"] = time.monotonic()
    return connection


def _in_use(connection: "BaseHTTPConnection") -> "BaseHTTPConnection":
    """The connection as it leaves its pool: closed if it was idle for too long, so that it connects again."""
    since = connection.__dict__.get("idle_since")
    if since is not None and time.monotonic() - since > IDLE_SECONDS_MAX:
        connection.close()
    return connection


class _Plain(HTTPConnection):
    def request(self, *arguments: Any, **options: Any) -> None:
        _note(self)
        super().request(*arguments, **options)

    def connect(self) -> None:
        super().connect()
        _note(self)  # stopped while it connected: shut now


class _Tls(HTTPSConnection):
    def request(self, *arguments: Any, **options: Any) -> None:
        _note(self)
        super().request(*arguments, **options)

    def connect(self) -> None:
        super().connect()
        _note(self)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain

    def _get_conn(self, timeout: float | None = None) -> "BaseHTTPConnection":
        return _in_use(super()._get_conn(timeout))

    def _put_conn(self, conn: "BaseHTTPConnection | None") -> None:
        super()._put_conn(_idle(conn))


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _Tls

    def _get_conn(self, timeout: float | None = None) -> "BaseHTTPConnection":
        return _in_use(super()._get_conn(timeout))

    def _put_conn(self, conn: "BaseHTTPConnection | None") -> None:
        super()._put_conn(_idle(conn))


class _Adapter(HTTPAdapter):
    """Sends bodies in pieces, over connections that an errand can shut."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        if isinstance(request.body, bytes) and request.body:  # an empty one would be sent chunked
            request.body = _BytesBody(request.body)
        return super().send(request, *arguments, **options)


def session() -> requests.Session:
    """A session without proxies and settings of the environment, and without retries."""
    made = requests.Session()
    made.trust_env = False
    for scheme in ("http://", "https://"):
        made.mount(scheme, _Adapter(pool_connections=4, pool_maxsize=CONNECTIONS_MAX, max_retries=0))
    return made


class Pool:
    """Connections to one endpoint, for requests that are made without a session. Safe for threads."""

    def __init__(self, endpoint: str, connect_seconds: float, answer_seconds: float, ca_file: str | None) -> None:
        parts = urlsplit(endpoint)
        timeout = Timeout(connect=connect_seconds, read=answer_seconds)
        options: dict[str, Any] = {"timeout": timeout, "maxsize": CONNECTIONS_MAX, "block": False}
        host = parts.hostname or ""
        if parts.scheme == "https":
            ca_certs = ca_file or certifi.where()
            self._pool: HTTPConnectionPool = _TlsPool(
                host, parts.port, cert_reqs="CERT_REQUIRED", ca_certs=ca_certs, **options
            )
        else:
            self._pool = _PlainPool(host, parts.port, **options)
        self._host: Final = parts.netloc.rpartition("@")[2]

    def close(self) -> None:
        """Close those that are idle."""
        self._pool.close()

    def send(self, method: str, url: str, headers: Mapping[str, str], data: bytes) -> BaseHTTPResponse:
        """One request, as it is: its answer, read whole. Raises urllib3's HTTPError, and what an errand raises."""
        return self._pool.urlopen(
            method,
            url,
            body=_BytesBody(data) if data else None,
            headers={"Host": self._host, "Accept-Encoding": "identity", "User-Agent": "blobedge", **headers},
            retries=False,
            redirect=False,
            assert_same_host=False,
            decode_content=False,
        )
