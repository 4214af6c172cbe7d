"""What there is to plan from: the machine as this network namespace shows it. Reads only, as any user.

What cannot be read is absent (None, or not among the values), never guessed: planner.py says what it assumes then.
"""

import os
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from agent.tuning import knobs, links
from agent.tuning.knobs import Roots
from agent.tuning.mounts import NfsMount, nfs_mounts
from agent.tuning.settings import DEVICE_KINDS, TABLE

RTT_SAMPLES: Final = 3
RTT_SECONDS_MAX: Final = 3.0  # to connect once; later than this there is no way to the cloud to tune for
CONGESTION_AVAILABLE: Final = "net.ipv4.tcp_available_congestion_control"
CONGESTION_ALLOWED: Final = "net.ipv4.tcp_allowed_congestion_control"


@dataclass(frozen=True, slots=True)
class Nic:
    """A network device that traffic leaves by. `speed_mbits` is None for virtual devices and links that are down."""

    name: str
    mtu: int
    speed_mbits: int | None
    rx_queues: int
    tx_queues: int
    rings_max: str | None


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that a plan depends on. `values` has the present value of every key of the table that exists here."""

    kernel: str
    cores: int
    ram_bytes: int
    nics: tuple[Nic, ...]
    default_nic: str | None
    rtt_seconds: float | None
    mounts: tuple[NfsMount, ...]
    congestion: tuple[str, ...]
    fq: bool
    values: Mapping[str, str]
    read_only: frozenset[str]

    @property
    def conntrack(self) -> bool:
        """Whether connection tracking is loaded; without it there is no table to fill."""
        return "net.netfilter.nf_conntrack_max" in self.values


def observe(roots: Roots, rtt_seconds: float | None) -> Observed:
    """Look at this machine. `rtt_seconds` comes from the configuration or measure_rtt."""
    default = links.default_route_device()
    nics = tuple(_nic(roots, name) for name in _nic_names(roots, default))
    mounts = nfs_mounts(roots.proc)
    keys = [*_device_keys(nics, mounts), *(row.key for row in TABLE if row.key not in DEVICE_KINDS)]
    values = {key: value for key in keys if (value := knobs.read(roots, key)) is not None}
    return Observed(
        kernel=os.uname().release,
        cores=os.cpu_count() or 1,
        ram_bytes=_ram_bytes(roots.proc),
        nics=nics,
        default_nic=default,
        rtt_seconds=rtt_seconds,
        mounts=mounts,
        congestion=congestion_controls(roots),
        fq=_has_fq(roots, values),
        values=values,
        read_only=frozenset(key for key in values if not knobs.writable(roots, key)),
    )


def congestion_controls(roots: Roots) -> tuple[str, ...]:
    """Those that can be made the default here: all that are loaded; in other network namespaces than the first, which
    cannot write the list of allowed ones, those of that list (tcp_set_default_congestion_control of the kernel)."""
    allowed = knobs.read(roots, CONGESTION_ALLOWED)
    if allowed is not None and not knobs.writable(roots, CONGESTION_ALLOWED):
        return tuple(allowed.split())
    return tuple((knobs.read(roots, CONGESTION_AVAILABLE) or "").split())


def measure_rtt(endpoint: str) -> float | None:
    """Seconds of the fastest of a few TCP handshakes with a Blob service; None if it cannot be reached.

    A handshake is one round trip and asks nothing of the service. The least sample is the way without its queues, which
    is what bandwidth x delay is about.
    """
    parts = urlsplit(endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        family, _, _, _, address = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)[0]
        return min(_handshake_seconds(family, address) for _ in range(RTT_SAMPLES))
    except OSError:
        return None


def _handshake_seconds(family: int, address: tuple[object, ...]) -> float:
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(RTT_SECONDS_MAX)
        start = time.perf_counter()
        connection.connect(address)
        return time.perf_counter() - start


def _nic_names(roots: Roots, default: str | None) -> list[str]:
    """Physical devices, and the one of the default route whatever it is (a bond, a bridge, a container's veth)."""
    here = links.names()
    names = sorted(path.name for path in (roots.sys / "class/net").iterdir() if path.name in here)
    return [name for name in names if name == default or (roots.sys / "class/net" / name / "device").exists()]


def _nic(roots: Roots, name: str) -> Nic:
    directory = roots.sys / "class/net" / name
    queues = [path.name for path in (directory / "queues").iterdir()]
    return Nic(
        name=name,
        mtu=_number(directory / "mtu") or 0,
        speed_mbits=_number(directory / "speed"),
        rx_queues=sum(queue.startswith("rx-") for queue in queues),
        tx_queues=sum(queue.startswith("tx-") for queue in queues),
        rings_max=links.rings_max(name),
    )


def _number(path: Path) -> int | None:
    """A positive number in a file; the kernel says -1, or refuses, where there is none to tell."""
    try:
        value = int(path.read_text())
    except (OSError, ValueError):
        return None
    return value if value > 0 else None


def _has_fq(roots: Roots, values: Mapping[str, str]) -> bool:
    """Whether fq is in use, loaded, or among this kernel's modules: the kernel has no list of its qdiscs."""
    if values.get("net.core.default_qdisc") == "fq" or (roots.sys / "module/sch_fq").exists():
        return True
    directory = roots.modules / os.uname().release
    lists = [directory / name for name in ("modules.builtin", "modules.dep")]
    return any("/sch_fq.ko" in path.read_text() for path in lists if path.is_file())


def _device_keys(nics: Iterable[Nic], mounts: Iterable[NfsMount]) -> list[str]:
    keys = [f"read-ahead:{mount.path}" for mount in mounts]
    for nic in nics:
        keys += [f"qdisc:{nic.name}", f"rings:{nic.name}"]
        keys += [f"rps:{nic.name}/rx-{queue}" for queue in range(nic.rx_queues)]
        keys += [f"xps:{nic.name}/tx-{queue}" for queue in range(nic.tx_queues)]
    return keys


def _ram_bytes(proc: Path) -> int:
    fields = (proc / "meminfo").read_text().split()
    return int(fields[fields.index("MemTotal:") + 1]) * 1024
