"""The service manager's protocols, sd_notify(3) and the descriptor store, as far as a supervisor needs them.

A state is one datagram to the socket that NOTIFY_SOCKET names; LISTEN_FDS and LISTEN_FDNAMES say which descriptors of
a former life come back. `take` reads these variables and removes them: a child that inherited them could speak in the
service's name. Without a service manager everything here does nothing, so no caller has to ask.

A state that cannot be sent is logged and otherwise ignored: the service is for clients first. libsystemd and its Python
packages were rejected: they are a C library for what is fifty lines.
"""

import contextlib
import logging
import os
import socket
import time
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

log = logging.getLogger("blobedge.supervisor")

FIRST_FD: Final = 3  # SD_LISTEN_FDS_START of sd-daemon.h
FD_NAME_BYTES_MAX: Final = 255  # sd_pid_notify_with_fds(3): ASCII, no control characters, no colon
STATUS_CHARS_MAX: Final = 500  # a line of `systemctl status`
_VARIABLES: Final = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "FDSTORE",
)


@dataclass(frozen=True, slots=True)
class Inherited:
    """A descriptor that the service manager kept, and the name that it was stored under."""

    name: str
    fd: int


class ServiceManager:
    """The way to the service manager. `address` is None when there is none."""

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        self.watchdog_seconds = watchdog_seconds
        self._address = "\0" + address[1:] if address is not None and address.startswith("@") else address

    def ready(self) -> None:
        """The service serves; also the end of a reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload began. Type=notify-reload wants to know when, on the monotonic clock."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service is on its way down."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send("STATUS=" + " ".join(text.split())[:STATUS_CHARS_MAX])

    def store(self, name: str, fd: int) -> None:
        """Keep a copy of the descriptor across our death, under a name. The same file is never stored twice."""
        self._send(f"FDSTORE=1\nFDNAME={name}", fd)

    def forget(self, name: str) -> None:
        """Drop what was stored under this name."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    async def watchdog(self) -> None:
        """Tell that the event loop turns, twice in the time that the service manager allows; for ever."""
        if self.watchdog_seconds is None:
            return
        while True:
            self._send("WATCHDOG=1")
            await trio.sleep(self.watchdog_seconds / 2)

    def _send(self, state: str, fd: int | None = None) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.connect(self._address)
                socket.send_fds(sock, [state.encode()], [] if fd is None else [fd], socket.MSG_NOSIGNAL)
        except OSError as error:
            log.warning("cannot tell the service manager %s: %s", state.split("=")[0], error.strerror)


def take(environ: MutableMapping[str, str], pid: int) -> tuple[ServiceManager, Sequence[Inherited]]:
    """Read and remove the variables; `pid` is ours, as the manager addresses a process.

    Returns the way to it, and the descriptors that it kept, none of which a child inherits by accident.
    """
    found = {name: environ.pop(name, "") for name in _VARIABLES}
    address = found["NOTIFY_SOCKET"] if found["NOTIFY_SOCKET"][:1] in ("/", "@") else None
    watchdog = _number(found["WATCHDOG_USEC"]) if found["WATCHDOG_PID"] in ("", str(pid)) else 0
    ours = found["LISTEN_PID"] == str(pid)
    inherited = _inherited(_number(found["LISTEN_FDS"]), found["LISTEN_FDNAMES"].split(":")) if ours else []
    return ServiceManager(address, watchdog / 1e6 if watchdog else None), inherited


def _inherited(count: int, names: Sequence[str]) -> list[Inherited]:
    found = []
    for index in range(count):
        fd = FIRST_FD + index
        with contextlib.suppress(OSError):  # a number that is not open is none of ours
            os.set_inheritable(fd, False)
            found.append(Inherited(names[index] if index < len(names) else "", fd))
    return found


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
