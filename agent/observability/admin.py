"""The admin endpoint: binds where the configuration says, and serves health, status and the pages that it is given.

A Unix socket has mode 0660: its owner and group may ask, nobody else on the machine. A socket file that nobody answers
is what a killed service left, and is replaced; one that is answered belongs to another service, and is not.

The addresses and the token are those at the start: a reload changes the limits of health, not where it is asked.
"""

import errno
import logging
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import trio

from agent.config import Admin
from agent.listen import Listen, UnixListen, is_loopback, parse_admin, parse_listen
from agent.observability.address import default_socket, make_directory
from agent.observability.health import Health
from agent.observability.http import Guard, Response, Routes, Server
from agent.observability.metrics import MountUsage, page
from agent.observability.mounts import Reading
from agent.observability.status import status_route
from agent.problems import OperatorError
from agent.supervision.snapshot import Service

log = logging.getLogger("blobedge.admin")

SOCKET_MODE: Final = 0o660
BACKLOG_COUNT: Final = 64
TOKEN_BYTES_MIN: Final = 16


@dataclass(frozen=True, slots=True)
class _Opened:
    """A bound listener. `inode` is that of its socket file, 0 for TCP."""

    sock: socket.socket
    guard: Guard
    url: str
    path: str = ""
    inode: int = 0

    def close(self) -> None:
        """Close, and remove the socket file unless another service's is there by now."""
        self.sock.close()
        try:
            if self.path and os.lstat(self.path).st_ino == self.inode:
                os.unlink(self.path)
        except OSError:
            pass  # it is gone, or its directory is: nothing is left to remove


async def serve(
    service: Service,
    routes: Routes,
    task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED,
    *,
    health: Health | None = None,
) -> None:
    """Serve until cancelled; `started` gives the URLs. `routes` are the pages besides health and status.

    Raises OperatorError when an address cannot be had or the token cannot be read.
    """
    health = health or Health(service)
    server = Server({**health.routes(), **status_route(service, health), **routes})
    opened = open_all(service.config.admin, _first_port(service))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(health.observe)
            for each in opened:
                listener = trio.SocketListener(trio.socket.from_stdlib_socket(each.sock))
                nursery.start_soon(server.serve, listener, each.guard)
            task_status.started(tuple(each.url for each in opened))
    finally:
        for each in opened:
            each.close()


async def companion(service: Service) -> None:
    """Serve all pages beside the workers, until cancelled.

    An address that cannot be had is told in the log and no more: clients are served all the same.
    """
    health = Health(service)

    async def metrics(_query: Mapping[str, str]) -> Response:
        body, content_type = await page(service, [_usage(reading) for reading in health.readings()])
        return Response(200, body, content_type)

    try:
        await serve(service, {"/metrics": metrics}, health=health)
    except OperatorError as error:
        log.error("there is no admin endpoint: %s", error)


def _usage(reading: Reading) -> MountUsage:
    place, facts = reading.place, reading.facts
    if facts is None:
        return MountUsage(place.account, place.container)
    return MountUsage(
        place.account, place.container, facts.free_bytes, facts.size_bytes, facts.free_inodes, facts.inodes
    )


def open_all(admin: Admin, port: int) -> Sequence[_Opened]:
    """Bind every admin address; `port` names the default socket. Raises OperatorError."""
    token = _token(admin.token_file)
    opened: list[_Opened] = []
    with ExitStack() as undo:
        for address in _addresses(admin, port):
            each = _open_unix(address) if isinstance(address, UnixListen) else _open_tcp(address, token)
            undo.callback(each.close)
            opened.append(each)
        undo.pop_all()
    return opened


def _addresses(admin: Admin, port: int) -> list[Listen | UnixListen]:
    if admin.listen is not None:
        return [parse_admin(text) for text in admin.listen]
    path = default_socket(os.environ, os.geteuid(), port)
    if not os.environ.get("RUNTIME_DIRECTORY"):  # systemd makes that one, with the mode of the unit
        make_directory(path.parent, os.geteuid())
    return [UnixListen(str(path))]


def _first_port(service: Service) -> int:
    """The port that was really bound, as the URLs have it."""
    urls = service.snapshot().urls
    return (urlsplit(urls[0]).port if urls else None) or parse_listen(service.config.listen[0]).port


def _token(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        token = Path(path).read_bytes().strip()
    except OSError as error:
        raise OperatorError(f"admin.token_file {path}: {error.strerror}") from None
    if len(token) < TOKEN_BYTES_MIN:
        raise OperatorError(f"admin.token_file {path} has less than {TOKEN_BYTES_MIN} bytes: openssl rand -hex 32")
    return token


def _open_tcp(listen: Listen, token: bytes | None) -> _Opened:
    loopback = is_loopback(listen.host)
    if token is None and not loopback:
        raise OperatorError(f"{listen.url()} can be reached from outside: add admin.token_file, or use loopback")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise OperatorError(f"cannot listen on {listen.url()} for admin: {error.strerror}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG_COUNT)
    except OSError as error:
        sock.close()
        raise OperatorError(f"cannot listen on {listen.url()} for admin: {error.strerror}") from None
    return _Opened(sock, Guard(token, loopback_names_only=loopback), listen.url(sock.getsockname()[1]))


def _open_unix(listen: UnixListen) -> _Opened:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _remove_stale(listen.path)
        sock.bind(listen.path)
        os.chmod(listen.path, SOCKET_MODE)  # before listen: until then nobody can connect
        sock.listen(BACKLOG_COUNT)
        inode = os.lstat(listen.path).st_ino
    except OSError as error:
        sock.close()
        raise OperatorError(f"cannot listen on {listen.url()} for admin: {error.strerror or error}") from None
    except OperatorError:
        sock.close()
        raise
    return _Opened(sock, Guard(), listen.url(), listen.path, inode)


def _remove_stale(path: str) -> None:
    """Remove a socket file that nobody listens on. Raises OperatorError when it is in use, or is no socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OperatorError(f"{path} is there and is no socket: remove it, or set admin.listen")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        code = probe.connect_ex(path)
    if code == errno.ECONNREFUSED:
        os.unlink(path)
    elif code != errno.ENOENT:  # 0, or EAGAIN of a full queue: somebody is there
        raise OperatorError(f"another blobedge answers on unix:{path}: stop it, or set admin.listen")
