"""The status document, the screen, and the two commands as a person or a script runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from agent.commands.status import _capability, _report, screen
from agent.observability.status import errors, traffic
from agent.supervision.snapshot import RecycleSnapshot
from dataplane.blobapi.operations import Operation
from dataplane.ipc import slots
from dataplane.ipc.series import RequestSeries, read_fds, series_key
from dataplane.ipc.slots import Counter, Slot
from tests.observability.support import FakeService, config, running

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = "import typer, agent.commands.{0} as c; a = typer.Typer(); a.callback()(lambda: None); c.register(a); a()"


async def run(name: str, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-c", PROGRAM.format(name), name, *arguments]
    return await trio.run_process(command, cwd=CHECKOUT, capture_stdout=True, capture_stderr=True, check=False)


def test_traffic_is_added_up_over_slots() -> None:
    fds = [slots.create("one"), slots.create("two")]
    for fd in fds:
        slot = Slot(fd)
        observe = RequestSeries(slot).observe
        observe(series_key(Operation.PUT_BLOB, 201), 1, 10, 0, 0, 0, 0)
        observe(series_key(Operation.GET_BLOB, 404, "BlobNotFound"), 1, 0, 3, 0, 0, 0)
        slot.add(Counter.COMMITS, 21)
    counted = traffic(read_fds(fds))
    assert (counted["requests"], counted["responses_2xx"], counted["responses_4xx"]) == (4, 2, 2)
    assert (counted["bytes_in"], counted["bytes_out"], counted["commits"]) == (20, 6, 42)
    for fd in fds:
        os.close(fd)


@pytest.mark.trio
async def test_status_and_health_commands(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/a.sock"
    service = FakeService(config(tmp_path, admin={"listen": [address]}))
    async with running(service):
        shown = await run("status", "--admin", address)
        assert shown.returncode == 0, shown.stderr
        for expected in (b"1.2.3", b"worker 0", b"[xattr]", b"http://127.0.0.1:10000/acct"):
            assert expected in shown.stdout
        document = json.loads((await run("status", "--admin", address, "--json")).stdout)
        assert document["document_version"] == 1
        assert document["processes"][0]["role"] == "worker"

        well = await run("health", "--admin", address)
        assert (well.returncode, well.stdout[:13]) == (0, b"BLOBEDGE OK -"), well
        service.change(recycles=(RecycleSnapshot("worker", 7, 3, 1, 0.0, "pid 1 held 2 MiB"),))
        shown = await run("status", "--admin", address)
        assert b"worker 7" in shown.stdout
        assert b"pid 1 held 2 MiB" in shown.stdout
        service.change(processes=())
        bad = await run("health", "--admin", address)
        assert bad.returncode == 2
        assert b"\nfailing: workers: no worker\n" in bad.stdout
        answer = await run("health", "--admin", address, "--json")
        assert (answer.returncode, json.loads(answer.stdout)["status"]) == (2, "failing")
    gone = await run("health", "--admin", address)
    assert (gone.returncode, gone.stdout[:17]) == (2, b"BLOBEDGE CRITICAL")
    assert (await run("status", "--admin", address)).returncode == 2


def test_the_screen_takes_no_text_for_markup() -> None:
    from rich.console import Console

    document = {
        "version": "1", "state": "ready", "pid": 1, "uptime_seconds": 1.0, "config_file": "[red]x[/nonsense]",
        "urls": [], "last_reload": None, "processes": [], "recycles": [], "mounts": [], "counters": {"requests": 1234},
        "errors": [{"status": 404, "error_code": "[blink]", "count": 7}], "reports": [],
        "health": {"status": "ok", "checks": []},
    }  # fmt: skip
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(screen(document))
    text = console.export_text()
    assert "[red]x[/nonsense]" in text
    assert "1,234" in text
    assert "[blink]" in text


@pytest.mark.parametrize(
    ("report", "line"),
    [
        ({"kind": "cloud", "configured": False}, "none configured"),
        ({"kind": "cloud", "configured": True, "reachable": True, "rtt_milliseconds": 3.5}, "reached in 3.5 ms"),
        (
            {"kind": "cloud", "configured": True, "reachable": False, "rtt_milliseconds": None, "step": "dns",
             "reason": "no"},
            "not reached, dns: no",
        ),
        ({"kind": "tuning", "applied": False, "profile": None, "drift": []}, "not applied"),
        ({"kind": "tuning", "applied": True, "profile": "lan", "drift": [{}]}, "lan, 1 settings drifted"),
        ({"kind": "tuning", "error": "OSError: no"}, "not known: OSError: no"),
    ],
)  # fmt: skip
def test_a_report_is_one_line(report: dict[str, Any], line: str) -> None:
    assert _report(report) == line


def test_an_offload_says_what_is_lacking_what_moved_and_why_nothing_may_leave_a_disk() -> None:
    from tests.observability.test_metrics import OFFLOAD

    lines = _report({**OFFLOAD, "kind": "offload", "unprotected_blobs": 2, "unprotected_bytes": 700,
                     "oldest_unprotected_seconds": 30.0}).splitlines()  # fmt: skip
    assert lines == [
        "paused, link offline, 2 blobs, 700 B, not in the cloud, the oldest for 30 s, 2 held: "
        "blobedge queue ls --hold operator,poison, drained in about 1.0 min",
        "recalls: 6 blobs back, 800 B, 3 readers now, 1 failed",
        "evicted: 5 blobs, 500 B",
        "deleted here by rules: 4 blobs",
        "disk of plant7, plant7/fast: low-space, 93.5 % of its space, 1.0 % of its inodes, nothing may leave it; "
        "12 stay: pinned",
    ]


def test_the_screen_shows_where_the_bytes_of_containers_are() -> None:
    from rich.console import Console

    from agent.commands.status import _containers
    from tests.observability.test_metrics import OFFLOAD

    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(_containers({"reports": [{**OFFLOAD, "kind": "offload"}]}))
    row = next(line for line in console.export_text().splitlines() if line.startswith("plant7/c"))
    assert row.split() == ["plant7/c", "-", "-", "-", "3.9", "KiB", "30", "s"]


def test_capabilities_in_words() -> None:
    assert [_capability(*each) for each in (("reflink", False), ("xattr", True), ("records", "xattr"), ("x", ""))] == [
        "no reflink", "xattr", "records xattr", "",
    ]  # fmt: skip


def test_errors_are_added_up_over_operations_and_callers() -> None:
    fd = slots.create("test")
    requests = RequestSeries(Slot(fd))
    for operation, auth, times in ((Operation.GET_BLOB, "SAS", 2), (Operation.PUT_BLOB, "AccountKey", 3)):
        for _ in range(times):
            requests.observe(series_key(operation, 404, "ContainerNotFound", auth), 1, 0, 0, 0, 0, 0)
    requests.observe(series_key(None, 400, "InvalidUri"), 1, 0, 0, 0, 0, 0)
    requests.observe(series_key(Operation.GET_BLOB, 200, "", "SAS"), 1, 0, 0, 0, 0, 0)
    assert errors(read_fds([fd])) == [
        {"status": 404, "error_code": "ContainerNotFound", "count": 5},
        {"status": 400, "error_code": "InvalidUri", "count": 1},
    ]
    os.close(fd)
