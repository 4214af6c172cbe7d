"""AzCopy sync: both directions and between containers, with changes, deletions, and a second run that does nothing.

Sync compares Last-Modified in whole seconds with the file's own time, so the tests date files in the past and make a
change only once the clock has left the second of the last transfer. That wait is the client's resolution, not a guess.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from .azcopy import AzCopy, Finished
from .endpoint import Endpoint
from .sas import container_sas
from .trees import KIB, MIB, differences, read_container, read_tree, write_tree

FILES = {
    "keep.txt": 3 * KIB,
    "change.txt": 4 * KIB,
    "delete.txt": KIB,
    "dir with space/kept+%.bin": 2 * MIB,
    "dir with space/deleted ü.bin": 5,
    "empty": 0,
}
HOUR_SECONDS = 3600
TICK_SECONDS = 0.02


def next_second() -> float:
    """Return in the second after the current one: the earliest time at which sync can see a change."""
    start = int(time.time())
    while int(time.time()) == start:
        time.sleep(TICK_SECONDS)
    return time.time()


def transferred(finished: Finished) -> tuple[int, int]:
    """(copied, deleted) of one sync."""
    return finished.count("TransfersCompleted"), finished.count("DeleteTransfersCompleted")


def test_up(azcopy: AzCopy, container: ContainerClient, container_url: str, tmp_path: Path) -> None:
    local = tmp_path / "local"
    files = write_tree(local, FILES, mtime=time.time() - HOUR_SECONDS)
    command = ("sync", local, container_url, "--from-to=LocalBlob", "--delete-destination=true", "--put-md5")
    assert transferred(azcopy.run(*command)) == (len(FILES), 0)
    assert differences(read_container(container), files) == ""
    assert transferred(azcopy.run(*command)) == (0, 0)

    now = next_second()
    (local / "change.txt").write_bytes(b"changed")
    os.utime(local / "change.txt", (now, now))
    for gone in ("delete.txt", "dir with space/deleted ü.bin"):
        (local / gone).unlink()
    next_second()
    assert transferred(azcopy.run(*command)) == (1, 2)
    assert differences(read_container(container), read_tree(local)) == ""
    assert container.download_blob("change.txt").readall() == b"changed"
    assert transferred(azcopy.run(*command)) == (0, 0)


def test_down(azcopy: AzCopy, container: ContainerClient, container_url: str, tmp_path: Path) -> None:
    files = write_tree(tmp_path / "seed", FILES)
    for name, data in files.items():
        container.upload_blob(name, data)
    local = tmp_path / "local"
    local.mkdir()
    next_second()
    command = ("sync", container_url, local, "--from-to=BlobLocal", "--delete-destination=true")
    assert transferred(azcopy.run(*command)) == (len(FILES), 0)
    assert differences(read_tree(local), files) == ""
    assert transferred(azcopy.run(*command)) == (0, 0)

    next_second()
    container.upload_blob("change.txt", b"changed", overwrite=True)
    for gone in ("delete.txt", "dir with space/deleted ü.bin"):
        container.delete_blob(gone)
    assert transferred(azcopy.run(*command)) == (1, 2)
    assert differences(read_tree(local), read_container(container)) == ""
    assert (local / "change.txt").read_bytes() == b"changed"
    next_second()
    assert transferred(azcopy.run(*command)) == (0, 0)


def test_between_containers(
    azcopy: AzCopy, endpoint: Endpoint, container: ContainerClient, other_container: ContainerClient, tmp_path: Path
) -> None:
    files = write_tree(tmp_path / "seed", FILES)
    for name, data in files.items():
        container.upload_blob(name, data)
    next_second()
    urls = [f"{one.url}?{container_sas(endpoint, one)}" for one in (container, other_container)]
    command = ("sync", *urls, "--from-to=BlobBlob", "--delete-destination=true")
    assert transferred(azcopy.run(*command)) == (len(FILES), 0)
    assert differences(read_container(other_container), files) == ""
    assert transferred(azcopy.run(*command)) == (0, 0)

    next_second()
    container.upload_blob("change.txt", b"changed", overwrite=True)
    container.delete_blob("delete.txt")
    next_second()
    assert transferred(azcopy.run(*command)) == (1, 1)
    assert differences(read_container(other_container), read_container(container)) == ""


@pytest.mark.parametrize("direction", ["up", "down"])
def test_by_hash(
    azcopy: AzCopy, container: ContainerClient, container_url: str, tmp_path: Path, direction: str
) -> None:
    """With --compare-hash=MD5 times do not matter: the same bytes are not sent again, other bytes are."""
    local = tmp_path / "local"
    files = write_tree(local, {"same.bin": 3 * KIB, "other.bin": KIB})
    container.upload_blob("same.bin", files["same.bin"])
    container.upload_blob("other.bin", b"not the same")
    ends: tuple[str | Path, ...] = (local, container_url, "--from-to=LocalBlob", "--put-md5")
    if direction == "down":
        ends = (container_url, local, "--from-to=BlobLocal", "--check-md5=FailIfDifferent")
    hashes = ("--compare-hash=MD5", "--local-hash-storage-mode=HiddenFiles", "--hash-meta-dir", tmp_path / "hashes")
    (tmp_path / "hashes").mkdir()
    assert transferred(azcopy.run("sync", *ends, *hashes)) == (1, 0)
    assert differences(read_container(container), read_tree(local)) == ""
