"""A worker's sockets from its settings: inherited descriptors and TLS contexts.

The descriptors are bound and listening already, and the supervisor keeps them open; what is closed here is a copy.
"""

import socket
import ssl

from dataplane.ipc.settings import ListenerSettings, Settings
from dataplane.server.build import BootError
from dataplane.server.listener import ListeningSocket, Server, serve
from dataplane.server.node import Node
from dataplane.server.options import ServerOptions


async def open_server(node: Node) -> Server:
    """Accept connections on all listeners of the node's settings. Raises BootError."""
    sockets = [_listening(each) for each in node.settings.listeners]
    return await serve(node.app, sockets, pools=node.pools, options=server_options(node.settings))


def server_options(settings: Settings) -> ServerOptions:
    """The limits of connections as the operator set them."""
    given = settings.limits
    return ServerOptions(
        head_read_seconds_max=given.head_read_seconds_max,
        body_idle_seconds_max=given.body_idle_seconds_max,
        send_idle_seconds_max=given.send_idle_seconds_max,
        keep_alive_seconds_max=given.keep_alive_seconds_max,
        connections_max=given.connections_count_max,
    )


def _listening(settings: ListenerSettings) -> ListeningSocket:
    tls = _tls(settings) if settings.scheme == "https" else None
    try:
        found = socket.socket(fileno=settings.fd)
    except OSError as error:
        raise BootError(f"listener {settings.host}:{settings.port}: no socket was handed over: {error}") from None
    found.setblocking(False)
    return found, tls


def _tls(settings: ListenerSettings) -> ssl.SSLContext:
    """TLS 1.2 and newer, HTTP/1.1 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise BootError(f"listener {settings.host}:{settings.port}: certificate or key: {error}") from None
    return context
