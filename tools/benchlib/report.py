"""The result as a table for people and as JSON for scripts."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from .runner import CaseResult, PeerResult

SUBJECT = "blobedge"
STYLES = {"PASS": "green", "MISS": "bold red"}


def number(value: float | None) -> str:
    """Format a rate or time with about three significant digits."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def duration(microseconds: float | None) -> str:
    """Format a time that may be anything between a microsecond and a second."""
    if microseconds is None:
        return "-"
    if microseconds < 1000:
        return f"{number(microseconds)} µs"
    return f"{number(microseconds / 1000)} ms"


def comparison(name: str, result: CaseResult) -> tuple[str, str, str]:
    """Return ratio, target and verdict for the row of a peer; only blobedge's row has them."""
    if name != SUBJECT:
        return "", "", ""
    spread = result.ratio_range()
    ratio = number(result.ratio())
    if spread is not None:
        ratio += f" ({number(spread[0])}..{number(spread[1])})"
    verdict = result.verdict()
    style = STYLES.get(verdict, "yellow")
    return ratio, f"{result.case.target_ratio:g}x {result.case.reference}", f"[{style}]{verdict}[/{style}]"


def rows(result: CaseResult) -> Iterator[tuple[str, ...]]:
    """Yield one row for each peer of a case."""
    for name, peer in result.peers.items():
        rate = peer.rate()
        failed = sum(sample.failed for sample in peer.samples)
        figure = "missing" if rate is None else f"{number(rate)} {result.case.unit}"
        if failed:
            figure += f", {failed} failed"
        busy = peer.busy()
        yield (
            result.case.title if name == next(iter(result.peers)) else "",
            name,
            figure,
            duration(peer.cpu_per_request_us()),
            "-" if busy is None else f"{busy:.0%}",
            *comparison(name, result),
        )


def table(results: list[CaseResult]) -> Table:
    """Build the table: a block of rows for each case, a row for each peer."""
    out = Table(show_lines=False)
    out.add_column("case")
    out.add_column("server")
    for heading in ("median", "CPU/request", "busy", "ratio (lowest..highest)", "target"):
        out.add_column(heading, justify="right")
    out.add_column("")
    for result in results:
        for row in rows(result):
            out.add_row(*row)
        out.add_section()
    return out


def print_report(console: Console, results: list[CaseResult], versions: dict[str, str], facts: dict[str, str]) -> None:
    """Print the table, the reasons of missing peers, versions and machine."""
    console.print(table(results))
    said = set()
    for result in results:
        for name, peer in result.peers.items():
            if peer.error and (name, peer.error) not in said:
                said.add((name, peer.error))
                console.print(f"{name}: {peer.error}", style="yellow", markup=False)
    console.print("versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    console.print("machine: " + ", ".join(f"{name} {value}" for name, value in facts.items()))


def peer_json(peer: PeerResult) -> dict[str, Any]:
    """Return one peer's result with every sample."""
    return {
        "median": peer.rate(),
        "cpu_per_request_us": peer.cpu_per_request_us(),
        "busy": peer.busy(),
        "error": peer.error,
        "samples": [
            {
                "rate": sample.rate,
                "requests": sample.requests,
                "failed": sample.failed,
                "elapsed_s": sample.elapsed_s,
                "cpu_s": cpu_s,
                "p50_ms": sample.p50_ms,
                "p99_ms": sample.p99_ms,
            }
            for sample, cpu_s in zip(peer.samples, peer.cpu_s, strict=True)
        ],
    }


def json_report(
    results: list[CaseResult], versions: dict[str, str], facts: dict[str, str], options: dict[str, Any]
) -> dict[str, Any]:
    """Return the whole run as plain data; the keys are stable."""
    return {
        "format": 1,
        "machine": facts,
        "versions": versions,
        "options": options,
        "cases": [
            {
                "case": result.case.name,
                "title": result.case.title,
                "unit": result.case.unit,
                "subject": SUBJECT,
                "reference": result.case.reference,
                "target_ratio": result.case.target_ratio,
                "ratio": result.ratio(),
                "ratio_range": result.ratio_range(),
                "verdict": result.verdict(),
                "peers": {name: peer_json(peer) for name, peer in result.peers.items()},
            }
            for result in results
        ],
    }
