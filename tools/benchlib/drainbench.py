"""`tools/bench drain`: how much of a limited link the uploads use once it is back, with large blobs and small ones.

The lab of the tests (tests/offload/lab): a node in one network namespace, Azurite behind a proxy in another, and a link
between them that tc limits. Blobs are written while it is cut; then it comes back, and what is measured is from the
first commit in the cloud to the last, as the proxy saw them. Azurite and the proxy share this machine's cores with the
node, and with small blobs they, and not the node, take most of the time: so the sidecar's own CPU for each blob stands
beside. Root only, as the lab is.

Exit codes: 0 every target met; 1 one missed; 2 wrong usage (argparse); 3 there can be no lab here.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.offload.lab import impossible, unavailable
from tests.offload.lab.cloud import Lab, lab
from tests.offload.lab.edge import Edge, edge

from .cli import PLAIN_COLUMNS
from .peers import REPOSITORY

EXIT_PASS, EXIT_MISS, EXIT_NOTHING = 0, 1, 3
SHARES_MIN: Final = {"4 MiB": 0.9, "64 KiB": 0.6}  # of the link
SIZES: Final = {"4 MiB": 4 << 20, "64 KiB": 64 << 10}
CONTAINER: Final = "drain"
SETTLE_SECONDS_MAX: Final = 600.0
POLL_SECONDS: Final = 0.1
RULES: Final = '\n[offload]\n[[offload.rules]]\nupload = "now"\n'

Figures = dict[str, float]


def measure(size: int, mbits: float, seconds: float, scratch: Path) -> Figures:
    """Drain about as many blobs as the link carries in `seconds`."""
    count = max(2, round(mbits * 1e6 / 8 * seconds / size))
    with lab(scratch) as made, edge(made, scratch, RULES) as node:
        node.make_container(CONTAINER)
        made.link.limit(mbits)
        made.link.cut()
        chance = random.Random(4)
        with node.service() as service:
            container = service.get_container_client(CONTAINER)
            for number in range(count):
                container.upload_blob(f"{number:06d}", chance.randbytes(size))
        before = cpu_seconds(node.sidecar())
        made.heal()
        times = commits(made, node, count)
        used = cpu_seconds(node.sidecar()) - before
    rate = (count - 1) * size * 8 / (times[-1] - times[0])
    return {
        "blobs": float(count),
        "mbits": rate / 1e6,
        "share_of_link": rate / (mbits * 1e6),
        "blobs_per_s": (count - 1) / (times[-1] - times[0]),
        "sidecar_ms_per_blob": 1000 * used / count,
    }


def commits(made: Lab, node: Edge, count: int) -> list[float]:
    """When each blob was committed in the cloud, in order. Raises TimeoutError with the log's end."""
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    while time.monotonic() < deadline:
        found = [each[-1].when for each in made.proxy.traffic.commits().values() if each]
        if len(found) >= count:
            return sorted(found)
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"{len(found)} of {count} blobs are in the cloud: {node.tail()}")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process (proc(5), stat, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def missed(results: dict[str, Figures]) -> list[str]:
    """The sizes that used less of the link than they have to."""
    return [name for name, figures in results.items() if figures["share_of_link"] < SHARES_MIN[name]]


def report(console: Console, mbits: float, results: dict[str, Figures]) -> None:
    """One column for each size."""
    table = Table(f"{mbits:g} Mbit/s", *results)
    for name in next(iter(results.values())):
        table.add_row(name, *(f"{figures[name]:,.2f}" for figures in results.values()))
    console.print(table)
    for name in missed(results):
        console.print(f"{name}: share_of_link missed its target of {SHARES_MIN[name]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="tools/bench drain", description="uploads over a limited link")
    parser.add_argument("--mbits", type=float, default=100.0, help="rate of the link (default 100)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long a drain should take at its best")
    parser.add_argument("--size", action="append", choices=list(SIZES), help="only this one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where the node keeps its data (default .cache/bench)")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else PLAIN_COLUMNS)
    if reason := impossible() or unavailable():
        console.print(f"nothing measured: {reason}")
        return EXIT_NOTHING
    root: Path = (options.root or REPOSITORY / ".cache" / "bench").resolve()
    root.mkdir(parents=True, exist_ok=True)
    results: dict[str, Figures] = {}
    for name in options.size or SIZES:
        with tempfile.TemporaryDirectory(prefix="drain.", dir=root) as scratch:
            results[name] = measure(SIZES[name], options.mbits, options.seconds, Path(scratch))
    report(console, options.mbits, results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + os.linesep)
    return EXIT_MISS if missed(results) else EXIT_PASS


if __name__ == "__main__":
    sys.exit(main())
