"""`blobedge tune` as a program, in namespaces of its own where it changes anything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from agent.commands.tune import register

CHECKOUT = Path(__file__).resolve().parent.parent.parent
NAMESPACE = ("unshare", "--net", "--mount")
PROGRAM = (
    sys.executable, "-c", "import sys; from agent.cli import main; main(sys.argv[1:])", "tune",
)  # fmt: skip


def run(*arguments: str, inside: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*inside, *PROGRAM, *arguments]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)


def test_it_registers_every_command() -> None:
    app = typer.Typer()
    register(app)
    (group,) = app.registered_groups
    assert group.typer_instance is not None
    commands = {command.callback.__name__ for command in group.typer_instance.registered_commands if command.callback}
    assert commands == {"observe", "plan", "apply", "verify", "rollback", "explain"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "blobedge.toml"
    file.write_text(
        'listen = ["http://127.0.0.1:10123"]\n'
        '[tune]\nprofile = "wan-azure"\nbandwidth_mbits = 1000\nrtt_milliseconds = 40\n'
        f'[[accounts]]\nname = "edge"\nroot = "{tmp_path}"\nkey1 = "{"A" * 86}=="\n'
    )
    return file


def test_plan_is_of_the_configured_profile_and_ports(config: Path) -> None:
    done = run("plan", "--json", "--config", str(config))
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["profile"] == "wan-azure"
    assert "1000 Mbit/s (given) x 40 ms (known)" in made["basis"]
    everything = {item["key"]: item for item in (*made["changes"], *made["skipped"])}
    assert "10123" in str(everything["net.ipv4.ip_local_reserved_ports"])


def test_tables_and_explanations_are_for_people(config: Path) -> None:
    shown = run("observe", "--config", str(config))
    assert shown.returncode == 0, shown.stderr
    assert "net.core.somaxconn" in shown.stdout
    explained = run("explain", "net.core.somaxconn", "--config", str(config))
    assert explained.returncode == 0, explained.stderr
    assert "virtual-network-optimize-network-bandwidth" in explained.stdout
    unknown = run("explain", "net.ipv4.tcp_mem", "--config", str(config))
    assert unknown.returncode == 78
    assert unknown.stderr == (
        "blobedge: blobedge never sets net.ipv4.tcp_mem; `blobedge tune explain` lists what it may set\n"
    )


def test_an_unknown_profile_is_refused(config: Path) -> None:
    done = run("plan", "--profile", "moon", "--config", str(config))
    assert (done.returncode, done.stderr.count("\n")) == (78, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a network namespace")
def test_apply_in_a_namespace_drifts_with_it_and_boot_mends_it(config: Path, tmp_path: Path) -> None:
    """Each run has a new namespace with the kernel's defaults, as each boot has: what was applied is gone there."""
    prefix = ("--prefix", str(tmp_path))
    applied = run("apply", "--json", "--config", str(config), *prefix, inside=NAMESPACE)
    assert applied.returncode == 0, applied.stderr
    assert "net.core.somaxconn" in applied.stdout
    drifted = run("verify", "--json", *prefix, inside=NAMESPACE)
    assert drifted.returncode == 1, drifted.stderr
    assert "net.core.somaxconn" in {item["key"] for item in json.loads(drifted.stdout)["drift"]}
    booted = run("apply", "--boot", *prefix, inside=NAMESPACE)
    assert (booted.returncode, booted.stderr) == (0, "")
    back = run("rollback", *prefix, inside=NAMESPACE)
    assert (back.returncode, back.stderr) == (0, "")
    nothing = run("verify", *prefix)
    assert (nothing.returncode, nothing.stdout) == (0, "nothing is applied\n")
