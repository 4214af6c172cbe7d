"""A link with a delay between two tun devices, for kernels without netem: `python -m benchlib.delaylink FD FD ...`.

Each packet that leaves one device enters the other a fixed time later, in order. It asks for nothing of the kernel but
tun. One thread does it all, so its processor time says how near the link is to its own limit; large packets (MTU) keep
that away. What it did is printed as JSON when its standard input ends, which is also when whoever started it is gone.

Rejected: a thread for each direction (one interpreter lock, twice the wake-ups); a rate limit here, as tbf does it.
"""

import argparse
import errno
import fcntl
import gc
import json
import os
import random
import select
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Final

TUNSETIFF: Final = 0x4004_54CA  # linux/if_tun.h
IFF_TUN: Final = 0x0001
IFF_NO_PI: Final = 0x1000
PACKET_BYTES_MAX: Final = 65_536
BATCH_PACKETS: Final = 64  # read from one device before the other one and the clock get a look


@dataclass(slots=True)
class Counts:
    """What went through; `late_ms_max` is the worst that a packet was later than its delay."""

    packets: int = 0
    lost: int = 0
    late_ms_max: float = 0.0
    cpu_seconds: float = 0.0
    seconds: float = 0.0


def open_tun(name: str) -> int:
    """Make a tun device in this network namespace; it goes when the descriptor is closed. Raises OSError."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    except BaseException:
        os.close(device)
        raise
    return device


class Direction:
    """Packets on their way from one device to the other."""

    def __init__(self, source: int, target: int, seconds: float, loss: float, chance: random.Random) -> None:
        self.source = source
        self._target = target
        self._seconds = seconds
        self._loss = loss
        self._chance = chance
        self._way: deque[tuple[float, bytes]] = deque()

    def next_due(self) -> float:
        """When the first packet is due; infinite when there is none."""
        return self._way[0][0] if self._way else float("inf")

    def take(self, now: float, counts: Counts) -> None:
        """Read what waits at the source."""
        due = now + self._seconds
        for _ in range(BATCH_PACKETS):
            try:
                packet = os.read(self.source, PACKET_BYTES_MAX)
            except BlockingIOError:
                return
            if self._loss and self._chance.random() < self._loss:
                counts.lost += 1
            else:
                self._way.append((due, packet))

    def deliver(self, now: float, counts: Counts) -> None:
        """Write what is due to the target."""
        way = self._way
        while way and way[0][0] <= now:
            due, packet = way.popleft()
            counts.late_ms_max = max(counts.late_ms_max, (now - due) * 1000)
            try:
                os.write(self._target, packet)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                counts.lost += 1  # its device is down: so is the link, as far as this packet goes
            else:
                counts.packets += 1


def forward(first: int, second: int, seconds: float, loss: float, stop: int) -> Counts:
    """Forward between two tun devices until `stop` is readable. `loss`: share of packets from `first` that vanish."""
    chance = random.Random(1)  # the same packets by number in every run
    ways = (Direction(first, second, seconds, loss, chance), Direction(second, first, seconds, 0.0, chance))
    counts = Counts()
    begin = time.monotonic()
    while True:
        due = min(way.next_due() for way in ways) - time.monotonic()
        ready, _, _ = select.select((first, second, stop), (), (), max(due, 0.0) if due < 1 else 1.0)
        if stop in ready:
            break
        now = time.monotonic()
        for way in ways:
            if way.source in ready:
                way.take(now, counts)
            way.deliver(time.monotonic(), counts)
    counts.cpu_seconds = time.process_time()
    counts.seconds = time.monotonic() - begin
    return counts


def main(argv: Sequence[str] | None = None) -> None:
    """Forward until standard input ends, then print the counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("first", type=int)
    parser.add_argument("second", type=int)
    parser.add_argument("--one-way-ms", type=float, required=True)
    parser.add_argument("--loss", type=float, required=True)
    options = parser.parse_args(argv)
    gc.disable()  # it makes no cycles, and a collection is a pause of every packet
    with suppress(PermissionError):  # before everything else on this machine: a late packet looks like a longer way
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    counts = forward(options.first, options.second, options.one_way_ms / 1000, options.loss, sys.stdin.fileno())
    print(json.dumps(asdict(counts)))


if __name__ == "__main__":
    main()
