"""`blobedge queue` as an operator runs it, on a node whose cloud is a real Azurite."""

import json
import os
import stat
from pathlib import Path

import pytest

from agent.problems import EXIT_CONFIG
from tests.observability.service import running
from tests.offload.azurite import Exchange
from tests.offload.command_line import blobedge
from tests.offload.engine_support import Edge, answer, away, back, edge

PROPAGATE = '[[offload.rules]]\nupload = "now"\ndelete = "propagate"\ndelete_fuse_percent = 50\n'


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["drop"], "say which blobs to drop"),
        (["retry"], "or --all"),
        (["show", "no-container"], "write ACCOUNT/CONTAINER/NAME"),
        (["ls", "--limit", "-1"], "--limit"),
        (["sell"], "sell"),
    ],
)
def test_a_mistake_in_the_call_is_told_in_a_line_and_exits_78(arguments: list[str], said: str) -> None:
    ran = blobedge("queue", *arguments)
    assert ran.returncode == EXIT_CONFIG
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_without_a_service_or_a_rule_it_says_so_and_exits_2(tmp_path: Path) -> None:
    ran = blobedge("queue", "ls", "--admin", f"unix:{tmp_path}/none.sock")
    assert (ran.returncode, ran.stdout) == (2, "")
    (tmp_path / "root").mkdir()
    with running(tmp_path, tmp_path / "root") as service:
        service.until_well()
        while "has not said anything" in (ran := blobedge("queue", "show", "--admin", service.admin)).stderr:
            pass
        assert ran.returncode == 2
        assert "offload is off" in ran.stderr


def test_listing_showing_pausing_and_draining(node: Edge) -> None:
    blobs = node.container("steered")
    assert node.queue("pause").returncode == 0
    for name in ("a/1", "a/2", "b/1"):
        blobs.upload_blob(name, name.encode() * 100)
    report = node.until(lambda report: report["unprotected_blobs"] == 3)
    assert report["state"] == "paused"
    assert stat.S_IMODE(os.stat(report["socket"]).st_mode) == 0o600
    assert [row["name"] for row in node.rows("--prefix", "a/")] == ["a/1", "a/2"]
    assert "steered/b/1" in node.queue("ls", "--residency", "queued").stdout.replace("\n", "")
    assert len(node.rows("--limit", "1")) == 1
    assert node.rows("--hold", "poison") == []
    assert "paused" in node.queue("show").stdout
    assert "queued" in node.queue("show", "acct/steered/a/1").stdout
    assert json.loads(node.queue("show", "--json", "acct/steered/a/1").stdout)["name"] == "a/1"
    assert node.queue("show", "acct/steered/none").returncode == EXIT_CONFIG
    assert "none of local" in node.queue("ls", "--residency", "lost").stderr
    mistaken = node.queue("ls", "--failure", "foo")
    assert mistaken.returncode == EXIT_CONFIG
    assert "'foo' is none of now, later, operator, poison, conflict, mount, fuse, held, bug" in mistaken.stderr
    assert node.queue("drain").stderr == "blobedge: the queue is paused: `blobedge queue resume` goes on\n"
    assert node.queue("hold", "--prefix", "a/2").stdout == "1 blob is held\n"
    assert [row["failure"] for row in node.rows("--hold", "operator")] == ["held"]
    assert node.queue("release", "--all").stdout == "1 blob goes on\n"
    assert node.queue("release").returncode == EXIT_CONFIG
    assert node.queue("drop", "--prefix", "b/").stdout == "1 blob is forgotten\n"
    assert node.queue("resume").returncode == 0
    drained = node.queue("drain")
    assert (drained.returncode, drained.stdout) == (0, "drained\n"), drained.stderr
    assert set(node.in_cloud("steered")) == {"a/1", "a/2"}
    assert {row["residency"] for row in node.rows()} == {"copied"}


def test_scan_finds_what_was_copied_onto_the_mount(node: Edge) -> None:
    node.container("copied")
    began = node.until(lambda report: report["scan"]["at"] and not report["scan"]["running"])["scan"]["at"]
    (node.root / "copied" / "one").write_bytes(b"1")
    ran = node.queue("scan")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "a look at everything begins" in ran.stdout
    node.until_in_cloud("copied", {"one": b"1"})
    node.until(lambda report: report["scan"]["at"] > began)
    assert "scan         looked at everything, begun 2" in node.queue("show").stdout


def test_a_pause_and_what_is_held_outlive_the_sidecar(node: Edge) -> None:
    def poison(exchange: Exchange) -> None:
        if exchange.method == "PUT":
            exchange.answer = answer(400, "InvalidMetadata")

    blobs = node.container("outlives")
    node.proxy.fault = poison
    blobs.upload_blob("bad", b"1")
    node.until(lambda report: report["failed_rows"].get("poison") == 1)
    node.proxy.fault = back
    assert node.queue("pause").returncode == 0
    pid = node.service.pids("sidecar")[0]
    os.kill(pid, 9)
    ran = node.queue("show")  # waits for the next sidecar
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "state        paused" in ran.stdout
    assert node.service.pids("sidecar") not in ([], [pid])
    assert node.queue("resume").returncode == 0
    assert node.rows("--hold", "any")[0]["failure"] == "poison"
    assert node.queue("retry", "--failure", "poison").stdout == "1 blob is tried again\n"
    node.until_in_cloud("outlives", {"bad": b"1"})


def test_deletes_are_propagated_and_a_mass_delete_waits_for_a_confirmation(cloud_port: int, tmp_path: Path) -> None:
    with edge(cloud_port, tmp_path, PROPAGATE) as node:
        few, many = node.container("deletes-few"), node.container("deletes-many")
        wanted = {f"b{number:02}": b"%d" % number for number in range(30)}
        for name, data in wanted.items():
            many.upload_blob(name, data)
        for name in ("goes", "stays", "stays-too"):
            few.upload_blob(name, b"1")
        node.until_in_cloud("deletes-many", wanted)
        few.delete_blob("goes")
        for name in list(wanted)[:20]:
            many.delete_blob(name)
        node.until_in_cloud("deletes-few", {"stays": b"1", "stays-too": b"1"})
        node.until(lambda report: report["failed_rows"].get("fuse") == 20)
        assert node.in_cloud("deletes-many") == wanted
        assert "were deleted at once" in node.rows("--failure", "fuse")[0]["error"]
        assert node.queue("resume", "--confirm-deletes").returncode == 0
        node.until_in_cloud("deletes-many", {name: wanted[name] for name in list(wanted)[20:]})


def look(node: Edge) -> None:
    """Have everything looked at."""
    at = node.report()["scan"]["at"]
    assert node.queue("scan").returncode == 0
    node.until(lambda report: report["scan"]["at"] > at)


def test_few_blobs_whose_directory_is_away_keep_their_copies_and_a_container_that_was_deleted_does_not(
    cloud_port: int, tmp_path: Path
) -> None:
    with edge(cloud_port, tmp_path, PROPAGATE) as node:
        kept = {f"b{number}": b"%d" % number for number in range(3)}
        for name in ("renamed", "covered", "emptied", "unwanted"):
            blobs = node.container(name)
            for blob, data in kept.items():
                blobs.upload_blob(blob, data)
            node.until_in_cloud(name, kept)
        look(node)
        look(node)  # that the containers were made was looked at between the two, and is no wish for what comes
        (node.root / "renamed").rename(tmp_path / "aside")
        (node.root / "covered").rename(tmp_path / "unmounted")
        (node.root / "covered").mkdir()
        for blob in kept:
            (node.root / "emptied" / blob).unlink()
        node.local.delete_container("unwanted")
        assert node.queue("scan").returncode == 0
        for name in ("emptied", "unwanted"):
            node.until_in_cloud(name, {})
        node.until(lambda report: report["failed_rows"].get("fuse") == 6)
        assert "bring it back" in node.rows("--container", "covered")[0]["error"]
        assert node.in_cloud("renamed") == node.in_cloud("covered") == kept
        (node.root / "covered").rmdir()
        (tmp_path / "unmounted").rename(node.root / "covered")
        assert node.queue("retry", "--failure", "fuse").returncode == 0
        node.until(lambda report: report["failed_rows"].get("fuse") == 3)
        assert {row["residency"] for row in node.rows("--container", "covered")} == {"copied"}
        assert node.queue("resume", "--confirm-deletes").returncode == 0
        node.until_in_cloud("renamed", {})
        assert node.in_cloud("covered") == kept


def test_drain_gives_up_when_its_time_is_over(cloud_port: int, tmp_path: Path) -> None:
    with edge(cloud_port, tmp_path) as node:
        node.proxy.fault = away
        node.container("no-time").upload_blob("one", b"1")
        node.until(lambda report: report["unprotected_blobs"] == 1)
        ran = node.queue("drain", "--timeout", "0.5", "--json")
        assert ran.returncode == 1, (ran.stdout, ran.stderr, node.report())
        assert json.loads(ran.stdout)["left"] == 1
