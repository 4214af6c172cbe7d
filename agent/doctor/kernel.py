"""Limits of the process and settings of the kernel that the service runs into."""

import re
import resource
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.doctor.findings import Finding
from agent.supervision.sockets import BACKLOG_COUNT
from agent.tuning import ports

CHECK: Final = "limits"
PERSIST: Final = "and the same line in a file of /etc/sysctl.d"
FILES_PER_CONNECTION: Final = 2  # the socket, and the blob that is read or the file that is written
FILES_BESIDES: Final = 1024  # mounts, locks, logs, indexes of directories
EPHEMERAL_PORTS_MIN: Final = 16_384
CONNTRACK_PERCENT_MAX: Final = 80

_SYS: Final = Path("/proc/sys")
_OPEN_FILES: Final = re.compile(r"^Max open files\s+\S+\s+(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """What was read; None where this kernel, or namespace, has no such setting."""

    files_max: int  # hard limit of open files; workers raise their soft one to it
    files_of: str  # whose limit that is
    somaxconn: int | None
    ports: tuple[int, int] | None  # of outgoing connections
    reserved: frozenset[int]
    window_scaling: int | None
    sack: int | None
    keepalive_seconds: int | None
    conntrack_count: int | None
    conntrack_max: int | None


def observe(service_pid: int = 0) -> KernelFacts:
    """Read them. `service_pid`: the running service, if there is one: its limits count, not this command's."""
    files, whose = _files_max(service_pid)
    pair = _text("net/ipv4/ip_local_port_range").split()
    return KernelFacts(
        files_max=files,
        files_of=whose,
        somaxconn=_number("net/core/somaxconn"),
        ports=(int(pair[0]), int(pair[1])) if len(pair) == 2 else None,
        reserved=ports.parse(_text("net/ipv4/ip_local_reserved_ports")),
        window_scaling=_number("net/ipv4/tcp_window_scaling"),
        sack=_number("net/ipv4/tcp_sack"),
        keepalive_seconds=_number("net/ipv4/tcp_keepalive_time"),
        conntrack_count=_number("net/netfilter/nf_conntrack_count"),
        conntrack_max=_number("net/netfilter/nf_conntrack_max"),
    )


def _text(name: str) -> str:
    with suppress(OSError):
        return (_SYS / name).read_text(encoding="ascii").strip()
    return ""


def _number(name: str) -> int | None:
    text = _text(name)
    return int(text) if text.isdigit() else None


def _files_max(pid: int) -> tuple[int, str]:
    with suppress(OSError):
        found = _OPEN_FILES.search(Path(f"/proc/{pid}/limits").read_text(encoding="ascii")) if pid else None
        if found and found[1].isdigit():
            return int(found[1]), f"process {pid}"
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1], "this shell"


def judge(facts: KernelFacts, listen_ports: Sequence[int], connections_count_max: int) -> list[Finding]:
    """Compare with what a worker of this configuration needs."""
    findings = [
        *_files(facts, connections_count_max),
        *_backlog(facts),
        *_ports(facts, listen_ports),
        *_tcp(facts),
        *_conntrack(facts),
    ]
    return findings or [Finding(CHECK, "ok", f"{facts.files_max} open files, backlog {facts.somaxconn}")]


def _files(facts: KernelFacts, connections_count_max: int) -> list[Finding]:
    needed = connections_count_max * FILES_PER_CONNECTION + FILES_BESIDES
    if facts.files_max >= needed:
        return []
    what = f"{facts.files_max} open files at most ({facts.files_of}); a worker may need {needed}"
    mend = (
        f"LimitNOFILE={needed} under [Service] (systemctl edit blobedge), or ulimit -Hn; or fewer connections_count_max"
    )
    return [Finding(CHECK, "warning", what, mend)]


def _backlog(facts: KernelFacts) -> list[Finding]:
    if facts.somaxconn is None or facts.somaxconn >= BACKLOG_COUNT:
        return []
    what = f"the kernel cuts the queue of new connections to {facts.somaxconn}; {BACKLOG_COUNT} are asked for"
    return [Finding(CHECK, "warning", what, f"sysctl -w net.core.somaxconn={BACKLOG_COUNT}, {PERSIST}; then restart")]


def _ports(facts: KernelFacts, listen_ports: Sequence[int]) -> list[Finding]:
    if facts.ports is None:
        return []
    first, last = facts.ports
    findings = []
    inside = [port for port in listen_ports if first <= port <= last and port not in facts.reserved]
    if inside:
        wanted = ",".join(map(str, sorted(facts.reserved | set(inside))))
        what = f"outgoing connections may take our port {', '.join(map(str, inside))} while the service is down"
        mend = f"sysctl -w net.ipv4.ip_local_reserved_ports={wanted}, {PERSIST}"
        findings.append(Finding(CHECK, "warning", what, mend))
    if last - first + 1 < EPHEMERAL_PORTS_MIN:
        what = f"{last - first + 1} ports for outgoing connections"
        mend = f'sysctl -w net.ipv4.ip_local_port_range="32768 60999", {PERSIST}'
        findings.append(Finding(CHECK, "warning", what, mend))
    return findings


def _tcp(facts: KernelFacts) -> list[Finding]:
    values = (("tcp_window_scaling", facts.window_scaling), ("tcp_sack", facts.sack))
    return [
        Finding(
            CHECK,
            "warning",
            f"{name} is off: long ways carry a fraction of their bandwidth",
            f"sysctl -w net.ipv4.{name}=1, {PERSIST}",
        )
        for name, value in values
        if value == 0
    ]


def _conntrack(facts: KernelFacts) -> list[Finding]:
    count, most = facts.conntrack_count, facts.conntrack_max
    if not count or not most or count * 100 < most * CONNTRACK_PERCENT_MAX:
        return []
    what = f"{count} of {most} tracked connections: a full table drops packets"
    mend = f"sysctl -w net.netfilter.nf_conntrack_max={most * 2}, {PERSIST}"
    return [Finding(CHECK, "problem" if count >= most else "warning", what, mend)]
