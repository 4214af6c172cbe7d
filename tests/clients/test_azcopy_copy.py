"""AzCopy: upload, download, container to container, and the properties that travel with a blob."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from .azcopy import AzCopy
from .endpoint import Endpoint
from .sas import account_sas, container_sas
from .trees import (
    AWKWARD_NAMES,
    KIB,
    MIB,
    differences,
    file_md5,
    md5,
    read_container,
    read_tree,
    write_file,
    write_tree,
)
from .tunnel import Tunnel

PLAIN_FILES = {
    "empty.dat": 0,
    "one-byte.bin": 1,
    "notes/readme.txt": 3 * KIB,
    "notes/table.csv": 70 * KIB,
    "blocks/nine.bin": 9 * MIB + 17,
}
BIG_BYTES = 300 * MIB
BIG_BLOCK_MIB = 8
BIG_BLOCKS = 38


def with_sas(endpoint: Endpoint, container: ContainerClient, name: str = "") -> str:
    """URL of a container, or of a path in it, with a SAS for the container."""
    path = f"/{name}" if name else ""
    return f"{container.url}{path}?{container_sas(endpoint, container)}"


def test_tree_up_and_down(azcopy: AzCopy, container: ContainerClient, container_url: str, tmp_path: Path) -> None:
    """Awkward names, empty files and multi-block files arrive whole, with an MD5 that the way back
    verifies.
    """
    files = write_tree(tmp_path / "up", {**PLAIN_FILES, **dict.fromkeys(AWKWARD_NAMES, 2 * KIB)})
    up = azcopy.run(
        *("copy", tmp_path / "up", container_url, "--from-to=LocalBlob", "--recursive", "--as-subdir=false"),
        *("--put-md5", "--block-size-mb=1", "--put-blob-size-mb=1"),
    )
    assert up.count("TransfersCompleted") == len(files)
    assert differences(read_container(container), files) == ""
    for blob in container.list_blobs():
        assert bytes(blob.content_settings.content_md5 or b"") == md5(files[blob.name]), blob.name
    types = {blob.name: str(blob.content_settings.content_type) for blob in container.list_blobs()}
    assert types["notes/readme.txt"].startswith("text/plain")
    assert types["notes/table.csv"].startswith("text/csv")

    down = azcopy.run(
        *(
            "copy",
            container_url,
            tmp_path / "down",
            "--from-to=BlobLocal",
            "--recursive",
            "--as-subdir=false",
        ),
        *("--check-md5=FailIfDifferentOrMissing", "--preserve-last-modified-time", "--block-size-mb=1"),
    )
    assert down.count("TransfersCompleted") == len(files)
    assert differences(read_tree(tmp_path / "down"), files) == ""
    modified = container.get_blob_client("notes/table.csv").get_blob_properties().last_modified
    assert int((tmp_path / "down" / "notes/table.csv").stat().st_mtime) == int(modified.timestamp())


def test_properties_metadata_tags_and_tier(
    azcopy: AzCopy, container: ContainerClient, container_url: str, tmp_path: Path
) -> None:
    """Everything AzCopy can set on upload is what Get Blob Properties answers afterwards."""
    write_tree(tmp_path / "up", {"model.bin": 5 * KIB})
    azcopy.run(
        *("copy", tmp_path / "up" / "*", container_url, "--from-to=LocalBlob"),
        *("--content-type=application/x-model", "--cache-control=no-cache, max-age=0"),
        *(
            "--content-disposition=attachment; filename=m.bin",
            "--content-language=de",
            "--content-encoding=identity",
        ),
        *(
            "--metadata=project=edge;Stage=two words",
            "--blob-tags=site=plant 7&line=a",
            "--block-blob-tier=Cool",
        ),
    )
    blob = container.get_blob_client("model.bin")
    properties = blob.get_blob_properties()
    settings = properties.content_settings
    assert settings.content_type == "application/x-model"
    assert settings.cache_control == "no-cache, max-age=0"
    assert settings.content_disposition == "attachment; filename=m.bin"
    assert settings.content_language == "de"
    assert settings.content_encoding == "identity"
    assert {name.lower(): value for name, value in properties.metadata.items()} == {
        "project": "edge",
        "stage": "two words",
    }
    assert properties.blob_tier == "Cool"
    assert blob.get_blob_tags() == {"site": "plant 7", "line": "a"}


def test_set_properties_afterwards(azcopy: AzCopy, container: ContainerClient, container_url: str) -> None:
    """`set-properties` changes metadata, tier and tags of what is there and leaves the bytes alone."""
    container.upload_blob("a/x.txt", b"contents", metadata={"old": "1"})
    azcopy.run(
        *("set-properties", container_url, "--from-to=BlobNone", "--recursive"),
        *("--metadata=new=2", "--block-blob-tier=Cool", "--blob-tags=k=v"),
    )
    blob = container.get_blob_client("a/x.txt")
    properties = blob.get_blob_properties()
    assert properties.metadata == {"new": "2"}
    assert properties.blob_tier == "Cool"
    assert blob.get_blob_tags() == {"k": "v"}
    assert blob.download_blob().readall() == b"contents"


def test_three_hundred_mebibytes(
    azcopy: AzCopy, endpoint: Endpoint, container: ContainerClient, tmp_path: Path
) -> None:
    """A big file goes up in many blocks, carries the MD5 of the whole, and comes down the same."""
    source = write_file(tmp_path / "big.bin", "big", BIG_BYTES)
    digest = file_md5(source)
    url = with_sas(endpoint, container, "big.bin")
    azcopy.run("copy", source, url, "--from-to=LocalBlob", "--put-md5", f"--block-size-mb={BIG_BLOCK_MIB}")
    blob = container.get_blob_client("big.bin")
    properties = blob.get_blob_properties()
    assert properties.size == BIG_BYTES
    assert bytes(properties.content_settings.content_md5 or b"") == digest
    committed, uncommitted = blob.get_block_list("all")
    assert (len(committed), len(uncommitted)) == (BIG_BLOCKS, 0)
    assert sum(block.size for block in committed) == BIG_BYTES
    if endpoint.root is not None:
        plain = endpoint.root / container.container_name / "big.bin"
        assert file_md5(plain) == digest, "the blob is a plain file with the blob's bytes"

    azcopy.run(*("copy", url, tmp_path / "back.bin", "--from-to=BlobLocal", "--check-md5=FailIfDifferentOrMissing"))
    assert file_md5(tmp_path / "back.bin") == digest
    for local in (source, tmp_path / "back.bin"):
        local.unlink()  # pytest keeps the directories of its last three runs


def test_check_md5_refuses_wrong_and_missing(
    azcopy: AzCopy, container: ContainerClient, container_url: str, tmp_path: Path
) -> None:
    """The stored Content-MD5 is what the client set, even a wrong one, and AzCopy's three checks see it."""
    from azure.storage.blob import ContentSettings

    container.upload_blob("wrong.bin", b"contents")
    wrong = ContentSettings(content_md5=bytearray(md5(b"something else")))
    container.get_blob_client("wrong.bin").set_http_headers(wrong)
    strict = azcopy.attempt(
        "copy",
        container_url,
        tmp_path / "a",
        "--from-to=BlobLocal",
        "--recursive",
        "--check-md5=FailIfDifferent",
    )
    assert strict.status != 0
    assert strict.count("TransfersFailed") == 1
    lax = azcopy.run("copy", container_url, tmp_path / "b", "--from-to=BlobLocal", "--recursive", "--check-md5=LogOnly")
    assert lax.count("TransfersCompleted") == 1
    assert differences(read_tree(tmp_path / "b" / container.container_name), {"wrong.bin": b"contents"}) == ""

    container.get_blob_client("wrong.bin").set_http_headers(ContentSettings(content_type="text/plain"))
    missing = azcopy.attempt(
        *("copy", container_url, tmp_path / "c", "--from-to=BlobLocal", "--recursive"),
        "--check-md5=FailIfDifferentOrMissing",
    )
    assert missing.status != 0
    assert missing.count("TransfersFailed") == 1


def test_container_to_container(
    azcopy: AzCopy,
    endpoint: Endpoint,
    container: ContainerClient,
    other_container: ContainerClient,
    tmp_path: Path,
) -> None:
    """Service to service copies keep bytes, properties, metadata, tags and tier; a big one goes in ranged
    blocks.
    """
    files = write_tree(tmp_path / "up", {**PLAIN_FILES, "with space+%.txt": 2 * KIB, "grüße/日本.bin": KIB})
    for name, data in files.items():
        container.upload_blob(name, data, metadata={"origin": "here"}, tags={"kind": "sample"})
    container.get_blob_client("notes/table.csv").set_standard_blob_tier("Cool")
    done = azcopy.run(
        *("copy", with_sas(endpoint, container), with_sas(endpoint, other_container), "--from-to=BlobBlob"),
        *("--recursive", "--as-subdir=false", "--s2s-preserve-blob-tags"),
        *("--block-size-mb=2", "--put-blob-size-mb=2"),
    )
    assert done.count("TransfersCompleted") == len(files)
    assert differences(read_container(other_container), files) == ""
    for name in files:
        blob = other_container.get_blob_client(name)
        before = container.get_blob_client(name).get_blob_properties()
        after = blob.get_blob_properties()
        assert after.metadata == {"origin": "here"}, name
        assert after.content_settings.content_type == before.content_settings.content_type, name
        assert after.content_settings.content_md5 == before.content_settings.content_md5, name
        assert after.blob_tier == before.blob_tier, name
        assert blob.get_blob_tags() == {"kind": "sample"}, name
    assert len(other_container.get_blob_client("blocks/nine.bin").get_block_list()[0]) == 5


def test_single_blob_between_names(
    azcopy: AzCopy, endpoint: Endpoint, container: ContainerClient, other_container: ContainerClient
) -> None:
    """One blob to another name, as scripts do it: names with a space, a plus and a percent sign in the URL."""
    container.upload_blob("from + 100%.txt", b"payload")
    azcopy.run(
        *("copy", with_sas(endpoint, container, "from%20%2B%20100%25.txt")),
        *(with_sas(endpoint, other_container, "to/new%2Bname.txt"), "--from-to=BlobBlob"),
    )
    assert read_container(other_container) == {"to/new+name.txt": b"payload"}


def test_directory_stubs(
    azcopy: AzCopy,
    endpoint: Endpoint,
    container: ContainerClient,
    other_container: ContainerClient,
    tmp_path: Path,
) -> None:
    """A stub `d` (hdi_isfolder) and blobs below `d/` live side by side; AzCopy copies stubs only when asked
    to.
    """
    stub = {"hdi_isfolder": "true"}
    container.upload_blob("d", b"", metadata=stub)
    container.upload_blob("d/sub", b"", metadata=stub)
    container.upload_blob("d/sub/leaf.txt", b"leaf")
    source, sink = with_sas(endpoint, container), with_sas(endpoint, other_container)
    azcopy.run("copy", source, tmp_path / "down", "--from-to=BlobLocal", "--recursive", "--as-subdir=false")
    assert read_tree(tmp_path / "down") == {"d/sub/leaf.txt": b"leaf"}

    azcopy.run("copy", source, sink, "--from-to=BlobBlob", "--recursive", "--as-subdir=false")
    assert read_container(other_container) == {"d/sub/leaf.txt": b"leaf"}

    azcopy.run(
        *("copy", source, sink, "--from-to=BlobBlob", "--recursive", "--as-subdir=false"),
        "--include-directory-stub",
    )
    assert read_container(other_container) == {"d": b"", "d/sub": b"", "d/sub/leaf.txt": b"leaf"}
    for name in ("d", "d/sub"):
        assert other_container.get_blob_client(name).get_blob_properties().metadata == stub, name


def test_overwrite_policies(azcopy: AzCopy, container: ContainerClient, container_url: str, tmp_path: Path) -> None:
    """--overwrite=false and ifSourceNewer skip what is there, by its Last-Modified; the default replaces
    it.
    """
    hour_ago = (datetime.datetime.now() - datetime.timedelta(hours=1)).timestamp()
    container.upload_blob("a.txt", b"already here")
    new = write_tree(tmp_path / "up", {"a.txt": 100}, mtime=hour_ago)
    for policy in ("false", "ifSourceNewer"):
        done = azcopy.run(
            "copy", tmp_path / "up" / "a.txt", container_url, "--from-to=LocalBlob", f"--overwrite={policy}"
        )
        assert (done.count("TransfersSkipped"), done.count("TransfersCompleted")) == (1, 0), policy
        assert read_container(container) == {"a.txt": b"already here"}
    azcopy.run("copy", tmp_path / "up" / "a.txt", container_url, "--from-to=LocalBlob")
    assert differences(read_container(container), new) == ""


def test_snapshot_download(azcopy: AzCopy, endpoint: Endpoint, container: ContainerClient, tmp_path: Path) -> None:
    """A snapshot's URL gives the bytes of its moment."""
    blob = container.upload_blob("a.txt", b"before")
    snapshot = blob.create_snapshot()["snapshot"]
    blob.upload_blob(b"after", overwrite=True)
    token = container_sas(endpoint, container)
    azcopy.run(*("copy", f"{blob.url}?snapshot={snapshot}&{token}", tmp_path / "was.txt", "--from-to=BlobLocal"))
    assert (tmp_path / "was.txt").read_bytes() == b"before"


def test_read_only_sas_cannot_write(
    azcopy: AzCopy, endpoint: Endpoint, container: ContainerClient, tmp_path: Path
) -> None:
    """A refusal ends the transfer at once with Azure's code; it is neither retried for minutes nor half
    done.
    """
    write_tree(tmp_path, {"a.txt": 10})
    url = f"{container.url}?{container_sas(endpoint, container, 'rl')}"
    refused = azcopy.attempt("copy", tmp_path / "a.txt", url, "--from-to=LocalBlob")
    assert refused.status != 0
    assert "AuthorizationPermissionMismatch" in azcopy.log_text() + refused.raw
    assert read_container(container) == {}


@pytest.mark.parametrize("kind", ["account", "stored-policy"])
def test_other_kinds_of_sas(
    azcopy: AzCopy, endpoint: Endpoint, container: ContainerClient, tmp_path: Path, kind: str
) -> None:
    """AzCopy works with an account SAS and with one that names a stored access policy."""
    from azure.storage.blob import AccessPolicy, ContainerSasPermissions

    files = write_tree(tmp_path / "up", {"a b.txt": KIB, "empty": 0})
    if kind == "account":
        token = account_sas(endpoint)
    else:
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        policy = AccessPolicy(ContainerSasPermissions.from_string("racwdl"), expiry=end)
        container.set_container_access_policy({"robots": policy})
        token = container_sas(endpoint, container, None, policy_id="robots")
    url = f"{container.url}?{token}"
    azcopy.run("copy", tmp_path / "up", url, "--from-to=LocalBlob", "--recursive", "--as-subdir=false")
    assert differences(read_container(container), files) == ""
    azcopy.run("copy", url, tmp_path / "down", "--from-to=BlobLocal", "--recursive", "--as-subdir=false")
    assert differences(read_tree(tmp_path / "down"), files) == ""


def test_by_public_name(
    azcopy: AzCopy, endpoint: Endpoint, public_name: Tunnel, service: BlobServiceClient, tmp_path: Path
) -> None:
    """Through ACCOUNT.blob.core.windows.net AzCopy needs no --from-to, and `make` works too."""
    azcopy = azcopy.with_environment(HTTPS_PROXY=public_name.url, SSL_CERT_FILE=str(endpoint.ca_file))
    files = write_tree(tmp_path / "up", {"a b.txt": KIB, "sub/ü+%.bin": 3 * MIB})
    url = f"https://{endpoint.public_host}/azcopy-by-name?{account_sas(endpoint)}"
    azcopy.run("make", url)
    azcopy.run("copy", tmp_path / "up", url, "--recursive", "--as-subdir=false")
    azcopy.run("copy", url, tmp_path / "down", "--recursive", "--as-subdir=false")
    assert differences(read_tree(tmp_path / "down"), files) == ""
    assert public_name.connected
    assert public_name.refused == []
