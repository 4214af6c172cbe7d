"""`blobedge tune`: see, plan, apply, check and undo kernel settings.

Exit codes: 0 done, or no drift; 1 `verify` found drift; 78 refused, with one line that says why. `observe`, `plan`,
`verify` and `explain` change nothing and need no privilege; `apply` and `rollback` need root.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from agent.problems import OperatorError

if TYPE_CHECKING:
    from agent.config import Cloud, Tune
    from agent.tuning.knobs import Roots
    from agent.tuning.observe import Observed
    from agent.tuning.planner import Options, Plan

EXIT_DRIFT: Final = 1
DEFAULT_CONFIG: Final = "/etc/blobedge/blobedge.toml"

ConfigFile = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help=f"TOML configuration file. Default: {DEFAULT_CONFIG}.")
]
Profile = Annotated[str | None, typer.Option(metavar="lan|wan-azure|vast-nfs", help="Instead of the configured one.")]
Rings = Annotated[bool, typer.Option("--rings", help="NIC rings too; many drivers interrupt the link for a moment.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]
Prefix = Annotated[str | None, typer.Option(metavar="DIR", hidden=True, help="Keep drop-in and record under DIR.")]

tune = typer.Typer(help="See, plan, apply, check and undo kernel settings.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(tune, name="tune")


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the configuration and the flags ask for."""

    tune: "Tune"
    cloud: "Cloud | None"
    ports: frozenset[int]


@tune.command()
def observe(config: ConfigFile = None, as_json: Json = False) -> None:
    """Show what a plan would be made from."""
    from agent.tuning import show

    observed = _observe(_wish(config, None))
    if as_json:
        _print({**asdict(observed), "read_only": sorted(observed.read_only), "conntrack": observed.conntrack})
    else:
        show.observed_tables(observed)


@tune.command()
def plan(config: ConfigFile = None, profile: Profile = None, rings: Rings = False, as_json: Json = False) -> None:
    """Show what `apply` would change, why, and what it leaves alone; changes nothing."""
    from agent.tuning import show

    made = _plan(_wish(config, profile), rings=rings)
    if as_json:
        _print(asdict(made))
    else:
        show.plan_tables(made, skipped=True)


@tune.command()
def apply(
    config: ConfigFile = None,
    profile: Profile = None,
    rings: Rings = False,
    boot: Annotated[bool, typer.Option("--boot", help="Set what was applied before; plans nothing anew.")] = False,
    as_json: Json = False,
    prefix: Prefix = None,
) -> None:
    """Make the plan true, now and at every boot; what fails undoes all of it."""
    from agent.tuning import apply as machine
    from agent.tuning import show

    if boot:
        for key in machine.apply_recorded(_roots(prefix)):
            print(f"blobedge: {key} is not there now; it was not set", file=sys.stderr)
        return
    made = _plan(_wish(config, profile), rings=rings)
    machine.apply(_roots(prefix), made)
    if as_json:
        _print(asdict(made))
    else:
        show.plan_tables(made, skipped=False)


@tune.command()
def verify(as_json: Json = False, prefix: Prefix = None) -> None:
    """Exit 0 if everything is as it was applied, 1 with a list if not."""
    from agent.tuning import apply as machine
    from agent.tuning import show
    from agent.tuning.report import report

    roots = _roots(prefix)
    found = report(roots)
    if as_json:
        _print(found)
    elif found["drift"]:
        show.drift_table([machine.Drift(**item) for item in found["drift"]])
    else:
        print("as applied" if found["applied"] else "nothing is applied")
    if found["drift"]:
        raise typer.Exit(EXIT_DRIFT)


@tune.command()
def rollback(prefix: Prefix = None) -> None:
    """Restore every value as it was before the first apply, and remove the drop-in."""
    from agent.tuning import apply as machine

    for key in machine.rollback(_roots(prefix)):
        print(f"blobedge: {key} is gone, or somebody else's by now; it was left", file=sys.stderr)


@tune.command()
def explain(
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="A key of a plan. Without it: all of them.")] = None,
    config: ConfigFile = None,
    profile: Profile = None,
) -> None:
    """Say what a setting is, where its value comes from, and what the plan does with it."""
    from agent.tuning import show
    from agent.tuning.planner import plan as decide
    from agent.tuning.settings import TABLE, setting_of

    if key is None:
        print("\n".join(row.key for row in TABLE))
        return
    row = setting_of(key)
    if row is None:
        raise OperatorError(f"blobedge never sets {key}; `blobedge tune explain` lists what it may set")
    wish = _wish(config, profile)
    observed = _observe(wish)
    made = decide(observed, _options(wish, rings=False))
    decisions = [f"{item.key}: {item.old or '(empty)'} -> {item.new}" for item in made.changes if _is(item.key, key)]
    decisions += [f"{item.key}: left, {item.why}" for item in made.skipped if _is(item.key, key)]
    show.setting_text(row, observed.values.get(key), "; ".join(decisions) or "no such device here")


def _is(key: str, asked: str) -> bool:
    return asked in (key, key.partition(":")[0])


def _wish(config: str | None, profile: str | None) -> _Wish:
    from agent.config import Tune
    from agent.config_load import load
    from agent.listen import parse_listen

    path = config or (DEFAULT_CONFIG if Path(DEFAULT_CONFIG).exists() else None)
    tuning, cloud, listens = Tune(), None, list[str]()
    if path is not None:
        loaded = load(path, files=False)
        tuning, cloud, listens = loaded.tune, loaded.cloud, [*loaded.listen, *_http(loaded.admin.listen or [])]
    if profile is not None:
        if profile not in ("lan", "wan-azure", "vast-nfs"):
            raise OperatorError(f"--profile: {profile!r} is none: write lan, wan-azure or vast-nfs")
        tuning = tuning.model_copy(update={"profile": profile})
    return _Wish(tuning, cloud, frozenset(parse_listen(text).port for text in listens) - {0})


def _http(listens: list[str]) -> list[str]:
    return [text for text in listens if not text.startswith("unix:")]


def _observe(wish: _Wish) -> "Observed":
    from agent.tuning import observe as machine
    from agent.tuning.knobs import Roots

    seconds = wish.tune.rtt_milliseconds / 1000 if wish.tune.rtt_milliseconds is not None else None
    if seconds is None and wish.cloud is not None:
        seconds = machine.measure_rtt(wish.cloud.endpoint)
    return machine.observe(Roots(), seconds)


def _options(wish: _Wish, *, rings: bool) -> "Options":
    from agent.tuning.planner import Options

    return Options(wish.tune.profile, wish.tune.bandwidth_mbits, wish.ports, rings)


def _plan(wish: _Wish, *, rings: bool) -> "Plan":
    from agent.tuning.planner import plan as decide

    return decide(_observe(wish), _options(wish, rings=rings))


def _roots(prefix: str | None) -> "Roots":
    from agent.tuning.knobs import Roots

    if prefix is None:
        return Roots()
    return Roots(etc=Path(prefix) / "etc", state=Path(prefix) / "var/lib/blobedge-tune")


def _print(value: Any) -> None:
    print(json.dumps(value, indent=1))
