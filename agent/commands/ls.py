"""`blobedge ls`: what is on the mounts, and with -l where the bytes of each blob are.

Exit codes: 0 listed; 2 nobody answers, or offload is off; 78 a mistake in the call.
"""

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from agent.commands.finding import Admin, Json, Place, TokenFile, running_queue
from agent.commands.queue_print import when
from agent.commands.terminal import shown
from agent.offload.amounts import size_text

LIST_ENTRIES: Final = 1_000
_LONG: Final = "{:9} {:8} {:>10}  {:20}  {:20}  {}"
_SUMS: Final = "{:>11} {:>11} {:>11} {:>11}  {}"


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("ls")(list_blobs)


def list_blobs(
    place: Annotated[str, typer.Argument(metavar="ACCOUNT[/CONTAINER[/PREFIX]]", hidden=True)],  # as residency.Places
    long: Annotated[
        bool, typer.Option("--long", "-l", help="Where the bytes are, size, dates, since when unprotected, the copy.")
    ] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="All names, not only up to the next /.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many; 0: all.")] = LIST_ENTRIES,
    as_json: Json = False,
    admin: Admin = None,
    token_file: TokenFile = None,
) -> None:
    """List an account's containers, or blobs by name. --json: one object a line, with everything that -l shows.

    With -l a blob is `local` (no rule sends it), `queued` (not in the cloud yet), `copied` (here and there), `remote`
    (a stub here: a read brings it), or `lost` (a stub that does not say any more what it stands for).
    """
    where = Place.read(place)
    query = {**where.query, **({"recursive": "1"} if recursive else {})}
    with running_queue(admin, token_file) as found:
        entries = found.entries(query, limit)
        if as_json:
            for entry in entries:
                print(json.dumps(entry))
            return
        shown_count = _print(entries, long, where)
    if not shown_count:
        typer.echo("nothing there", err=True)
    if limit and shown_count == limit:
        typer.echo(f"the first {limit}; --limit 0 lists all", err=True)


def _print(entries: Iterator[dict[str, Any]], long: bool, where: Place) -> int:
    """A line for each as it comes, so that a large listing begins at once. Returns how many."""
    first = next(entries, None)
    if first is None:
        return 0
    line = _container_line if not where.container else _blob_line
    if long:
        head = ("local", "queued", "copied", "remote", "container") if not where.container else _HEAD
        print((_SUMS if not where.container else _LONG).format(*head))
    count = 0
    for count, entry in enumerate(itertools.chain([first], entries), 1):  # noqa: B007 the last count is the answer
        print(line(entry, long))
        if long and (why := _unprotected(entry)):
            print(f"    {why}")
    return count


_HEAD: Final = ("bytes are", "hold", "size", "Last-Modified", "last read", "blob")


def _container_line(entry: dict[str, Any], long: bool) -> str:
    name = shown(f"{entry['container']}/")
    if not long:
        return name
    return _SUMS.format(*(size_text(entry["bytes"][each]) for each in ("local", "queued", "copied", "remote")), name)


def _blob_line(entry: dict[str, Any], long: bool) -> str:
    if "prefix" in entry:
        return _LONG.format("", "", "", "", "", shown(entry["prefix"])) if long else shown(entry["prefix"])
    name = shown(entry["name"])
    if not long:
        return name
    modified = datetime.fromtimestamp(entry["modified"], UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    hold = entry["hold"] or ("pinned" if entry["pinned"] else "")
    return _LONG.format(entry["residency"], hold, size_text(entry["size"]), modified, when(entry["read_at"]), name)


def _unprotected(entry: dict[str, Any]) -> str:
    """What is below a blob: since when the cloud lacks it, where its copy is."""
    since = entry.get("unprotected_since", 0)
    said = [f"not in the cloud since {when(since)}"] if since else []
    said += [f"copy: {shown(entry['cloud'])}"] if entry.get("cloud") else []
    said += ["pinned"] if entry.get("pinned") and entry.get("hold") else []
    return "; ".join(said)
