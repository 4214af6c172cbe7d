"""The sockets that the admin endpoint listens on: bound where the configuration says, with who may ask on each.

A Unix socket has mode 0660: its owner and group may ask, nobody else on the machine. A socket file that nobody answers
is what a killed service left, and is replaced; one that is answered belongs to another service, and is not.
"""

import errno
import os
import socket
import stat
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agent.config import Admin
from agent.listen import Listen, UnixListen, is_loopback, parse_admin
from agent.observability.address import default_socket, make_directory
from agent.observability.http import Guard
from agent.problems import OperatorError

SOCKET_MODE: Final = 0o660
BACKLOG_COUNT: Final = 64
TOKEN_BYTES_MIN: Final = 16

Address = Listen | UnixListen


@dataclass(frozen=True, slots=True)
class Opened:
    """A bound listener. `inode` is that of its socket file, 0 for TCP."""

    sock: socket.socket
    guard: Guard
    url: str
    path: str = ""
    inode: int = 0

    def guarded(self, listen: Address, token: bytes | None) -> "Opened":
        """The same listener for callers with this token: itself, or another descriptor. Raises OperatorError."""
        if isinstance(listen, UnixListen) or token == self.guard.token:
            return self
        return replace(self, sock=self.sock.dup(), guard=_guard(listen, token))

    def close(self) -> None:
        """Close, and remove the socket file unless another service's is there by now."""
        self.sock.close()
        try:
            if self.path and os.lstat(self.path).st_ino == self.inode:
                os.unlink(self.path)
        except OSError:
            pass  # it is gone, or its directory is: nothing is left to remove


def open_all(admin: Admin, port: int, known: Mapping[Address, Opened] | None = None) -> dict[Address, Opened]:
    """Bind every admin address that is not `known` as it has to be; `port` names the default socket.

    Raises OperatorError; then nothing was opened. The result is in the order of the configuration.
    """
    known = known or {}
    token = _token(admin.token_file)
    opened: dict[Address, Opened] = {}
    with ExitStack() as undo:
        for address in _addresses(admin, port):
            if address in opened:
                continue  # said twice
            had = known.get(address)
            opened[address] = _open(address, token) if had is None else had.guarded(address, token)
            if opened[address] is not had:
                undo.callback(opened[address].close)
        undo.pop_all()
    return opened


def close_fresh(opened: Mapping[Address, Opened], known: Collection[Opened]) -> None:
    """Close those that are not among `known`."""
    for each in opened.values():
        if not any(each is other for other in known):
            each.close()


def _open(address: Address, token: bytes | None) -> Opened:
    return _open_unix(address) if isinstance(address, UnixListen) else _open_tcp(address, token)


def _guard(listen: Listen, token: bytes | None) -> Guard:
    loopback = is_loopback(listen.host)
    if token is None and not loopback:
        raise OperatorError(f"{listen.url()} can be reached from outside: add admin.token_file, or use loopback")
    return Guard(token, loopback_names_only=loopback)


def _addresses(admin: Admin, port: int) -> list[Address]:
    if admin.listen is not None:
        return [parse_admin(text) for text in admin.listen]
    path = default_socket(os.environ, os.geteuid(), port)
    if not os.environ.get("RUNTIME_DIRECTORY"):  # systemd makes that one, with the mode of the unit
        make_directory(path.parent, os.geteuid())
    return [UnixListen(str(path))]


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


def _open_tcp(listen: Listen, token: bytes | None) -> Opened:
    guard = _guard(listen, token)
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
    return Opened(sock, guard, listen.url(sock.getsockname()[1]))


def _open_unix(listen: UnixListen) -> Opened:
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
    return Opened(sock, Guard(), listen.url(), listen.path, inode)


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
