"""`blobedge health`: one line for a monitoring plug-in, one for each check that is not well, and an exit code.

    0   ok          1   degraded          2   failing, or nobody answers

These are the codes and the first line of the Monitoring Plugins guidelines (OK, WARNING, CRITICAL).
"""

from typing import Annotated, Any, Final

import typer

EXIT_CODES: Final = {"ok": 0, "degraded": 1, "failing": 2}
WORDS: Final = {"ok": "OK", "degraded": "WARNING", "failing": "CRITICAL"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(health)


def health(
    as_json: Annotated[bool, typer.Option("--json", help="The whole answer.")] = False,
    admin: Annotated[str | None, typer.Option(metavar="ADDR", help="unix:/PATH or http://HOST:PORT.")] = None,
    token_file: Annotated[str | None, typer.Option(metavar="FILE", help="The token of an http address.")] = None,
) -> None:
    """Say how the running service is.

    Exit codes: 0 ok, 1 degraded, 2 failing or not reachable.
    """
    import json

    from agent.observability import client

    try:
        _, answer = client.get(client.find(admin), "/health/ready", token_file)
    except client.Unreachable as error:
        answer = {"status": "failing", "ready": False, "checks": [_check("reachable", str(error))]}
    print(json.dumps(answer, indent=1) if as_json else "\n".join(lines(answer)))
    raise typer.Exit(EXIT_CODES[answer["status"]])


def lines(answer: dict[str, Any]) -> list[str]:
    """Return the lines for a person and a plug-in."""
    bad = [check for check in answer["checks"] if check["status"] != "ok"]
    said = "; ".join(check["reason"] for check in bad) or f"{len(answer['checks'])} checks are ok"
    first = f"BLOBEDGE {WORDS[answer['status']]} - {said}"
    return [first, *(f"{check['status']}: {check['name']}: {check['reason']}" for check in bad)]


def _check(name: str, reason: str) -> dict[str, Any]:
    return {"name": name, "status": "failing", "reason": reason, "details": {}}
