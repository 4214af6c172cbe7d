"""Names and addresses as this machine sees them."""

import ipaddress
import socket
from contextlib import closing
from typing import Final

WILDCARDS: Final = frozenset({"0.0.0.0", "::"})


def resolve(name: str) -> list[str]:
    """Return the addresses of a name by the system's resolver, each once. Raises OSError (socket.gaierror); may take
    as long as the resolver's own timeouts."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_own(address: str) -> bool:
    """Whether the address is one of this machine's, in this network namespace.

    The kernel is asked by binding to it, which needs no list of interfaces; with net.ipv4.ip_nonlocal_bind set it says
    yes to every address.
    """
    if address in WILDCARDS:
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
        return True


def covers(host: str, address: str) -> bool:
    """Whether a listener on a host (an address or a wildcard) accepts connections to an address. `::` stands for IPv6
    alone, as our sockets are IPV6_V6ONLY."""
    if host in WILDCARDS:
        return (":" in host) == (":" in address)
    return _same(host, address) or (host == "localhost" and address in ("127.0.0.1", "::1"))


def _same(one: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(one) == ipaddress.ip_address(other)
    except ValueError:
        return False
