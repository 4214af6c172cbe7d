"""Run `wrk` with the load script of this package and read its result."""

import json
import math
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .peers import Endpoint
from .sas import SIGNED_VERSION

SCRIPT = Path(__file__).with_name("load.lua")
MARGIN_S = 60


class WrkFailed(Exception):
    """wrk is missing or did not report a result."""


@dataclass(frozen=True, slots=True)
class WrkResult:
    """Requests answered (failed ones included), how many failed, the time, and two latencies."""

    requests: int
    failed: int
    elapsed_s: float
    p50_ms: float
    p99_ms: float


def run_wrk(
    endpoint: Endpoint,
    method: str,
    prefix: str,
    *,
    names: int,
    body_bytes: int,
    connections: int,
    threads: int,
    seconds: float,
    pause_ms: int = 0,
) -> WrkResult:
    """Send `method` to blobs named `prefix` + eight digits for `seconds` (rounded up to whole ones), on each connection
    with a random pause before each request, of `pause_ms` on average. Raises WrkFailed."""
    command = shutil.which("wrk")
    if command is None:
        raise WrkFailed("no wrk: apt-get install wrk")
    argv = [command, f"-t{threads}", f"-c{connections}", f"-d{math.ceil(seconds)}s", "-s", str(SCRIPT)]
    argv += [f"http://{endpoint.authority}/", "--", method, f"{endpoint.base}/{prefix}", endpoint.query]
    argv += [str(names), str(body_bytes), SIGNED_VERSION, str(pause_ms)]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + MARGIN_S)
    for line in run.stdout.splitlines():
        if line.startswith("BENCH "):
            found = json.loads(line.removeprefix("BENCH "))
            return WrkResult(
                requests=found["requests"],
                failed=found["failed"],
                elapsed_s=found["elapsed_us"] / 1e6,
                p50_ms=found["p50_us"] / 1e3,
                p99_ms=found["p99_us"] / 1e3,
            )
    raise WrkFailed(f"wrk: {(run.stderr or run.stdout).strip()[:300]}")
