"""The listening sockets: one per worker and address, bound once and kept open as long as the supervisor lives.

SO_REUSEPORT makes the kernel spread connections evenly over the workers' sockets, each with a queue of its own. The
supervisor keeps its copy of every socket, so the queue of a worker that died outlives it and its successor answers it.
The service manager keeps another copy (systemd.py), so the queues outlive the supervisor too: a socket of a former life
is taken by its name, which says the address and the index, and checked before it is trusted.

A socket whose address is still served is never closed, because closing one resets the connections that wait in it:
after a change to fewer workers each of them serves several (`Bound.share`). Rejected: a BPF program that steers
connections away from sockets that are about to close; it needs a round-trip time of patience for each.

SO_REUSEPORT would also let a second blobedge of the same user bind the same port unnoticed, and take half of the
connections. A probe socket without it is bound first: that fails if anybody listens there. Between the probe and the
real sockets somebody else could come; then the real ones fail with the same message.
"""

import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agent.listen import Listen
from agent.problems import OperatorError
from agent.supervision.systemd import Inherited, ServiceManager

# Connections that wait in the kernel while a worker is busy or replaced; net.core.somaxconn caps it (4096 by default).
BACKLOG_COUNT: Final = 4096

NAME_PREFIX: Final = "blobedge"


@dataclass(slots=True)
class Bound:
    """One configured address with its sockets. `port` is the real one; `address` is what bind(2) takes."""

    listen: Listen
    port: int
    sockets: list[socket.socket]
    family: int
    address: Any  # of the form that the family has

    def share(self, number: int, workers: int) -> list[socket.socket]:
        """The sockets of worker `number` of so many: all sockets are shared out, and each worker has at least one.

        Binds one more where there are too few. Raises OperatorError.
        """
        try:
            while len(self.sockets) <= number:
                self.sockets.append(_listening(self.family, self.address))
        except OSError as error:
            raise OperatorError(_sentence(self.listen, error)) from None
        return self.sockets[number::workers]

    def shrink(self, count: int) -> None:
        """Close those beyond the first `count`."""
        while len(self.sockets) > count:
            self.sockets.pop().close()

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


@dataclass(slots=True)
class Adopted:
    """Listening sockets of a former life, by their names. What nobody takes is closed at the end of the start."""

    sockets: dict[str, socket.socket] = field(default_factory=dict)

    def take(self, address: Any) -> list[socket.socket]:
        """The sockets of an address, in the order of their indexes, as far as there is no gap."""
        found: list[socket.socket] = []
        while (sock := self.sockets.pop(socket_name(address, len(found)), None)) is not None:
            found.append(sock)
        return found

    def close(self, manager: ServiceManager) -> None:
        """Close what is left: nobody would answer the connections in it."""
        for name, sock in self.sockets.items():
            sock.close()
            manager.forget(name)
        self.sockets.clear()


def adopt(inherited: Sequence[Inherited], manager: ServiceManager) -> Adopted:
    """Check what the service manager kept for us; close and forget what is no listening socket of the named address."""
    adopted = Adopted()
    for each in inherited:
        sock = _checked(each)
        if sock is None:
            manager.forget(each.name)
        elif each.name in adopted.sockets:
            sock.close()
        else:
            adopted.sockets[each.name] = sock
    return adopted


def socket_name(address: Any, index: int) -> str:
    """The name of a socket in the descriptor store, which allows no colon."""
    return f"{NAME_PREFIX}-{address[0].replace(':', '+')}-{address[1]}-{index}"


def store_all(bounds: Sequence[Bound], manager: ServiceManager) -> None:
    """Hand copies of all sockets to the service manager; it knows those that it has already.

    An address with port 0 has another port in each life, so that nothing could come back to it.
    """
    for bound in bounds:
        if bound.listen.port:
            for index, sock in enumerate(bound.sockets):
                manager.store(socket_name(sock.getsockname(), index), sock.fileno())


def forget_all(bounds: Sequence[Bound], manager: ServiceManager) -> None:
    """Have the service manager drop its copies; for addresses that are not served any more."""
    for bound in bounds:
        if bound.listen.port:
            for index, sock in enumerate(bound.sockets):
                manager.forget(socket_name(sock.getsockname(), index))


def bind_all(listens: Sequence[Listen], workers: int, adopted: Adopted | None = None) -> list[Bound]:
    """Bind every address once per worker. Raises OperatorError for an address that cannot be had."""
    bound: list[Bound] = []
    try:
        for listen in listens:
            bound.append(_bind(listen, workers, adopted or Adopted()))
    except OSError as error:
        for one in bound:
            one.close()
        raise OperatorError(_sentence(listen, error)) from None
    return bound


def rebind(old: Sequence[Bound], listens: Sequence[Listen]) -> list[Bound]:
    """The addresses of a new configuration: those that are served already with their sockets, others newly bound.

    New ones have one socket so far. Raises OperatorError, and then nothing has changed.
    """
    kept = {(bound.listen.host, bound.listen.port): bound for bound in old}
    result: list[Bound] = []
    fresh: list[Bound] = []
    try:
        for listen in listens:
            known = kept.get((listen.host, listen.port))
            if known is None:
                fresh += bind_all([listen], 1)
                result.append(fresh[-1])
            else:
                result.append(Bound(listen, known.port, known.sockets, known.family, known.address))
    except OperatorError:
        for bound in fresh:
            bound.close()
        raise
    return result


def dropped(old: Sequence[Bound], new: Sequence[Bound]) -> list[Bound]:
    """Those of `old` whose sockets `new` does not use."""
    used = [bound.sockets for bound in new]
    return [bound for bound in old if not any(bound.sockets is sockets for sockets in used)]


def _bind(listen: Listen, workers: int, adopted: Adopted) -> Bound:
    family, _, _, _, address = socket.getaddrinfo(
        listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sockets = adopted.take(address) if listen.port else []
    if listen.port and not sockets:
        with _socket(family) as probe:
            probe.bind(address)
            probe.listen(1)
    try:
        while len(sockets) < workers:
            sockets.append(_listening(family, address))
            address = sockets[-1].getsockname()  # the port that the kernel picked, if it was 0
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return Bound(listen, int(address[1]), sockets, family, address)


def _listening(family: int, address: Any) -> socket.socket:
    sock = _socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Accepted connections have it from here: load balancers on the way forget those that are silent too long.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.bind(address)
        sock.listen(BACKLOG_COUNT)
    except OSError:
        sock.close()
        raise
    return sock


def _socket(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


def _checked(inherited: Inherited) -> socket.socket | None:
    """The socket, if it is what its name says; otherwise it is closed."""
    try:
        sock = socket.socket(fileno=inherited.fd)
    except OSError:  # no socket at all
        os.close(inherited.fd)
        return None
    if _is_listener(sock, inherited.name):
        sock.setblocking(False)
        return sock
    sock.close()
    return None


def _is_listener(sock: socket.socket, name: str) -> bool:
    """Whether it is a listening TCP socket that can be one of several, bound to the address in the name."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        return False
    options = (socket.SO_ACCEPTCONN, socket.SO_REUSEPORT)
    if not all(sock.getsockopt(socket.SOL_SOCKET, option) for option in options):
        return False
    index = name.rpartition("-")[2]
    return index.isdecimal() and socket_name(sock.getsockname(), int(index)) == name


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
