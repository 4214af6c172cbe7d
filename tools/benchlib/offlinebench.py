"""`tools/bench offline`: whether writes are as fast without the cloud as with it: p99 offline within 5 % of online.

The lab of the tests (tests/offload/lab): a node with two workers in one network namespace, Azurite behind a proxy in
another. The same load, Put Blob over a few connections with pauses between (a node at its limit would show the limit
only), runs in many short phases, in half of which the link is cut; what begins a phase is left out, and so is the time
until the sidecar reports the change. Neighbouring phases are compared, and the median counts (offlinephases.py).

Two kinds of load: `now` is sent to the cloud at once, so that online the uploads, Azurite and the proxy take this
machine's cores from the workers, which makes being offline look good; `later` is not due within the run, so that both
kinds of phases do the same, and a difference can only come of being offline. Before, `--queued` changes are
noted offline in a worker's journal, as workers do, and become rows that wait for their time, so that online phases do
not use them up: from then on the queue is that long. Root only, as the lab is; nothing else should run meanwhile.

Exit codes: 0 every target met; 1 one missed; 2 wrong usage (argparse); 3 it cannot be measured here.
"""

import argparse
import datetime as dt
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from tests.offload.lab import impossible, unavailable
from tests.offload.lab.cloud import Lab, lab
from tests.offload.lab.edge import ACCOUNT, KEY, Edge, edge

from .cli import PLAIN_COLUMNS
from .offlinephases import Figures, Phase, compared, missed, order
from .peers import REPOSITORY, Endpoint
from .proctree import process_cpu_s
from .queuework import memory_peak_mib
from .sas import account_sas
from .tailwork import write
from .wrk import WrkFailed, WrkResult, run_wrk

EXIT_PASS, EXIT_MISS, EXIT_NOTHING = 0, 1, 3
SIZES: Final = {"4 KiB": 4 << 10, "64 KiB": 64 << 10}
LATER: Final = 'upload = "age"\nage_days = 30\n'
LOADS: Final = {"later": LATER, "now": 'upload = "now"\n'}
CONTAINER: Final = "load"
SIGNAL: Final = "signal"  # what is written here is sent at once, so that the sidecar sees what became of the link
SIGNALS: Final = 4  # more than what it takes from degraded to online
WORKER_MODULE: Final = b"dataplane"
FILLER: Final = 1_000  # the number of the worker whose journal fills the queue; no worker of the node's has it
CHANGE_SECONDS_MAX: Final = 120.0
FILL_SECONDS_MAX: Final = 600.0
POLL_SECONDS: Final = 0.5
#: No look at everything meanwhile: the queued rows have no blobs.
RULES: Final = """
[offload]
scan_seconds = 31_536_000
[[offload.rules]]
containers = ["{signal}"]
upload = "now"
[[offload.rules]]
containers = ["{load}"]
{kind}
[[offload.rules]]
{later}"""


@dataclass(frozen=True, slots=True)
class Load:
    """What every phase does."""

    body_bytes: int
    connections: int
    pause_ms: int
    settle_s: int
    seconds: int


class Bench:
    """One node with its load."""

    def __init__(self, made: Lab, node: Edge, load: Load) -> None:
        self._lab = made
        self._node = node
        self._load = load
        self._sidecar = node.sidecar()
        self._workers = [pid for pid in node.alive() if WORKER_MODULE in Path(f"/proc/{pid}/cmdline").read_bytes()]
        expiry = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
        port = urlsplit(node.url).port
        assert port is not None
        self._endpoint = Endpoint("blobedge", "127.0.0.1", port, f"/{ACCOUNT}", account_sas(ACCOUNT, KEY, expiry), 0)

    def fill(self, rows: int) -> None:
        """So many changes while the link is cut. Raises TimeoutError."""
        # A new database is compared with the mount and the cloud first; later that would find rows without blobs.
        self._await(lambda: bool(self._status()["reconcile"]), CHANGE_SECONDS_MAX, "has not compared its new queue")
        self._turn("fill", online=False)
        write(self._node.state / "journal", "random", rows, ACCOUNT, FILLER)
        self._await(lambda: self._status()["unprotected_blobs"] >= rows, FILL_SECONDS_MAX, "has not all rows")

    def phase(self, number: int, online: bool) -> Phase:
        """Settle, then measure."""
        self._turn(f"{number:04d}", online)
        self._put(f"{number:04d}-settling-", self._load.settle_s)
        sent, worker_s, sidecar_s = self._sent(), self._worker_s(), process_cpu_s(self._sidecar)
        result = self._put(f"{number:04d}-", self._load.seconds)
        return Phase(
            online=online,
            requests_per_s=(result.requests - result.failed) / result.elapsed_s,
            p50_ms=result.p50_ms,
            p99_ms=result.p99_ms,
            worker_us=1e6 * (self._worker_s() - worker_s) / max(1, result.requests),
            sidecar_cores=(process_cpu_s(self._sidecar) - sidecar_s) / result.elapsed_s,
            sent=self._sent() - sent,
            failed=result.failed,
        )

    def end(self) -> Figures:
        """What the sidecar took, and what it has to do."""
        return {
            "sidecar_memory_mib": memory_peak_mib(self._sidecar),
            "rows_queued": float(self._status()["unprotected_blobs"]),
        }

    def _turn(self, name: str, online: bool) -> None:
        """Cut the link or heal it, and wait until the sidecar says so. Raises TimeoutError."""
        if online:
            self._lab.heal()
        else:
            self._lab.link.cut()
        with self._node.service() as service:
            container = service.get_container_client(SIGNAL)
            for each in range(SIGNALS):
                container.upload_blob(f"{name}-{each}", b"?")
        wanted = "online" if online else "offline"
        self._await(lambda: self._status()["link"]["state"] == wanted, CHANGE_SECONDS_MAX, f"is not {wanted}")

    def _await(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(subprocess.CalledProcessError):  # one that has just started does not answer yet
                if condition():
                    return
            time.sleep(POLL_SECONDS)
        raise TimeoutError(f"the sidecar {what} after {seconds:g} s: {self._node.tail()}")

    def _put(self, prefix: str, seconds: int) -> WrkResult:
        with self._lab.link.at_edge():
            return run_wrk(
                self._endpoint,
                "PUT",
                f"{CONTAINER}/{prefix}",
                names=0,
                body_bytes=self._load.body_bytes,
                connections=self._load.connections,
                threads=1,
                seconds=seconds,
                pause_ms=self._load.pause_ms,
            )

    def _status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._node.queue("show", "--json"))
        return found

    def _sent(self) -> int:
        return sum(map(len, self._lab.proxy.traffic.commits().values()))

    def _worker_s(self) -> float:
        return sum(map(process_cpu_s, self._workers))


@contextmanager
def bench(scratch: Path, kind: str, load: Load, queued: int) -> Iterator[Bench]:
    """A node that serves, with `queued` rows in its queue."""
    rules = RULES.format(signal=SIGNAL, load=CONTAINER, kind=LOADS[kind], later=LATER)
    with lab(scratch) as made, edge(made, scratch, rules) as node:
        for container in (CONTAINER, SIGNAL):
            node.make_container(container)
        found = Bench(made, node, load)
        found.fill(queued)
        yield found
        made.heal()


def measure(kind: str, load: Load, pairs: int, queued: int, scratch: Path) -> Figures:
    """All phases of one kind of load."""
    with bench(scratch, kind, load, queued) as made:
        phases = [made.phase(number, online) for number, online in enumerate(order(pairs))]
        return compared(phases) | made.end()


def report(console: Console, queued: int, results: dict[str, Figures]) -> None:
    """One column for each load, and a line for each target that was missed."""
    table = Table(f"{queued:,} rows queued before", *results)
    for name in next(iter(results.values())):
        values = [figures[name] for figures in results.values()]
        table.add_row(name, *(f"{value:,.3f}" if value < 10 else f"{value:,.0f}" for value in values))
    console.print(table)
    for name, figures in results.items():
        for text in missed(figures):
            console.print(f"{name}: missed: {text}")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="tools/bench offline",
        description="writes with the link cut against writes with the link there: p99 within 5 %, in short phases "
        "that alternate, with a full queue; some 20 s for each pair and column",
    )
    parser.add_argument("--pairs", type=int, default=8, help="phases online, and as many offline (default 8)")
    parser.add_argument("--seconds", type=int, default=6, help="of each phase that are measured (default 6)")
    parser.add_argument("--settle-s", type=int, default=2, help="of each phase before them (default 2)")
    parser.add_argument("--queued", type=int, default=100_000, help="rows in the queue before (default 100000)")
    parser.add_argument("--size", action="append", choices=list(SIZES), help="of a blob; only this one")
    parser.add_argument(
        "--upload", action="append", choices=list(LOADS), help="sent at once, or not within the run; only this one"
    )
    parser.add_argument("--connections", type=int, default=16, help="of the load (default 16)")
    parser.add_argument("--pause-ms", type=int, default=50, help="mean pause of each before a request (default 50)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where the node keeps its data (default .cache/bench)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it."""
    options = parsed(arguments)
    console = Console(width=None if sys.stdout.isatty() else PLAIN_COLUMNS)
    if reason := impossible() or unavailable():
        console.print(f"nothing measured: {reason}")
        return EXIT_NOTHING
    root: Path = (options.root or REPOSITORY / ".cache" / "bench").resolve()
    root.mkdir(parents=True, exist_ok=True)
    results: dict[str, Figures] = {}
    try:
        for kind, size in itertools.product(options.upload or LOADS, options.size or SIZES):
            load = Load(SIZES[size], options.connections, options.pause_ms, options.settle_s, options.seconds)
            with tempfile.TemporaryDirectory(prefix="offline.", dir=root) as scratch:
                results[f"{size} {kind}"] = measure(kind, load, options.pairs, options.queued, Path(scratch))
    except WrkFailed as error:
        console.print(f"cannot be measured: {error}")
        return EXIT_NOTHING
    report(console, options.queued, results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + os.linesep)
    return EXIT_MISS if any(map(missed, results.values())) else EXIT_PASS


if __name__ == "__main__":
    sys.exit(main())
