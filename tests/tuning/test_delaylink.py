"""The way that `tools/bench tune` measures on: bytes arrive, and not before their time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent
WAYS = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="needs root and tun to make a way"
)


def run(code: str) -> str:
    """In a program of its own, as it goes into namespaces with its only thread, and in namespaces where nobody else
    makes devices or mounts meanwhile."""
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT / "tools")}
    command = ["unshare", "--net", "--mount", sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@WAYS
def test_bytes_arrive_whole_and_a_round_trip_takes_at_least_the_delay() -> None:
    run(
        """
import time
from benchlib.wan import Shape, way

with way(Shape(rtt_ms=60.0, mbit=100.0)) as (edge, counts):
    begin = time.monotonic()
    ((near, far),) = edge.connect(1)
    assert time.monotonic() - begin >= 0.06, "a handshake is a round trip"
    for end in (near, far):
        end.settimeout(30)
    sent = bytes(range(256)) * 256
    begin = time.monotonic()
    near.sendall(sent)
    arrived = b""
    while len(arrived) < len(sent):
        arrived += far.recv(1 << 16)
    assert time.monotonic() - begin >= 0.03, "one way is half of it"
    assert arrived == sent
    near.close()
    far.close()
assert counts.packets > 0 and counts.lost == 0
"""
    )


@WAYS
def test_lost_packets_are_counted_and_sent_again() -> None:
    run(
        """
from benchlib.wan import Shape, bursts, way

with way(Shape(rtt_ms=2.0, mbit=None, loss=0.05)) as (edge, counts):
    assert len(bursts(edge, 1, 1 << 20, 0.0)) == 1
assert counts.lost > 0
"""
    )


@WAYS
def test_nothing_is_left_where_it_was_started() -> None:
    run(
        """
import os, subprocess, sys
from pathlib import Path
from benchlib.namespaces import run_inside
from benchlib.wan import Shape, way

def here():
    return os.readlink("/proc/self/ns/net"), os.listdir("/sys/class/net"), Path("/proc/self/mountinfo").read_text()

before = here()
with way(Shape(1.0, None)) as (edge, _):
    devices = run_inside(edge.edge, [sys.executable, "-c", "import os; print(sorted(os.listdir('/sys/class/net')))"])
    assert devices.stdout == "['eth0', 'lo']\\n", devices.stdout
assert here() == before
"""
    )
