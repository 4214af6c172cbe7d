"""`blobedge doctor`: exits 0 when all is well, 1 with warnings, 2 with problems, 78 without a configuration."""

import json
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agent.problems import OperatorError

if TYPE_CHECKING:
    from agent.doctor.findings import Finding

DEFAULT_CONFIG: Final = "/etc/blobedge/blobedge.toml"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    config: Annotated[str, typer.Option("--config", metavar="FILE", help="TOML configuration file.")] = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for scripts.")] = False,
) -> None:
    """Look for what is wrong with this node, and say what mends it.

    Mends nothing itself. Exits 0 when all is well, 1 with warnings, 2 with problems.
    """
    from rich.console import Console

    from agent.config_load import load
    from agent.doctor import checks, render
    from agent.doctor.findings import document, exit_code

    loaded = load(config, files=False)
    findings = [*_files(config), *checks.run(loaded)]
    if as_json:
        print(json.dumps(document(findings), indent=2))
    else:
        render.show(findings, Console())
    raise typer.Exit(exit_code(findings))


def _files(config: str) -> "list[Finding]":
    """What the configuration names and this machine has not; serve would refuse to start for these."""
    from agent.config_load import load
    from agent.doctor.checks import SECONDS_MAX
    from agent.doctor.deadline import call
    from agent.doctor.findings import Finding

    try:
        call(lambda: load(config), SECONDS_MAX)  # it looks at directories, which may hang
    except TimeoutError:
        mend = "a mount hangs: docs/runbooks/hung-mount.md"
        return [Finding("config", "problem", f"{config}: its directories give no answer in time", mend)]
    except OperatorError as error:
        mend = "correct it, then: blobedge config check " + config
        return [Finding("config", "problem", str(problem), mend) for problem in error.problems]
    return [Finding("config", "ok", f"{config}: no mistakes")]
