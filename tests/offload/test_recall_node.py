"""Stubs read through a whole node: its endpoint, its workers, its sidecar, which may be killed."""

import contextlib
import os
import signal
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobServiceClient, ContainerClient

from tests.observability.support import KEY
from tests.offload.azurite import Exchange
from tests.offload.engine_support import Edge, away, back
from tests.offload.upload_support import DEADLINE_SECONDS, MIB, eventually

DATA: Final = os.urandom(6 * MIB + 1)


def evicted(node: Edge, name: str) -> ContainerClient:
    """Upload DATA through the endpoint, into a container of the same name, and replace it by a stub once it is in the
    cloud."""
    blobs = node.container(name)
    blobs.upload_blob(name, DATA)
    node.until_in_cloud(name, {name: DATA})
    ran = node.run("evict", f"acct/{name}/{name}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [row["residency"] for row in node.rows("--container", name)] == ["remote"]
    assert not (node.root / name / name).stat().st_size
    return blobs


def reads(node: Edge) -> int:
    return node.proxy.count(r"^GET /\w+/\w+/\w+$")


def leftovers(node: Edge) -> list[Path]:
    """Files of recalls that wait in staging."""
    found = []
    for each in (node.root / ".blobedge" / "staging").glob("*/*"):
        with contextlib.suppress(FileNotFoundError):
            if each.stat().st_mode & stat.S_ISVTX:
                found.append(each)
    return found


def test_many_clients_of_all_workers_read_a_stub_with_one_download(node: Edge) -> None:
    blobs = evicted(node, "read")
    before = blobs.get_blob_client("read").get_blob_properties()
    since = node.until(lambda report: report.get("recalls"))["recalls"]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: blobs.download_blob("read", max_concurrency=1).readall() == DATA, range(16)))
    assert found == [True] * 16
    recalls = node.until(lambda report: report["recalls"]["arrived"] == since["arrived"] + 1)["recalls"]
    assert recalls["bytes"] == since["bytes"] + len(DATA)
    after = blobs.get_blob_client("read").get_blob_properties()
    assert (after.etag, after.last_modified) == (before.etag, before.last_modified)
    assert (node.root / "read" / "read").read_bytes() == DATA
    assert [row["residency"] for row in node.rows("--container", "read")] == ["copied"]
    count = reads(node)
    assert blobs.download_blob("read").readall() == DATA
    assert reads(node) == count


def test_without_a_link_clients_are_told_when_to_come_back(node: Edge) -> None:
    blobs = evicted(node, "away")
    node.proxy.fault = away
    with _once(node) as service:
        blob = service.get_blob_client("away", "away")
        with pytest.raises(AzureError) as raised:
            blob.download_blob().readall()
        assert getattr(raised.value, "status_code", 0) == 503
        node.until(lambda report: report["link"]["state"] == "offline")
        count = reads(node)
        with pytest.raises(AzureError, match="no way to the cloud"):
            blob.download_blob().readall()
        assert reads(node) == count
        assert blob.get_blob_properties().size == len(DATA)
    node.proxy.fault = back
    node.until(lambda report: report["link"]["state"] != "offline")
    assert blobs.download_blob("away").readall() == DATA


def test_a_sidecar_that_is_killed_while_bytes_come_leaves_nothing(node: Edge) -> None:
    blobs = evicted(node, "killed")
    reached, go_on = threading.Event(), threading.Event()

    def hang(exchange: Exchange) -> None:
        if exchange.method == "GET" and exchange.target.endswith("/killed/killed"):
            reached.set()
            go_on.wait(DEADLINE_SECONDS)

    node.proxy.fault = hang
    with _once(node) as service, ThreadPoolExecutor(1) as pool:
        read = pool.submit(service.get_blob_client("killed", "killed").download_blob)
        assert reached.wait(DEADLINE_SECONDS)
        assert leftovers(node)
        node.service.signal(signal.SIGKILL, "sidecar")
        node.proxy.fault = back
        go_on.set()
        with pytest.raises(AzureError):
            read.result(DEADLINE_SECONDS).readall()
    eventually(lambda: not leftovers(node))
    node.until(lambda report: report.get("recalls"))
    assert blobs.download_blob("killed").readall() == DATA
    node.until(lambda report: report["recalls"]["arrived"] == 1)


@contextlib.contextmanager
def _once(node: Edge) -> Iterator[BlobServiceClient]:
    """A client that tries everything once."""
    url = f"http://127.0.0.1:{node.service.port}/acct"
    with BlobServiceClient(url, {"account_name": "acct", "account_key": KEY}, retry_total=0) as service:
        yield service
