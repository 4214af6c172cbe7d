"""`tools/bench queue`: how fast journal records go into the offload queue, and what a million rows cost.

Records with distinct names in eight containers, in batches as the sidecar takes them: in the order of the names, as a
camera makes them, and in no order at all, as checkpoints named by hashes do, which is the worst case. Then the same
blobs again, each changed; then one in a hundred fails for good, and another process opens what is there. A third makes
a lost database again and asks it what to evict; a fourth takes over a worker's journal from its file, as the sidecar
does. Records a second of CPU time stand beside those a second of the clock, which other users of the disk and the cores
lower.

Exit codes: 0 every target met; 1 one missed; 2 wrong usage (argparse).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from agent.offload.database import Queue

from .cli import PLAIN_COLUMNS
from .peers import REPOSITORY
from .queuework import FILE

EXIT_PASS, EXIT_MISS = 0, 1
ORDERS: Final = ("named", "random")
RATES_MIN: Final = {  # records a second
    "new_rate": 20_000.0,
    "changed_rate": 20_000.0,
    "adopt_rate": 20_000.0,
    "drain_rate": 20_000.0,
}
COSTS_MAX: Final = {  # seconds and MiB
    "take_s": 1.0,
    "page_s": 1.0,
    "empty_page_s": 1.0,
    "cold_page_s": 1.0,
    "fill_memory_mib": 128.0,
    "ask_memory_mib": 128.0,
    "drain_memory_mib": 128.0,
}

Figures = dict[str, float]


def missed(figures: Figures) -> list[str]:
    """The figures that did not meet their targets."""
    slow = [name for name, least in RATES_MIN.items() if figures[name] < least]
    return slow + [name for name, most in COSTS_MAX.items() if figures[name] > most]


def measure(order: str, rows: int, root: Path) -> Figures:
    """One order of names: a process for each part. The directory goes away."""
    directory = Path(tempfile.mkdtemp(prefix="queue.", dir=root))
    try:
        Queue(directory / FILE).close()  # here, as making the schema takes imports that a later start does without
        figures: Figures = {}
        parts = [("queuework", "fill"), ("queuework", "ask"), ("queuework", "evict"), ("tailwork",)]
        for module, *part in parts:
            command = [sys.executable, "-m", f"benchlib.{module}", *part, str(directory), order, str(rows)]
            figures |= json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        return figures
    finally:
        shutil.rmtree(directory)


def report(console: Console, rows: int, results: dict[str, Figures]) -> None:
    """One column for each order of names."""
    table = Table(f"{rows:,} rows", *results)
    for name in next(iter(results.values())):
        values = [figures[name] for figures in results.values()]
        table.add_row(name, *(f"{value:,.3f}" if value < 10 else f"{value:,.0f}" for value in values))
    console.print(table)
    for order, figures in results.items():
        for name in missed(figures):
            console.print(f"{order}: {name} missed its target of {(RATES_MIN | COSTS_MAX)[name]:,.0f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="tools/bench queue", description="the offload queue at a million rows")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where the databases are made (default .cache/bench)")
    options = parser.parse_args(arguments)
    root = options.root or REPOSITORY / ".cache" / "bench"
    root.mkdir(parents=True, exist_ok=True)
    results = {order: measure(order, options.rows, root) for order in ORDERS}
    report(Console(width=None if sys.stdout.isatty() else PLAIN_COLUMNS), options.rows, results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + os.linesep)
    return EXIT_MISS if any(missed(figures) for figures in results.values()) else EXIT_PASS


if __name__ == "__main__":
    sys.exit(main())
