"""The whole way: what is written here, through the endpoint or by another program, is in the cloud as it is here."""

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContentSettings

from agent.commands import status as status_command
from agent.observability import client
from agent.offload.cloud import Cloud
from agent.offload.source import source_of
from agent.offload.transport import Errand
from agent.offload.upload import Guard, upload
from dataplane.store.store import BlobRef, Store
from tests.offload import azurite
from tests.offload.azurite import Exchange
from tests.offload.engine_support import NOW, Edge, answer, away, back, edge, sas
from tests.offload.upload_support import To, settings


def test_a_blob_that_is_put_arrives_with_its_bytes_and_properties(node: Edge) -> None:
    blobs = node.container("put-arrives")
    settings = ContentSettings(content_type="text/plain", content_language="de", cache_control="no-cache")
    blobs.upload_blob("a/b.txt", b"first", metadata={"Line": "7"}, content_settings=settings, tags={"k": "v"})
    node.until_in_cloud("put-arrives", {"a/b.txt": b"first"})
    there = node.cloud.get_blob_client("put-arrives", "a/b.txt").get_blob_properties()
    assert there.content_settings.content_type == "text/plain"
    assert there.content_settings.content_language == "de"
    assert there.content_settings.cache_control == "no-cache"
    assert there.metadata["Line"] == "7"
    assert there.tag_count == 1
    assert there.metadata["blobedge_etag"] == blobs.get_blob_client("a/b.txt").get_blob_properties().etag.strip('"')


def test_the_sidecar_has_one_client_of_http_in_memory(node: Edge) -> None:
    (pid,) = node.service.pids("sidecar")
    loaded = Path(f"/proc/{pid}/maps").read_text()
    assert "_ssl" in loaded  # it lists libraries
    assert "/aiohttp/" not in loaded


def test_the_newest_of_many_versions_is_in_the_cloud(node: Edge) -> None:
    blobs = node.container("newest")
    for number in range(30):
        blobs.upload_blob("one", os.urandom(2000) + b"%d" % number, overwrite=True)
    node.until_in_cloud("newest", {"one": blobs.download_blob("one").readall()})


def test_what_another_program_writes_is_found_and_sent(cloud_port: int, tmp_path: Path) -> None:
    with edge(cloud_port, tmp_path, more="scan_seconds = 10\n") as node:
        node.container("by-cp")
        (node.root / "by-cp" / "sub").mkdir()
        (node.root / "by-cp" / "sub" / "file.bin").write_bytes(b"not by us")
        node.until_in_cloud("by-cp", {"sub/file.bin": b"not by us"})
        (node.root / "by-cp" / "sub" / "file.bin").write_bytes(b"changed in place")
        node.until_in_cloud("by-cp", {"sub/file.bin": b"changed in place"})


def test_a_sidecar_that_is_killed_while_it_sends_loses_nothing_and_repeats_no_block(
    cloud_port: int, tmp_path: Path
) -> None:
    large = os.urandom(40 << 20)
    with edge(cloud_port, tmp_path, more="bandwidth_mbits_max = 100\n") as node:
        blobs = node.container("killed")
        blobs.upload_blob("large", large, max_concurrency=1)
        for _ in range(2):
            before = node.proxy.body_bytes
            while node.proxy.body_bytes < before + (9 << 20):
                time.sleep(0.02)
            node.service.signal(signal.SIGKILL, "sidecar")
            blobs.upload_blob(f"small-{before}", b"while it is away")
        wanted = {blob: blobs.download_blob(blob).readall() for blob in blobs.list_blob_names()}
        assert len(wanted) == 3
        node.until_in_cloud("killed", wanted)
        assert node.proxy.body_bytes < 1.8 * len(large)  # four blocks of 4 MiB are under way when it is killed


def test_work_goes_on_within_five_seconds_when_the_cloud_is_back(node: Edge) -> None:
    blobs = node.container("away")
    node.proxy.fault = away
    for number in range(20):
        blobs.upload_blob(f"b{number}", b"%d" % number)
    node.until(lambda report: report["link"]["state"] == "offline")
    assert node.queue("drain", "--timeout", "0").returncode == 1
    node.proxy.fault = back
    healed = time.time()
    node.until_in_cloud("away", {f"b{number}": b"%d" % number for number in range(20)})
    first = min(row["copied_at"] for row in node.rows("--container", "away")) / 1e9
    assert first - healed < 5
    assert node.queue("drain").returncode == 0


def test_a_refused_credential_is_held_for_the_operator_who_mends_it(cloud_port: int, tmp_path: Path) -> None:
    with edge(cloud_port, tmp_path, sas=sas("rl")) as node:
        blobs = node.container("refused")
        blobs.upload_blob("one", b"1")
        node.until(lambda report: report["failed_rows"].get("operator"))
        (row,) = node.rows("--hold", "operator")
        assert "w (write)" in row["error"]
        assert "sig=" not in row["error"]
        ran = node.queue("drain")
        assert (ran.returncode, ran.stdout) == (1, "1 blob is held: blobedge queue ls --hold operator,poison\n")
        shown = node.queue("show").stdout
        assert "state        running, but all that is to go is held for you\n" in shown
        assert re.search(r"^last failure 20\d\d-\S+ \S+Z: ", shown, re.MULTILINE)
        node.credential.write_text(sas("rwdlct"))
        assert node.queue("retry", "--hold", "operator").returncode == 0
        node.until_in_cloud("refused", {"one": b"1"})


def test_a_poisoned_blob_does_not_hold_up_the_others(node: Edge) -> None:
    def poison(exchange: Exchange) -> None:
        if "/bad" in exchange.target and exchange.method == "PUT":
            exchange.answer = answer(400, "InvalidMetadata")

    blobs = node.container("poison")
    node.proxy.fault = poison
    for number in range(10):
        blobs.upload_blob(f"bad{number}", b"bad")
        blobs.upload_blob(f"good{number}", b"good")
    node.until(lambda report: report["failed_rows"].get("poison") == 10 and len(node.in_cloud("poison")) == 10)
    assert node.in_cloud("poison") == {f"good{number}": b"good" for number in range(10)}
    assert {row["name"] for row in node.rows("--hold", "poison")} == {f"bad{number}" for number in range(10)}
    assert node.queue("drop", "--hold", "poison").stdout == "10 blobs are forgotten\n"


def test_a_lost_and_a_damaged_database_are_made_again_without_sending_anything_twice(
    cloud_port: int, tmp_path: Path
) -> None:
    with edge(cloud_port, tmp_path) as node:
        blobs = node.container("rebuilt")
        wanted = {f"b{number}": os.urandom(100) for number in range(20)}
        for name, data in wanted.items():
            blobs.upload_blob(name, data)
        node.until_in_cloud("rebuilt", wanted)
        sent = node.proxy.count(r"^PUT .*rebuilt/b")
        etags = {blob.name: blob.etag for blob in node.cloud.get_container_client("rebuilt").list_blobs()}
        pid = node.service.signal(signal.SIGSTOP, "sidecar")
        (node.state / "queue.db").write_bytes(b"no database" * 1000)
        (node.state / "queue.db-wal").unlink(missing_ok=True)
        os.kill(pid, signal.SIGKILL)
        node.until(lambda report: list(node.state.glob("queue.db.damaged-*")) and sum_of(report, "queued") == 0)
        node.until(lambda report: report["scan"]["at"] and sum_of(report, "copied") == 20)
        assert {blob.name: blob.etag for blob in node.cloud.get_container_client("rebuilt").list_blobs()} == etags
        assert node.proxy.count(r"^PUT .*rebuilt/b") == sent


def sum_of(report: dict[str, Any], residency: str) -> int:
    return sum(each["blobs"] for each in report["totals"] if each["residency"] == residency)


@pytest.mark.parametrize("policy", ["edge-wins", "keep-both"])
def test_a_conflict_is_logged_and_counted(cloud_port: int, tmp_path: Path, policy: str) -> None:
    container = f"conflict-{policy}"
    with edge(cloud_port, tmp_path, f'{NOW}conflict = "{policy}"\n') as node:
        blobs = node.container(container)
        blobs.upload_blob("one", b"first")
        node.until_in_cloud(container, {"one": b"first"})
        theirs = node.cloud.get_blob_client(container, "one").upload_blob(b"theirs", overwrite=True)["etag"].strip('"')
        blobs.upload_blob("one", b"second", overwrite=True)
        report = node.until(lambda report: report["delivered_blobs"] == 2)
        assert report["conflicts"] == {policy: 1}
        (line,) = (line for line in node.service.log.read_text().splitlines() if "conflict, " in line)
        kept = [name for name in node.in_cloud(container) if name != "one"]
        assert f"{azurite.ACCOUNT}/{container}/" in line
        assert theirs in line
        assert all(name in line for name in (*kept, policy))
        assert len(kept) == (policy == "keep-both")


def test_a_copy_that_nobody_could_report_goes_with_its_blob(cloud_port: int, tmp_path: Path) -> None:
    """As after a SIGKILL between the commit in the cloud and the report: the row knows of no copy."""
    rules = '[[offload.rules]]\nupload = "idle"\nidle_seconds = 3600\ndelete = "propagate"\n'
    with edge(cloud_port, tmp_path, rules, 'node = "edge"\n') as node:
        blobs = node.container("unreported")
        blobs.upload_blob("one", b"1")
        blobs.upload_blob("theirs", b"2")
        node.until(lambda report: report["unprotected_blobs"] == 2)
        assert node.queue("retry", "--container", "unreported").returncode == 0
        node.until(lambda report: sum(each["bytes"] for each in report["totals"]) == 2)  # both were looked at
        store, ref = Store(str(node.root)), BlobRef("unreported", "one")
        opened = store.open_blob(ref)
        assert opened is not None
        cloud = Cloud(settings(cloud_port, tmp_path))
        upload(cloud, source_of(store, ref, opened), To("unreported", "one"), Guard(), Errand(), node="edge")
        opened.close()
        store.close()
        node.cloud.get_blob_client("unreported", "theirs").upload_blob(b"another's")
        for name in ("one", "theirs"):
            blobs.delete_blob(name)
        while node.rows():  # each retry is a look at once
            assert node.queue("retry", "--container", "unreported").returncode == 0
        assert node.in_cloud("unreported") == {"theirs": b"another's"}


def test_a_reload_hands_the_queue_over_and_new_rules_reach_what_was_kept(cloud_port: int, tmp_path: Path) -> None:
    with edge(cloud_port, tmp_path, NOW + 'prefix = "a/"\n') as node:
        blobs = node.container("reloaded")
        blobs.upload_blob("a/1", b"1")
        blobs.upload_blob("b/1", b"2")
        node.until_in_cloud("reloaded", {"a/1": b"1"})
        text = node.service.file.read_text()
        node.service.file.write_text(text.replace('prefix = "a/"\n', ""))
        node.service.signal(signal.SIGHUP)
        node.until_in_cloud("reloaded", {"a/1": b"1", "b/1": b"2"})
        blobs.upload_blob("c/1", b"3")
        node.until_in_cloud("reloaded", {"a/1": b"1", "b/1": b"2", "c/1": b"3"})
        status = client.get(node.service.admin, "/status")[1]
        assert status["last_reload"]["state"] == "done"
        assert "all is in the cloud" in str(status_command._report(node.report()))
