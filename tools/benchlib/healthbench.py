"""`tools/bench health`: how long a probe waits for the answer of /health/ready while the workers are busy.

Workers on all cores, wrk on all cores, a probe every 20 ms over the admin socket, each on a connection of its own as
real probes do; beside them a scrape of /metrics and a /status every second, far more often than a Prometheus asks. A
figure includes the probe's own wait for a core, so it is an upper bound of what the service needs.

Exit codes: 0 every p99 within the target; 1 one is not; 2 wrong usage (argparse); 3 it cannot be measured here.
"""

import argparse
import contextlib
import functools
import http.client
import json
import math
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from .cases import WARM_UP_S, Case, GetSmall, PutSmall, Settings
from .cli import PLAIN_COLUMNS, new_account
from .peers import REPOSITORY, Account, Endpoint
from .process import PeerUnavailable, ServerProcess
from .wrk import WrkFailed

EXIT_PASS, EXIT_MISS, EXIT_NOTHING = 0, 1, 3
TARGET_MS: Final = 50.0  # p99
PROBE_PERIOD_S: Final = 0.02
SCRAPE_PERIOD_S: Final = 1.0
ANSWER_S_MAX: Final = 10.0


@dataclass(frozen=True, slots=True)
class Waits:
    """The waits of all probes of one phase in milliseconds, and the load's requests per second beside them."""

    probes: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    not_ok: int  # answers that were no 200
    load_per_s: float


class AdminConnection(http.client.HTTPConnection):
    """One connection to the admin socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_S_MAX)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_S_MAX)
        self.sock.connect(self._path)


def ask(path: Path, page: str) -> int:
    """Return the status of a page, on a connection of its own."""
    connection = AdminConnection(path)
    try:
        connection.request("GET", page)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of sorted, non-empty values."""
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


def probe(path: Path, stop: Callable[[], bool]) -> tuple[list[float], int]:
    """Ask every PROBE_PERIOD_S until told to stop. Returns the waits in milliseconds, and how many were no 200."""
    waits, not_ok = [], 0
    due = time.perf_counter()
    while not stop():
        due = max(due + PROBE_PERIOD_S, time.perf_counter())  # after a long wait no burst to catch up
        time.sleep(max(0.0, due - time.perf_counter()))
        begin = time.perf_counter()
        not_ok += ask(path, "/health/ready") != http.client.OK
        waits.append((time.perf_counter() - begin) * 1e3)
    return waits, not_ok


@contextlib.contextmanager
def scraped(path: Path) -> Iterator[None]:
    """Ask for the two large pages every SCRAPE_PERIOD_S, as long as the block lasts."""
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(SCRAPE_PERIOD_S):
            ask(path, "/metrics")
            ask(path, "/status")

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def measure(path: Path, load: Callable[[], float], seconds: float) -> Waits:
    """Probe while `load` runs, which returns its requests per second, or for `seconds` if it ends sooner."""
    rates: list[float] = []
    failures: list[Exception] = []

    def run() -> None:
        try:
            rates.append(load())
        except (WrkFailed, OSError) as error:
            failures.append(error)

    end = time.perf_counter() + seconds
    thread = threading.Thread(target=run)
    thread.start()
    with scraped(path):
        waits, not_ok = probe(path, lambda: not thread.is_alive() and time.perf_counter() >= end)
    thread.join()
    if failures:
        raise failures[0]
    waits.sort()
    return Waits(len(waits), percentile(waits, 50), percentile(waits, 99), waits[-1], not_ok, rates[0])


class Node:
    """blobedge with a worker for each core, pinned nowhere, and its admin socket."""

    def __init__(self, work: Path, account: Account, workers: int) -> None:
        self.admin = work / "admin.sock"
        (work / "data").mkdir()
        configuration = work / "blobedge.toml"
        configuration.write_text(f'[admin]\nlisten = ["unix:{self.admin}"]\n')
        argv = [sys.executable, "-m", "agent", "serve", "--config", str(configuration), "--root", str(work / "data")]
        argv += ["--listen", "http://127.0.0.1:0", "--workers", str(workers)]
        argv += ["--account", account.name, "--key", account.key]
        self.process = ServerProcess(argv, core=None, ready=r"blobedge ready: (\S+)", log=work / "log", cwd=REPOSITORY)
        port = int(self.process.wait_ready().rpartition("/")[0].rpartition(":")[2])
        self.endpoint = Endpoint("blobedge", "127.0.0.1", port, f"/{account.name}", account.sas, self.process.pid)


def rate(case: Case, node: Node, settings: Settings) -> float:
    """Run a case once; return its requests per second."""
    return case.run(node.endpoint, settings).rate


def phases(node: Node, settings: Settings) -> dict[str, Waits]:
    """Measure with nothing to do, with reads, and with durable writes."""
    found = {"idle": measure(node.admin, lambda: 0.0, settings.seconds)}
    cases: tuple[Case, ...] = (GetSmall(), PutSmall())
    for case in cases:
        case.prepare(node.endpoint, settings)
        found[case.title] = measure(node.admin, functools.partial(rate, case, node, settings), settings.seconds)
    return found


def show(console: Console, found: dict[str, Waits]) -> None:
    """Print the table."""
    columns = ("load", "requests/s", "probes", "p50 ms", "p99 ms", "max ms", "not 200", "")
    table = Table(*columns, title=f"/health/ready; target: p99 at most {TARGET_MS:g} ms")
    for name, waits in found.items():
        figures = [f"{waits.p50_ms:.1f}", f"{waits.p99_ms:.1f}", f"{waits.max_ms:.1f}", str(waits.not_ok)]
        verdict = "PASS" if met(waits) else "MISS"
        table.add_row(name, f"{waits.load_per_s:,.0f}", str(waits.probes), *figures, verdict)
    console.print(table)


def met(waits: Waits) -> bool:
    """Whether a phase was within the target, with every answer a 200."""
    return waits.p99_ms <= TARGET_MS and not waits.not_ok


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(prog="tools/bench health", description="the health answer under load")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each phase (default 10)")
    parser.add_argument("--connections", type=int, default=32, help="of the load (default 32)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="default: one per core")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    options = parser.parse_args(argv)
    settings = Settings(options.seconds, options.connections, len(os.sched_getaffinity(0)))
    root = REPOSITORY / ".cache" / "bench"
    root.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="run-", dir=root))
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_COLUMNS)
    try:
        node = Node(work, new_account(), options.workers)
        try:
            time.sleep(WARM_UP_S)  # the first look of the sidecar imports a lot, once
            found = phases(node, settings)
        finally:
            node.process.stop()
    except (PeerUnavailable, WrkFailed) as error:
        console.print(f"cannot be measured: {error}")
        return EXIT_NOTHING
    finally:
        shutil.rmtree(work, ignore_errors=True)
    show(console, found)
    if options.json is not None:
        options.json.write_text(json.dumps({name: asdict(waits) for name, waits in found.items()}, indent=1) + "\n")
    return EXIT_PASS if all(map(met, found.values())) else EXIT_MISS


if __name__ == "__main__":
    sys.exit(main())
