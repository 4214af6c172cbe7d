"""rclone as Debian 12 packages it (1.60), by path-style SAS URL.

This version cannot combine an account key with an endpoint of its own, so the remote is a container's SAS URL. It
uploads every file as blocks, however small, and keeps the local modification time as metadata.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from .client_tools import client_environment, rclone_path
from .endpoint import Endpoint
from .sas import container_sas
from .trees import AWKWARD_NAMES, KIB, MIB, differences, md5, read_container, read_tree, write_tree

COMMAND_SECONDS_MAX = 90.0
FILES = {"empty": 0, "small.txt": 100, "dir/deeper/two.bin": 2 * MIB + 1, "dir/chunks.bin": 9 * MIB}
MODIFIED = 1_700_000_000.0

Rclone = Callable[..., str]


@pytest.fixture
def rclone(
    endpoint: Endpoint, container: ContainerClient, other_container: ContainerClient, client_home: Path
) -> Rclone:
    """Run rclone with two remotes, `first:` and `second:`, one for each container; returns its output."""
    executable = rclone_path()
    remotes = {"FIRST": container, "SECOND": other_container}
    settings = {
        f"RCLONE_CONFIG_{name}_{key}": value
        for name, one in remotes.items()
        for key, value in {
            "TYPE": "azureblob",
            "SAS_URL": f"{one.url}?{container_sas(endpoint, one)}",
            "CHUNK_SIZE": "4Mi",
        }.items()
    }
    empty_configuration = client_home / "rclone.conf"
    empty_configuration.touch()  # rclone prints a notice when there is none
    environment = client_environment(
        client_home,
        **settings,
        RCLONE_CONFIG=str(empty_configuration),
        RCLONE_RETRIES="1",
        RCLONE_LOW_LEVEL_RETRIES="1",
    )

    def run(*arguments: str) -> str:
        expanded = [
            argument.replace("first:", f"first:{container.container_name}").replace(
                "second:", f"second:{other_container.container_name}"
            )
            for argument in arguments
        ]
        finished = subprocess.run(
            [executable, *expanded],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )
        assert finished.returncode == 0, f"rclone {expanded}: {finished.stdout}"
        return finished.stdout

    return run


def test_copy_up_check_and_down(rclone: Rclone, container: ContainerClient, tmp_path: Path) -> None:
    """Contents, MD5 and modification time survive the round trip; `check` agrees by hash."""
    local = tmp_path / "local"
    files = write_tree(local, {**FILES, **dict.fromkeys(AWKWARD_NAMES, KIB)}, mtime=MODIFIED)
    rclone("copy", str(local), "first:")
    assert differences(read_container(container), files) == ""
    for blob in container.list_blobs(include=["metadata"]):
        assert bytes(blob.content_settings.content_md5 or b"") == md5(files[blob.name]), blob.name
        assert "mtime" in {key.lower() for key in blob.metadata}, blob.name
    assert container.get_blob_client("small.txt").get_blob_properties().content_settings.content_type == (
        "text/plain; charset=utf-8"
    )
    assert "0 differences found" in rclone("check", str(local), "first:")
    assert "0 differences found" in rclone("check", "--download", str(local), "first:")
    rclone("copy", "first:", str(tmp_path / "back"))
    assert differences(read_tree(tmp_path / "back"), files) == ""
    assert (tmp_path / "back" / "small.txt").stat().st_mtime == MODIFIED


def test_sync_with_deletions_and_nothing_the_second_time(
    rclone: Rclone, container: ContainerClient, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    write_tree(local, FILES, mtime=MODIFIED)
    rclone("sync", str(local), "first:")
    again = rclone("sync", "-v", str(local), "first:")
    assert "There was nothing to transfer" in again
    (local / "small.txt").unlink()
    (local / "dir/chunks.bin").write_bytes(b"now small")
    os.utime(local / "dir/chunks.bin", (MODIFIED + 10, MODIFIED + 10))
    rclone("sync", str(local), "first:")
    assert differences(read_container(container), read_tree(local)) == ""


def test_between_containers_listing_and_removal(
    rclone: Rclone, container: ContainerClient, other_container: ContainerClient, tmp_path: Path
) -> None:
    """Server-side copy and move, listings by directory, purge of one."""
    files = write_tree(tmp_path / "local", FILES, mtime=MODIFIED)
    for name, data in files.items():
        container.upload_blob(name, data)
    assert sorted(rclone("lsf", "first:").split()) == ["dir/", "empty", "small.txt"]
    assert sorted(rclone("lsf", "-R", "--files-only", "first:").split()) == sorted(FILES)
    container.upload_blob("small.txt", b"0123456789", overwrite=True)
    files["small.txt"] = b"0123456789"
    assert rclone("cat", "--offset", "2", "--count", "5", "first:/small.txt") == "23456"
    rclone("copy", "first:", "second:")
    assert differences(read_container(other_container), files) == ""
    rclone("moveto", "second:/small.txt", "second:/moved/small.txt")
    assert "small.txt" not in set(other_container.list_blob_names())
    assert other_container.download_blob("moved/small.txt").readall() == files["small.txt"]
    rclone("delete", "second:/dir")
    assert set(other_container.list_blob_names()) == {"empty", "moved/small.txt"}
    rclone("settier", "Cool", "first:/small.txt")
    assert container.get_blob_client("small.txt").get_blob_properties().blob_tier == "Cool"
