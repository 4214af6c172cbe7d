"""tools/bench: its parts against independent oracles, and one tiny run of the whole tool.

In the run blobedge must answer every case; which of the other servers are there is the machine's business,
and a missing one must be reported, not crash the tool.
"""

import datetime as dt
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tools"))

from benchlib.cases import GetSmall, Sample  # noqa: E402
from benchlib.proctree import tree_cpu_s, tree_pids  # noqa: E402
from benchlib.runner import CaseResult, PeerResult  # noqa: E402
from benchlib.sas import SIGNED_PROTOCOL, account_sas  # noqa: E402
from benchlib.wire import Connection, WireError, request_head  # noqa: E402

NEED_WRK = ("get-4k", "put-4k")
KEY = "c2VjcmV0IG9mIHRoZSBzbW9rZSB0ZXN0"
EXPIRY = dt.datetime(2031, 2, 3, 4, 5, 6, tzinfo=dt.UTC)


def query(token: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in token.split("&"))


def test_account_sas_is_signed_as_the_sdk_signs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = generate_account_sas(
        account_name="acct",
        account_key=KEY,
        resource_types=ResourceTypes(service=True, container=True, object=True),
        permission=AccountSasPermissions(read=True, write=True, delete=True, list=True, add=True, create=True),
        expiry=EXPIRY,
        protocol=SIGNED_PROTOCOL,
    )
    monkeypatch.setattr("benchlib.sas.SIGNED_VERSION", query(theirs)["sv"])
    assert query(account_sas("acct", KEY, EXPIRY)) == query(theirs)


@pytest.fixture
def answering() -> Iterator[tuple[int, list[bytes]]]:
    """A server on the loopback that answers each request head with the next of the given bytes."""
    answers: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for answer in answers:
                    while not connection.recv(65536).endswith(b"\r\n\r\n"):
                        pass
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], answers
        thread.join(10)


HEAD = request_head("GET", "/x", "h", {})


def test_wire_reads_lengths_and_chunks_and_drops_what_nobody_wants(
    answering: tuple[int, list[bytes]],
) -> None:
    port, answers = answering
    body = os.urandom(300_000)
    fixed = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + body
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for part in (body[:10], body[10:200_000], body[200_000:]):
        chunked += b"%x\r\n%b\r\n" % (len(part), part)
    chunked += b"0\r\n\r\n"
    answers += [fixed, fixed, chunked, chunked, b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\ncut"]
    with Connection("127.0.0.1", port) as connection:
        assert connection.exchange(HEAD, keep_body=True).body == body
        assert connection.exchange(HEAD).body_bytes == len(body)
        assert connection.exchange(HEAD, keep_body=True).body == body
        assert connection.exchange(HEAD).body_bytes == len(body)
        with pytest.raises(WireError):
            connection.exchange(HEAD)


def result_of(ours: list[float], theirs: list[float], failed: int = 0) -> CaseResult:
    def peer(rates: list[float], failed: int = 0) -> PeerResult:
        samples = [Sample(rate, 100, 1.0, failed) for rate in rates]
        return PeerResult(samples, [0.001] * len(rates))

    return CaseResult(GetSmall(), {"blobedge": peer(ours, failed), "azurite": peer(theirs)})


def test_verdicts_follow_the_median_and_failed_requests_spoil_them() -> None:
    passed = result_of([1, 10_000, 10_000], [1000, 1000, 999])
    assert (passed.ratio(), passed.verdict()) == (10.0, "PASS")
    assert passed.ratio_range() == (0.001, 10_000 / 999)
    assert passed.peers["azurite"].cpu_per_request_us() == pytest.approx(10)
    assert result_of([9_999], [1000]).verdict() == "MISS"
    assert result_of([10_000], [1000], failed=1).verdict() == "MISS"
    assert result_of([], [1000]).verdict() == "n/a"


def test_cpu_time_counts_the_whole_tree() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(1, flush=True); input()"
    parent = f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', {burn!r}]); sys.exit(c.wait())"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(tree_pids(process.pid)) == 2
        assert tree_cpu_s(process.pid) >= 0.3
        process.communicate(b"\n")


def test_a_tiny_run_reports_every_case_and_every_peer(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [str(REPOSITORY / "tools" / "bench"), "--rounds", "1", "--seconds", "0.2", "--scale", "0.01"]
    command += ["--connections", "4", "--root", str(tmp_path / "data"), "--json", str(report)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode in (0, 1, 3), run.stdout + run.stderr
    found = json.loads(report.read_text())
    names = [case["case"] for case in found["cases"]]
    assert names == ["get-4k", "get-256m", "put-4k", "blocks-512m", "list-5000"]
    for case in found["cases"]:
        assert case["verdict"] in ("PASS", "MISS", "n/a")
        for name, peer in case["peers"].items():
            assert peer["error"] or peer["median"] > 0, (case["case"], name)
            assert not any(sample["failed"] for sample in peer["samples"]), (case["case"], name)
        if case["case"] not in NEED_WRK or shutil.which("wrk"):
            assert case["peers"]["blobedge"]["error"] is None, case
    assert list((tmp_path / "data").iterdir()) == [], "data of a run must not stay behind"
