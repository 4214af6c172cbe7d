"""Listening sockets in, connections out; and how a worker stops without a failed request.

The sockets belong to the supervisor, which keeps its own copy of every one open. So stopping only closes this process's
copy: connections that wait in a socket's queue stay there and the next worker takes them. Connections that this worker
has are told "Connection: close" with their present or next answer; those that stay idle for a moment are closed then,
after a last look for a request that is already there.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence

from dataplane.blobapi import limits
from dataplane.blobapi.message import Response
from dataplane.server.body import BodyReader
from dataplane.server.connection import HttpConnection
from dataplane.server.head import RawRequest
from dataplane.server.mountpools import MountPools
from dataplane.server.options import Counters, ServerContext, ServerOptions

_ARRIVING_POLL_SECONDS = 0.02

ListeningSocket = tuple[socket.socket, ssl.SSLContext | None]


class Server:
    """The connections of one worker. Made by `serve`."""

    def __init__(self, context: ServerContext, servers: list[asyncio.Server]) -> None:
        self._context = context
        self._servers = servers

    @property
    def counters(self) -> Counters:
        """Live totals; the same object for the life of the server."""
        return self._context.counters

    def stop_accepting(self) -> None:
        """Close this process's copies of the listening sockets. What waits in their queues stays there."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    async def drain(self) -> None:
        """Stop accepting, finish what runs, return when no connection is left, none either whose TLS handshake goes on.
        The caller sets the deadline and calls `abort` after it."""
        self.stop_accepting()
        context = self._context
        context.draining = True
        for connection in list(context.connections):
            connection.drain()
        until = context.loop.time() + limits.tls_handshake_seconds_max
        while context.arriving and context.loop.time() < until:  # noqa: ASYNC110 - a handshake that fails tells nobody
            await asyncio.sleep(_ARRIVING_POLL_SECONDS)
        while context.connections:
            context.emptied.clear()
            await context.emptied.wait()

    def abort(self) -> None:
        """Close everything now; handlers that run are cancelled."""
        self.stop_accepting()
        for connection in list(self._context.connections):
            connection.abort()


async def serve(
    app: Callable[[RawRequest, BodyReader], Awaitable[Response]],
    sockets: Sequence[ListeningSocket],
    *,
    pools: MountPools | None = None,
    options: ServerOptions | None = None,
    clock: Callable[[], float] = time.time,
) -> Server:
    """Accept connections on bound sockets, with TLS where a context is given, on the running loop (uvloop).

    The sockets are closed with the server. `app` may have `try_sync` (see connection.py). `clock` is wall time in
    seconds, for Date.
    """
    loop = asyncio.get_running_loop()
    context = ServerContext(app, loop, pools or MountPools(), options or ServerOptions(), clock)
    servers = []
    for listening, tls in sockets:
        secure = tls is not None
        servers.append(
            await loop.create_server(
                _factory(context, secure),
                sock=listening,
                ssl=tls,
                backlog=limits.accept_backlog_max,
                ssl_handshake_timeout=limits.tls_handshake_seconds_max if secure else None,
                ssl_shutdown_timeout=limits.tls_shutdown_seconds_max if secure else None,
            )
        )
    return Server(context, servers)


def _factory(context: ServerContext, secure: bool) -> Callable[[], HttpConnection]:
    return lambda: HttpConnection(context, secure)
