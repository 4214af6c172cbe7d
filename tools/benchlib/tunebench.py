"""`tools/bench tune`: what `blobedge tune apply` does for the throughput of a long way.

Guarantees: the program that operators run makes every change, in the namespace of an edge node of its own (wan.py); the
three states alternate in rounds, so that drift of the machine hits all alike; medians are compared. The link's own
throughput and processor time are printed: a figure near them says nothing about the tuning.

"before" is what a Debian kernel starts with, whatever this machine has: buffers of 4 and 6 MiB, and cubic, which the
sockets ask for themselves, as only the first namespace may make it a default. After `apply` they ask for nothing.

Exit codes: 0 measured; 2 wrong usage (argparse); 3 it cannot be measured here (no root, no tun).
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from .namespaces import inside, run_inside
from .wan import Shape, Way, bursts, download, stream, way

EXIT_OK, EXIT_NOTHING = 0, 3
COLUMNS: Final = 132
NICE: Final = -15  # of the ends of the connections; the link itself goes before them
STATES: Final = ("before", "applied", "rolled back")
STREAMS: Final = (1, 4)
BURST_BYTES: Final = 8 << 20  # one block of a large blob on its way to Azure
BURST_COUNT: Final = 5  # the first one has the connection's slow start and is left out
IDLE_SECONDS: Final = 1.0
DEBIAN: Final = {
    "net.ipv4.tcp_congestion_control": "reno",
    "net.ipv4.tcp_wmem": "4096 16384 4194304",
    "net.ipv4.tcp_rmem": "4096 131072 6291456",
    "net.ipv4.tcp_no_metrics_save": "1",  # a run must not start with what the one before it learnt
}
AZURE: Final = {  # an end that is never the limit
    "net.ipv4.tcp_wmem": "4096 16384 67108864",
    "net.ipv4.tcp_rmem": "4096 131072 67108864",
    "net.ipv4.tcp_no_metrics_save": "1",
}
BEFORE_CONGESTION: Final = "cubic"
BURST: Final = "8 MiB up after 1 s idle, s"

Figures = dict[str, float]  # of one state in one round, by column
Rounds = dict[str, list[Figures]]  # by state, or by setting


class Node:
    """`blobedge tune` as an operator runs it, in the edge's namespace."""

    def __init__(self, edge: Way, shape: Shape, directory: Path) -> None:
        self._edge = edge
        self._prefix = ("--prefix", str(directory))
        self._config = directory / "blobedge.toml"
        self._config.write_text(
            f'listen = ["http://127.0.0.1:10000"]\n[tune]\nprofile = "wan-azure"\n'
            f"bandwidth_mbits = {round(shape.mbit or 1000)}\nrtt_milliseconds = {shape.rtt_ms}\n"
            f'[[accounts]]\nname = "edge"\nroot = "{directory}"\nkey1 = "{"A" * 86}=="\n'
        )

    def apply(self) -> list[dict[str, str]]:
        """Apply, and return the changes of the plan."""
        made = json.loads(self._tune("apply", "--json", "--config", str(self._config)))
        self._tune("verify")
        return list(made["changes"])

    def rollback(self) -> None:
        """Restore what was."""
        self._tune("rollback")

    def _tune(self, *arguments: str) -> str:
        program = (sys.executable, "-c", "import sys; from agent.cli import main; main(sys.argv[1:])", "tune")
        return run_inside(self._edge.edge, [*program, *arguments, *self._prefix]).stdout


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    out = argparse.ArgumentParser(prog="tools/bench tune", description="throughput before and after blobedge tune")
    out.add_argument("--mbit", type=float, default=800, help="rate of the bottleneck (default 800)")
    out.add_argument("--rtt", type=float, default=100, metavar="MS", help="round trip (default 100)")
    out.add_argument("--loss", type=float, default=0.0, help="share of packets lost on the way (default 0)")
    out.add_argument("--seconds", type=float, default=8.0, help="length of one run of streams (default 8)")
    out.add_argument("--rounds", type=int, default=3, help="rounds of the three states (default 3)")
    out.add_argument("--each", action="store_true", help="also every change of the plan on its own")
    out.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    options = parser().parse_args(argv)
    shape = Shape(options.rtt, options.mbit, loss=options.loss)
    console = Console(width=COLUMNS, highlight=False)
    try:
        os.nice(NICE)
        own = _link_itself(options.seconds)
        with tempfile.TemporaryDirectory() as directory, way(shape) as (edge, counts):
            _start(edge)
            node = Node(edge, shape, Path(directory))
            figures, changes = _states(edge, node, options.rounds, options.seconds)
            if options.each:
                figures |= _each(edge, changes, options.rounds, options.seconds)
    except OSError as error:
        print(f"tools/bench tune: cannot be measured here: {error}; it needs root and tun", file=sys.stderr)
        return EXIT_NOTHING
    core = 100 * counts.cpu_seconds / counts.seconds
    console.print(
        f"way: {shape.mbit:g} Mbit/s, {shape.rtt_ms:g} ms, loss {shape.loss:g}, queue {shape.queue_ms:g} ms; the "
        f"link itself carries {own:.0f} Mbit/s, and took {core:.0f} % of a core here on average; "
        f"latest packet {counts.late_ms_max:.0f} ms late"
    )
    console.print(_table(figures))
    if options.json is not None:
        report: dict[str, object] = {
            "shape": asdict(shape),
            "link_mbit": own,
            "link": asdict(counts),
            "changes": changes,
        }
        report["figures"] = figures
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return EXIT_OK


def _link_itself(seconds: float) -> float:
    """Mbit/s that the link carries without delay and bottleneck: the most that it could show."""
    with way(Shape(0.0, None)) as (edge, _):
        _start(edge)
        return stream(edge, max(STREAMS), seconds / 2, BEFORE_CONGESTION)


def _start(edge: Way) -> None:
    _write(edge.edge, DEBIAN)
    _write(edge.azure, AZURE)


def _write(namespace: int, values: dict[str, str]) -> None:
    with inside(namespace):
        for key, value in values.items():
            Path("/proc/sys", *key.split(".")).write_text(f"{value}\n")


def measure(edge: Way, seconds: float, congestion: str | None) -> Figures:
    """Measure once; `congestion` is of the edge's sockets, as Azure's are what they are."""
    found = {f"{count} up, Mbit/s": stream(edge, count, seconds, congestion) for count in STREAMS}
    found["1 down, Mbit/s"] = download(edge, 1, seconds, BEFORE_CONGESTION)
    times = bursts(edge, BURST_COUNT, BURST_BYTES, IDLE_SECONDS, congestion)
    found[BURST] = statistics.median(times[1:])
    return found


def _states(edge: Way, node: Node, rounds: int, seconds: float) -> tuple[Rounds, list[dict[str, str]]]:
    figures: Rounds = {state: [] for state in STATES}
    changes: list[dict[str, str]] = []
    for _ in range(rounds):
        figures["before"].append(measure(edge, seconds, BEFORE_CONGESTION))
        changes = node.apply()
        figures["applied"].append(measure(edge, seconds, None))
        node.rollback()
        figures["rolled back"].append(measure(edge, seconds, BEFORE_CONGESTION))
    return figures, changes


def _each(edge: Way, changes: list[dict[str, str]], rounds: int, seconds: float) -> Rounds:
    """Every sysctl of the plan on its own; what belongs to incoming connections can do nothing here: that is noise."""
    sysctls = [change for change in changes if ":" not in change["key"]]
    figures: Rounds = {change["key"]: [] for change in sysctls}
    for _ in range(rounds):
        for change in sysctls:
            key = change["key"]
            congestion = None if key.endswith("congestion_control") else BEFORE_CONGESTION
            _write(edge.edge, {key: change["new"]})
            figures[key].append(measure(edge, seconds, congestion))
            _write(edge.edge, {key: change["old"]})
    return figures


def _table(figures: Rounds) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("state or setting")
    for column in figures["before"][0]:
        table.add_column(column, justify="right")
    for state, rounds in figures.items():
        table.add_row(state, *(_cell(column, rounds, figures["before"]) for column in rounds[0]))
    return table


def _cell(column: str, rounds: list[Figures], before: list[Figures]) -> str:
    """The median, its range, and how many times as good as before it is."""
    values = [each[column] for each in rounds]
    middle, first = statistics.median(values), statistics.median(each[column] for each in before)
    ratio, form = (first / middle, "{:.2f}") if column == BURST else (middle / first, "{:.0f}")
    return f"{form.format(middle)} ({form.format(min(values))}..{form.format(max(values))}) x{ratio:.2f}"


if __name__ == "__main__":
    sys.exit(main())
