"""The listening sockets: one per worker and address, bound once and kept open as long as the supervisor lives.

SO_REUSEPORT makes the kernel spread connections evenly over the workers' sockets, each with a queue of its own. The
supervisor keeps its copy of every socket, so the queue of a worker that died outlives it and its successor answers it.

SO_REUSEPORT would also let a second blobedge of the same user bind the same port unnoticed, and take half of the
connections. A probe socket without it is bound first: that fails if anybody listens there. Between the probe and the
real sockets somebody else could come; then the real ones fail with the same message.
"""

import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.listen import Listen
from agent.problems import OperatorError

# Connections that wait in the kernel while a worker is busy or replaced; net.core.somaxconn caps it (4096 by default).
BACKLOG_COUNT: Final = 4096


@dataclass(frozen=True, slots=True)
class Bound:
    """One configured address with its sockets: `sockets[i]` is for worker i. `port` is the real one."""

    listen: Listen
    port: int
    sockets: Sequence[socket.socket]

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def bind_all(listens: Sequence[Listen], workers: int) -> list[Bound]:
    """Bind every address once per worker. Raises OperatorError for an address that cannot be had."""
    bound: list[Bound] = []
    try:
        for listen in listens:
            bound.append(_bind(listen, workers))
    except OSError as error:
        for one in bound:
            one.close()
        raise OperatorError(_sentence(listen, error)) from None
    return bound


def _bind(listen: Listen, workers: int) -> Bound:
    family, _, _, _, address = socket.getaddrinfo(
        listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    if listen.port:
        with _socket(family) as probe:
            probe.bind(address)
            probe.listen(1)
    sockets: list[socket.socket] = []
    try:
        for _ in range(workers):
            sock = _socket(family)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
            sock.listen(BACKLOG_COUNT)
            address = sock.getsockname()  # the port that the kernel picked, if it was 0
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return Bound(listen, int(address[1]), sockets)


def _socket(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


def _sentence(listen: Listen, error: OSError) -> str:
    url = listen.url()
    if isinstance(error, socket.gaierror):
        return f"cannot listen on {url}: the host name {listen.host!r} has no address"
    if error.errno == errno.EADDRINUSE:
        return (
            f"cannot listen on {url}: port {listen.port} is in use; stop what uses it (ss -ltnp), or take another one"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"cannot listen on {url}: {listen.host} is no address of this machine (ip address)"
    if error.errno == errno.EACCES:
        return f"cannot listen on {url}: user {os.geteuid()} may not use ports below 1024; take a higher one"
    return f"cannot listen on {url}: {error.strerror}"
