"""The command as an operator runs it: real workers, exit codes, what goes to which stream."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from agent.problems import EXIT_CONFIG
from agent.quickstart import ACCOUNT, KEY, account_sas, connection_string, prepare, welcome

CHECKOUT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 60.0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, timeout=SECONDS_MAX)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve"], "there is no account: add [[accounts]]"),
        (["serve", "--root", "/nonexistent/dir", "--account", ACCOUNT, "--key", KEY], "no directory /nonexistent/dir"),
        (["serve", "--root", "/", "--account", ACCOUNT, "--key", "%%"], "not base64"),
        (["serve", "--config", "/nonexistent.toml"], "cannot read the configuration"),
        (["serve", "--root", "", "--account", ACCOUNT, "--key", KEY], "'' is not an absolute path"),
        (["serve", "--root", "/", "--key", KEY], "name is missing (--account NAME)"),
        (["serve", "--workers", "many"], "--workers"),
        (["serve", "--frobnicate"], "--frobnicate"),
        (["config", "check", "/nonexistent.toml"], "cannot read the configuration"),
        (["quickstart", "--root", "/proc/none"], "cannot make the directory"),
    ],
)
def test_a_mistake_is_told_in_a_line_each_and_exits_78(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert done.returncode == EXIT_CONFIG, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert all(line.startswith("blobedge: ") for line in done.stderr.splitlines())


@pytest.mark.parametrize("arguments", [[], ["config"]])
def test_no_command_prints_the_help_and_nothing_else(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (EXIT_CONFIG, "")
    assert "Usage: blobedge" in done.stdout


def test_a_usage_error_names_the_help_of_its_command() -> None:
    assert run("serve", "--frobnicate").stderr.endswith("(blobedge serve --help)\n")


def test_config_check_exits_0_with_a_summary_or_78_with_places(tmp_path: Path) -> None:
    good = run("config", "check", "--no-files", "config/blobedge.toml")
    assert (good.returncode, good.stderr) == (0, "")
    assert "account plant7" in good.stdout
    path = tmp_path / "bad.toml"
    path.write_text("lisen = []\nworkers = 0\n")
    bad = run("config", "check", str(path))
    assert bad.returncode == EXIT_CONFIG
    assert [line.split(" ")[0] for line in bad.stderr.splitlines()] == [f"{path}:", f"{path}:1:", f"{path}:2:"]


def test_the_printed_example_is_the_sample() -> None:
    assert run("config", "example").stdout == (CHECKOUT / "config" / "blobedge.toml").read_text()


def test_version() -> None:
    assert run("version").stdout.startswith("blobedge ")
    assert run("--version").stdout == run("version").stdout


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """`blobedge serve` with two workers, two listeners and two accounts from a file; its ready URLs."""
    path = tmp_path / "blobedge.toml"
    accounts = ""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        accounts += f'[[accounts]]\nname = "{name}"\nroot = "{tmp_path / name}"\nkey1 = "{KEY}"\n'
    path.write_text(f'listen = ["http://127.0.0.1:0", "http://localhost:0"]\nworkers = 2\n{accounts}')
    command = [sys.executable, "-m", "agent", "serve", "--config", str(path)]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=CHECKOUT) as process,
    ):
        assert process.stdout is not None
        yield process, [process.stdout.readline() for _ in range(4)]
        process.kill()


def test_serve_says_a_ready_line_per_listener_and_account(
    serving: tuple[subprocess.Popen[str], list[str]], tmp_path: Path
) -> None:
    process, lines = serving
    shape = [re.sub(r":\d+/", ":PORT/", line) for line in lines]
    assert shape == [
        f"blobedge ready: http://{host}:PORT/{name}\n" for host in ("127.0.0.1", "localhost") for name in ("one", "two")
    ]
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS_MAX) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_port_that_is_taken_is_one_friendly_line(
    serving: tuple[subprocess.Popen[str], list[str]], tmp_path: Path
) -> None:
    port = re.findall(r":(\d+)/", serving[1][0])[0]
    done = run("quickstart", "--root", str(tmp_path / "q"), "--port", port)
    assert done.returncode == EXIT_CONFIG
    assert done.stderr.startswith(f"blobedge: cannot listen on http://127.0.0.1:{port}: port {port} is in use")
    assert done.stderr.count("\n") == 1


def test_what_quickstart_prints_works(tmp_path: Path) -> None:
    """The SAS in the AzCopy line lists the container that it names, and the connection string names this endpoint."""
    root = tmp_path / "data"
    command = [sys.executable, "-m", "agent", "quickstart", "--root", str(root), "--port", "0", "--workers", "1"]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=CHECKOUT) as process,
    ):
        assert process.stdout is not None
        text = _until_ready(process)
        (target,) = re.findall(
            r"'(http://127\.0\.0\.1:\d+/devstoreaccount1/quickstart/[^']+)' --from-to=LocalBlob", text
        )
        url, _, token = target.partition("/quickstart/README.md?")
        assert connection_string(url) in text
        assert "This key is public" in text
        with urlopen(f"{url}/quickstart?restype=container&comp=list&{token}", timeout=SECONDS_MAX) as answer:
            assert b"<EnumerationResults" in answer.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS_MAX) == 0
    assert (root / "quickstart").is_dir()
    assert "cannot create" not in (tmp_path / "log").read_text()


def _until_ready(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line.startswith("blobedge ready: "):
            return text
    raise AssertionError(f"ended early: {text}")


def test_the_quickstart_token_expires(tmp_path: Path) -> None:
    assert "se=1970-01-31T00%3A00%3A00Z" in account_sas(0)
    assert prepare(str(tmp_path / "new"), 1, None).flags.root == str(tmp_path / "new")


def test_on_the_usual_port_the_emulator_recipe_is_enough() -> None:
    assert '"UseDevelopmentStorage=true"' in welcome(f"http://127.0.0.1:10000/{ACCOUNT}", "sig=x", "/data")
    assert '"UseDevelopmentStorage=true"' not in welcome(f"http://127.0.0.1:10001/{ACCOUNT}", "sig=x", "/data")
