"""azure-storage-blob, synchronous: contents, ranges, checksums, blocks, properties and tiers of one blob."""

from __future__ import annotations

import base64
import datetime
import io
from collections.abc import Iterator
from typing import Literal

import pytest
from azure.storage.blob import (
    BlobBlock,
    BlobClient,
    BlobServiceClient,
    ContainerClient,
    ContentSettings,
    RehydratePriority,
    StandardBlobTier,
)

from .client_tools import python_client
from .endpoint import Endpoint
from .refusals import refused
from .trees import AWKWARD_NAMES, KIB, MIB, content, differences, md5, read_container

SETTINGS = ContentSettings(
    content_type="application/x-thing",
    content_encoding="identity",
    content_language="de-DE",
    content_disposition='attachment; filename="x y.bin"',
    cache_control="max-age=60, private",
)


@pytest.fixture
def pieces(endpoint: Endpoint, container: ContainerClient) -> Iterator[BlobClient]:
    """A client that cuts everything above 64 KiB into pieces, so that small data exercises the block path."""
    with BlobServiceClient.from_connection_string(
        endpoint.connection_string,
        max_single_put_size=64 * KIB,
        max_block_size=64 * KIB,
        max_single_get_size=64 * KIB,
        max_chunk_get_size=64 * KIB,
        retry_total=0,
    ) as service:
        yield service.get_blob_client(str(container.container_name), "pieces")


def test_upload_answers_agree_with_properties_and_listing(container: ContainerClient) -> None:
    """ETag, Last-Modified, MD5, settings and metadata are the same in all the places that show them."""
    data = content("agree", 10 * KIB)
    blob = container.get_blob_client("dir/agree.bin")
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    answer = blob.upload_blob(data, content_settings=SETTINGS, metadata={"Camel": "Case", "x": "a, b"})
    head = blob.get_blob_properties()
    get = blob.download_blob()
    (item,) = container.list_blobs(include=["metadata"])
    assert get.readall() == data
    for seen in (head, get.properties, item):
        assert seen.etag.strip('"') == answer["etag"].strip('"')
        assert seen.last_modified == answer["last_modified"]
        assert seen.size == len(data)
        assert {key.lower(): value for key, value in seen.metadata.items()} == {"camel": "Case", "x": "a, b"}
        assert bytes(seen.content_settings.content_md5 or b"") == md5(data)
        for field in ("content_type", "content_encoding", "content_language", "content_disposition", "cache_control"):
            assert getattr(seen.content_settings, field) == getattr(SETTINGS, field), field
    assert before <= answer["last_modified"] <= datetime.datetime.now(datetime.UTC)
    assert head.blob_type == "BlockBlob"
    assert head.blob_tier == "Hot"
    assert head.blob_tier_inferred
    assert head.lease.state == "available"
    assert head.creation_time == answer["last_modified"]
    assert head.server_encrypted


def test_names(container: ContainerClient) -> None:
    """Names that need escaping are listed, read and deleted under exactly the name they were given.

    No `.` or `..` segment is among them: this SDK's HTTP library resolves those before it sends the request.
    """
    names = [
        *AWKWARD_NAMES,
        "a",
        "a/b",
        "a/",
        "a//b",
        "s" * 300,
        "tail ",
        "q?x=1&y=2#z",
        "%2F",
    ]
    expected = {name: name.encode() for name in names}
    for name, data in expected.items():
        container.upload_blob(name, data)
    assert differences(read_container(container), expected) == ""
    for name in names:
        container.delete_blob(name)
    assert list(container.list_blob_names()) == []


@pytest.mark.parametrize("size", [0, 1, 64 * KIB, 64 * KIB + 1, 1000 * KIB + 7])
def test_chunked_transfer(pieces: BlobClient, size: int) -> None:
    """Parallel blocks up, parallel ranges down, from bytes and from a stream of unknown length."""
    data = content(f"chunks {size}", size)
    pieces.upload_blob(data, max_concurrency=4)
    assert pieces.download_blob(max_concurrency=4).readall() == data
    pieces.upload_blob((data[at : at + 1000] for at in range(0, size, 1000)), overwrite=True)
    assert pieces.download_blob().readall() == data
    committed, uncommitted = pieces.get_block_list("all")
    assert sum(block.size for block in committed) == (size if committed else 0)
    assert uncommitted == []


def test_download_in_chunks_and_into_a_stream(pieces: BlobClient) -> None:
    data = content("stream", 300 * KIB)
    pieces.upload_blob(data)
    assert b"".join(pieces.download_blob().chunks()) == data
    sink = io.BytesIO()
    assert pieces.download_blob(max_concurrency=3).readinto(sink) == len(data)
    assert sink.getvalue() == data
    reader = pieces.download_blob()
    assert reader.read(100_000) + reader.read() == data


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (5, 10), (0, 1000), (990, 10), (990, 500), (999, 1), (7, None)])
def test_ranges(container: ContainerClient, offset: int, length: int | None) -> None:
    """Every range that begins inside the blob, also those that reach past its end."""
    data = content("ranges", 1000)
    blob = container.upload_blob("r", data)
    got = blob.download_blob(offset, length)
    end = None if length is None else offset + length
    assert got.readall() == data[offset:end]
    assert got.size == len(data[offset:end])
    assert got.properties.size == len(data[offset:end])


def test_range_that_begins_at_the_end(container: ContainerClient) -> None:
    blob = container.upload_blob("r", b"0123456789")
    with refused(416, "InvalidRange"):
        blob.download_blob(10, 1)
    empty = container.upload_blob("empty", b"")
    with refused(416, "InvalidRange"):
        empty.download_blob(1, 1)
    assert empty.download_blob().readall() == b""


@pytest.mark.parametrize("method", ["md5", "crc64", "auto"])
@pytest.mark.parametrize("size", [0, 1000, 700 * KIB])
def test_validate_content(
    container: ContainerClient, pieces: BlobClient, method: Literal["md5", "crc64", "auto"], size: int
) -> None:
    """Checksums on the way up and down: Content-MD5, x-ms-content-crc64 and structured bodies, whole and in pieces."""
    if method != "md5":
        python_client("azure.storage.extensions")
    data = content(f"validate {size}", size)
    for blob in (container.get_blob_client("whole"), pieces):
        blob.upload_blob(data, validate_content=method)
        assert blob.download_blob(validate_content=method).readall() == data
        assert blob.download_blob().readall() == data
        blob.upload_blob(io.BytesIO(data), overwrite=True, validate_content=method)
        assert blob.download_blob(validate_content=method).readall() == data
    if size:
        part = container.get_blob_client("whole").download_blob(10, 500, validate_content=method)
        assert part.readall() == data[10:510]


def test_corrupted_upload_is_refused(container: ContainerClient) -> None:
    """A body that does not match its MD5 leaves no blob behind."""
    blob = container.get_blob_client("broken")
    wrong = base64.b64encode(md5(b"other bytes")).decode()
    with refused(400, "Md5Mismatch"):
        blob.upload_blob(b"these bytes", headers={"Content-MD5": wrong})
    assert not blob.exists()


def test_blocks(container: ContainerClient) -> None:
    """Blocks are committed in the order of the list, twice if it says so; what it leaves out is discarded."""
    blob = container.get_blob_client("blocks")
    for name in ("a", "b", "c"):
        blob.stage_block(name, name.encode() * 1000)
    assert not blob.exists()
    assert [(block.id, block.size) for block in blob.get_block_list("uncommitted")[1]] == [
        ("a", 1000),
        ("b", 1000),
        ("c", 1000),
    ]
    assert [item.name for item in container.list_blobs(include=["uncommittedblobs"])] == ["blocks"]
    assert list(container.list_blobs()) == []
    blob.commit_block_list([BlobBlock("b"), BlobBlock("a"), BlobBlock("b")], metadata={"k": "v"})
    assert blob.download_blob().readall() == b"b" * 1000 + b"a" * 1000 + b"b" * 1000
    assert blob.get_blob_properties().metadata == {"k": "v"}
    committed, uncommitted = blob.get_block_list("all")
    assert [block.id for block in committed] == ["b", "a", "b"]
    assert uncommitted == []

    blob.stage_block("d", b"d")
    with refused(400, "InvalidBlockList"):
        blob.commit_block_list([BlobBlock("a"), BlobBlock("zzz")])
    blob.commit_block_list([BlobBlock("a"), BlobBlock("d")])
    assert blob.download_blob().readall() == b"a" * 1000 + b"d"


def test_headers_and_metadata_are_replaced_whole(container: ContainerClient) -> None:
    """Set Blob Properties and Set Blob Metadata replace what was there, move the ETag, and keep bytes and birth."""
    blob = container.upload_blob("p", b"data", content_settings=SETTINGS, metadata={"old": "1"})
    first = blob.get_blob_properties()
    blob.set_http_headers(ContentSettings(content_type="text/html"))
    second = blob.get_blob_properties()
    assert second.etag != first.etag
    assert second.content_settings.content_type == "text/html"
    assert second.content_settings.cache_control is None
    assert second.content_settings.content_md5 is None
    assert second.metadata == {"old": "1"}
    blob.set_blob_metadata({"new": "grün".encode().hex()})
    third = blob.get_blob_properties()
    assert third.etag != second.etag
    assert third.metadata == {"new": "grün".encode().hex()}
    assert third.content_settings.content_type == "text/html"
    assert third.creation_time == first.creation_time
    assert blob.download_blob().readall() == b"data"


def test_tiers(container: ContainerClient) -> None:
    """A tier that was set is no longer inferred; an archived blob cannot be read until it is rehydrated."""
    blob = container.upload_blob("t", b"data", standard_blob_tier=StandardBlobTier.COOL)
    etag = blob.get_blob_properties().etag
    assert blob.get_blob_properties().blob_tier == "Cool"
    assert not blob.get_blob_properties().blob_tier_inferred
    blob.set_standard_blob_tier(StandardBlobTier.COLD)
    assert blob.get_blob_properties().blob_tier == "Cold"
    blob.set_standard_blob_tier(StandardBlobTier.ARCHIVE)
    with refused(409, "BlobArchived"):
        blob.download_blob()
    blob.set_standard_blob_tier(StandardBlobTier.HOT, rehydrate_priority=RehydratePriority.HIGH)
    properties = blob.get_blob_properties()
    assert properties.etag == etag, "tiering does not touch the ETag"
    assert (properties.blob_tier, properties.archive_status) in {
        ("Archive", "rehydrate-pending-to-hot"),
        ("Hot", None),
    }


def test_missing_things(service: BlobServiceClient, container: ContainerClient) -> None:
    blob = container.get_blob_client("none")
    with refused(404, "BlobNotFound"):
        blob.download_blob()
    with refused(404, "BlobNotFound"):
        blob.get_blob_properties()
    with refused(404, "BlobNotFound"):
        blob.delete_blob()
    assert not blob.exists()
    nowhere = service.get_container_client("no-such-container")
    assert not nowhere.exists()
    with refused(404, "ContainerNotFound"):
        nowhere.upload_blob("x", b"")
    with refused(404, "ContainerNotFound"):
        nowhere.get_container_properties()


def test_a_megabyte_survives_in_the_file_system(endpoint: Endpoint, container: ContainerClient) -> None:
    """What the SDK wrote is a plain file, and a file put there by hand is a blob."""
    if endpoint.root is None:
        pytest.skip("the endpoint under test is foreign: its files are not ours to see")
    data = content("plain", MIB)
    container.upload_blob("some/plain.bin", data)
    directory = endpoint.root / container.container_name
    assert (directory / "some/plain.bin").read_bytes() == data
    (directory / "by-hand.txt").write_bytes(b"written by cp")
    assert container.download_blob("by-hand.txt").readall() == b"written by cp"
    assert set(container.list_blob_names()) == {"some/plain.bin", "by-hand.txt"}
