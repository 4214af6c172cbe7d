"""The listen addresses: free, held by blobedge itself, or taken."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.doctor import addresses, tcp
from agent.doctor.findings import Finding
from agent.listen import Listen

CHECK: Final = "ports"
UNPRIVILEGED_START: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@dataclass(frozen=True, slots=True)
class PortFacts:
    """One listen address. `holders` are of listening sockets that overlap it; None: one that we may not look into."""

    listen: Listen
    addresses: tuple[str, ...]  # of its host; none: the name does not resolve
    own: bool  # the first of them is this machine's
    holders: tuple[tcp.Holder | None, ...]
    unprivileged_start: int  # ports below need a privilege


def observe(listen: Listen, table: Sequence[tcp.Connection]) -> PortFacts:
    """Look at one address in a table of the kernel's sockets."""
    try:
        found = tuple(addresses.resolve(listen.host))
    except OSError:
        found = ()
    inodes = frozenset(
        each.inode for each in table if each.state == tcp.LISTEN and found and overlaps(each, found[0], listen.port)
    )
    known = tcp.holders(inodes)
    holders = dict.fromkeys(known.get(inode) for inode in sorted(inodes))
    start = int(UNPRIVILEGED_START.read_text(encoding="ascii"))
    return PortFacts(listen, found, bool(found) and addresses.is_own(found[0]), tuple(holders), start)


def overlaps(listener: tcp.Connection, address: str, port: int) -> bool:
    """Whether a listening socket and an address to listen on exclude each other: same port, and same address or a
    wildcard on either side. A wildcard of IPv6 may take IPv4 too, which the table does not show: it counts as that."""
    wanted = ipaddress.ip_address(address)
    if listener.local_port != port or port == 0:
        return False
    if listener.local.is_unspecified:
        return listener.local.version == wanted.version or listener.local.version == 6
    return listener.local == wanted or (wanted.is_unspecified and wanted.version == listener.local.version)


def judge(facts: PortFacts) -> list[Finding]:
    """Say whether the service can have, or has, this address."""
    url, port = facts.listen.url(), facts.listen.port
    if not facts.addresses:
        return [Finding(CHECK, "problem", f"{url}: the host name has no address", "write an address into listen")]
    if not facts.own:
        mend = "write an address of this machine (ip address) into listen, or 0.0.0.0 for all"
        return [Finding(CHECK, "problem", f"{url}: {facts.addresses[0]} is no address of this machine", mend)]
    strangers = [holder for holder in facts.holders if holder is None or not is_ours(holder.command)]
    if strangers:
        return [_taken(url, holder) for holder in strangers]
    if facts.holders:
        pids = ", ".join(str(holder.pid) for holder in facts.holders if holder)
        return [Finding(CHECK, "ok", f"{url}: held by blobedge or its socket unit, process {pids}")]
    if 0 < port < facts.unprivileged_start:
        what = f"{url}: free, but ports below {facts.unprivileged_start} need a privilege that the service has not"
        return [Finding(CHECK, "warning", what, f"sysctl -w net.ipv4.ip_unprivileged_port_start={port}")]
    return [Finding(CHECK, "ok", f"{url}: free")]


def is_ours(command: str) -> bool:
    """Whether a command line is this product's, or systemd's, which holds the sockets of a socket unit."""
    words = command.split(" ")
    if Path(words[0]).name in ("systemd", "init"):
        return True
    module = " ".join(words[1:4])
    return "blobedge" in {Path(word).name for word in words[:2]} or "-m agent" in module or "-m dataplane" in module


def _taken(url: str, holder: tcp.Holder | None) -> Finding:
    if holder is None:
        mend = "run blobedge doctor as root to see which (or ss -ltnp); stop it, or take another port"
        return Finding(CHECK, "warning", f"{url}: held by a process of another user", mend)
    what = f"{url}: held by process {holder.pid} ({holder.command[:80]})"
    return Finding(CHECK, "problem", what, f"stop it (kill {holder.pid}, or its unit), or take another port in listen")
