"""A long way in three network namespaces of this program: edge node, gateway and "Azure".

    edge eth0 --veth-- lan0 gateway wan0[tbf] --tun, delay, tun-- wan0 azure

The bottleneck is a tbf at each of the gateway's devices, one for each direction, so that neither end has a queue of its
own before it. All ends with the program, however it ends.
"""

import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyroute2 import IPRoute

from .delaylink import Counts, open_tun
from .namespaces import inside, new_namespace

MTU_BYTES: Final = 9000  # jumbo frames: a sixth of the packets, so that the link's process keeps up
EDGE, GATEWAY_LAN, GATEWAY_WAN, AZURE = "192.0.2.2", "192.0.2.1", "198.51.100.1", "198.51.100.2"  # RFC 5737
PREFIX_BITS: Final = 24
TBF_BURST_BYTES: Final = 128 << 10
TUN_QUEUE_PACKETS: Final = 10_000  # what waits while the link's process does not run
SEND_BYTES: Final = 256 << 10
RECEIVE_BYTES: Final = 1 << 20
PATIENCE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Shape:
    """What the way is like. `mbit` None: no bottleneck. `queue_ms`: how much of its rate the bottleneck holds back
    before it drops. `loss`: share of the packets to Azure that vanish, by a fixed sequence."""

    rtt_ms: float
    mbit: float | None
    queue_ms: float = 25.0
    loss: float = 0.0


class Way:
    """The way, as two ends to be in."""

    def __init__(self, edge: int, azure: int) -> None:
        self.edge = edge
        self.azure = azure

    def connect(self, count: int, congestion: str | None = None) -> list[tuple[socket.socket, socket.socket]]:
        """Return connections, each as its end at the edge and its end in Azure. `congestion`: asked for by the edge's
        sockets themselves, None for the namespace's default. Raises OSError."""
        pairs = []
        with inside(self.azure):
            listener = socket.create_server((AZURE, 0))
        with listener:
            for _ in range(count):
                with inside(self.edge):
                    near = socket.create_connection(listener.getsockname(), timeout=PATIENCE_SECONDS)
                far, _ = listener.accept()
                if congestion is not None:
                    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
                near.setblocking(False)
                far.setblocking(False)
                pairs.append((near, far))
        return pairs


@contextmanager
def way(shape: Shape) -> Iterator[tuple[Way, Counts]]:
    """Make the way; the counts of the link are filled in at the end. Raises OSError without root or tun."""
    counts = Counts()
    with ExitStack() as stack:
        edge, gateway, azure = (new_namespace() for _ in range(3))
        for namespace in (edge, gateway, azure):
            stack.callback(os.close, namespace)
        _veth(edge, gateway)
        tuns = [_tun(namespace, address) for namespace, address in ((gateway, GATEWAY_WAN), (azure, AZURE))]
        for descriptor in tuns:
            stack.callback(os.close, descriptor)
        _routes(edge, gateway, azure)
        if shape.mbit is not None:
            _bottleneck(gateway, shape.mbit, shape.queue_ms)
        stack.enter_context(_link(tuns, shape, counts))
        yield Way(edge, azure), counts


@contextmanager
def _link(tuns: list[int], shape: Shape, counts: Counts) -> Iterator[None]:
    command = [sys.executable, "-m", "benchlib.delaylink", *map(str, tuns)]
    command += ["--one-way-ms", str(shape.rtt_ms / 2), "--loss", str(shape.loss)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    with subprocess.Popen(
        command, pass_fds=tuns, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield
        finally:
            report, _ = process.communicate(timeout=PATIENCE_SECONDS)
            for name, value in json.loads(report).items():
                setattr(counts, name, value)


def _veth(edge: int, gateway: int) -> None:
    with inside(gateway), IPRoute() as ip:
        ip.link("add", ifname="lan0", kind="veth", mtu=MTU_BYTES, peer={"ifname": "eth0", "net_ns_fd": edge})
        _up(ip, "lan0", GATEWAY_LAN)
    with inside(edge), IPRoute() as ip:
        ip.link("set", index=_index(ip, "eth0"), mtu=MTU_BYTES)
        _up(ip, "eth0", EDGE)


def _tun(namespace: int, address: str) -> int:
    with inside(namespace), IPRoute() as ip:
        descriptor = open_tun("wan0")
        ip.link("set", index=_index(ip, "wan0"), mtu=MTU_BYTES, txqlen=TUN_QUEUE_PACKETS)
        _up(ip, "wan0", address)
        return descriptor


def _up(ip: IPRoute, name: str, address: str) -> None:
    ip.addr("add", index=_index(ip, name), address=address, prefixlen=PREFIX_BITS)
    ip.link("set", index=_index(ip, name), state="up")


def _index(ip: IPRoute, name: str) -> int:
    return int(ip.link_lookup(ifname=name)[0])


def _routes(edge: int, gateway: int, azure: int) -> None:
    with inside(gateway):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")
    for namespace, via in ((edge, GATEWAY_LAN), (azure, GATEWAY_WAN)):
        with inside(namespace), IPRoute() as ip:
            ip.route("add", dst="0.0.0.0/0", gateway=via, family=socket.AF_INET)


def _bottleneck(gateway: int, mbit: float, queue_ms: float) -> None:
    rate = int(mbit * 1e6 / 8)
    limit = int(rate * queue_ms / 1000) + TBF_BURST_BYTES
    with inside(gateway), IPRoute() as ip:
        for name in ("lan0", "wan0"):
            ip.tc("add", "tbf", _index(ip, name), handle=0x10000, rate=rate, burst=TBF_BURST_BYTES, limit=limit)


def stream(way: Way, count: int, seconds: float, congestion: str | None = None) -> float:
    """Return Mbit/s that arrived in Azure over some connections in parallel, counted from their first byte."""
    pairs = way.connect(count, congestion)
    try:
        return _pump(pairs, seconds) * 8 / 1e6 / seconds
    finally:
        _close(pairs)


def download(way: Way, count: int, seconds: float, congestion: str) -> float:
    """Return Mbit/s that arrived at the edge. `congestion`: asked for by the sockets in Azure."""
    pairs = way.connect(count)
    try:
        for _, far in pairs:
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        return _pump([(far, near) for near, far in pairs], seconds) * 8 / 1e6 / seconds
    finally:
        _close(pairs)


def _pump(pairs: list[tuple[socket.socket, socket.socket]], seconds: float) -> int:
    """Send from each first end to its second; returns the bytes that arrived."""
    data, space, arrived = bytes(SEND_BYTES), bytearray(RECEIVE_BYTES), 0
    with selectors.DefaultSelector() as selector:
        for sender, receiver in pairs:
            selector.register(sender, selectors.EVENT_WRITE)
            selector.register(receiver, selectors.EVENT_READ)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for key, events in selector.select(left):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if events & selectors.EVENT_WRITE:
                    sock.send(data)
                else:
                    arrived += sock.recv_into(space)
    return arrived


def bursts(way: Way, count: int, burst_bytes: int, idle_seconds: float, congestion: str | None = None) -> list[float]:
    """Return the seconds that each of some bursts took on one connection that idles between them: what a sidecar's
    Put Block requests over a kept connection see."""
    pairs = way.connect(1, congestion)
    near, far = pairs[0]
    near.settimeout(PATIENCE_SECONDS)
    found = []
    try:
        for number in range(count):
            time.sleep(idle_seconds if number else 0)  # the idling is what is measured
            begin = time.monotonic()
            _burst(near, far, burst_bytes)
            found.append(time.monotonic() - begin)
    finally:
        _close(pairs)
    return found


def _burst(near: socket.socket, far: socket.socket, size: int) -> None:
    """Send `size` bytes and read them at the other end; one thread, so the sending never waits."""
    data, space, sent, arrived = bytes(SEND_BYTES), bytearray(RECEIVE_BYTES), 0, 0
    near.setblocking(False)
    with selectors.DefaultSelector() as selector:
        selector.register(near, selectors.EVENT_WRITE)
        selector.register(far, selectors.EVENT_READ)
        while arrived < size:
            for key, _ in selector.select(PATIENCE_SECONDS):
                if key.fileobj is far:
                    arrived += far.recv_into(space)
                elif sent < size:
                    sent += near.send(data[: size - sent])
                else:
                    selector.unregister(near)


def _close(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    for pair in pairs:
        for end in pair:
            end.close()
