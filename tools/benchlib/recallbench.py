"""`tools/bench recall`: how soon the first byte of a stub is there, against a GET of its copy in the cloud over the
same link; what moves for a range of a large one; and how many downloads many readers of one stub cost.

The lab of the tests (tests/offload/lab): a node in one network namespace, Azurite behind a proxy in another, a link
with a delay between them. Blobs are written to the node, sent, and evicted with `blobedge evict`. Both sides of a
comparison are one signed GET on a connection of its own, from the same machine, one after the other; the medians of all
blobs are compared. Bytes are counted at the proxy. Root only, as the lab is; nothing else should run meanwhile.

Exit codes: 0 every target met; 1 one missed; 2 wrong usage (argparse); 3 there can be no lab here.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import requests
from azure.core.credentials import AzureNamedKeyCredential
from rich.console import Console
from rich.table import Table

from agent.offload.credentials import Credential
from agent.offload.recall.signing import blob_url, signed
from tests.offload.lab import impossible, unavailable
from tests.offload.lab.cloud import Lab, lab
from tests.offload.lab.edge import ACCOUNT, CHECKOUT, KEY, Edge, edge

from .cli import PLAIN_COLUMNS
from .peers import REPOSITORY

EXIT_PASS, EXIT_MISS, EXIT_NOTHING = 0, 1, 3
FACTOR_MAX: Final = 1.2
EXTRA_MS_MAX: Final = 20.0
RANGE_BYTES: Final = 1 << 20
MOVED_BYTES_MAX: Final = 2 << 20
READERS: Final = 64
CONTAINER: Final = "recall"
LARGE: Final = "large"
SHARED: Final = "shared"  # by all readers
SHARED_BYTES: Final = 64 << 20
SECONDS_MAX: Final = 600.0
POLL_SECONDS: Final = 0.1
RULES: Final = '\n[offload]\n[[offload.rules]]\nupload = "now"\n'

Figures = dict[str, float]


def measure(blobs: int, large_mib: int, delay_ms: float, scratch: Path) -> Figures:
    """All figures, with `blobs` small blobs, a large one, and one that is read by many."""
    names = [f"{number:03d}" for number in range(blobs)]
    with lab(scratch, delay_ms=delay_ms) as made, edge(made, scratch, RULES) as node:
        node.make_container(CONTAINER)
        chance = random.Random(5)
        with node.service() as service:
            container = service.get_container_client(CONTAINER)
            for name in names:
                container.upload_blob(name, chance.randbytes(RANGE_BYTES))
            container.upload_blob(LARGE, chance.randbytes(1 << 20) * large_mib)
            container.upload_blob(SHARED, chance.randbytes(SHARED_BYTES))
        evict(made, node, blobs + 2)
        with made.link.at_edge():
            direct = [first_byte_ms(made.url, made.account, made.key, name) for name in names]
            recalled = [first_byte_ms(node.url, ACCOUNT, KEY, name) for name in names]
            seen = len(made.proxy.traffic.all())
            middle = (large_mib << 20) // 2
            read(node, LARGE, {"x-ms-range": f"bytes={middle}-{middle + RANGE_BYTES - 1}"})
            moved = sum(each.bytes_down for each in made.proxy.traffic.all(seen))
        before = downloads(made)

        def one(_number: int) -> int:
            with made.link.at_edge():
                return read(node, SHARED, {})

        with ThreadPoolExecutor(READERS) as pool:
            sizes = list(pool.map(one, range(READERS)))
    assert sizes == [SHARED_BYTES] * READERS
    return {
        "direct_first_byte_ms": statistics.median(direct),
        "recall_first_byte_ms": statistics.median(recalled),
        "range_moved_bytes": float(moved),
        "readers_downloaded_bytes": float(downloads(made) - before),
        "shared_bytes": float(SHARED_BYTES),
    }


def evict(made: Lab, node: Edge, count: int) -> None:
    """Wait until the cloud has all blobs, and let their bytes go. Raises TimeoutError with the log's end."""
    command = [sys.executable, "-m", "agent", "evict", f"{ACCOUNT}/{CONTAINER}/", "--json"]
    command += ["--admin", f"unix:{node.scratch}/admin.sock"]
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        if sum(map(bool, made.proxy.traffic.commits().values())) < count:
            continue
        subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=False)
        files = [each for each in (node.root / CONTAINER).iterdir() if each.is_file()]
        if all(not each.stat().st_size for each in files):
            return
    raise TimeoutError(f"not all of {count} blobs are evicted: {node.tail()}")


def first_byte_ms(endpoint: str, account: str, key: str, name: str) -> float:
    """From the start of a connection until a byte of the content is there."""
    credential = Credential(AzureNamedKeyCredential(account, key), 0)
    with requests.Session() as session:
        prepared = signed(session, blob_url(endpoint, CONTAINER, name), {}, credential, datetime.now(UTC))
        began = time.perf_counter()
        with session.send(prepared, stream=True, timeout=SECONDS_MAX) as answer:
            answer.raise_for_status()
            assert answer.raw.read1(1)
            return (time.perf_counter() - began) * 1e3


def read(node: Edge, name: str, headers: dict[str, str]) -> int:
    """How many bytes a GET gave."""
    credential = Credential(AzureNamedKeyCredential(ACCOUNT, KEY), 0)
    with requests.Session() as session:
        prepared = signed(session, blob_url(node.url, CONTAINER, name), headers, credential, datetime.now(UTC))
        with session.send(prepared, stream=True, timeout=SECONDS_MAX) as answer:
            answer.raise_for_status()
            return sum(map(len, answer.iter_content(1 << 20)))


def downloads(made: Lab) -> int:
    """Bytes of blobs that left the cloud so far."""
    return sum(each.bytes_down for each in made.proxy.traffic.all() if each.request.operation == "GetBlob")


def missed(figures: Figures) -> list[str]:
    """What is worse than it has to be."""
    found = []
    if figures["recall_first_byte_ms"] > FACTOR_MAX * figures["direct_first_byte_ms"] + EXTRA_MS_MAX:
        found.append(f"recall_first_byte_ms: at most {FACTOR_MAX} times direct_first_byte_ms and {EXTRA_MS_MAX:g} more")
    if figures["range_moved_bytes"] > MOVED_BYTES_MAX:
        found.append(f"range_moved_bytes: at most {MOVED_BYTES_MAX}")
    if figures["readers_downloaded_bytes"] > figures["shared_bytes"]:
        found.append("readers_downloaded_bytes: at most shared_bytes, for all readers together")
    return found


def report(console: Console, figures: Figures) -> None:
    """A line for each figure, and one for each target that was missed."""
    table = Table("recall", "")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.1f}")
    console.print(table)
    for text in missed(figures):
        console.print(f"missed: {text}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="tools/bench recall", description="reads of what is in the cloud")
    parser.add_argument("--blobs", type=int, default=20, help="how many first bytes (default 20)")
    parser.add_argument("--large-mib", type=int, default=1024, help="size of the large blob (default 1024)")
    parser.add_argument("--delay-ms", type=float, default=10.0, help="of the link, each way (default 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where the node keeps its data (default .cache/bench)")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else PLAIN_COLUMNS)
    if reason := impossible() or unavailable():
        console.print(f"nothing measured: {reason}")
        return EXIT_NOTHING
    root: Path = (options.root or REPOSITORY / ".cache" / "bench").resolve()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="recall.", dir=root) as scratch:
        figures = measure(options.blobs, options.large_mib, options.delay_ms, Path(scratch))
    report(console, figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + os.linesep)
    return EXIT_MISS if missed(figures) else EXIT_PASS


if __name__ == "__main__":
    sys.exit(main())
