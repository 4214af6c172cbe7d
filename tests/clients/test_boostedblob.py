"""boostedblob, which knows no endpoint but https://ACCOUNT.blob.core.windows.net: host-style, TLS, by its command line.

The name leads to the endpoint's TLS listener through a CONNECT proxy, and the certificate is one of a test authority.
It checks status codes exactly and retries 5xx answers up to 25 times, so a wrong code shows as a failure or a timeout.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from .client_tools import client_environment, python_client
from .endpoint import Endpoint
from .trees import KIB, MIB, differences, md5, read_container, read_tree, write_file, write_tree
from .tunnel import Tunnel

COMMAND_SECONDS_MAX = 60.0
TWO_CHUNKS_BYTES = 40 * MIB  # its chunk is 32 MiB and cannot be set from the command line
FILES = {
    "one.txt": 100,
    "dir/two.bin": 300 * KIB,
    "dir/deeper/three": 1,
    "with space+%.txt": 2 * KIB,
    "grüße/日本.bin": 3 * KIB,
}

Bbb = Callable[..., str]


@pytest.fixture
def bbb_attempt(
    endpoint: Endpoint, public_name: Tunnel, client_home: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line with the account key, whatever comes of it."""
    python_client("boostedblob")
    environment = client_environment(
        client_home,
        AZURE_STORAGE_ACCOUNT=endpoint.account,
        AZURE_STORAGE_KEY=endpoint.key,
        HTTPS_PROXY=public_name.url,
        SSL_CERT_FILE=str(endpoint.ca_file),
        BBB_DISABLE_CACHE="1",
    )

    def run(*arguments: str | Path, **overrides: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "boostedblob", *map(str, arguments)],
            env={**environment, **overrides},
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )

    return run


@pytest.fixture
def bbb(bbb_attempt: Callable[..., subprocess.CompletedProcess[str]]) -> Bbb:
    """Run a command that must succeed and return what it printed."""

    def run(*arguments: str | Path) -> str:
        finished = bbb_attempt(*arguments)
        assert finished.returncode == 0, f"bbb {arguments}: {finished.stderr}"
        return finished.stdout

    return run


@pytest.fixture
def remote(endpoint: Endpoint, container: ContainerClient) -> str:
    """The container as boostedblob names it."""
    return f"az://{endpoint.account}/{container.container_name}"


@pytest.fixture
def seen(endpoint: Endpoint, container: ContainerClient) -> ContainerClient:
    """The same container through the plain http listener: both listeners serve one store."""
    return container


def test_one_file(bbb: Bbb, remote: str, seen: ContainerClient, tmp_path: Path) -> None:
    """cp up and down, cat, ll, and rm of a file small enough for one request."""
    files = write_tree(tmp_path, {"a b+%ü.txt": 5 * KIB})
    ((name, data),) = files.items()
    bbb("cp", tmp_path / name, f"{remote}/dir/{name}")
    assert differences(read_container(seen), {f"dir/{name}": data}) == ""
    bbb("cp", f"{remote}/dir/{name}", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    (tmp_path / "text").write_bytes(b"to be shown\n")
    bbb("cp", tmp_path / "text", f"{remote}/text")
    assert bbb("cat", f"{remote}/text") == "to be shown\n"
    assert "12" in bbb("ll", "--machine", f"{remote}/")
    bbb("rm", f"{remote}/text")
    assert set(seen.list_blob_names()) == {f"dir/{name}"}


def test_chunks_and_overwriting(bbb: Bbb, remote: str, seen: ContainerClient, tmp_path: Path) -> None:
    """A file of two chunks: blocks up with the MD5 of the whole, ranges down; then a smaller one over it."""
    source = write_file(tmp_path / "big", "bbb", TWO_CHUNKS_BYTES)
    bbb("cp", source, f"{remote}/big")
    blob = seen.get_blob_client("big")
    assert len(blob.get_block_list()[0]) == 2
    assert md5(blob.download_blob().readall()) == md5(source.read_bytes())
    bbb("cp", f"{remote}/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    bbb("cp", f"{remote}/big", f"{remote}/copied")
    assert seen.get_blob_client("copied").get_blob_properties().size == TWO_CHUNKS_BYTES
    (tmp_path / "small").write_bytes(b"small")
    bbb("cp", tmp_path / "small", f"{remote}/big")
    assert blob.download_blob().readall() == b"small"


def test_empty_file(bbb: Bbb, remote: str, seen: ContainerClient, tmp_path: Path) -> None:
    """An empty file, which it signs with a Content-Length of 0; reading it back meets a 416."""
    (tmp_path / "empty").touch()
    bbb("cp", tmp_path / "empty", f"{remote}/empty")
    assert read_container(seen) == {"empty": b""}
    bbb("cp", f"{remote}/empty", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "nothing").touch()
    bbb("cptree", tmp_path / "tree", f"{remote}/tree")
    assert seen.download_blob("tree/nothing").readall() == b""


def test_trees(bbb: Bbb, remote: str, endpoint: Endpoint, seen: ContainerClient, tmp_path: Path) -> None:
    """cptree up, inside the account and down; ls and lstree; rmtree."""
    files = write_tree(tmp_path / "up", FILES)
    bbb("cptree", tmp_path / "up", f"{remote}/tree")
    assert differences(read_container(seen, "tree/"), files) == ""
    assert sorted(bbb("ls", "-s", f"{remote}/tree").split("\n")[:-1]) == sorted(
        {name.split("/")[0] + ("/" if "/" in name else "") for name in FILES}
    )
    assert sorted(bbb("lstree", "-s", f"{remote}/tree").split("\n")[:-1]) == sorted(FILES)
    assert f"az://{endpoint.account}/{seen.container_name}" in bbb("ls", f"az://{endpoint.account}")
    bbb("cptree", f"{remote}/tree", f"{remote}/copy")
    assert differences(read_container(seen, "copy/"), files) == ""
    bbb("cptree", f"{remote}/copy", tmp_path / "down")
    assert differences(read_tree(tmp_path / "down"), files) == ""
    bbb("rmtree", f"{remote}/tree")
    assert {name.split("/")[0] for name in seen.list_blob_names()} == {"copy"}


def test_sync(bbb: Bbb, remote: str, seen: ContainerClient, tmp_path: Path) -> None:
    """Sync up with deletions, a second time with nothing to do, and down."""
    local = tmp_path / "local"
    write_tree(local, FILES, mtime=1_700_000_000)
    bbb("sync", "--delete", local, f"{remote}/s")
    assert differences(read_container(seen, "s/"), read_tree(local)) == ""
    etags = {blob.name: blob.etag for blob in seen.list_blobs()}
    bbb("sync", "--delete", local, f"{remote}/s")
    assert {blob.name: blob.etag for blob in seen.list_blobs()} == etags
    (local / "one.txt").unlink()
    (local / "dir/two.bin").write_bytes(b"changed")
    bbb("sync", "--delete", local, f"{remote}/s")
    assert differences(read_container(seen, "s/"), read_tree(local)) == ""
    bbb("sync", "--delete", f"{remote}/s", tmp_path / "down")
    assert differences(read_tree(tmp_path / "down"), read_tree(local)) == ""


def test_refusals_are_final(
    bbb_attempt: Callable[..., subprocess.CompletedProcess[str]], remote: str, tmp_path: Path
) -> None:
    """A missing file and a wrong key fail at once and in words, not after retries."""
    missing = bbb_attempt("cat", f"{remote}/none")
    assert missing.returncode != 0
    assert "FileNotFoundError" in missing.stderr
    (tmp_path / "x").touch()
    denied = bbb_attempt("cp", tmp_path / "x", f"{remote}/x", AZURE_STORAGE_KEY="b3RoZXIga2V5")
    assert denied.returncode != 0
    assert "unable to access storage account" in denied.stderr


def test_nothing_left_the_machine(bbb: Bbb, remote: str, endpoint: Endpoint, public_name: Tunnel) -> None:
    """Every connection went to the account's public name, and that name to the endpoint."""
    bbb("ls", f"{remote}/")
    assert set(public_name.connected) == {f"{endpoint.public_host}:443"}
    assert public_name.refused == []
    assert "NO_PROXY" not in os.environ or endpoint.public_host not in os.environ["NO_PROXY"]
