"""AzCopy downloads a container that is all stubs, MD5 checked, while its blobs are evicted again and again."""

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from tests.clients.azcopy import AzCopy
from tests.clients.client_tools import azcopy_path, client_environment
from tests.observability.service import CHECKOUT
from tests.observability.support import KEY
from tests.offload.engine_support import SECONDS_MAX, Edge, edge
from tests.offload.upload_support import MIB

CONTAINER: Final = "stubs"
SMALL: Final = {f"small/{number:02d}": 1 + 7919 * number for number in range(24)}
LARGE: Final = {"large/a": 9 * MIB + 5, "large/b": 20 * MIB}


@pytest.fixture
def node(cloud_port: int, tmp_path: Path) -> Iterator[Edge]:
    with edge(cloud_port, tmp_path) as made:
        yield made


@pytest.fixture
def azcopy(tmp_path: Path) -> AzCopy:
    return AzCopy(azcopy_path(), tmp_path / "azcopy", client_environment(tmp_path))


def evict(node: Edge) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent", "evict", f"acct/{CONTAINER}/", "--admin", node.service.admin]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)


def test_azcopy_downloads_stubs_while_blobs_are_evicted(node: Edge, azcopy: AzCopy, tmp_path: Path) -> None:
    chance = random.Random(11)
    wanted = {name: chance.randbytes(size) for name, size in (SMALL | LARGE).items()}
    blobs = node.container(CONTAINER)
    for name, data in wanted.items():
        blobs.upload_blob(name, data)
    node.until_in_cloud(CONTAINER, wanted)
    assert (ran := evict(node)).returncode == 0, ran.stdout + ran.stderr
    files = [each for each in (node.root / CONTAINER).rglob("*") if each.is_file()]
    assert [each.stat().st_size for each in files] == [0] * len(wanted)

    over = threading.Event()

    def go_on_evicting() -> None:
        while not over.is_set():
            evict(node)

    evictions = threading.Thread(target=go_on_evicting)
    evictions.start()
    try:
        url = f"http://127.0.0.1:{node.service.port}/acct/{CONTAINER}"
        later = datetime.now(UTC) + timedelta(hours=1)
        permission = ContainerSasPermissions(read=True, list=True)
        sas = generate_container_sas("acct", CONTAINER, KEY, permission=permission, expiry=later)
        for attempt in ("first", "second"):
            target = tmp_path / attempt
            done = azcopy.run(
                *("copy", f"{url}?{sas}", target, "--from-to=BlobLocal", "--recursive", "--as-subdir=false"),
                *("--check-md5=FailIfDifferentOrMissing", "--block-size-mb=4"),
            )
            assert done.count("TransfersCompleted") == len(wanted)
            files = [each for each in target.rglob("*") if each.is_file()]
            assert {os.fspath(each.relative_to(target)): each.read_bytes() for each in files} == wanted
    finally:
        over.set()
        evictions.join()
    failures = node.report()["recalls"]["failures"]
    assert not failures, failures
