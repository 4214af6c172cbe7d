"""Eviction in a whole node: a sidecar that is killed while it evicts, and blobs that go once they are uploaded."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.observability.service import CHECKOUT
from tests.offload.engine_support import SECONDS_MAX, Edge, edge

BLOBS = {f"{number:03}": os.urandom(4_000) for number in range(150)}
KILLED_AT = (1, 40, 90)  # stubs


def stubs(node: Edge, container: str) -> int:
    """How many files of a container are empty."""
    return sum(not path.stat().st_size for path in (node.root / container).iterdir())


def evict_until(node: Edge, container: str, count: int) -> None:
    """Run `blobedge evict`, again when it ended before (a sidecar that was killed may not be back), until so many
    files of the container are stubs."""
    command = [sys.executable, "-m", "agent", "evict", f"acct/{container}", "--admin", node.service.admin]
    end = time.monotonic() + SECONDS_MAX
    while stubs(node, container) < count:
        with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as asked:
            while asked.poll() is None and stubs(node, container) < count:
                assert time.monotonic() < end, node.service.log.read_text()[-3000:]
                time.sleep(0.002)
            asked.kill()


def until(node: Edge, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < end, f"{node.report()}\n{node.service.log.read_text()[-3000:]}"
        time.sleep(0.005)


def remote(node: Edge) -> int:
    """Blobs that the queue knows as REMOTE."""
    totals = node.report().get("totals", [])
    return sum(each["blobs"] for each in totals if each["residency"] == "remote")


def test_a_sidecar_that_is_killed_while_it_evicts_loses_nothing(cloud_port: int, tmp_path: Path) -> None:
    with edge(cloud_port, tmp_path, '[[offload.rules]]\nupload = "now"\n') as node:
        blobs = node.container("killed")
        for name, content in BLOBS.items():
            blobs.upload_blob(name, content)
        node.until_in_cloud("killed", BLOBS)
        for count in (*KILLED_AT, len(BLOBS)):
            evict_until(node, "killed", count)
            if count < len(BLOBS):
                node.service.signal(signal.SIGKILL, "sidecar")
        until(node, lambda: remote(node) == len(BLOBS))
        assert stubs(node, "killed") == len(BLOBS)
        for name, content in BLOBS.items():
            assert blobs.download_blob(name).readall() == content
        assert node.in_cloud("killed") == BLOBS


def test_what_a_rule_deletes_after_upload_is_in_the_cloud_only(cloud_port: int, tmp_path: Path) -> None:
    with edge(cloud_port, tmp_path, '[[offload.rules]]\nupload = "now"\ndelete_after_upload = true\n') as node:
        blobs = node.container("passing")
        for name, content in BLOBS.items():
            blobs.upload_blob(name, content)
        until(node, lambda: not list(blobs.list_blob_names()))
        assert node.in_cloud("passing") == BLOBS
        until(node, lambda: not node.rows("--container", "passing"))
        blobs.upload_blob("000", b"again")
        until(node, lambda: not list(blobs.list_blob_names()))
        assert node.in_cloud("passing") == BLOBS | {"000": b"again"}
