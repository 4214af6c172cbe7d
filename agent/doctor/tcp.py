"""The kernel's TCP sockets and who holds them, from /proc/net/tcp, /proc/net/tcp6 and /proc/PID/fd (proc(5)).

Neither `ss` nor psutil: the two tables are short to read, and a minimal node need not have iproute2.
"""

import ipaddress
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LISTEN: Final = 0x0A  # include/net/tcp_states.h
TIME_WAIT: Final = 0x06
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_SOCKET_LINK: Final = re.compile(r"socket:\[(\d+)\]\Z")


@dataclass(frozen=True, slots=True)
class Connection:
    """One socket of the table."""

    local: Address
    local_port: int
    remote: Address
    remote_port: int
    state: int
    inode: int  # 0: no process has it any more


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a socket."""

    pid: int
    command: str  # the arguments, joined by spaces; the short name where they are empty


def parse(text: str, byte_order: str = sys.byteorder) -> list[Connection]:
    """Read a table. Addresses are hexadecimal, in words of 32 bits in the order of the machine's bytes."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 10:
            local, local_port = _address(fields[1], byte_order)
            remote, remote_port = _address(fields[2], byte_order)
            found.append(Connection(local, local_port, remote, remote_port, int(fields[3], 16), int(fields[9])))
    return found


def _address(text: str, byte_order: str) -> tuple[Address, int]:
    host, _, port = text.partition(":")
    raw = bytes.fromhex(host)
    if byte_order == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    address: Address = ipaddress.IPv4Address(raw) if len(raw) == 4 else ipaddress.IPv6Address(raw)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address, int(port, 16)


def observe() -> list[Connection]:
    """Return the sockets of this network namespace. Without IPv6 in the kernel there is one table."""
    tables = []
    for name in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):
            tables += parse(Path(f"/proc/net/{name}").read_text(encoding="ascii"))
    return tables


def holders(inodes: frozenset[int]) -> dict[int, Holder]:
    """Return a process for each socket inode, of those processes that this user may look into."""
    found: dict[int, Holder] = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            for inode in inodes.intersection(_socket_inodes(directory)) - found.keys():
                found[inode] = Holder(int(directory.name), _command(directory))
    return found


def _socket_inodes(process: Path) -> Iterator[int]:
    try:
        fds = list((process / "fd").iterdir())
    except OSError:  # ended, or another user's
        return
    for fd in fds:
        with suppress(OSError):
            link = _SOCKET_LINK.match(os.readlink(fd))
            if link:
                yield int(link[1])


def _command(process: Path) -> str:
    with suppress(OSError):
        words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        return " ".join(filter(None, words)) or (process / "comm").read_text(encoding="utf-8").strip()
    return "?"
