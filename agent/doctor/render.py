"""The findings for a person: a table on a terminal, plain lines of full length anywhere else."""

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.doctor.findings import Finding, Status, document

_STYLES: Final[dict[Status, str]] = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "bold red"}


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print every finding, its mend below it, and a last line with the counts."""
    if console.is_terminal:
        _table(findings, console)
    else:
        _lines(findings, console)
    counts = document(findings)["counts"]
    console.print(", ".join(f"{count} {status}" for status, count in counts.items()), highlight=False)


def _table(findings: Sequence[Finding], console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("finding", ratio=1)
    for finding in findings:
        said = Text(finding.what)
        if finding.mend:
            said.append(f"\n-> {finding.mend}", style="bold")
        table.add_row(finding.check, Text(finding.status, style=_STYLES[finding.status]), said)
    console.print(table)


def _lines(findings: Sequence[Finding], console: Console) -> None:
    for finding in findings:
        line = f"{finding.status:8}{finding.check:8}{finding.what}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
        if finding.mend:
            console.print(f"{'':16}-> {finding.mend}", markup=False, highlight=False, soft_wrap=True)
