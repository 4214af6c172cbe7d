"""The way between the edge node and its cloud, and what can be wrong with it.

Both ends are in namespaces made here, which end with the last descriptor and process that hold them. A Link is always
in one state: healed, or with exactly the trouble that was asked for last. What a trouble looks like from the edge:

    cut        the far end is down: packets vanish, the near end has lost its carrier
    unplug     the near end is down: the route is gone, so connect(2) fails at once
    drop       every packet vanishes
    reset      every packet is answered with a TCP reset
    lose       a share of the packets vanishes, in both directions
    blackhole  connections are made, what is sent over them vanishes (a broken path MTU, a dead firewall state)
    limit      a token bucket in each direction; stays over a heal, as it is the link's nature and no fault

Rejected: netem, which many kernels lack (the delay is tools/benchlib's, made of tun devices); named namespaces, which
outlive a test run that was killed. nft's random numbers have no seed: a lossy run replays by its kind, not by packet.
"""

import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from benchlib.delaylink import open_tun
from benchlib.namespaces import inside, new_namespace
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

EDGE_ADDRESS: Final = "192.0.2.2"  # RFC 5737: documentation addresses, which nobody routes
CLOUD_ADDRESS: Final = "192.0.2.1"
PREFIX_BITS: Final = 24
DEVICE: Final = "eth0"
CONTENT_BYTES_MIN: Final = 120  # a packet longer than this carries content: IP, TCP and their options are up to 120
TBF_BURST_BYTES: Final = 64 << 10
TBF_QUEUE_SECONDS: Final = 0.1
NOBODYS_PORT: Final = 9
PROBE_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 30.0

_TOOLS: Final = Path(__file__).resolve().parents[3] / "tools"
_TABLE: Final = "table inet trouble"


class Link:
    """Two namespaces and the devices between them."""

    def __init__(self, edge: int, cloud: int) -> None:
        self.edge = edge
        self.cloud = cloud

    def at_edge(self) -> AbstractContextManager[None]:
        """Be at the edge, with this thread alone: sockets, threads and processes made in the block stay there."""
        return inside(self.edge)

    def in_cloud(self) -> AbstractContextManager[None]:
        """Be in the cloud, likewise."""
        return inside(self.cloud)

    def cut(self) -> None:
        """Take the cloud's end down."""
        self._only(lambda: _set(self.cloud, "down"))

    def unplug(self) -> None:
        """Take the edge's own end down."""
        self._only(lambda: _set(self.edge, "down"))

    def drop(self) -> None:
        """Let every packet vanish."""
        self._only(lambda: self._filter("drop"))

    def reset(self) -> None:
        """Answer every packet with a TCP reset."""
        self._only(lambda: self._filter("meta l4proto tcp reject with tcp reset"))

    def lose(self, percent: float) -> None:
        """Let a share of the packets vanish, each way."""
        rule = f"numgen random mod 1000 < {round(percent * 10)} drop"
        self._only(lambda: self._filter(rule, both_ways=True))

    def blackhole(self) -> None:
        """Let everything vanish that the edge sends over a connection; connections can still be made."""
        self._only(lambda: self._filter(f"meta length > {CONTENT_BYTES_MIN} drop"))

    def limit(self, mbits: float) -> None:
        """Limit the rate of each direction, until `unlimit`."""
        rate = int(mbits * 1e6 / 8)
        limit = int(rate * TBF_QUEUE_SECONDS) + TBF_BURST_BYTES
        for namespace in (self.edge, self.cloud):
            with inside(namespace), IPRoute() as ip:
                ip.tc("replace", "tbf", _index(ip), handle=0x10000, rate=rate, burst=TBF_BURST_BYTES, limit=limit)

    def unlimit(self) -> None:
        """Take the limit away."""
        for namespace in (self.edge, self.cloud):
            with inside(namespace), IPRoute() as ip:
                ip.tc("del", index=_index(ip), root=True)

    def heal(self) -> None:
        """End the trouble; returns when packets go both ways again. Asserts that the namespaces are as closed as they
        were made. Raises TimeoutError."""
        with inside(self.cloud):
            _nft(f"add {_TABLE}; delete {_TABLE}")
        for namespace in (self.cloud, self.edge):
            _set(namespace, "up")
        self.assert_closed()
        self._await_way()

    def assert_closed(self) -> None:
        """Assert that neither end has a way to anywhere but the other: no default route, no other device."""
        for namespace in (self.edge, self.cloud):
            with inside(namespace), IPRoute() as ip:
                names = {link.get("ifname") for link in ip.get_links()}
                assert names <= {"lo", DEVICE}, f"unexpected devices: {names}"
                assert not list(ip.get_default_routes()), "a namespace of the lab has a default route"

    def _await_way(self) -> None:
        """A port where nobody listens refuses a connection, and only the far end can do that. Neighbours that were
        looked for while the link was down are forgotten: the kernel would call them unreachable for seconds more."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        with inside(self.edge), IPRoute() as ip:
            while time.monotonic() < deadline:
                with suppress(NetlinkError):  # there is none, or it went by itself
                    ip.neigh("del", dst=CLOUD_ADDRESS, ifindex=_index(ip))
                with socket.socket() as probe:
                    probe.settimeout(PROBE_SECONDS)
                    if probe.connect_ex((CLOUD_ADDRESS, NOBODYS_PORT)) == errno.ECONNREFUSED:
                        return
        raise TimeoutError("the link does not carry a packet after it was healed")

    def _only(self, trouble: Callable[[], None]) -> None:
        self.heal()
        trouble()

    def _filter(self, rule: str, *, both_ways: bool = False) -> None:
        """A rule for the packets that arrive in the cloud's namespace over the link, and for those that leave it."""
        chains = f"chain arriving {{ type filter hook input priority 0; iifname {DEVICE} {rule}; }}; "
        if both_ways:
            chains += f"chain leaving {{ type filter hook output priority 0; oifname {DEVICE} {rule}; }}; "
        with inside(self.cloud):
            _nft(f"{_TABLE} {{ {chains} }}")


@contextmanager
def link(delay_ms: float = 0.0) -> Iterator[Link]:
    """Make the two ends and join them; with a delay in each direction if asked for. Raises OSError without root."""
    with ExitStack() as stack:
        edge, cloud = new_namespace(), new_namespace()
        for namespace in (edge, cloud):
            stack.callback(os.close, namespace)
        if delay_ms:
            stack.enter_context(_delayed(edge, cloud, delay_ms))
        else:
            _veth(edge, cloud)
        _address(edge, EDGE_ADDRESS)
        _address(cloud, CLOUD_ADDRESS)
        made = Link(edge, cloud)
        made.assert_closed()
        yield made


def _veth(edge: int, cloud: int) -> None:
    with inside(cloud), IPRoute() as ip:
        ip.link("add", ifname=DEVICE, kind="veth", peer={"ifname": DEVICE, "net_ns_fd": edge})


@contextmanager
def _delayed(edge: int, cloud: int, delay_ms: float) -> Iterator[None]:
    """A tun device at each end and tools/benchlib's process between them."""
    tuns = []
    for namespace in (edge, cloud):
        with inside(namespace):
            tuns.append(open_tun(DEVICE))
    command = [sys.executable, "-m", "benchlib.delaylink", *map(str, tuns)]
    command += ["--one-way-ms", str(delay_ms), "--loss", "0"]
    environment = os.environ | {"PYTHONPATH": str(_TOOLS)}
    with subprocess.Popen(
        command, pass_fds=tuns, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        for descriptor in tuns:
            os.close(descriptor)
        try:
            yield
        finally:
            report, _ = process.communicate(timeout=PATIENCE_SECONDS)
            json.loads(report)  # it prints its counts when it ends well, and only then


def _address(namespace: int, address: str) -> None:
    with inside(namespace), IPRoute() as ip:
        ip.link("set", index=int(ip.link_lookup(ifname="lo")[0]), state="up")
        ip.addr("add", index=_index(ip), address=address, prefixlen=PREFIX_BITS)
        ip.link("set", index=_index(ip), state="up")


def _set(namespace: int, state: str) -> None:
    with inside(namespace), IPRoute() as ip:
        ip.link("set", index=_index(ip), state=state)


def _index(ip: IPRoute) -> int:
    return int(ip.link_lookup(ifname=DEVICE)[0])


def _nft(script: str) -> None:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    done = subprocess.run(["nft", "-f", "-"], input=script, env={"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, f"nft: {done.stderr}"
