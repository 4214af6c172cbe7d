"""What the rules say of blobs, as documents for scripts and as text for a terminal."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from agent.commands import policy_leaving
from agent.commands.terminal import shown
from agent.config import Config
from agent.config_offload import Offload, Rule
from agent.offload.amounts import NANOSECONDS, size_text, span_text
from agent.offload.dryrun import Tally
from agent.offload.rules import Decision, Rules, Subject


def document(
    config: Config, offload: Offload, rules: Rules, subject: Subject, decision: Decision, now: int
) -> dict[str, Any]:
    """What the rules say of one blob. `rule` counts from 1; rules after the one that matches are not asked."""
    said = rules.mismatches(subject)
    asked = said if decision.rule is None else said[: decision.rule + 1]
    said_of_blob: dict[str, Any] = {
        "blob": "/".join(subject[:3]),
        "bytes": subject.size,
        "modified": _time(subject.modified_ns),
        "rule": None if decision.rule is None else decision.rule + 1,
        "rules": [{"rule": number, "matches": not why, "why_not": why} for number, why in enumerate(asked, 1)],
        "upload": decision.upload,
        "leaves": policy_leaving.document(offload, subject, decision, now, _time),
    }
    if not decision.upload or decision.target is None:
        return said_of_blob
    weekly = offload.weekly()
    moment = max(decision.due_at, now)
    change = weekly.next_change(moment)
    return said_of_blob | {
        "due": _time(decision.due_at),
        "due_seconds": max(0.0, (decision.due_at - now) / 1e9),
        "priority": decision.priority,
        "endpoint": config.cloud.endpoint if config.cloud else "",
        "container": decision.target.container,
        "name": decision.target.name,
        "tier": decision.target.tier,
        "delete": decision.delete,
        "conflict": decision.conflict,
        "mbits": weekly.mbits(moment),
        "mbits_until": None if change is None else _time(change),
    }


def lines(document: dict[str, Any], rules: list[Rule]) -> Iterator[str]:
    """The same for a person."""
    yield f"{shown(document['blob'])}: {size_text(document['bytes'])}, last changed {document['modified']}"
    for each in document["rules"]:
        yield f"  rule {each['rule']}: {'matches' if each['matches'] else shown(each['why_not'])}"
    if not document["upload"]:
        yield "  stays here: " + ("no rule matches" if document["rule"] is None else 'upload = "never"')
        if document["leaves"]["deleted_at"] is not None:
            yield f"  leaves: {policy_leaving.sentence(document['leaves'], uploaded=False)}"
        return
    rule = rules[document["rule"] - 1]
    yield f"  due: {_due(document, rule)}"
    yield f"  turn: priority {document['priority']}, {rule.order} first"
    yield f"  speed then: {_speed(document)}"
    tier = f", tier {document['tier']}" if document["tier"] else ""
    yield f"  target: {document['endpoint']}/{document['container']}/{shown(document['name'])}{tier}"
    fuse = f", at most {rule.delete_fuse_percent:g} % of a container at once" if rule.delete == "propagate" else ""
    yield f"  deleted here: {document['delete']}{fuse}; changed there: {document['conflict']}"
    yield f"  leaves: {policy_leaving.sentence(document['leaves'], uploaded=True)}"


def _due(document: dict[str, Any], rule: Rule) -> str:
    why = {"now": "at once", "idle": f"{rule.idle_seconds:g} s after its last change"}
    condition = why.get(rule.upload, f"{rule.age_days} days after Last-Modified")
    wait = document["due_seconds"]
    return f"{document['due']} ({f'in {span_text(wait)}' if wait else 'now'}), {condition}"


def _speed(document: dict[str, Any]) -> str:
    mbits, until = document["mbits"], document["mbits_until"]
    said = "no limit" if mbits is None else f"{mbits:g} Mbit/s" if mbits else "paused"
    return f"{said} until {until}" if until else said


def tallies(of_rules: list[Tally], unmatched: Tally) -> dict[str, Any]:
    """The counts, for scripts."""
    named = [{"rule": number, **_tallied(each)} for number, each in enumerate(of_rules, 1)]
    return {"rules": named, "no_rule": _tallied(unmatched)}


def _tallied(tally: Tally) -> dict[str, Any]:
    return {
        "blobs": tally.blobs,
        "bytes": tally.bytes,
        "due_now_blobs": tally.due_blobs,
        "due_now_bytes": tally.due_bytes,
        "leave_now_blobs": tally.leave_blobs,
        "leave_now_bytes": tally.leave_bytes,
        "evictable_blobs": tally.evictable_blobs,
        "evictable_bytes": tally.evictable_bytes,
        "names": tally.names,
    }


def table(rules: list[Rule], of_rules: list[Tally], unmatched: Tally) -> None:
    """Print the counts, and below them the first names that go by each rule."""
    shown_table = Table("rule", "upload", box=None, pad_edge=False)
    for column in ("blobs", "size", "due now", "size", "later", "may leave"):
        shown_table.add_column(column, justify="right")
    rows = [(str(number), rules[number - 1].upload, each) for number, each in enumerate(of_rules, 1)]
    rows.append(("none", "never", unmatched))
    for label, upload, each in rows:
        later = 0 if upload == "never" else each.blobs - each.due_blobs
        due = f"{each.due_blobs:,}", size_text(each.due_bytes), f"{later:,}"
        leave = size_text(each.evictable_bytes)
        shown_table.add_row(label, upload, f"{each.blobs:,}", size_text(each.bytes), *due, leave)
    Console().print(shown_table)
    for label, _, each in rows:
        for name in each.names:  # as a column they would be a few characters wide
            print(f"  {'no rule' if label == 'none' else f'rule {label}'}: {shown(name)}")


def _time(moment: int) -> str:
    try:
        return datetime.fromtimestamp(moment // NANOSECONDS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):  # a file from before the year 1 or after 9999
        return "beyond the calendar"
