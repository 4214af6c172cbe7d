"""azure-storage-blob, synchronous: every way to make a blob from another one without moving the bytes oneself."""

from __future__ import annotations

from typing import Any

import pytest
from azure.core import MatchConditions
from azure.storage.blob import BlobBlock, BlobClient, ContainerClient, ContentSettings, StandardBlobTier

from .endpoint import Endpoint
from .refusals import refused
from .sas import blob_sas, container_sas
from .trees import KIB, content, md5


@pytest.fixture
def source(container: ContainerClient) -> BlobClient:
    """A blob with properties worth keeping."""
    return container.upload_blob(
        "from/a b+%.bin",
        content("source", 300 * KIB),
        content_settings=ContentSettings(content_type="application/x-source"),
        metadata={"origin": "source"},
        tags={"kind": "original"},
    )


@pytest.fixture
def signed(endpoint: Endpoint, container: ContainerClient, source: BlobClient) -> str:
    """The source's URL with permission to read it."""
    return f"{source.url}?{blob_sas(endpoint, container, str(source.blob_name), 'rt')}"


def assert_copied(target: BlobClient) -> None:
    """Bytes, type and metadata came along."""
    assert target.download_blob().readall() == content("source", 300 * KIB)
    properties = target.get_blob_properties()
    assert properties.content_settings.content_type == "application/x-source"
    assert properties.metadata == {"origin": "source"}


def test_copy_within_the_account(source: BlobClient, other_container: ContainerClient) -> None:
    """Copy Blob needs no SAS inside an account; its outcome shows in the target's properties."""
    target = other_container.get_blob_client("to/x.bin")
    answer = target.start_copy_from_url(source.url)
    assert answer["copy_status"] in {"success", "pending"}
    assert_copied(target)
    copy = target.get_blob_properties().copy
    assert copy.id == answer["copy_id"]
    assert copy.status == "success"
    assert copy.progress == f"{300 * KIB}/{300 * KIB}"
    assert str(copy.source).split("?")[0] == source.url
    (item,) = other_container.list_blobs(include=["copy"])
    assert (item.copy.id, item.copy.status) == (answer["copy_id"], "success")
    with refused(409, "NoPendingCopyOperation"):
        target.abort_copy(str(answer["copy_id"]))


def test_copy_with_new_metadata_and_tags(signed: str, other_container: ContainerClient) -> None:
    target = other_container.get_blob_client("x")
    target.start_copy_from_url(signed, metadata={"own": "1"}, tags={"t": "2"}, standard_blob_tier=StandardBlobTier.COOL)
    properties = target.get_blob_properties()
    assert properties.metadata == {"own": "1"}
    assert properties.content_settings.content_type == "application/x-source"
    assert properties.blob_tier == "Cool"
    assert target.get_blob_tags() == {"t": "2"}


def test_synchronous_copy(signed: str, other_container: ContainerClient) -> None:
    """Copy Blob From URL answers once the bytes are there."""
    target = other_container.get_blob_client("x")
    answer = target.start_copy_from_url(signed, requires_sync=True)
    assert answer["copy_status"] == "success"
    assert_copied(target)


def test_put_blob_from_url(signed: str, other_container: ContainerClient) -> None:
    """Put Blob From URL takes the source's properties or leaves them, and checks the source's MD5 when asked."""
    target = other_container.get_blob_client("x")
    with refused(400, "Md5Mismatch"):
        target.upload_blob_from_url(signed, source_content_md5=bytearray(md5(b"something else")))
    digest = bytearray(md5(content("source", 300 * KIB)))
    target.upload_blob_from_url(signed, metadata={"origin": "source"}, source_content_md5=digest)
    assert_copied(target)
    own = ContentSettings(content_type="text/own")
    target.upload_blob_from_url(
        signed, overwrite=True, include_source_blob_properties=False, content_settings=own, metadata={"m": "1"}
    )
    properties = target.get_blob_properties()
    assert (properties.content_settings.content_type, properties.metadata) == ("text/own", {"m": "1"})
    with refused(409, "BlobAlreadyExists"):
        target.upload_blob_from_url(signed)


def test_put_block_from_url(signed: str, other_container: ContainerClient) -> None:
    """A blob pieced together from ranges of another, in another order."""
    data = content("source", 300 * KIB)
    target = other_container.get_blob_client("pieces")
    target.stage_block_from_url("second", signed, source_offset=200 * KIB, source_length=100 * KIB)
    piece = bytearray(md5(data[: 200 * KIB]))
    target.stage_block_from_url("first_", signed, source_offset=0, source_length=200 * KIB, source_content_md5=piece)
    target.commit_block_list([BlobBlock("second"), BlobBlock("first_")])
    assert target.download_blob().readall() == data[200 * KIB :] + data[: 200 * KIB]


def test_source_conditions(source: BlobClient, signed: str, other_container: ContainerClient) -> None:
    """The source's ETag can be a condition; a failed one copies nothing."""
    target = other_container.get_blob_client("x")
    unmet: dict[str, Any] = {"source_etag": '"0x1"', "source_match_condition": MatchConditions.IfNotModified}
    with refused(412, "SourceConditionNotMet"):
        target.start_copy_from_url(source.url, **unmet)
    with refused(412, "SourceConditionNotMet", "CannotVerifyCopySource"):
        target.upload_blob_from_url(signed, **unmet)
    assert not target.exists()
    target.start_copy_from_url(
        source.url,
        source_etag=source.get_blob_properties().etag,
        source_match_condition=MatchConditions.IfNotModified,
    )
    assert_copied(target)


def test_source_that_may_not_be_read(
    endpoint: Endpoint, container: ContainerClient, source: BlobClient, other_container: ContainerClient
) -> None:
    """A guest of the target container cannot copy what it may not read: unsigned, signed without `r`, or missing."""
    token = container_sas(endpoint, other_container, "racwd")
    guest = BlobClient.from_blob_url(f"{other_container.url}/x", credential=token, retry_total=0)
    write_only = f"{source.url}?{blob_sas(endpoint, container, str(source.blob_name), 'w')}"
    for url in (source.url, write_only):
        for copy in (guest.upload_blob_from_url, guest.start_copy_from_url):
            with refused(403):
                copy(url)
    target = other_container.get_blob_client("x")
    with refused(404, "BlobNotFound"):
        target.start_copy_from_url(f"{container.url}/none")
    assert not target.exists()


def test_overwriting_keeps_readers_whole(source: BlobClient, other_container: ContainerClient) -> None:
    """A copy onto an existing blob replaces it in one step, with an ETag of its own."""
    target = other_container.upload_blob("x", b"old", metadata={"old": "1"})
    old = target.get_blob_properties().etag
    target.start_copy_from_url(source.url)
    assert_copied(target)
    assert target.get_blob_properties().etag not in {old, source.get_blob_properties().etag}
