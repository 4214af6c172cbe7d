"""The `blobedge` command.

Standard output is for what scripts read (ready lines, answers), standard error for people. A mistake of the operator,
on the command line, in the configuration or on the machine, is one line each and exit code 78, never a traceback: a
traceback means a bug. Standard output that cannot be written (a full disk) is one line and exit code 74; of a reader
that went away nothing is said.

What a command needs it imports when it runs: the supervisor and the configuration's schema would be most of the time
that `blobedge queue ls` takes.
"""

import errno
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib import metadata
from typing import Annotated, Final, NoReturn, TextIO, cast

import typer

from agent.commands import doctor as doctor_command
from agent.commands import health as health_command
from agent.commands import ls as ls_command
from agent.commands import policy as policy_command
from agent.commands import queue as queue_command
from agent.commands import reconcile as reconcile_command
from agent.commands import residency as residency_command
from agent.commands import status as status_command
from agent.commands import tune as tune_command
from agent.output import Output
from agent.problems import EXIT_CONFIG, OperatorError, Problem

EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it
EXIT_OUTPUT: Final = 74  # EX_IOERR of sysexits.h
EXIT_NO_READER: Final = 1  # as Typer has it when a pipe has no reader any more

app = typer.Typer(
    help="A local Azure Blob Storage endpoint over plain files.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich joins no lines of a docstring, and shows `<bool>` beside each flag
)
config_app = typer.Typer(help="Check and show configuration files.", no_args_is_help=True)
app.add_typer(config_app, name="config")
doctor_command.register(app)
health_command.register(app)
ls_command.register(app)
policy_command.register(app)
queue_command.register(app)
reconcile_command.register(app)
residency_command.register(app)
status_command.register(app)
tune_command.register(app)

ConfigFile = Annotated[str | None, typer.Option("--config", metavar="FILE", help="TOML configuration file.")]
ConfigArgument = Annotated[str, typer.Argument(metavar="FILE", help="TOML configuration file.")]


@app.command()
def serve(
    config: ConfigFile = None,
    root: Annotated[str | None, typer.Option(metavar="DIR", help="Existing directory of the account's data.")] = None,
    listen: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="http:// or https://HOST:PORT; repeatable. Default: loopback, port 10000."),
    ] = None,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="The account that the flags are about.")] = None,
    key: Annotated[
        str | None, typer.Option(metavar="BASE64", help="Its key. Other users of this machine can see it in ps.")
    ] = None,
    key_file: Annotated[str | None, typer.Option(metavar="FILE", help="A file with its key.")] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Worker processes; one per core by default.")] = None,
    durability: Annotated[
        str | None,
        typer.Option(
            metavar="strict|relaxed",
            help="Is a write answered after (strict) or before the disk has it? Default: strict.",
        ),
    ] = None,
    records: Annotated[
        str | None, typer.Option(metavar="auto|xattr|sidecar", help="Where ETags and metadata are kept. Default: auto.")
    ] = None,
    tls_cert: Annotated[str | None, typer.Option(metavar="FILE", help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[str | None, typer.Option(metavar="FILE", help="Its private key, PEM.")] = None,
    access_log: Annotated[bool | None, typer.Option(help="One line of JSON on standard error per request.")] = None,
) -> None:
    """Serve blobs until SIGTERM. Flags override the configuration file.

    Without a file: blobedge serve --root DIR --account NAME --key-file FILE
    """
    from agent.flags import Flags
    from agent.serving import serve as serve_until_end

    flags = Flags(
        root=root,
        listen=listen or (),
        account=account,
        key=key,
        key_file=key_file,
        workers=workers,
        durability=durability,
        records=records,
        tls_cert=tls_cert,
        tls_key=tls_key,
        access_log=access_log,
    )
    raise typer.Exit(serve_until_end(config, flags))


@app.command("quickstart", hidden=True)
def quickstart_command(
    root: Annotated[str, typer.Option(metavar="DIR")],
    port: Annotated[int | None, typer.Option(metavar="PORT")] = None,
    workers: Annotated[int | None, typer.Option(metavar="N")] = None,
) -> None:
    """Serve the development account on the loopback and print how to use it (tools/quickstart)."""
    from agent import quickstart
    from agent.serving import serve as serve_until_end

    prepared = quickstart.prepare(root, quickstart.DEFAULT_PORT if port is None else port, workers)
    raise typer.Exit(serve_until_end(None, prepared.flags, prepared.announce))


def _version_asked(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


@app.callback()
def blobedge(
    _: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version_asked, help="Print the version and exit.")
    ] = False,
) -> None:
    """A local Azure Blob Storage endpoint over plain files."""


@app.command()
def version() -> None:
    """Print the version."""
    try:
        print(f"blobedge {metadata.version('blobedge')}")
    except metadata.PackageNotFoundError:
        print("blobedge from a checkout that is not installed")


@config_app.command()
def check(
    file: ConfigArgument,
    files: Annotated[
        bool, typer.Option(help="Look at the directories, certificates and key files that it names.")
    ] = True,
) -> None:
    """Report every mistake with its line; exit 0 when there is none, 78 otherwise."""
    from agent import config_show
    from agent.config_load import load

    print(config_show.summary(load(file, files=files)))


@config_app.command()
def show(file: ConfigArgument) -> None:
    """Print the whole configuration with every default, as TOML, without the account keys."""
    from agent import config_show
    from agent.config_load import load

    print(config_show.document(load(file, files=False)), end="")


@config_app.command()
def example() -> None:
    """Print a sample configuration that explains every key."""
    from agent import config_reference

    print(config_reference.example(), end="")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; exits with its code."""
    sys.exit(_exit_code(partial(app, arguments, prog_name="blobedge", standalone_mode=False)))


def _exit_code(command: Callable[[], object]) -> int:
    if not __debug__:
        return _complain("blobedge: python -O leaves out the checks that protect the data: run it without -O")
    output = Output(sys.stdout)
    try:
        with redirect_stdout(cast(TextIO, output)):
            code = command()
            output.flush()
        return code if isinstance(code, int) else 0
    except OperatorError as error:
        return _complain(*(_line(problem) for problem in error.problems))
    except typer.TyperException as error:  # a usage error: unknown flag, not a number
        return _complain(*_usage(error))
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except OSError as error:
        if error is not output.failed:
            raise
        return EXIT_NO_READER if error.errno == errno.EPIPE else _complain_of_output(error)
    finally:
        if output.failed is not None:
            output.drop()


def _complain_of_output(error: OSError) -> int:
    print(f"blobedge: standard output cannot be written: {error.strerror}", file=sys.stderr)
    return EXIT_OUTPUT


def _usage(error: typer.TyperException) -> list[str]:
    """The line for a usage error; none where the help is printed instead, for want of a command."""
    formatted = getattr(error, "format_message", None)
    message = str(formatted() if formatted is not None else error)
    if type(error).__name__ == "NoArgsIsHelpError":  # Typer has no public name for it
        print(message)
        return []
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "blobedge"
    return [f"blobedge: {message} ({command} --help)"] if message else []


def _line(problem: Problem) -> str:
    """`FILE:LINE: text` as compilers write it, so that editors jump there; anything else names this program."""
    in_file = problem.where and not problem.where.startswith("--")
    return str(problem) if in_file else f"blobedge: {problem}"


def _complain(*lines: str) -> int:
    for line in lines:
        print(line, file=sys.stderr)
    return EXIT_CONFIG
