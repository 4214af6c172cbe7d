"""Stubs that are moved on the mount while what the cloud has under their old name is to give way: no bytes are lost."""

import os
import signal
from pathlib import Path

from tests.offload.azurite import Exchange
from tests.offload.command_line import blobedge
from tests.offload.engine_support import NOW, Edge, answer, back, edge
from tests.offload.upload_support import eventually

PROPAGATE = NOW + 'delete = "propagate"\n'


def evict(node: Edge, container: str) -> None:
    """All of it, as an operator does."""
    eventually(lambda: {row["residency"] for row in node.rows("--container", container)} == {"copied"})
    ran = blobedge("evict", f"acct/{container}/", "--admin", node.service.admin)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert {row["residency"] for row in node.rows("--container", container)} == {"remote"}


def stubs(node: Edge, container: str, *names: str) -> dict[str, bytes]:
    """Blobs whose bytes are in the cloud only."""
    blobs, data = node.container(container), {name: os.urandom(1000) for name in names}
    for name, content in data.items():
        blobs.upload_blob(name, content)
    node.until_in_cloud(container, data)
    evict(node, container)
    return data


def kept(node: Edge, container: str) -> list[str]:
    """What was kept in the cloud beside something else."""
    return [name for name in node.in_cloud(container) if ".conflict-" in name]


def look(node: Edge) -> None:
    """Have everything looked at."""
    at = node.report()["scan"]["at"]
    assert node.queue("scan").returncode == 0
    node.until(lambda report: report["scan"]["at"] > at)


def settled(node: Edge) -> None:
    """Wait until the cloud has everything."""
    node.until(lambda report: not report["unprotected_blobs"] and not report["failed_rows"])


def test_a_new_version_of_its_old_name_leaves_a_moved_stub_its_bytes(node: Edge) -> None:
    """Sent before the look that finds the stub. A read finds them before that look as well as after it."""
    logs = stubs(node, "moved-put", "put", "cp")
    blobs, box = node.local.get_container_client("moved-put"), node.root / "moved-put"
    for name in logs:
        (box / name).rename(box / f"{name}.old")
    blobs.upload_blob("put", b"a new one")
    eventually(lambda: node.in_cloud("moved-put").get("put") == b"a new one")
    assert len(kept(node, "moved-put")) == 1
    assert blobs.download_blob("put.old").readall() == logs["put"]
    (box / "cp").write_bytes(b"another one")
    look(node)
    eventually(lambda: node.in_cloud("moved-put").get("cp") == b"another one")
    settled(node)
    assert {"put.old", "cp.old"} <= node.in_cloud("moved-put").keys()
    for name, data in logs.items():
        assert blobs.download_blob(f"{name}.old").readall() == data


def test_the_same_bytes_under_its_old_name_and_then_others(node: Edge) -> None:
    """What a restore of a file that was rotated away does: its copy serves both until the next version."""
    blobs, data = node.container("moved-same"), os.urandom(100_000)
    blobs.upload_blob("log", data)
    node.until_in_cloud("moved-same", {"log": data})
    evict(node, "moved-same")
    (node.root / "moved-same/log").rename(node.root / "moved-same/log.old")
    blobs.upload_blob("log", data)
    settled(node)
    blobs.upload_blob("log", b"new", overwrite=True)
    eventually(lambda: node.in_cloud("moved-same").get("log") == b"new")
    assert blobs.download_blob("log.old").readall() == data


def test_a_stub_that_is_moved_while_its_metadata_are_sent(node: Edge) -> None:
    (data,) = stubs(node, "moved-meta", "log").values()
    blobs, box = node.local.get_container_client("moved-meta"), node.root / "moved-meta"

    def move(exchange: Exchange) -> None:
        if exchange.method == "PUT" and "/moved-meta/log" in exchange.target and (box / "log").exists():
            (box / "log").rename(box / "log.old")

    node.proxy.fault = move
    blobs.get_blob_client("log").set_blob_metadata({"v": "2"})
    eventually((box / "log.old").exists)
    settled(node)
    node.proxy.fault = back
    blobs.upload_blob("log", b"new")
    eventually(lambda: node.in_cloud("moved-meta").get("log") == b"new")
    assert blobs.download_blob("log.old").readall() == data


def test_a_delete_of_its_old_name_leaves_a_moved_stub_its_bytes(cloud_port: int, tmp_path: Path) -> None:
    """It is away from the mount for as long as the delete takes."""
    with edge(cloud_port, tmp_path, PROPAGATE) as node:
        (data,) = stubs(node, "moved-away", "log").values()
        (node.root / "moved-away/log").rename(tmp_path / "log")
        look(node)
        eventually(lambda: "log" not in node.in_cloud("moved-away"))
        (tmp_path / "log").rename(node.root / "moved-away/log.old")
        look(node)
        eventually(lambda: node.in_cloud("moved-away").get("log.old") == data)
        settled(node)
        blobs = node.local.get_container_client("moved-away")
        assert blobs.download_blob("log.old").readall() == data


def test_a_directory_of_stubs_that_went_to_another_container(node: Edge) -> None:
    """They cannot get copies of their own; their rows are gone when new blobs come under the old names."""

    def no_copy(exchange: Exchange) -> None:
        if exchange.method == "PUT" and "/moved-there/" in exchange.target:
            exchange.answer = answer(400, "InvalidHeaderValue")

    node.container("moved-there")
    data = stubs(node, "moved-from", "d/1", "d/2")
    node.proxy.fault = no_copy
    (node.root / "moved-from/d").rename(node.root / "moved-there/d")
    look(node)
    eventually(lambda: not node.rows("--container", "moved-from"))
    blobs = node.local.get_container_client("moved-from")
    for name in data:
        blobs.upload_blob(name, b"new")
    eventually(lambda: [node.in_cloud("moved-from").get(name) for name in data] == [b"new", b"new"])
    node.until(lambda report: report["failed_rows"] == {"poison": len(data)})
    node.proxy.fault = back
    assert node.queue("retry", "--container", "moved-there").returncode == 0
    settled(node)
    assert node.in_cloud("moved-there") == data
    there = node.local.get_container_client("moved-there")
    assert {name: there.download_blob(name).readall() for name in data} == data


def test_a_kill_between_keeping_and_replacing_keeps_it_once(node: Edge, tmp_path: Path) -> None:
    def no_put(exchange: Exchange) -> None:
        if exchange.method == "PUT" and exchange.target.partition("?")[0].endswith("/log"):
            exchange.reset_after_body_bytes = 0

    (data,) = stubs(node, "moved-kill", "log").values()
    (node.root / "moved-kill/log").rename(tmp_path / "log")
    node.proxy.fault = no_put
    blobs = node.local.get_container_client("moved-kill")
    blobs.upload_blob("log", b"new")
    eventually(lambda: kept(node, "moved-kill") != [])
    node.service.signal(signal.SIGKILL, "sidecar")
    node.proxy.fault = back
    eventually(lambda: node.in_cloud("moved-kill").get("log") == b"new")
    settled(node)
    assert [node.in_cloud("moved-kill")[name] for name in kept(node, "moved-kill")] == [data]


def test_a_stub_that_is_moved_back_over_a_newer_version_finds_its_bytes(node: Edge, tmp_path: Path) -> None:
    (data,) = stubs(node, "moved-back", "log").values()
    box, blobs = node.root / "moved-back", node.local.get_container_client("moved-back")
    (box / "log").rename(tmp_path / "log")
    blobs.upload_blob("log", b"new")
    eventually(lambda: node.in_cloud("moved-back").get("log") == b"new")
    settled(node)
    (tmp_path / "log").rename(box / "log")
    look(node)
    settled(node)
    (row,) = node.rows("--container", "moved-back")
    assert (row["residency"], [row["cloud_name"]]) == ("remote", kept(node, "moved-back"))
    assert blobs.download_blob("log").readall() == data


def test_what_clients_replace_and_delete_is_not_kept(cloud_port: int, tmp_path: Path) -> None:
    """The endpoint has seen the stub go: there is none that anybody moved."""
    with edge(cloud_port, tmp_path, PROPAGATE) as node:
        stubs(node, "replaced", "put", "described", "deleted", "again")
        blobs = node.local.get_container_client("replaced")
        blobs.get_blob_client("described").set_blob_metadata({"v": "2"})
        blobs.upload_blob("put", b"new", overwrite=True)
        for name in ("deleted", "again"):
            blobs.delete_blob(name)
        blobs.upload_blob("again", b"new")
        eventually(lambda: "deleted" not in node.in_cloud("replaced"))
        settled(node)
        there = node.in_cloud("replaced")
        assert there.keys() == {"put", "described", "again"}
        assert (there["put"], there["again"]) == (b"new", b"new")


def test_stubs_that_were_moved_take_their_copies_along(cloud_port: int, tmp_path: Path) -> None:
    """Logs that another program rotates."""
    with edge(cloud_port, tmp_path, PROPAGATE) as node:
        logs = stubs(node, "moved", "log.1", "log.2", "log.3")
        blobs, box = node.local.get_container_client("moved"), node.root / "moved"
        for number in range(3, 0, -1):
            (box / f"log.{number}").rename(box / f"log.{number + 1}")
        look(node)
        blobs.upload_blob("log.1", b"a new one")
        eventually(lambda: node.in_cloud("moved").get("log.1") == b"a new one")
        settled(node)
        for number in range(1, 4):
            assert blobs.download_blob(f"log.{number + 1}").readall() == logs[f"log.{number}"]
