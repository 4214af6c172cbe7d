"""The command line of `tools/bench`.

Exit codes: 0 every case that could be compared met its target; 1 a case missed its target; 2 wrong usage
(argparse); 3 nothing could be compared.
"""

import argparse
import base64
import contextlib
import datetime as dt
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from .cases import CASES, Settings
from .facts import machine_facts
from .peers import PEERS, REPOSITORY, Account, Endpoint
from .process import PeerUnavailable
from .report import json_report, print_report
from .runner import CaseResult, run_case
from .sas import account_sas

EXIT_PASS, EXIT_MISS, EXIT_NOTHING = 0, 1, 3
ACCOUNT_NAME = "benchaccount"
PLAIN_COLUMNS = 120  # of a report that goes to a file or a pipe
SAS_LIFE = dt.timedelta(hours=12)


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    defaults = Settings()
    out = argparse.ArgumentParser(prog="tools/bench", description="blobedge, Azurite and nginx side by side")
    names = [case.name for case in CASES]
    out.add_argument("--only", action="append", choices=names, metavar="CASE", help=", ".join(names))
    out.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    out.add_argument("--seconds", type=float, default=defaults.seconds, help="length of one timed run")
    out.add_argument("--connections", type=int, default=defaults.connections, help="for the 4 KiB cases")
    out.add_argument("--scale", type=float, default=1.0, help="factor on sizes and counts (default 1)")
    out.add_argument("--json", type=Path, metavar="FILE", help="write the whole result as JSON")
    out.add_argument(
        "--root", type=Path, metavar="DIR", help="where the servers keep their data (default .cache/bench)"
    )
    return out


def split_cores() -> tuple[int | None, list[int]]:
    """Return the core of the servers and the cores of the client; no pinning on a single core."""
    cores = sorted(os.sched_getaffinity(0))
    return (None, cores) if len(cores) < 2 else (cores[0], cores[1:])


def new_account() -> Account:
    """Return an account with a random key: nothing outside this run can use it."""
    key = base64.b64encode(secrets.token_bytes(64)).decode()
    expiry = dt.datetime.now(dt.UTC) + SAS_LIFE
    return Account(ACCOUNT_NAME, key, account_sas(ACCOUNT_NAME, key, expiry))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    options = parser().parse_args(argv)
    server_core, client_cores = split_cores()
    os.sched_setaffinity(0, client_cores)
    settings = Settings(options.seconds, options.connections, min(2, len(client_cores)), options.scale)
    root: Path = (options.root or REPOSITORY / ".cache" / "bench").resolve()
    root.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="run-", dir=root))
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_COLUMNS)
    try:
        with contextlib.ExitStack() as stack:
            results, versions = run_all(stack, work, server_core, settings, options, console)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    facts = machine_facts(root)
    print_report(console, results, versions, facts)
    if options.scale != 1:
        console.print("sizes were scaled: these figures say nothing about the targets", style="yellow")
    if options.json is not None:
        report = json_report(results, versions, facts, asdict(settings) | {"rounds": options.rounds})
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    verdicts = {result.verdict() for result in results}
    return EXIT_MISS if "MISS" in verdicts else EXIT_PASS if "PASS" in verdicts else EXIT_NOTHING


def run_all(
    stack: contextlib.ExitStack,
    work: Path,
    core: int | None,
    settings: Settings,
    options: argparse.Namespace,
    console: Console,
) -> tuple[list[CaseResult], dict[str, str]]:
    """Start the peers, run the chosen cases; the stack stops the peers. Returns results and versions."""
    account = new_account()
    endpoints: dict[str, Endpoint] = {}
    missing: dict[str, str] = {}
    versions: dict[str, str] = {}
    for kind in PEERS:
        peer = kind(work, account, core)
        stack.callback(peer.stop)
        try:
            endpoints[peer.name] = peer.start()
            versions[peer.name] = peer.version()
        except PeerUnavailable as error:
            missing[peer.name] = str(error)
            versions[peer.name] = "missing"
    chosen = [case() for case in CASES if not options.only or case.name in options.only]
    with console.status("starting") as status:
        return [
            run_case(case, endpoints, missing, settings, options.rounds, status.update) for case in chosen
        ], versions
