"""A small, strict HTTP/1.1 server on trio and h11 for the admin endpoint and the queue's socket.

It guarantees that a caller, however slow, many or malformed, cannot hold the process: a head has HEAD_BYTES_MAX and
READ_SECONDS_MAX, an answer ANSWER_SECONDS_MAX, and there are CONNECTIONS_COUNT_MAX connections; one more is told 503 at
once. GET and HEAD, POST where something may be changed; no body, one request a connection: a scrape comes every few
seconds, and what follows a request on its connection (pipelining, smuggling) is never looked at.

A page in a browser can make requests to a loopback port under a foreign name that resolves to 127.0.0.1 (DNS
rebinding), so a loopback listener answers only to the names of the loopback.

Rejected: http.server (a thread for each connection, no deadlines), aiohttp (asyncio; the supervisor is trio).
"""

import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

import h11
import trio

from agent.listen import is_loopback

log = logging.getLogger("blobedge.admin")

HEAD_BYTES_MAX: Final = 8192
READ_SECONDS_MAX: Final = 5.0  # for the whole head
ANSWER_SECONDS_MAX: Final = 5.0  # for the handler, and again for the caller to take the answer
LINGER_SECONDS_MAX: Final = 1.0  # for the caller to see the answer before a reset destroys it
LINGER_BYTES_MAX: Final = 65_536
CONNECTIONS_COUNT_MAX: Final = 64
QUERY_FIELDS_COUNT_MAX: Final = 16
_CHUNK_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Response:
    """What a handler answers."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Mapping[str, str]], Awaitable[Response]]
Routes = Mapping[str, Handler]


@dataclass(frozen=True, slots=True)
class Guard:
    """Who may ask on one listener. `token` None: nobody needs one."""

    token: bytes | None = None
    loopback_names_only: bool = False


class Refused(Exception):
    """A request that is not answered as asked: the response says why."""

    def __init__(self, status: int, reason: str, *headers: tuple[str, str]) -> None:
        super().__init__(reason)
        self.response = Response(status, reason.encode() + b"\n", headers=headers)


def json_response(document: Any, status: int = 200) -> Response:
    """Make a JSON answer that a person can read too."""
    return Response(status, json.dumps(document, indent=1).encode() + b"\n", "application/json")


class Server:
    """The connections of all listeners together: they share the bound on their number."""

    def __init__(self, routes: Routes, actions: Routes | None = None, head_bytes_max: int = HEAD_BYTES_MAX) -> None:
        """`routes` answer GET and HEAD and change nothing; `actions` answer POST. The admin endpoint has none."""
        self._routes = routes
        self._actions = actions or {}
        self._head_bytes_max = head_bytes_max
        self._open = 0

    async def serve(self, listener: trio.SocketListener, guard: Guard, handlers: trio.Nursery | None = None) -> None:
        """Serve one listener until cancelled; closes it. What it accepted goes on in `handlers` if that is given."""

        async def handle(stream: trio.SocketStream) -> None:
            await self._connection(stream, guard)

        await trio.serve_listeners(handle, [listener], handler_nursery=handlers)

    async def _connection(self, stream: trio.SocketStream, guard: Guard) -> None:
        self._open += 1
        try:
            async with stream:
                connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self._head_bytes_max)
                response, head_only = await self._response(stream, connection, guard)
                await _send(stream, connection, response, head_only)
                await _linger(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the caller left
        except Exception:  # a bug here must not end the supervisor's nursery, and with it the service
            log.exception("the admin endpoint failed on a connection")
        finally:
            self._open -= 1

    async def _response(
        self, stream: trio.SocketStream, connection: h11.Connection, guard: Guard
    ) -> tuple[Response, bool]:
        head_only = False
        try:
            if self._open > CONNECTIONS_COUNT_MAX:
                raise Refused(503, "too many connections")
            request = await _read(stream, connection)
            head_only = request.method == b"HEAD"
            handler, query = self._route(request, guard)
            return await _answer(handler, query), head_only
        except Refused as refused:
            return refused.response, head_only

    def _route(self, request: h11.Request, guard: Guard) -> tuple[Handler, Mapping[str, str]]:
        _check_caller(request, guard)
        if request.method not in self._methods():
            allowed = ", ".join(each.decode() for each in self._methods())
            raise Refused(405, f"only {allowed}", ("Allow", allowed))
        _check_no_body(request)
        path, query = _target(request.target)
        routes = self._actions if request.method == b"POST" else self._routes
        handler = routes.get(path)
        if handler is None:
            raise Refused(404, f"there is {', '.join(sorted(routes))}")
        return handler, query

    def _methods(self) -> tuple[bytes, ...]:
        return (b"GET", b"HEAD", b"POST") if self._actions else (b"GET", b"HEAD")


async def _read(stream: trio.SocketStream, connection: h11.Connection) -> h11.Request:
    with trio.move_on_after(READ_SECONDS_MAX):
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError as error:
                raise Refused(error.error_status_hint, "not a request that is understood") from None
            if isinstance(event, h11.Request):
                return event
            if event is not h11.NEED_DATA:
                raise trio.BrokenResourceError  # it left before its request
            connection.receive_data(await stream.receive_some(_CHUNK_BYTES))
    raise Refused(408, f"the request did not come within {READ_SECONDS_MAX:g} s")


def _check_caller(request: h11.Request, guard: Guard) -> None:
    if guard.loopback_names_only:
        host = _headers(request, b"host")
        if len(host) != 1 or not is_loopback(_host_name(host[0])):
            raise Refused(421, "this address answers as localhost, 127.0.0.1 or [::1] only")
    if guard.token is not None:
        values = _headers(request, b"authorization")
        scheme, _, token = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
        same = hmac.compare_digest(token.strip(), guard.token)
        if scheme.lower() != b"bearer" or not same:
            raise Refused(401, "the token of admin.token_file is needed", ("WWW-Authenticate", "Bearer"))


def _check_no_body(request: h11.Request) -> None:
    lengths = _headers(request, b"content-length")
    if _headers(request, b"transfer-encoding") or any(length != b"0" for length in lengths):
        raise Refused(400, "a body is not expected here")


def _headers(request: h11.Request, name: bytes) -> list[bytes]:
    return [value for key, value in request.headers if key == name]


def _host_name(host: bytes) -> str:
    """The name in a Host header, without its port and brackets; what is no such thing means no loopback either."""
    text = host.decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


def _target(target: bytes) -> tuple[str, Mapping[str, str]]:
    """Path, exactly as it came, and query of the origin form; the other forms are for proxies."""
    path, _, query = target.decode("latin-1").partition("?")
    if not path.startswith("/"):
        raise Refused(400, "the request target has to start with /")
    try:
        fields = parse_qsl(query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_COUNT_MAX)
    except ValueError:
        raise Refused(400, "the query is not understood") from None
    if len(dict(fields)) != len(fields):
        raise Refused(400, "the query names a field twice")
    return path, dict(fields)


async def _answer(handler: Handler, query: Mapping[str, str]) -> Response:
    with trio.move_on_after(ANSWER_SECONDS_MAX):
        try:
            return await handler(query)
        except Refused:
            raise
        except Exception:  # a bug in one page must not end the others
            log.exception("a page of the admin endpoint failed")
            raise Refused(500, "this page failed; the log has the reason") from None
    raise Refused(503, f"there was no answer within {ANSWER_SECONDS_MAX:g} s")


async def _send(stream: trio.SocketStream, connection: h11.Connection, response: Response, head_only: bool) -> None:
    headers = [
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Connection", "close"),
        *response.headers,
    ]
    data = connection.send(h11.Response(status_code=response.status, headers=headers)) or b""
    if not head_only:  # h11 would refuse a body to HEAD, and to what it could not read it knows no method
        data += response.body
    with trio.move_on_after(ANSWER_SECONDS_MAX):
        await stream.send_all(data)


async def _linger(stream: trio.SocketStream) -> None:
    """End our side, then take what is still on its way: closing with unread bytes resets, and that eats the answer."""
    with trio.move_on_after(LINGER_SECONDS_MAX):
        await stream.send_eof()
        taken = 0
        while taken < LINGER_BYTES_MAX and (data := await stream.receive_some(_CHUNK_BYTES)):
            taken += len(data)
