"""The command as an operator runs it, the reading of real certificates, and what never comes back."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.config import Tls
from agent.doctor import certificates, deadline, kernel, ports, stores, tcp
from agent.listen import Listen
from tests.doctor.cloudserver import SAS, SIGNATURE, certificate, serving

CHECKOUT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 60.0
KEY = "c2l4dGVlbiBieXRlcyBhdCBsZWFzdA=="


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = "import typer; from agent.commands import doctor; app = typer.Typer(); doctor.register(app); app()"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, timeout=SECONDS_MAX)


def written(directory: Path, more: str = "", port: int = 0) -> str:
    (directory / "root").mkdir()
    path = directory / "blobedge.toml"
    path.write_text(
        f'listen = ["http://127.0.0.1:{port}"]\n{more}\n'
        f'[[accounts]]\nname = "acc"\nroot = "{directory / "root"}"\nkey1 = "{KEY}"\nhost_names = ["localhost"]\n'
    )
    return str(path)


def test_json_tells_every_step_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "sas").write_text(SAS)
    with serving(status=403, code="AuthenticationFailed") as port:
        cloud = f'[cloud]\nendpoint = "http://127.0.0.1:{port}"\nsas_file = "{tmp_path / "sas"}"'
        done = run("--config", written(tmp_path, cloud), "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["status"]) == (2, "problem"), done.stderr
    by_check = {each["check"] for each in told["findings"]}
    assert {"config", "ports", "dns", "clock", "mounts", "store", "limits", "cloud", "idle", "snat", "tune"} <= by_check
    refused = [each for each in told["findings"] if each["check"] == "cloud" and each["status"] == "problem"]
    assert [each["what"].partition(":")[0] for each in refused] == ["authorisation"]
    assert all(each["mend"] for each in told["findings"] if each["status"] != "ok")
    assert SIGNATURE not in done.stdout + done.stderr
    assert KEY not in done.stdout + done.stderr


def test_lines_end_with_the_counts_and_the_exit_code_agrees(tmp_path: Path) -> None:
    done = run("--config", written(tmp_path))
    last = done.stdout.splitlines()[-1]
    counts = {word: int(number) for number, word in (part.split() for part in last.split(", "))}
    expected = 2 if counts["problem"] else 1 if counts["warning"] else 0
    assert done.returncode == expected, done.stdout + done.stderr
    assert "ports   http://127.0.0.1:0: free" in done.stdout


def test_what_the_configuration_names_and_is_not_there_is_a_finding(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "root").rmdir()
    done = run("--config", path, "--json")
    problems = [each for each in json.loads(done.stdout)["findings"] if each["status"] == "problem"]
    assert done.returncode == 2
    assert problems[0]["check"] == "config"
    assert "there is no directory" in problems[0]["what"]


def test_a_port_that_another_process_has(tmp_path: Path) -> None:
    program = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True);"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdin
        port = int(holder.stdout.readline())
        facts = ports.observe(Listen("http", "127.0.0.1", port), tcp.observe())
        holder.stdin.close()
    assert [each.pid for each in facts.holders if each] == [holder.pid]
    assert ports.judge(facts)[0].status == "problem"


def test_the_limits_of_a_process_are_read() -> None:
    facts = kernel.observe(os.getpid())
    assert facts.files_of == f"process {os.getpid()}"
    assert facts.files_max > 0


def test_a_probe_leaves_nothing_behind(tmp_path: Path) -> None:
    assert not stores.observe(str(tmp_path), writable=True).probed
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".blobedge" / "staging").mkdir(parents=True)
    assert stores.observe(str(tmp_path), writable=True).probed
    assert list((tmp_path / ".blobedge" / "staging").iterdir()) == []


def test_real_certificates_are_read(tmp_path: Path) -> None:
    one, other = (str(certificate(tmp_path, name)) for name in ("one.example", "other.example"))
    facts = certificates.observe(Tls(cert=one, key=one))
    assert facts.names == ("one.example",)
    assert (facts.self_signed, facts.broken_at, facts.key_error, facts.key_mode) == (True, -1, "", 0o600)
    assert certificates.observe(Tls(cert=one, key=other)).key_error == "KEY_VALUES_MISMATCH"
    both = tmp_path / "both.pem"
    both.write_bytes(Path(one).read_bytes() + Path(other).read_bytes())
    assert certificates.observe(Tls(cert=str(both), key=one)).broken_at == 0


def test_what_hangs_is_given_up_and_the_rest_is_told() -> None:
    never = threading.Event()
    found = deadline.call_all({"hangs": never.wait, "works": lambda: True, "fails": lambda: bool(1 // 0)}, 0.2)
    assert isinstance(found["hangs"], TimeoutError)
    assert found["works"] is True
    assert isinstance(found["fails"], ZeroDivisionError)
    never.set()
    with pytest.raises(ZeroDivisionError):
        deadline.call(lambda: 1 // 0, 1)
