"""`blobedge ls | evict | recall | prefetch | pin | unpin` as an operator runs them, with Azurite as the cloud."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.cli import EXIT_NO_READER
from agent.commands.finding import EXIT_NOT_THERE
from agent.observability import client
from agent.offload.client import QueueClient
from agent.problems import EXIT_CONFIG
from tests.observability.service import CHECKOUT
from tests.offload.azurite import Exchange
from tests.offload.command_line import blobedge
from tests.offload.engine_support import SECONDS_MAX, Edge, away, back, edge, sas

MIB = 1 << 20
BLOBS = {"a/1": os.urandom(3 * MIB), "a/2": os.urandom(MIB), "b": b"small"}


def listed(node: Edge, place: str) -> dict[str, dict[str, Any]]:
    """What `blobedge ls -r --json` prints, by name."""
    ran = node.run("ls", "-r", "--json", place)
    assert ran.returncode == 0, ran.stderr
    return {entry["name"]: entry for entry in map(json.loads, ran.stdout.splitlines())}


def metrics(node: Edge) -> dict[str, float]:
    """What /metrics says, by name and labels."""
    connection = client.UnixConnection(node.service.admin.removeprefix("unix:"), SECONDS_MAX)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def until_copied(node: Edge, place: str) -> None:
    """Wait until all of a place is in the cloud."""
    end = time.monotonic() + SECONDS_MAX
    while {entry["residency"] for entry in listed(node, place).values()} != {"copied"}:
        assert time.monotonic() < end, listed(node, place)


def filled(node: Edge, name: str) -> None:
    blobs = node.container(name)
    for each, data in BLOBS.items():
        blobs.upload_blob(each, data)
    until_copied(node, f"acct/{name}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evict", "acct"], "is a whole account: say which container, or --all"),
        (["recall", "/c"], "write ACCOUNT, ACCOUNT/CONTAINER or ACCOUNT/CONTAINER/PREFIX"),
        (["pin"], "Missing argument"),
        (["ls", "--limit", "-1", "a"], "--limit"),
    ],
)
def test_a_mistake_in_the_call_is_told_in_a_line_and_exits_78(arguments: list[str], said: str) -> None:
    ran = blobedge(*arguments)
    assert ran.returncode == EXIT_CONFIG
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_without_a_service_it_says_so_and_exits_2(tmp_path: Path) -> None:
    for command in ("ls", "evict", "recall", "prefetch", "pin", "unpin"):
        ran = blobedge(command, "acct/c", "--admin", f"unix:{tmp_path}/none.sock")
        assert (ran.returncode, ran.stdout) == (EXIT_NOT_THERE, ""), ran.stderr


def test_blobs_go_to_the_cloud_and_come_back(node: Edge) -> None:
    filled(node, "goes")
    since = metrics(node)
    counts = node.report()
    local = node.local.get_container_client("goes")
    before = {each: local.get_blob_client(each).get_blob_properties() for each in BLOBS}
    assert node.run("pin", "acct/goes/b").stdout == "1 blob is pinned\n"
    ran = node.run("evict", "acct/goes")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert ran.stdout.splitlines() == [
        "2 blobs are remote now, 4.0 MiB", "        1 left: pinned (one is acct/goes/b)",
    ]  # fmt: skip
    assert node.run("evict", "acct/goes/a/").stdout == "0 blobs are remote now, 0 B\n"  # they are
    found = listed(node, "acct/goes")
    assert {each: entry["residency"] for each, entry in found.items()} == {
        "a/1": "remote", "a/2": "remote", "b": "copied",
    }  # fmt: skip
    assert (found["a/1"]["size"], found["a/1"]["cloud"], found["b"]["pinned"]) == (3 * MIB, "goes/a/1", True)
    assert (node.root / "goes" / "a" / "1").stat().st_size == 0
    assert "remote" in node.run("ls", "-l", "acct/goes/a/").stdout
    assert node.run("ls", "acct").stdout == "goes/\n"
    assert "4.0 MiB" in node.run("ls", "-l", "acct").stdout

    ran = node.run("recall", "--json", "acct/goes/a/1")
    assert ran.returncode == 0, ran.stderr
    last = json.loads(ran.stdout.splitlines()[-1])
    assert (last["state"], last["blobs"], last["bytes"], last["kept"]) == ("done", 1, 3 * MIB, {})
    assert listed(node, "acct/goes")["a/1"]["residency"] == "copied"
    assert node.run("prefetch", "--wait", "acct/goes").stdout == "1 blob is here again, 1.0 MiB\n"
    for each, data in BLOBS.items():
        assert (node.root / "goes" / each).read_bytes() == data
        after = local.get_blob_client(each).get_blob_properties()
        assert (after.etag, after.last_modified) == (before[each].etag, before[each].last_modified)
    assert node.run("recall", "acct/goes").stdout == "0 blobs are here again, 0 B\n"
    assert node.run("unpin", "acct/goes").stdout == "1 blob is not pinned\n"

    for command in ("evict", "recall", "pin"):  # a name that was mistyped is not done in silence
        ran = node.run(command, "acct/goes/mistyped")
        assert (ran.returncode, ran.stderr) == (1, "blobedge: acct/goes/mistyped: nothing there\n")
        ran = node.run(command, "acct/mistyped")
        assert (ran.returncode, ran.stdout) == (EXIT_CONFIG, ""), ran.stderr

    recalled, evicted = counts["recalls"]["arrived"] + 2, counts["eviction"]["evicted_blobs"] + 2
    node.until(lambda now: (now["recalls"]["arrived"], now["eviction"]["evicted_blobs"]) == (recalled, evicted))
    told = metrics(node)
    for name, more in ("blobedge_offload_recalled_blobs_total", 2), ("blobedge_offload_evicted_bytes_total", 4 * MIB):
        assert told[name] - since[name] == more
    assert told['blobedge_offload_disk_mode{mode="normal",of="acct"}'] in (0, 1)
    where = 'account="acct",container="goes",residency="copied"'
    assert told[f"blobedge_offload_container_blobs{{{where}}}"] == 3
    assert f"recalls: {recalled} blobs back, " in node.run("queue", "show").stdout


def test_an_empty_blob_keeps_no_eviction_from_being_done(node: Edge) -> None:
    node.container("empty").upload_blob("folder/none", b"")
    node.local.get_container_client("empty").upload_blob("folder/some", b"1")
    until_copied(node, "acct/empty")
    ran = node.run("evict", "acct/empty/folder/")
    assert (ran.returncode, ran.stdout) == (0, "1 blob is remote now, 1 B\n")


def test_a_blob_that_no_rule_sends_is_said_to_be_one(cloud_port: int, tmp_path: Path) -> None:
    with edge(cloud_port, tmp_path, '[[offload.rules]]\ncontainers = ["sent"]\nupload = "now"\n') as unruled:
        unruled.container("stays").upload_blob("mine", b"1")
        for command, counted in ("evict", "0 blobs are remote now, 0 B\n"), ("pin", "0 blobs are pinned\n"):
            ran = unruled.run(command, "acct/stays/mine")
            assert (ran.returncode, ran.stdout) == (1, counted)
            assert ran.stderr == "blobedge: acct/stays/mine: no rule sends it to the cloud\n"


def test_a_credential_that_has_expired_is_said_in_words(cloud_port: int, tmp_path: Path) -> None:
    with edge(cloud_port, tmp_path, sas=sas("rwdlct")) as node:
        filled(node, "expired")
        assert node.run("evict", "acct/expired/a/").returncode == 0
        node.credential.write_text(sas("rwdlct", hours=-1))
        expired = re.compile(r"left: (the cloud was not to be asked: )?devstoreaccount1: the SAS expired at 2\S+: put")
        for command, count in ("evict", 1), ("prefetch", 2), ("recall", 2):
            ran = node.run(command, "acct/expired")
            assert ran.returncode == 1
            (line,) = (line for line in ran.stdout.splitlines() if expired.search(line))
            assert line.strip().startswith(f"{count} left: ")


def test_what_the_cloud_lacks_stays_and_offline_nothing_comes(node: Edge) -> None:
    filled(node, "stays")
    assert node.run("evict", "acct/stays/a/1").returncode == 0
    node.proxy.fault = away
    blobs = node.local.get_container_client("stays")
    blobs.upload_blob("new", b"n")
    node.until(lambda report: report["link"]["state"] == "offline")
    ran = node.run("evict", "acct/stays")
    assert ran.returncode == 1
    assert "1 left: the cloud does not have it yet (one is acct/stays/new)" in ran.stdout
    assert "2 left: the link is down" in ran.stdout
    ran = node.run("recall", "acct/stays")
    assert ran.returncode == 1
    assert "0 blobs are here again, 0 B\n        1 left: the link is down (one is acct/stays/a/1)" in ran.stdout
    ran = node.run("prefetch", "acct/stays")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "blobedge: the link is down, so nothing is on its way: try again when it is back\n"
    ran = node.queue("drain", "--timeout", "1")
    assert (ran.returncode, ran.stdout) == (1, "1 blob is not sent yet: the link to the cloud is down\n")
    assert ran.stderr == "blobedge: the link to the cloud is down: waiting for it\n"
    entry = listed(node, "acct/stays")["new"]
    assert entry["residency"] == "queued"
    assert time.time() - entry["unprotected_since"] / 1e9 < 2 * SECONDS_MAX
    assert "not in the cloud since 2" in node.run("ls", "-l", "acct/stays").stdout
    node.proxy.fault = back
    node.until_in_cloud("stays", {**BLOBS, "new": b"n"})


@contextmanager
def recalling(
    node: Edge, name: str, *held: str
) -> Iterator[tuple[subprocess.Popen[str], str, dict[str, threading.Event]]]:
    """`recall --json` of a container, whose blobs come each when its event is set. With the number of its job, which
    runs. The probes of the link get through, so that it stays up however long this takes."""
    goes_on = {each: threading.Event() for each in held}

    def hold(exchange: Exchange) -> None:
        for each, event in goes_on.items():
            if exchange.method == "GET" and exchange.target.partition("?")[0].endswith(f"/{name}/{each}"):
                exchange.edit_answer = lambda answer, event=event: answer if event.wait(SECONDS_MAX) else b""

    node.proxy.fault = hold
    command = [sys.executable, "-m", "agent", "recall", "--json", f"acct/{name}", "--admin", node.service.admin]
    try:
        with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            job = json.loads(running.stdout.readline())
            assert job["state"] == "running"
            yield running, job["id"], goes_on
    finally:
        node.proxy.fault = back
        for event in goes_on.values():
            event.set()


def test_an_interrupt_stops_the_job_and_what_it_did_stays(node: Edge) -> None:
    filled(node, "stop")
    assert node.run("evict", "acct/stop").returncode == 0
    with recalling(node, "stop", *BLOBS) as (running, _, _):
        running.send_signal(signal.SIGINT)
        assert running.stdout is not None
        lines = running.stdout.read().splitlines()
        assert running.wait(SECONDS_MAX) == 130
    assert json.loads(lines[-1])["state"] == "stopped"
    assert node.run("recall", "acct/stop").returncode == 0
    assert {each["residency"] for each in listed(node, "acct/stop").values()} == {"copied"}


def test_a_reader_that_goes_away_stops_the_job_too(node: Edge) -> None:
    filled(node, "unread")
    assert node.run("evict", "acct/unread").returncode == 0
    with recalling(node, "unread", *BLOBS) as (running, job, goes_on):
        assert running.stdout is not None
        running.stdout.close()
        goes_on["b"].set()  # it has something to tell
        assert running.wait(SECONDS_MAX) == EXIT_NO_READER
        found = QueueClient.find(node.service.admin)
        end = time.monotonic() + SECONDS_MAX
        while (state := found.get("/residency/job", {"id": job})["state"]) == "running":
            assert time.monotonic() < end
        assert state == "stopped"
    assert listed(node, "acct/unread")["a/1"]["residency"] == "remote"
