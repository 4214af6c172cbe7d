"""What the commands that ask the running service of its offload share: their options, and how they find it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from agent.commands.terminal import shown
from agent.problems import OperatorError

if TYPE_CHECKING:
    from agent.offload.client import QueueClient

EXIT_NOT_THERE: Final = 2  # no service answers, or its offload is off

Account = Annotated[str | None, typer.Option(metavar="NAME", help="Only this account.")]
Container = Annotated[str | None, typer.Option(metavar="NAME", help="Only this container.")]
Prefix = Annotated[str | None, typer.Option(metavar="TEXT", help="Only names that begin so.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]
Admin = Annotated[str | None, typer.Option(metavar="ADDR", help="unix:/PATH or http://HOST:PORT of the service.")]
TokenFile = Annotated[str | None, typer.Option(metavar="FILE", help="The token of an http address.")]


class Place(NamedTuple):
    """What an operator names: an account, a container of it, or names there that begin so."""

    account: str
    container: str = ""
    prefix: str = ""

    @classmethod
    def read(cls, text: str) -> "Place":
        """A place of ACCOUNT[/CONTAINER[/PREFIX]]. Raises OperatorError."""
        account, _, rest = text.partition("/")
        container, _, prefix = rest.partition("/")
        if not account or (prefix and not container):
            raise OperatorError(f"{shown(text)!r}: write ACCOUNT, ACCOUNT/CONTAINER or ACCOUNT/CONTAINER/PREFIX")
        return cls(account, container, prefix)

    @property
    def query(self) -> dict[str, str]:
        """The place as the socket takes it."""
        return {name: value for name, value in self._asdict().items() if value}


@contextmanager
def running_queue(admin: str | None, token_file: str | None) -> "Iterator[QueueClient]":
    """The queue of the running service; exits with EXIT_NOT_THERE when there is none. One that is being started is
    waited for, with a line for whoever looks on."""
    from agent.offload.client import NotThere, QueueClient

    def waits() -> None:
        if sys.stderr.isatty():
            typer.echo("blobedge: the sidecar is being started: waiting for it", err=True)

    try:
        yield QueueClient.find(admin, token_file, waits)
    except NotThere as error:
        typer.echo(f"blobedge: {error}", err=True)
        raise typer.Exit(EXIT_NOT_THERE) from None
