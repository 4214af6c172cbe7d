"""`blobedge reconcile`: what the mounts, the queue and the cloud say otherwise than each other; mends and restores it.

It asks the running service, which does the work and goes on with it when this command is interrupted. Another one that
is under way, an operator's or the node's own, is waited for. Rejected: a refusal then (a node whose database is new has
one by itself, so the first command after a restore of the node would fail for no fault of the operator).

Exit codes: 0 nothing differs, or all that differed was mended; 1 differences are left, or part of it could not be
looked at; 2 nobody answers, or offload is off; 78 a mistake in the call; 130 interrupted.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from agent.commands.finding import Admin, Json, Place, TokenFile, running_queue
from agent.commands.terminal import counted, shown
from agent.problems import OperatorError

if TYPE_CHECKING:
    from agent.offload.client import QueueClient

EXIT_LEFT: Final = 1
POLL_SECONDS: Final = 0.2
ABSENT_SECONDS_MAX: Final = 15.0  # longer than the service takes to find what it was asked for
THE_CLOUD: Final = "the cloud"  # among what was not looked at, as agent/offload/reconcile/reconciler.py says it
EXAMPLES: Final = 5  # names below the table, of each word
_GOES_ON: Final = "the service goes on: the same command joins it again, --stop ends it"
_NOT_BEGUN: Final = "not begun; the one that is under way goes on"
_PHASES: Final = {
    "list": "lists the cloud",
    "mount": "compares the mounts",
    "cloud": "looks at what only the cloud has",
}
#: In the order of the table: word, what it means, what a repair does.
_WORDS: Final = (
    ("in-step", "here and in the cloud, and the queue knows it", ""),
    ("stays", "here; no rule sends it", ""),
    ("waiting", "to be sent or deleted, and the queue knows it", ""),
    ("unrecorded", "the cloud has it, and the queue did not know", "noted"),
    ("to-send", "not in the cloud, and the queue did not know", "queued"),
    ("missing", "the cloud lost the copy", "queued again"),
    ("other-content", "the cloud has something else there", "queued; the rule's conflict policy decides"),
    ("row-without-blob", "the queue knows it, and it is not here", "looked at, as after a delete"),
    ("lost-stub", "a stub that does not say any more what it stands for", "planted again"),
    ("stub-without-copy", "a stub, and its bytes are nowhere", "held for you"),
    ("copy-without-blob", "in the cloud only", "planted with --restore"),
    ("deleted-by-rule", "in the cloud only: its rule deletes it here", ""),
    ("older-copy", "in the cloud, of a blob that has moved on", ""),
    ("stranger", "in the cloud, of another node or program", ""),
    ("unplaced", "in the cloud, and no rule of today leads there", ""),
)


#: Told the one that is under way, why it does not go on, and whether it is another one, that is waited for.
_Progress = Callable[[dict[str, Any] | None, str, bool], None]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(reconcile)


def reconcile(
    place: Annotated[
        str | None, typer.Argument(metavar="[ACCOUNT[/CONTAINER]]", help="Only this; without it: everything.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what differs; else only tell it.")] = False,
    restore: Annotated[
        bool, typer.Option("--restore", help="Repair, and have all that only the cloud has here again, as stubs.")
    ] = False,
    node: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --restore: copies of that node; '*': of anybody.")
    ] = None,
    stop: Annotated[bool, typer.Option("--stop", help="End the one that is under way.")] = False,
    as_json: Json = False,
    admin: Admin = None,
    token_file: TokenFile = None,
) -> None:
    """Compare the mounts, the queue and the cloud, blob by blob.

    The cloud is listed, not asked for each blob. Nothing is sent or deleted by this command itself: what has to be sent
    is queued, and a stub is planted where the blob is only in the cloud. It may be interrupted: the service goes on,
    and the same command shows how far it is. docs/offload/reconcile.md explains the words.
    """
    if node is not None and not restore:
        raise OperatorError("--node goes with --restore")
    where = Place.read(place) if place else None
    if where is not None and where.prefix:
        raise OperatorError(f"{shown(place or '')!r}: write ACCOUNT or ACCOUNT/CONTAINER")
    with running_queue(admin, token_file) as found:
        if stop:
            running = found.get("/reconcile")["running"]
            found.post("/reconcile/stop")
            print("none is under way" if running is None else "it stops when the page that is under way is through")
            return
        wish = {**(where.query if where else {}), **({"nodes": node} if node else {})}
        wish |= {"repair": "1"} if repair or restore else {}
        wish |= {"restore": "1"} if restore else {}
        done = _carry_out(found, wish, as_json)
    if as_json:
        print(json.dumps(done, indent=1))
    else:
        _print(done)
    raise typer.Exit(EXIT_LEFT if done["left"] or done["failed"] else 0)


def _carry_out(found: "QueueClient", wish: dict[str, str], quiet: bool) -> dict[str, Any]:
    """Begin it, and look on until it is through. Raises OperatorError when it was stopped."""
    began: int | None = None
    try:
        with _progress(quiet) as progress:
            began = _begin(found, wish, progress)
            return _look_on(found, began, progress)
    except KeyboardInterrupt:
        typer.echo(_NOT_BEGUN if began is None else _GOES_ON, err=True)
        raise


def _begin(found: "QueueClient", wish: dict[str, str], progress: _Progress) -> int:
    """Begin it, or join the same; another one is waited for: a node has one by itself when its database is new, and
    nobody has to know of that. Returns which one it is."""
    while (began := found.post("/reconcile/begin", wish)["began"]) is None:
        now = found.get("/reconcile")
        progress(now["running"], now["problem"], True)
        time.sleep(POLL_SECONDS)
    return int(began)


def _look_on(found: "QueueClient", began: int, progress: _Progress) -> dict[str, Any]:
    """Until it is through. Raises OperatorError when it was stopped."""
    seen_at = time.monotonic()
    while True:
        now = found.get("/reconcile")
        if now["last"] is not None and now["last"]["began"] >= began:
            return dict(now["last"])
        running = now["running"]
        if running is not None and running["began"] > began:
            raise OperatorError("it was stopped, and another one begun")
        if running is not None:
            seen_at = time.monotonic()
        elif time.monotonic() - seen_at > ABSENT_SECONDS_MAX:
            raise OperatorError("it was stopped: nothing is under way")
        progress(running, now["problem"], False)
        time.sleep(POLL_SECONDS)


@contextmanager
def _progress(quiet: bool) -> Iterator[_Progress]:
    """A line that says how far it is; where nobody looks, only what keeps it from going on. How much there is, nobody
    knows before the end."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("begins", total=None)
        said: set[str] = set()

        def say(text: str) -> None:
            if text not in said and bar.disable:
                typer.echo(f"blobedge: {text}", err=True)
            said.add(text)

        def told(running: dict[str, Any] | None, problem: str, another: bool) -> None:
            words = _how_far(running) if running is not None else "begins"
            if another and running is not None:
                say(f"another reconciliation is under way (it {words}): this one begins after it, or after --stop")
                words = f"waits for another one, which {words}"
            if problem and running is not None:
                say(f"it waits, as {shown(problem)}; `blobedge reconcile --stop` ends it")
                words += f"; {shown(problem)}"
            bar.update(task, description=words)

        yield told


def _how_far(running: dict[str, Any]) -> str:
    at = shown("/".join(part for part in (running["account"], running["container"]) if part))
    does = f"{_PHASES[running['phase']]} {at}".rstrip()
    return f"{does}: {running['listed']:,} in the cloud, {running['blobs']:,} here"


def _print(done: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    mends = done["wish"]["repair"] or done["wish"]["restore"]
    table = Table(box=None, pad_edge=False)
    for column, justify in (("", "left"), ("blobs", "right"), ("what it means", "left")):
        table.add_column(column, justify="right" if justify == "right" else "left", overflow="fold")
    if mends:
        table.add_column("mended", justify="right")
        table.add_column("")
    for word, meaning, mending in _WORDS:
        count, mended = done["found"].get(word, 0), done["mended"].get(word, 0)
        if count:
            cells = [word, f"{count:,}", meaning, *([f"{mended:,}", mending] if mends and mending else [])]
            table.add_row(*(Text(cell) for cell in cells))
    Console().print(table)
    for word, names in done["examples"].items():
        if done["found"].get(word, 0) > done["mended"].get(word, 0):
            for name in names[:EXAMPLES]:
                print(f"{word}: {shown(name)}")
    refused = done["failed"].get(THE_CLOUD)
    mounts = {account: why for account, why in done["failed"].items() if account != THE_CLOUD}
    for note in (*done["notes"], *(f"{account} was not looked at: {why}" for account, why in mounts.items())):
        print(shown(note))
    if refused is not None:
        print(f"not compared{' to the end' if done['found'] else ''}: {shown(refused)}")
        return
    looked_at = f"{counted(done['blobs'], 'blob')} here, {done['listed']:,} in the cloud"
    print(f"{looked_at}: {_verdict(done, mends)}{_left_out(done)}")


def _verdict(done: dict[str, Any], mends: bool) -> str:
    if not done["left"]:
        away = done["found"].get("copy-without-blob", 0) if not done["wish"]["restore"] else 0
        more = f"; {away:,} in the cloud only: --restore plants stubs of them" if away else ""
        if done["failed"]:
            return "nothing differs in what was looked at" if done["found"] else "nothing was compared"
        return "nothing differs" + (" any more" if any(done["mended"].values()) else "") + more
    left = counted(done["left"], "difference")
    if not mends:
        return f"{left}: --repair mends what it can"
    return f"{left} {'is' if done['left'] == 1 else 'are'} left"


def _left_out(done: dict[str, Any]) -> str:
    """What a restore did not bring: a copy that others wrote and this node took over is among them."""
    count = done["found"].get("stranger", 0) if done["wish"]["restore"] else 0
    if not count:
        return ""
    were = "copy that this node did not write was" if count == 1 else "copies that this node did not write were"
    return f"; {count:,} {were} left out: --restore --node NAME brings those of a node, --restore --node '*' all"
