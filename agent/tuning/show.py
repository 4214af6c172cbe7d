"""Observations, plans and drift as tables for a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agent.tuning.apply import Drift
from agent.tuning.observe import Observed
from agent.tuning.planner import Change, Plan
from agent.tuning.settings import Setting

EMPTY = "(empty)"


def observed_tables(observed: Observed) -> None:
    """The machine, then the present value of every key."""
    facts = _table("", "")
    rtt = "unknown" if observed.rtt_seconds is None else f"{observed.rtt_seconds * 1000:.3g} ms"
    for name, value in (
        ("kernel", observed.kernel),
        ("cores", str(observed.cores)),
        ("memory", f"{observed.ram_bytes >> 20} MiB"),
        ("round trip to the cloud", rtt),
        ("default route by", observed.default_nic or "none"),
        ("congestion controls", " ".join(observed.congestion)),
        ("connection tracking", "loaded" if observed.conntrack else "not loaded"),
    ):
        facts.add_row(name, escape(value))
    for nic in observed.nics:
        speed = f"{nic.speed_mbits} Mbit/s" if nic.speed_mbits else "speed unknown"
        queues = f"{nic.rx_queues} receive and {nic.tx_queues} send queues"
        facts.add_row(f"NIC {escape(nic.name)}", f"{speed}, MTU {nic.mtu}, {queues}, rings at most {nic.rings_max}")
    for mount in observed.mounts:
        facts.add_row(f"NFS {escape(mount.path)}", escape(f"{mount.source} ({mount.options})"))
    values = _table("key", "present")
    for key, value in observed.values.items():
        values.add_row(escape(key), escape(value) or EMPTY)
    console = Console()
    console.print(facts)
    console.print(values)


def plan_tables(plan: Plan, *, skipped: bool) -> None:
    """The changes, and with `skipped` what stays and why."""
    console = Console()
    console.print(f"profile {plan.profile}; {plan.basis}", highlight=False)
    if plan.changes:
        for item in plan.changes:
            _change(console, item)
        console.print()
    else:
        console.print("nothing to change")
    if skipped:
        rest = _table("left as it is", "why")
        for left in plan.skipped:
            rest.add_row(escape(left.key), escape(left.why))
        console.print(rest)


def _change(console: Console, item: Change) -> None:
    """Old and new, then why: as lines, as a column beside long keys would be a few characters wide."""
    new = f"{item.new} {item.unit}" if item.unit.isalpha() else item.new
    console.print(f"[bold]{escape(item.key)}[/bold]  {escape(item.old) or EMPTY} -> {escape(new)}", highlight=False)
    why = Text(f"{item.reason}\nsource: {item.source}")
    console.print(Padding(why, (0, 0, 0, 4)))


def drift_table(drift: Sequence[Drift]) -> None:
    """What is not as it was applied."""
    table = _table("key", "applied", "found")
    for item in drift:
        table.add_row(
            escape(item.key),
            escape(item.expected) or EMPTY,
            "gone" if item.found is None else escape(item.found) or EMPTY,
        )
    Console().print(table)


def setting_text(row: Setting, present: str | None, decision: str) -> None:
    """One setting explained."""
    table = _table("", "")
    goal = row.goal or "computed from the machine"
    for name, value in (
        ("setting", row.key),
        ("unit", row.unit or "a name"),
        ("present", "not here" if present is None else present or EMPTY),
        ("goal", f"{goal} ({row.combine})"),
        ("only if", row.only_if),
        ("reason", row.reason),
        ("source", row.source),
        ("plan", decision),
    ):
        table.add_row(name, escape(value))
    Console().print(table)


def _table(*headings: str) -> Table:
    table = Table(box=None, show_header=any(headings), pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
