"""`blobedge evict | recall | prefetch | pin | unpin`: where the bytes of blobs are, as an operator wants it.

The sidecar does the work as a job, and this looks on: Ctrl-C stops the job, as does a reader of its output that goes
away, and what it did stays done. Exit codes: 0 all done; 1 some blobs were left as they are, with the reasons; 2 nobody
answers, or offload is off; 78 a mistake in the call; 130 stopped.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from agent.commands.finding import Admin, Json, Place, TokenFile, running_queue
from agent.commands.queue_print import blobs
from agent.commands.terminal import counted, shown
from agent.offload.amounts import size_text
from agent.problems import OperatorError

if TYPE_CHECKING:
    from agent.offload.client import QueueClient

EXIT_LEFT: Final = 1
#: What a place without any blob is answered with, on standard error.
NOTHING_THERE: Final = "nothing there"
EXIT_STOPPED: Final = 130  # 128 + SIGINT, as shells report it
POLL_SECONDS: Final = 0.5
BEGIN_SECONDS: Final = 1.0  # what `prefetch` looks on for: what nothing comes of is refused by then
BEGIN_POLL_SECONDS: Final = 0.1
LOOKED_ENTRIES: Final = 1_000
_RUNNING: Final = "running"
_OFFLINE: Final = "offline"  # of the link: a recall ends at once then (agent/offload/bringing.py)
_HERE: Final = ("is here again", "are here again")
#: Why nothing was done to blobs that are there, when all of them are so (agent/offload/listing.py).
_NOT_KNOWN: Final = {
    "local": "no rule sends it to the cloud",
    "queued": "the queue has not found it yet: `blobedge queue scan` has it look now",
}

#: The usage line has it; hidden from below, where Typer shows a Python type beside it.
Places = Annotated[list[str], typer.Argument(metavar="ACCOUNT/CONTAINER[/PREFIX]", hidden=True)]
Whole = Annotated[bool, typer.Option("--all", help="An ACCOUNT alone means all that it has.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (evict, recall, prefetch, pin, unpin):
        app.command()(command)


def evict(
    places: Places, everything: Whole = False, as_json: Json = False, admin: Admin = None, token_file: TokenFile = None
) -> None:
    """Free the disk of blobs that the cloud has.

    A stub stays in the place of each, and a read brings the bytes back. An empty blob has nothing to free. What the
    cloud lacks, is pinned, or is open for writing stays, and is counted with its reason.
    """
    _work("evict", ("is remote now", "are remote now"), _places(places, everything), as_json, admin, token_file)


def recall(
    places: Places, everything: Whole = False, as_json: Json = False, admin: Admin = None, token_file: TokenFile = None
) -> None:
    """Bring remote blobs back, and wait for them. It pins nothing: the rules may evict them again."""
    _work("recall", _HERE, _places(places, everything), as_json, admin, token_file)


def prefetch(
    places: Places,
    wait: Annotated[bool, typer.Option("--wait", help="Until all of them are here, as `recall` does.")] = False,
    everything: Whole = False,
    as_json: Json = False,
    admin: Admin = None,
    token_file: TokenFile = None,
) -> None:
    """Begin to bring remote blobs back.

    It looks on for a second, so that it can say what does not come. A restart of the sidecar ends the work.
    """
    wanted = _places(places, everything)
    if wait:
        _work("recall", _HERE, wanted, as_json, admin, token_file)
    with running_queue(admin, token_file) as found:
        empty = _look(found, wanted)
        if found.get("/queue/status")["link"]["state"] == _OFFLINE:
            typer.echo("blobedge: the link is down, so nothing is on its way: try again when it is back", err=True)
            raise typer.Exit(EXIT_LEFT)
        jobs = _begun(found, [found.post("/residency/recall", place.query) for place in wanted])
    if as_json:
        for job in jobs:
            print(json.dumps(job))
    else:
        for place, job in zip(wanted, jobs, strict=True):
            on_way = job["state"] == _RUNNING
            print(f"{_text(place)}: on its way; `blobedge ls -l` says what is here" if on_way else _sum([job], _HERE))
        _print_kept(jobs)
    _end(jobs, left=empty)


def pin(
    places: Places,
    bring: Annotated[bool, typer.Option("--recall", help="And bring back what is remote of them, and wait.")] = False,
    everything: Whole = False,
    as_json: Json = False,
    admin: Admin = None,
    token_file: TokenFile = None,
) -> None:
    """Never evict these blobs, until `unpin`. For those that come later, a rule has `pin = true`."""
    wanted = _places(places, everything)
    left = _pin("pin", ("is pinned", "are pinned"), wanted, as_json, admin, token_file)
    if bring:
        _work("recall", _HERE, wanted, as_json, admin, token_file, left=left)
    if left:
        raise typer.Exit(EXIT_LEFT)


def unpin(
    places: Places, everything: Whole = False, as_json: Json = False, admin: Admin = None, token_file: TokenFile = None
) -> None:
    """Take back `pin`: the rules decide what is evicted."""
    if _pin("unpin", ("is not pinned", "are not pinned"), _places(places, everything), as_json, admin, token_file):
        raise typer.Exit(EXIT_LEFT)


def _places(texts: list[str], everything: bool) -> list[Place]:
    places = [Place.read(text) for text in texts]
    for place in places:
        if not place.container and not everything:
            raise OperatorError(f"{shown(place.account)} is a whole account: say which container, or --all")
    return places


def _look(found: "QueueClient", places: list[Place]) -> bool:
    """Say which places have no blob, as a name that was mistyped would be done in silence otherwise. Returns whether
    there is one. Raises OperatorError for a container that is not there, before anything is done."""
    empty = [
        place
        for place in places
        if place.container and next(found.entries({**place.query, "recursive": "1"}, 1), None) is None
    ]
    for place in empty:
        typer.echo(f"blobedge: {_text(place)}: {NOTHING_THERE}", err=True)
    return bool(empty)


def _not_known(found: "QueueClient", place: Place) -> bool:
    """Nothing was done there: say why, if that is as the queue knows none of the blobs. Returns whether it is so."""
    if not place.container:
        return False
    states = {each["residency"] for each in found.entries({**place.query, "recursive": "1"}, LOOKED_ENTRIES)}
    if not states or not states <= set(_NOT_KNOWN):
        return False
    typer.echo(f"blobedge: {_text(place)}: {_NOT_KNOWN[max(states)]}", err=True)  # queued, if there is any
    return True


def _text(place: Place) -> str:
    return shown("/".join(each for each in place if each))


def _pin(
    act: str, done: tuple[str, str], places: list[Place], as_json: bool, admin: str | None, token_file: str | None
) -> bool:
    """Returns whether there was a place without blobs that can be pinned."""
    with running_queue(admin, token_file) as found:
        left = _look(found, places)
        count = 0
        for place in places:
            acted = found.act(act, place.query, lambda _: None)
            left |= not acted and _not_known(found, place)
            count += acted
    print(json.dumps({"blobs": count}) if as_json else blobs(count, *done))
    return left


def _work(
    word: str,
    done: tuple[str, str],
    places: list[Place],
    as_json: bool,
    admin: str | None,
    token_file: str | None,
    left: bool | None = None,
) -> None:
    """Have it done place after place, looking on. `left`: whether a place has no blobs; None: that is to be found out.
    Exits."""
    ended: list[dict[str, Any]] = []
    stopped = False
    with running_queue(admin, token_file) as found, _bar(as_json) as progress:
        left = _look(found, places) if left is None else left
        for place in places:
            job, stopped = _follow(found, word, place, progress)
            ended.append(job)
            if word == "evict" and not job["blobs"] and not job["kept"]:
                left |= _not_known(found, place)
            if stopped:
                break
    if not as_json:
        print(_sum(ended, done))
        _print_kept(ended)
    _end(ended, left=left, stopped=stopped)


def _end(jobs: list[dict[str, Any]], *, left: bool, stopped: bool = False) -> None:
    """Say what failed, and exit with the code that says how it went."""
    for job in jobs:
        if job["error"]:
            typer.echo(f"blobedge: {shown(job['error'])}: the log of the sidecar has more", err=True)
    left = left or any(job["kept"] or job["error"] for job in jobs)
    raise typer.Exit(EXIT_STOPPED if stopped else EXIT_LEFT if left else 0)


def _follow(
    found: "QueueClient", word: str, place: Place, progress: Callable[[dict[str, Any]], None]
) -> tuple[dict[str, Any], bool]:
    """Begin a job and look on to its end. Returns it, and whether it was interrupted. Raises OSError when nobody reads
    how far it is: the job is stopped then, too."""
    job = found.post(f"/residency/{word}", place.query)
    stopped = False
    while True:
        try:
            progress(job)
            if job["state"] != _RUNNING:
                return job, stopped
            time.sleep(POLL_SECONDS)
            job = found.get("/residency/job", {"id": job["id"]})
        except KeyboardInterrupt:
            if stopped:
                raise
            found.post("/residency/stop", {"id": job["id"]})
            stopped = True
        except OSError:
            found.post("/residency/stop", {"id": job["id"]})
            raise


def _begun(found: "QueueClient", jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The jobs as they are when they have run for a moment, or are through."""
    end = time.monotonic() + BEGIN_SECONDS
    while any(job["state"] == _RUNNING for job in jobs) and time.monotonic() < end:
        time.sleep(BEGIN_POLL_SECONDS)
        jobs = [found.get("/residency/job", {"id": job["id"]}) for job in jobs]
    return jobs


def _sum(jobs: list[dict[str, Any]], done: tuple[str, str]) -> str:
    """What was done."""
    return f"{blobs(sum(job['blobs'] for job in jobs), *done)}, {size_text(sum(job['bytes'] for job in jobs))}"


def _print_kept(jobs: list[dict[str, Any]]) -> None:
    """What was left as it is, by reason, with an example of each."""
    kept: dict[str, int] = {}
    examples: dict[str, str] = {}
    for job in jobs:
        for reason, count in job["kept"].items():
            kept[reason] = kept.get(reason, 0) + count
            examples.setdefault(reason, job["examples"][reason])
    for reason, count in sorted(kept.items(), key=lambda each: -each[1]):
        print(f"{count:>9,} left: {shown(reason)} (one is {shown(examples[reason])})")


@contextmanager
def _bar(as_json: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar of bytes for each place on a terminal; with --json a line whenever the job has got on."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(binary_units=True),
               TransferSpeedColumn())  # fmt: skip
    with Progress(*columns, console=console, disable=as_json or not console.is_terminal) as bar:
        tasks: dict[str, Any] = {}
        last: dict[str, Any] = {}

        def told(job: dict[str, Any]) -> None:
            nonlocal last
            if as_json:
                if job != last:
                    print(json.dumps(job), flush=True)
                last = job
                return
            if job["id"] not in tasks:
                tasks[job["id"]] = bar.add_task("", total=None)
            total = job["bytes_total"] if job["bytes_total"] or job["state"] == _RUNNING else job["bytes"]
            known = job["blobs_total"] is not None
            count = (
                f"{job['blobs']:,} of {counted(job['blobs_total'], 'blob')}" if known else counted(job["blobs"], "blob")
            )
            bar.update(
                tasks[job["id"]], completed=job["bytes"], total=total, description=f"{shown(job['what'])}: {count}"
            )

        yield told
