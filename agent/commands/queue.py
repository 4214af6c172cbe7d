"""`blobedge queue`: what is on its way to the cloud, what keeps it, and what to do about it.

It asks the running service and opens no file of it. Exit codes: 0 done; 1 `drain` ended with blobs that are held; 2
nobody answers, or offload is off; 78 a mistake in the call.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final

import typer

from agent.commands import queue_print
from agent.commands.finding import Account, Admin, Container, Json, Prefix, TokenFile, running_queue
from agent.commands.terminal import counted, shown
from agent.offload.amounts import span_text
from agent.problems import OperatorError

EXIT_HELD: Final = 1
DRAIN_POLL_SECONDS: Final = 0.5
LIST_ROWS: Final = 50
_DOWN: Final = "the link to the cloud is down"
_OFFLINE: Final = "offline"
_TRIED_AGAIN: Final = ("now", "later", "mount", "bug")  # classes of failures that wait for their next try

Residencies = Annotated[
    str | None,
    typer.Option("--residency", metavar="A,B", help="local, queued, copied, remote, going."),
]
Holds = Annotated[str | None, typer.Option("--hold", metavar="A,B", help="waiting, operator, poison; or any.")]
FailureClass = Annotated[
    str | None,
    typer.Option(
        "--failure", metavar="CLASS", help="now, later, operator, poison, conflict, mount, fuse, held, bug, copy-lost."
    ),
]
All = Annotated[bool, typer.Option("--all", help="Without a filter: all of them.")]

queue = typer.Typer(
    help="See and steer what is on its way to the cloud.\n\nA blob is LOCAL (no rule sends it), QUEUED (this version "
    "is not in the cloud yet), COPIED (it is, verified), REMOTE (a stub here, its bytes are there), or GOING (deleted "
    "here, to be deleted there). What is queued may be held: WAITING for its time or its next try, OPERATOR until you "
    "mend what the text says and `retry`, POISON when it will not go as it is. `blobedge queue show` is where to "
    "begin; docs/offload/queue.md tells the rest.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(queue, name="queue")


@queue.command("ls")
def list_rows(
    account: Account = None,
    container: Container = None,
    prefix: Prefix = None,
    residency: Residencies = None,
    hold: Holds = None,
    failure: FailureClass = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many; 0: all.")] = LIST_ROWS,
    as_json: Json = False,
    admin: Admin = None,
    token_file: TokenFile = None,
) -> None:
    """List blobs; with --residency or --hold the longest unprotected first, else by name. --json: one object a line."""
    wanted = _filter(account, container, prefix, residency, hold, failure)
    with running_queue(admin, token_file) as found:
        rows = found.rows(wanted, limit)
        if as_json:
            for row in rows:
                print(json.dumps(row))
            return
        listed = list(rows)
    queue_print.print_rows(listed)
    if limit and len(listed) == limit:
        typer.echo(f"the first {limit}; --limit 0 lists all", err=True)


@queue.command()
def show(
    blob: Annotated[str | None, typer.Argument(metavar="[ACCOUNT/CONTAINER/NAME]", hidden=True)] = None,
    as_json: Json = False,
    admin: Admin = None,
    token_file: TokenFile = None,
) -> None:
    """Show how the whole queue is, or everything about one blob."""
    names = None if blob is None else _blob(blob)
    with running_queue(admin, token_file) as found:
        document = found.get("/queue/status") if names is None else found.get("/queue/blob", names)["row"]
    if document is None:
        raise OperatorError(f"{shown(blob or '')} is not in the queue: no rule sends it, or it was not found yet")
    if as_json:
        print(json.dumps(document, indent=1))
    elif blob is None:
        queue_print.print_summary(document)
    else:
        queue_print.print_blob(document)


@queue.command()
def retry(
    account: Account = None,
    container: Container = None,
    prefix: Prefix = None,
    hold: Holds = None,
    failure: FailureClass = None,
    everything: All = False,
    admin: Admin = None,
    token_file: TokenFile = None,
) -> None:
    """Try again now what is held, once the reason is mended. What waits for its rule's time (idle, age) is looked at,
    and goes on waiting."""
    wanted = _filter(account, container, prefix, None, hold, failure)
    _act("retry", wanted, everything, ("is tried again", "are tried again"), admin, token_file)


@queue.command()
def hold(
    account: Account = None,
    container: Container = None,
    prefix: Prefix = None,
    residency: Residencies = None,
    failure: FailureClass = None,
    everything: All = False,
    admin: Admin = None,
    token_file: TokenFile = None,
) -> None:
    """Keep back what is queued: it is not sent until `release`, also after a change or a restart. What is being sent
    right now may still arrive."""
    wanted = _filter(account, container, prefix, residency, None, failure)
    _act("hold", wanted, everything, ("is held", "are held"), admin, token_file)


@queue.command()
def release(
    account: Account = None,
    container: Container = None,
    prefix: Prefix = None,
    everything: All = False,
    admin: Admin = None,
    token_file: TokenFile = None,
) -> None:
    """Let go what `hold` keeps back."""
    wanted = _filter(account, container, prefix, None, None, None)
    _act("release", wanted, everything, ("goes on", "go on"), admin, token_file, {"failure": "held"})


@queue.command()
def drop(
    account: Account = None,
    container: Container = None,
    prefix: Prefix = None,
    residency: Residencies = None,
    hold: Holds = None,
    failure: FailureClass = None,
    everything: All = False,
    admin: Admin = None,
    token_file: TokenFile = None,
) -> None:
    """Forget what is queued: it is not sent until it changes, or the next look at everything finds it. No blob and no
    copy is deleted."""
    wanted = _filter(account, container, prefix, residency, hold, failure)
    _act("drop", wanted, everything, ("is forgotten", "are forgotten"), admin, token_file)


@queue.command()
def pause(admin: Admin = None, token_file: TokenFile = None) -> None:
    """Start no upload until `resume`, not even after a restart. Writes are taken as always."""
    with running_queue(admin, token_file) as found:
        found.post("/queue/pause")
    print("paused: `blobedge queue resume` goes on")


@queue.command()
def resume(
    confirm_deletes: Annotated[
        bool, typer.Option("--confirm-deletes", help="And delete in the cloud what the fuse has stopped.")
    ] = False,
    admin: Admin = None,
    token_file: TokenFile = None,
) -> None:
    """Go on after `pause`; with --confirm-deletes also after a mass delete that was meant."""
    with running_queue(admin, token_file) as found:
        found.post("/queue/resume", {"confirm_deletes": "1"} if confirm_deletes else {})
    print("resumed")


@queue.command()
def scan(admin: Admin = None, token_file: TokenFile = None) -> None:
    """Look at everything on the mounts now: finds what another program (`cp`, `rsync`) put there and the rules send.

    It starts the look and does not wait for its end; `blobedge queue show` says how far it is.
    """
    with running_queue(admin, token_file) as found:
        running = found.get("/queue/status")["scan"]["running"]
        found.post("/queue/scan")
    begins = "begins when the one that is under way is through" if running else "begins now"
    print(f"a look at everything {begins}: `blobedge queue show` says how far it is")


@queue.command()
def drain(
    seconds: Annotated[float | None, typer.Option("--timeout", min=0, metavar="SECONDS", help="Give up then.")] = None,
    as_json: Json = False,
    admin: Admin = None,
    token_file: TokenFile = None,
) -> None:
    """Wait until all that is due is in the cloud, with a progress bar; exit 1 when something is held or time is over.

    What waits for its rule's time (idle, age) is told and not hurried.
    """
    end = None if seconds is None else time.monotonic() + seconds
    offline = False
    with running_queue(admin, token_file) as found, _bar(as_json) as progress:
        while True:
            status = found.get("/queue/status")
            left = _left(status)
            progress(status, left)
            if status["state"] == "paused":
                raise OperatorError("the queue is paused: `blobedge queue resume` goes on")
            if not left or (end is not None and time.monotonic() >= end):
                break
            was, offline = offline, status["link"]["state"] == _OFFLINE
            if offline and not was:
                typer.echo(f"blobedge: {_DOWN}: waiting for it", err=True)
            time.sleep(DRAIN_POLL_SECONDS)
    held, later = _sum(status, *queue_print.HELD), _later(status)
    if as_json:
        print(json.dumps({"left": left, "held": held, "later": later, **status}, indent=1))
    else:
        print(_drained(left, held, later, offline=status["link"]["state"] == _OFFLINE))
    raise typer.Exit(EXIT_HELD if left or held else 0)


def _drained(left: int, held: int, later: int, *, offline: bool) -> str:
    """How `drain` ended: `drained` only when nothing is left that was due, and nothing is held."""
    if left:
        said = [queue_print.blobs(left, "is not sent yet", "are not sent yet") + (f": {_DOWN}" if offline else "")]
    else:
        said = [] if held else ["drained"]
    if held:
        said.append(f"{queue_print.blobs(held, 'is held', 'are held')}: blobedge queue ls --hold operator,poison")
    if later:
        said.append(queue_print.blobs(later, "waits for the time of a rule", "wait for the time of a rule"))
    return "; ".join(said)


def _left(status: dict[str, Any]) -> int:
    """Blobs that are due, under way, or wait for their next try."""
    going = sum(
        int(each["blobs"]) for each in status["totals"] if (each["residency"], each["hold"]) == ("going", "waiting")
    )
    return _sum(status, "") + max(going, min(_failing(status), _sum(status, "waiting")))


def _later(status: dict[str, Any]) -> int:
    """Blobs that wait for their rule's time."""
    return max(0, _sum(status, "waiting") - _failing(status))


def _failing(status: dict[str, Any]) -> int:
    """Blobs that wait for their next try."""
    return sum(int(status["failed_rows"].get(each, 0)) for each in _TRIED_AGAIN)


def _sum(status: dict[str, Any], *holds: str) -> int:
    """Blobs that are to be worked on, with these holds."""
    active = (each for each in status["totals"] if each["residency"] in ("queued", "going"))
    return sum(int(each["blobs"]) for each in active if each["hold"] in holds)


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[dict[str, Any], int], None]]:
    """A progress bar of bytes, with the blobs that are left and the forecast; nothing where nobody looks."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        first: int | None = None

        def told(status: dict[str, Any], left: int) -> None:
            nonlocal first
            first = status["sent_bytes"] if first is None else first
            done = max(0, status["sent_bytes"] - first)  # a sidecar that was replaced counts from 0
            forecast = status["drain_seconds"]
            words = f"{counted(left, 'blob')}, {status['link']['state']}" + (
                f", about {span_text(forecast)}" if forecast else ""
            )
            bar.update(task, completed=done, total=done + status["unprotected_bytes"], description=words)

        yield told


def _filter(
    account: str | None,
    container: str | None,
    prefix: str | None,
    residency: str | None,
    hold: str | None,
    failure: str | None,
) -> dict[str, str]:
    said = {
        "account": account, "container": container, "prefix": prefix, "residency": residency, "hold": hold,
        "failure": failure,
    }  # fmt: skip
    return {name: value for name, value in said.items() if value is not None}


def _act(
    act: str,
    wanted: dict[str, str],
    everything: bool,
    done: tuple[str, str],
    admin: str | None,
    token_file: str | None,
    also: dict[str, str] | None = None,
) -> None:
    """Do it to the rows. `also`: a filter that is always there, so that it does not stand for the operator's."""
    if not wanted and not everything:
        raise OperatorError(f"say which blobs to {act} (--container, --prefix, --hold, ...), or --all")
    with running_queue(admin, token_file) as found:
        count = found.act(act, {**wanted, **(also or {})}, lambda _: None)
    print(queue_print.blobs(count, *done))
    waits = {"waiting", "any"} & set(wanted.get("hold", "any").split(","))
    if act == "retry" and count and waits and "failure" not in wanted:
        print("what waits for its rule's time (idle, age) is looked at, and goes on waiting")


def _blob(text: str) -> dict[str, str]:
    account, _, rest = text.partition("/")
    container, _, name = rest.partition("/")
    if not account or not container or not name:
        raise OperatorError(f"{shown(text)!r}: write ACCOUNT/CONTAINER/NAME")
    return {"account": account, "container": container, "name": name}
