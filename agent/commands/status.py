"""`blobedge status`: the running service on one screen; `--json` for scripts, `--watch` to look on."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

WATCH_SECONDS: Final = 1.0
ERRORS_COUNT_MAX: Final = 10  # the most frequent; --json has all
CONTAINERS_COUNT_MAX: Final = 10  # with most that is unprotected; --json has more, `blobedge ls -l ACCOUNT` all
_RESIDENCIES: Final = ("local", "queued", "copied", "remote")
STYLES: Final = {"ok": "green", "degraded": "yellow", "failing": "red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(status)


def status(
    as_json: Annotated[bool, typer.Option("--json", help="The whole document.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again every second, until interrupted.")] = False,
    admin: Annotated[str | None, typer.Option(metavar="ADDR", help="unix:/PATH or http://HOST:PORT.")] = None,
    token_file: Annotated[str | None, typer.Option(metavar="FILE", help="The token of an http address.")] = None,
) -> None:
    """Show workers, mounts, traffic and what is not well."""
    import json

    from rich.console import Console

    from agent.observability import client

    def ask() -> Any:
        return client.get(client.find(admin), "/status", token_file)[1]

    try:
        if as_json:
            print(json.dumps(ask(), indent=1))
        elif watch:
            _watch(ask)
        else:
            Console().print(screen(ask()))
    except client.Unreachable as error:
        typer.echo(f"blobedge: {error}", err=True)
        raise typer.Exit(2) from None


def _watch(ask: Any) -> None:
    import time

    from rich.live import Live

    with Live(screen(ask()), auto_refresh=False) as live:
        while True:
            time.sleep(WATCH_SECONDS)
            live.update(screen(ask()), refresh=True)


def screen(document: dict[str, Any]) -> "RenderableType":
    """Return the document as tables; text from the service is never read as markup.

    During an upgrade the service may still be of an older version: keys that came later may be absent.
    """
    from rich.console import Group
    from rich.table import Table

    tables = [_head(document), _processes(document), _recycles(document), _mounts(document), _containers(document)]
    tables += [_traffic(document), _errors(document), _bad(document)]
    return Group(*(table for table in tables if not isinstance(table, Table) or table.row_count))


def _table(title: str, *columns: str) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _row(table: Any, *cells: object) -> None:
    from rich.text import Text

    table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in cells))


def _colored(status_word: str) -> Any:
    from rich.text import Text

    return Text(status_word, STYLES.get(status_word, ""))


def _head(document: dict[str, Any]) -> Any:
    table = _table(f"blobedge {document['version']}", "", "")
    _row(table, "health", _colored(document["health"]["status"]))
    _row(table, "state", f"{document['state']}, pid {document['pid']}, up {document['uptime_seconds']:.0f} s")
    _row(table, "configuration", document["config_file"] or "command line")
    for url in document["urls"]:
        _row(table, "serves", url)
    for report in document["reports"]:
        _row(table, report["kind"], _report(report))
    last = document["last_reload"]
    if last is not None:
        _row(table, "last reload", f"{last['number']}: {last['state']} {'; '.join(last['problems'])}")
    return table


def _report(report: dict[str, Any]) -> str:
    """One line of what the sidecar found (agent.doctor.cloud.report, agent.tuning.report)."""
    if "error" in report:
        return f"not known: {report['error']}"
    if report["kind"] == "cloud":
        if not report["configured"]:
            return "none configured"
        reached = f"reached in {report['rtt_milliseconds']} ms"
        return reached if report["reachable"] else f"not reached, {report['step']}: {report['reason']}"
    if report["kind"] == "tuning":
        drifted = len(report["drift"])
        return f"{report['profile']}, {drifted} settings drifted" if report["applied"] else "not applied"
    if report["kind"] == "offload":
        return _offload(report)
    return ""


def _offload(report: dict[str, Any]) -> str:
    """What is not in the cloud, since when, and what holds it (agent.offload.report)."""
    from agent.commands.queue_print import residency_lines
    from agent.offload.amounts import size_text, span_text

    if not report["configured"]:
        return "no rules"
    if not report.get("socket"):
        return str(report["state"])
    words = [report["state"], f"link {report['link']['state']}"]
    if report["unprotected_blobs"]:
        age = span_text(report["oldest_unprotected_seconds"])
        size = size_text(report["unprotected_bytes"])
        words.append(f"{report['unprotected_blobs']:,} blobs, {size}, not in the cloud, the oldest for {age}")
    else:
        words.append("all is in the cloud")
    held = sum(each["blobs"] for each in report["totals"] if each["hold"] in ("operator", "poison"))
    words += [f"{held:,} held: blobedge queue ls --hold operator,poison"] if held else []
    if report["drain_seconds"]:
        words.append(f"drained in about {span_text(report['drain_seconds'])}")
    return "\n".join([", ".join(words), *residency_lines(report)])


def _containers(document: dict[str, Any]) -> Any:
    """Where the bytes of each container are, the least protected first."""
    from agent.offload.amounts import size_text, span_text

    offload: dict[str, Any] = next((each for each in document["reports"] if each["kind"] == "offload"), {})
    table = _table("\nContainers", "container", "local", "queued", "copied", "remote", "oldest unprotected")
    for each in offload.get("containers", [])[:CONTAINERS_COUNT_MAX]:
        there = each.get("residency", {})
        sizes = [size_text(there[word]["bytes"]) if word in there else "-" for word in _RESIDENCIES]
        oldest = span_text(each["oldest_unprotected_seconds"]) if each["unprotected_blobs"] else "-"
        _row(table, f"{each['account']}/{each['container']}", *sizes, oldest)
    return table


def _processes(document: dict[str, Any]) -> Any:
    table = _table("\nProcesses", "process", "pid", "state", "starts", "up", "heartbeat", "memory", "last end")
    for each in document["processes"]:
        state = "draining" if each["draining"] else each["state"]
        name = f"{each['role']} {each['number']}"
        beat, up = _seconds(each["heartbeat_age_seconds"]), _seconds(each["uptime_seconds"])
        memory = "-" if each["memory_bytes"] is None else f"{each['memory_bytes'] >> 20} MiB"
        _row(table, name, each["pid"] or "-", state, each["starts_count"], up, beat, memory, each["last_exit"])
    return table


def _recycles(document: dict[str, Any]) -> Any:
    table = _table("\nRecycled, as they held too much memory", "process", "times", "failed", "the last")
    for each in document.get("recycles", []):
        _row(table, f"{each['role']} {each['number']}", each["done_count"], each["failed_count"], each["last"])
    return table


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _mounts(document: dict[str, Any]) -> Any:
    checks = {check["name"]: check for check in document["health"]["checks"]}
    table = _table("\nMounts", "mount", "path", "answers", "free", "capabilities")
    for each in document["mounts"]:
        name = f"{each['account']}/{each['container']}" if each["container"] else each["account"]
        free = checks.get(f"space:{name}", {}).get("details", {}).get("free_percent")
        answers = _colored(checks.get(f"mount:{name}", {}).get("status", "-"))
        words = [_capability(key.replace("_", " "), value) for key, value in each["capabilities"].items()]
        found = ", ".join(["read-only"] * each["read_only"] + [word for word in words if word])
        _row(table, name, each["path"], answers, "-" if free is None else f"{free:.1f} %", found)
    return table


def _capability(key: str, value: object) -> str:
    """What store.probe found, in words; "" for what there is nothing to say of."""
    if isinstance(value, bool):
        return key if value else f"no {key}"
    return f"{key} {value}" if value not in ("", None) else ""


def _traffic(document: dict[str, Any]) -> Any:
    table = _table("\nTraffic since the start", "", "")
    for name, value in document["counters"].items():
        if value:
            _row(table, name.replace("_", " "), f"{value:,}")
    return table


def _errors(document: dict[str, Any]) -> Any:
    table = _table("\nErrors answered", "", "", "")
    for each in document.get("errors", [])[:ERRORS_COUNT_MAX]:
        _row(table, each["status"], each["error_code"] or "-", f"{each['count']:,}")
    return table


def _bad(document: dict[str, Any]) -> Any:
    bad = [check for check in document["health"]["checks"] if check["status"] != "ok"]
    table = _table("\nNot well", "", "", "")
    for check in bad:
        _row(table, _colored(check["status"]), check["name"], check["reason"])
    return table
