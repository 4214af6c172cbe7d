"""`blobedge reconcile` against a node that runs: what an operator sees, and a node that lost its database, or all of
its disk."""

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.commands import reconcile as command
from agent.commands.reconcile import THE_CLOUD
from agent.offload.client import QueueClient
from agent.offload.reconcile import reconciler
from tests.observability.service import CHECKOUT
from tests.offload.azurite import Exchange
from tests.offload.engine_support import SECONDS_MAX, Edge, edge
from tests.offload.reconcile_support import Asked

BLOBS = {"a": b"a" * 10, "b/c": b"c" * 3000, "empty": b""}


def reconcile(node: Edge, *arguments: str) -> subprocess.CompletedProcess[str]:
    return Asked(node.service.admin).run("reconcile", *arguments)


def document(node: Edge, *arguments: str) -> dict[str, Any]:
    return Asked(node.service.admin).document(*arguments)


@contextmanager
def begun(node: Edge, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command, while it runs."""
    command = [sys.executable, "-m", "agent", "reconcile", *arguments, "--admin", node.service.admin]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def test_what_differs_is_told_then_mended(cloud_port: int, tmp_path: Path) -> None:
    with edge(cloud_port, tmp_path) as node:
        container = node.container("told")
        for name, data in BLOBS.items():
            container.upload_blob(name, data)
        node.until_in_cloud("told", BLOBS)
        node.until(lambda report: report.get("reconcile"))  # that of the new database is through
        node.cloud.get_container_client("told").delete_blob("a")
        ran = reconcile(node, "acct/told")
        assert ran.returncode == 1
        assert "missing: acct/told/a" in ran.stdout
        assert "1 difference: --repair mends what it can" in ran.stdout
        assert document(node, "acct/told", "--repair")["mended"] == {"missing": 1}
        node.until_in_cloud("told", BLOBS)
        ran = reconcile(node)
        assert (ran.returncode, "nothing differs" in ran.stdout) == (0, True), ran.stdout
        assert reconcile(node, "nobody").returncode == 78
        assert reconcile(node, "--node", "x").returncode == 78
        assert reconcile(node, "acct/told/prefix").returncode == 78
        assert reconcile(node, "--stop").stdout == "none is under way\n"


def test_another_one_is_waited_for(cloud_port: int, tmp_path: Path) -> None:
    with edge(cloud_port, tmp_path) as node:
        node.container("waited").upload_blob("a", b"a")
        node.until_in_cloud("waited", {"a": b"a"})
        node.until(lambda report: report.get("reconcile"))
        goes_on = threading.Event()

        def held(_: Exchange) -> None:
            goes_on.wait(SECONDS_MAX)

        node.proxy.fault = held
        QueueClient.find(node.service.admin).post("/reconcile/begin", {"repair": "1"})
        with begun(node, "acct/waited") as patient, begun(node, "--json") as hasty:
            assert patient.stderr is not None
            assert hasty.stderr is not None
            try:
                for each in (patient, hasty):
                    assert each.stderr is not None
                    assert "another reconciliation is under way" in each.stderr.readline()
                hasty.send_signal(signal.SIGINT)
                assert "not begun; the one that is under way goes on" in hasty.stderr.read()
                assert hasty.wait(SECONDS_MAX) == 130
            finally:
                goes_on.set()
            said, _ = patient.communicate(timeout=SECONDS_MAX)
            assert (patient.returncode, "1 blob here" in said) == (0, True), said


def test_a_database_that_is_deleted_is_made_again_while_it_serves(cloud_port: int, tmp_path: Path) -> None:
    with edge(cloud_port, tmp_path) as node:
        container = node.container("deleted")
        for name, data in BLOBS.items():
            container.upload_blob(name, data)
        node.until_in_cloud("deleted", BLOBS)
        before = {row["name"]: (row["residency"], row["etag"], row["cloud_etag"]) for row in node.rows()}
        puts = node.proxy.count("^PUT")
        made = node.until(lambda report: report["scan"]["at"])["scan"]["at"]
        for file in node.state.glob("queue.db*"):
            file.unlink()
        node.service.signal(signal.SIGKILL, "sidecar")
        assert container.download_blob("a").readall() == BLOBS["a"]  # meanwhile
        node.until(lambda report: report["scan"]["at"] > made)
        assert node.service.log.read_text().count("queue.db was not there") == 1  # and not when the node was new
        after = {row["name"]: (row["residency"], row["etag"], row["cloud_etag"]) for row in node.rows()}
        assert after == before
        assert node.proxy.count("^PUT") == puts
        assert document(node, "acct/deleted")["found"] == {"in-step": len(BLOBS)}  # other tests left blobs in the cloud


def test_a_node_that_is_built_again_from_nothing_reads_all_that_it_had(cloud_port: int, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    more = 'node = "edge-1"\n'
    with edge(cloud_port, first, more=more) as node:
        container = node.container("rebuilt")
        for name, data in BLOBS.items():
            container.upload_blob(name, data, metadata={"Name": name.replace("/", "-")}, tags={"k": name[0]})
        node.until_in_cloud("rebuilt", BLOBS)
        properties = {name: told(container.get_blob_client(name).get_blob_properties()) for name in BLOBS}
    shutil.rmtree(first)
    with edge(cloud_port, second, more=more) as node:
        found = document(node)
        assert found["found"]["copy-without-blob"] >= len(BLOBS)
        restored = document(node, "acct/rebuilt", "--restore")
        assert restored["mended"] == {"copy-without-blob": len(BLOBS)}
        container = node.local.get_container_client("rebuilt")
        assert sorted(container.list_blob_names()) == sorted(BLOBS)
        for name, data in BLOBS.items():
            client = container.get_blob_client(name)
            assert told(client.get_blob_properties()) == properties[name]
            assert client.get_blob_tags() == {"k": name[0]}
            assert client.download_blob().readall() == data
        assert document(node, "acct/rebuilt")["left"] == 0


def told(properties: Any) -> tuple[Any, ...]:
    """What a client sees of a blob, but for what no node keeps."""
    return (
        properties.etag, properties.last_modified, properties.size, properties.metadata,
        properties.content_settings, properties.tag_count, properties.blob_tier,
    )  # fmt: skip


def outcome(**more: Any) -> dict[str, Any]:
    """What the service says of a reconciliation that found nothing."""
    wish = {"repair": False, "restore": False}
    return {
        "wish": wish, "found": {}, "mended": {}, "examples": {}, "notes": [], "failed": {}, "left": 0, "blobs": 0,
        "listed": 0, **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("done", "last"),
    [
        (outcome(found={"in-step": 2}, blobs=2, listed=2), "2 blobs here, 2 in the cloud: nothing differs"),
        (outcome(failed={THE_CLOUD: "the SAS expired"}), "not compared: the SAS expired"),
        (
            outcome(failed={THE_CLOUD: "the SAS expired"}, found={"in-step": 1}),
            "not compared to the end: the SAS expired",
        ),
        (outcome(failed={"acct": "OSError: 5"}), "0 blobs here, 0 in the cloud: nothing was compared"),
        (
            outcome(wish={"repair": True, "restore": True}, found={"stranger": 1, "copy-without-blob": 2},
                    mended={"copy-without-blob": 2}, listed=3),
            "0 blobs here, 3 in the cloud: nothing differs any more; 1 copy that this node did not write was left out: "
            "--restore --node NAME brings those of a node, --restore --node '*' all",
        ),
        (outcome(found={"stranger": 1}, listed=1), "0 blobs here, 1 in the cloud: nothing differs"),
    ],
)  # fmt: skip
def test_the_last_line_says_what_is_known(done: dict[str, Any], last: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert THE_CLOUD == reconciler.THE_CLOUD
    command._print(done)
    assert capsys.readouterr().out.splitlines()[-1] == last
