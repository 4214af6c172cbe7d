"""`blobedge policy`: what the rules of [offload] say of a blob, and of all that is on the mounts. Changes nothing.

It reads the configuration file and the mounts, not the service: so a rule can be tried before it is in force.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple
from urllib.parse import urlsplit

import typer

from agent.commands.terminal import shown
from agent.commands.tune import DEFAULT_CONFIG
from agent.problems import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import Account, Config
    from agent.config_offload import Offload
    from agent.offload.rules import Rules, Subject

ConfigFile = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help=f"TOML configuration file. Default: {DEFAULT_CONFIG}.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]
_SHAPE: Final = "write ACCOUNT/CONTAINER/NAME or its URL"

policy = typer.Typer(help="See what the offload rules say. Changes nothing.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(policy, name="policy")


class _Blob(NamedTuple):
    """A blob by its name."""

    account: str
    container: str
    name: str


@policy.command()
def explain(
    blob: Annotated[str, typer.Argument(metavar="BLOB", help="ACCOUNT/CONTAINER/NAME, or its URL at this node.")],
    config: ConfigFile = None,
    size: Annotated[
        str | None, typer.Option(metavar="SIZE", help='As if it had this size, like "64 MiB"; it need not be there.')
    ] = None,
    modified: Annotated[
        str | None, typer.Option(metavar="TIME", help="As if it was last changed then; ISO 8601, UTC if not said.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which rule a blob goes by and why not by another, when it is due, and where it goes."""
    from agent.commands import policy_show
    from agent.offload.rules import decide

    loaded, offload, rules = _loaded(config)
    now = time.time_ns()
    subject = _subject(loaded, _parsed(loaded, blob), size, modified, now)
    decision = decide(rules, subject, now)
    document = policy_show.document(loaded, offload, rules, subject, decision, now)
    print(json.dumps(document, indent=1) if as_json else "\n".join(policy_show.lines(document, offload.rules)))


@policy.command()
def simulate(
    prefix: Annotated[
        str, typer.Argument(metavar="[ACCOUNT[/CONTAINER[/PREFIX]]]", help="Which blobs. Without it: all.")
    ] = "",
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Count for each rule the blobs on the mounts that go by it, and those that are due now."""
    from agent.commands import policy_show
    from agent.offload.dryrun import tally

    loaded, offload, rules = _loaded(config)
    now = time.time_ns()
    with _counting() as counted, _reading():
        of_rules, unmatched = tally(rules, _subjects(loaded, prefix, now), now, counted)
    if as_json:
        print(json.dumps(policy_show.tallies(of_rules, unmatched), indent=1))
    else:
        policy_show.table(offload.rules, of_rules, unmatched)


def _loaded(path: str | None) -> tuple["Config", "Offload", "Rules"]:
    from agent.config_load import load
    from agent.offload.rules import Rules

    config = load(path or DEFAULT_CONFIG, files=False)
    if config.offload is None or not config.offload.rules:
        raise OperatorError(
            "there is no rule, so nothing goes to the cloud: add [[offload.rules]] to the configuration"
        )
    return config, config.offload, Rules(config.offload, [account.name for account in config.accounts])


def _parsed(config: "Config", text: str) -> _Blob:
    """The blob of an argument. Raises OperatorError."""
    if "://" in text:
        return _of_url(config, text)
    account, _, rest = text.partition("/")
    container, _, name = rest.partition("/")
    if not name:
        raise OperatorError(f"{shown(text)} names no blob: {_SHAPE}")
    return _Blob(_account(config, account).name, container, name)


def _of_url(config: "Config", url: str) -> _Blob:
    from dataplane.blobapi.errors import BlobError
    from dataplane.blobapi.uri import in_root_container, parse_resource

    parts = urlsplit(url)
    host = parts.hostname or ""
    names = {f"{each.name}.{suffix}": each.name for each in config.accounts for suffix in config.host_suffixes}
    names |= {name: each.name for each in config.accounts for name in each.host_names}
    try:
        resource = parse_resource(parts.path or "/", names.get(host))
    except BlobError:
        raise OperatorError(f"{shown(url)} names no blob: {_SHAPE}") from None
    if not resource.blob and resource.container:
        resource = in_root_container(resource)
    if not resource.blob:
        raise OperatorError(f"{shown(url)} names no blob: {_SHAPE}")
    return _Blob(_account(config, resource.account).name, resource.container, resource.blob)


def _account(config: "Config", name: str) -> "Account":
    found = next((each for each in config.accounts if each.name == name), None)
    if found is None:
        there = ", ".join(each.name for each in config.accounts)
        raise OperatorError(f"there is no account {shown(name)}: there is {there}")
    return found


def _subject(config: "Config", blob: _Blob, size: str | None, modified: str | None, now: int) -> "Subject":
    """The blob as it is on the mount, with what the flags say instead. Raises OperatorError."""
    from agent.offload import amounts
    from agent.offload.rules import Subject

    whole = size is not None and modified is not None  # nothing is left to be looked for
    found = None if whole else _on_mount(config, blob, now)
    if found is None and size is None:
        raise OperatorError(
            f"there is no blob {shown('/'.join(blob))}: to see what would happen to one, say --size, and --modified"
        )
    found = found or Subject(*blob, 0, now, now)
    try:
        if size is not None:
            found = found._replace(size=amounts.size(size))
        if modified is not None:
            moment = _moment(modified)
            found = found._replace(modified_ns=moment, noticed_ns=min(moment, now))
    except ValueError as error:
        raise OperatorError(str(error)) from None
    return found


def _on_mount(config: "Config", blob: _Blob, now: int) -> "Subject | None":
    from agent.offload.dryrun import find, subject_of

    with _reading():
        state = find(_account(config, blob.account), blob.container, blob.name)
    return None if state is None else subject_of(blob.account, blob.container, state, now)


def _moment(text: str) -> int:
    """Nanoseconds of an ISO 8601 time. Raises ValueError."""
    from agent.offload.amounts import NANOSECONDS

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time: write 2026-11-23T08:00, or with +01:00 behind it") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) * NANOSECONDS


def _subjects(config: "Config", prefix: str, now: int) -> "Iterator[Subject]":
    from agent.offload.dryrun import blobs, containers, subject_of

    wanted_account, _, rest = prefix.partition("/")
    wanted_container, _, beginning = rest.partition("/")
    accounts = [_account(config, wanted_account)] if wanted_account else config.accounts
    for account in accounts:
        for container in [wanted_container] if wanted_container else containers(account):
            for state in blobs(account, container, beginning):
                yield subject_of(account.name, container, state, now)


@contextmanager
def _reading() -> Iterator[None]:
    """A mount that cannot be read is the operator's: said in one line."""
    from dataplane.store.errors import StoreError

    try:
        yield
    except (OSError, StoreError) as error:
        place = getattr(error, "filename", None) or "a mount"
        raise OperatorError(f"cannot read {place}: {getattr(error, 'strerror', None) or error}") from None


@contextmanager
def _counting() -> "Iterator[Callable[[int], None]]":
    """Show on a terminal how many blobs were counted so far."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console

    with Console(stderr=True).status("counting") as shown:
        yield lambda count: shown.update(f"{count:,} blobs")
