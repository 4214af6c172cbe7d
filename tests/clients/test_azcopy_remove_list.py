"""AzCopy remove (patterns, paths, stubs, snapshots) and list (names, sizes, properties)."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient, ContentSettings

from .azcopy import AzCopy, Finished
from .endpoint import Endpoint
from .sas import container_sas
from .trees import md5

NAMES = (
    "a.log",
    "b.txt",
    "logs/one.log",
    "logs/two.txt",
    "logs/old/three.log",
    "logs/with space+%.log",
    "logs-not/four.log",
    "daten/grüße.txt",
)


@pytest.fixture
def filled(container: ContainerClient) -> ContainerClient:
    """A container with a small tree."""
    for name in NAMES:
        container.upload_blob(name, name.encode())
    return container


def left(container: ContainerClient) -> set[str]:
    """The names that are still there."""
    return set(container.list_blob_names())


@pytest.mark.parametrize(
    ("path", "flags", "gone"),
    [
        ("", ("--include-pattern=*.log",), {name for name in NAMES if name.endswith(".log")}),
        ("", ("--exclude-pattern=*.log",), {name for name in NAMES if not name.endswith(".log")}),
        ("/logs", ("--exclude-path=old",), {"logs/one.log", "logs/two.txt", "logs/with space+%.log"}),
        ("", ("--include-path=logs/old;daten",), {"logs/old/three.log", "daten/grüße.txt"}),
        ("/logs", (), {name for name in NAMES if name.startswith("logs/")}),
    ],
    ids=["include-pattern", "exclude-pattern", "exclude-path", "include-path", "directory"],
)
def test_remove(
    azcopy: AzCopy, endpoint: Endpoint, filled: ContainerClient, path: str, flags: tuple[str, ...], gone: set[str]
) -> None:
    """Each filter takes exactly what it names; a directory does not take its longer-named neighbour."""
    url = f"{filled.url}{path}?{container_sas(endpoint, filled)}"
    done = azcopy.run("remove", url, "--from-to=BlobTrash", "--recursive", *flags)
    assert done.count("TransfersCompleted") == len(gone)
    assert left(filled) == set(NAMES) - gone


def test_remove_list_of_files(azcopy: AzCopy, container_url: str, filled: ContainerClient, tmp_path: Path) -> None:
    chosen = ("b.txt", "logs/with space+%.log", "daten/grüße.txt")
    (tmp_path / "names.txt").write_text("\n".join(chosen))
    azcopy.run("remove", container_url, "--from-to=BlobTrash", "--recursive", "--list-of-files", tmp_path / "names.txt")
    assert left(filled) == set(NAMES) - set(chosen)


def test_remove_single_blob_and_missing_blob(azcopy: AzCopy, endpoint: Endpoint, filled: ContainerClient) -> None:
    url = f"{filled.url}/logs%2Fwith%20space%2B%25.log?{container_sas(endpoint, filled)}"
    azcopy.run("remove", url, "--from-to=BlobTrash")
    assert left(filled) == set(NAMES) - {"logs/with space+%.log"}
    assert azcopy.run("remove", url, "--from-to=BlobTrash").count("TotalTransfers") == 0


def test_remove_directory_with_its_stub(azcopy: AzCopy, endpoint: Endpoint, container: ContainerClient) -> None:
    container.upload_blob("d", b"", metadata={"hdi_isfolder": "true"})
    container.upload_blob("d/leaf", b"leaf")
    container.upload_blob("d2", b"neighbour")
    url = f"{container.url}/d?{container_sas(endpoint, container)}"
    azcopy.run("remove", url, "--from-to=BlobTrash", "--recursive")
    assert left(container) == {"d2"}


def test_remove_snapshots(azcopy: AzCopy, endpoint: Endpoint, container: ContainerClient) -> None:
    """A blob with snapshots goes only with --delete-snapshots; `only` keeps the blob."""
    blob = container.upload_blob("a", b"1")
    blob.create_snapshot()
    url = f"{blob.url}?{container_sas(endpoint, container)}"
    assert azcopy.attempt("remove", url, "--from-to=BlobTrash").count("TransfersCompleted") == 0
    assert blob.exists()
    azcopy.run("remove", url, "--from-to=BlobTrash", "--delete-snapshots=only")
    assert [item.snapshot for item in container.list_blobs(include=["snapshots"])] == [None]
    blob.create_snapshot()
    azcopy.run("remove", url, "--from-to=BlobTrash", "--delete-snapshots=include")
    assert list(container.list_blobs(include=["snapshots"])) == []


def listed(finished: Finished) -> dict[str, dict[str, str]]:
    """What `list` printed, by name."""
    entries = [json.loads(text) for kind, text in finished.messages if kind == "ListObject"]
    return {entry["Path"]: entry for entry in entries}


def test_list(azcopy: AzCopy, container_url: str, filled: ContainerClient) -> None:
    chosen = ContentSettings(content_type="text/x-log")
    filled.upload_blob("a.log", b"12345", overwrite=True, content_settings=chosen)
    filled.get_blob_client("a.log").set_standard_blob_tier("Cool")
    shown = "LastModifiedTime;BlobType;BlobAccessTier;ContentType;ContentMD5;LeaseState;LeaseStatus"
    finished = azcopy.run("list", container_url, "--location=Blob", "--machine-readable", f"--properties={shown}")
    entries = listed(finished)
    assert set(entries) == set(NAMES)
    entry = entries["a.log"]
    assert entry["ContentLength"].split()[0] == "5"
    assert entry["ContentType"] == "text/x-log"
    assert entry["BlobAccessTier"] == "Cool"
    assert entry["BlobType"] == "BlockBlob"
    assert (entry["LeaseState"], entry["LeaseStatus"]) == ("available", "unlocked")
    assert base64.b64decode(entry["ContentMD5"]) == md5(b"12345")


def test_list_directory(azcopy: AzCopy, endpoint: Endpoint, filled: ContainerClient) -> None:
    url = f"{filled.url}/logs?{container_sas(endpoint, filled)}"
    below = {name.removeprefix("logs/") for name in NAMES if name.startswith("logs/")}
    assert set(listed(azcopy.run("list", url, "--location=Blob", "--machine-readable"))) == below
