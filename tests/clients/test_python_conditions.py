"""azure-storage-blob, synchronous: conditional requests, leases, snapshots and tags of a blob."""

from __future__ import annotations

import datetime
import uuid

import pytest
from azure.core import MatchConditions
from azure.storage.blob import BlobBlock, ContainerClient

from .refusals import refused

HOUR = datetime.timedelta(hours=1)


def test_etag_conditions(container: ContainerClient) -> None:
    """If-Match and If-None-Match on reads, writes and deletes."""
    blob = container.upload_blob("e", b"one")
    old = blob.get_blob_properties().etag
    blob.upload_blob(b"two", overwrite=True, etag=old, match_condition=MatchConditions.IfNotModified)
    new = blob.get_blob_properties().etag
    with refused(412, "ConditionNotMet"):
        blob.upload_blob(b"three", overwrite=True, etag=old, match_condition=MatchConditions.IfNotModified)
    with refused(412, "ConditionNotMet"):
        blob.download_blob(etag=old, match_condition=MatchConditions.IfNotModified)
    with refused(304, "ConditionNotMet"):
        blob.download_blob(etag=new, match_condition=MatchConditions.IfModified)
    with refused(412, "ConditionNotMet"):
        blob.set_blob_metadata({"k": "v"}, etag=old, match_condition=MatchConditions.IfNotModified)
    with refused(412, "ConditionNotMet"):
        blob.delete_blob(etag=old, match_condition=MatchConditions.IfNotModified)
    assert blob.download_blob(etag=new, match_condition=MatchConditions.IfNotModified).readall() == b"two"
    blob.delete_blob(etag=new, match_condition=MatchConditions.IfNotModified)


def test_create_only_once(container: ContainerClient) -> None:
    """overwrite=False is If-None-Match: * and loses against what is there, for one put and for a block list."""
    container.upload_blob("x", b"first")
    with refused(409, "BlobAlreadyExists"):
        container.upload_blob("x", b"second")
    blob = container.get_blob_client("x")
    blob.stage_block("a", b"blocks")
    with refused(409, "BlobAlreadyExists"):
        blob.commit_block_list([BlobBlock("a")], match_condition=MatchConditions.IfMissing)
    assert blob.download_blob().readall() == b"first"
    with refused(412, "ConditionNotMet"):
        container.get_blob_client("missing").upload_blob(b"", match_condition=MatchConditions.IfPresent, overwrite=True)


def test_time_conditions(container: ContainerClient) -> None:
    blob = container.upload_blob("t", b"data")
    modified = blob.get_blob_properties().last_modified
    assert blob.download_blob(if_unmodified_since=modified).readall() == b"data"
    assert blob.download_blob(if_modified_since=modified - HOUR).readall() == b"data"
    with refused(304, "ConditionNotMet"):
        blob.download_blob(if_modified_since=modified)
    with refused(412, "ConditionNotMet"):
        blob.download_blob(if_unmodified_since=modified - HOUR)
    with refused(412, "ConditionNotMet"):
        blob.upload_blob(b"new", overwrite=True, if_unmodified_since=modified - HOUR)
    assert blob.download_blob().readall() == b"data"


def test_tags_and_tag_conditions(container: ContainerClient) -> None:
    """Tags are set whole, counted, listed, kept out of the ETag, and can be a condition of their own."""
    blob = container.upload_blob("t", b"data", tags={"state": "raw", "site name": "a+b/c.d:e-f_g=h"})
    etag = blob.get_blob_properties().etag
    assert blob.get_blob_tags() == {"state": "raw", "site name": "a+b/c.d:e-f_g=h"}
    assert blob.get_blob_properties().tag_count == 2
    blob.set_blob_tags({"state": "done"})
    assert blob.get_blob_properties().etag == etag
    (item,) = container.list_blobs(include=["tags"])
    assert item.tags == {"state": "done"}
    assert blob.download_blob(if_tags_match_condition="\"state\" = 'done'").readall() == b"data"
    with refused(412, "ConditionNotMet"):
        blob.delete_blob(if_tags_match_condition="\"state\" = 'raw'")
    with refused(400, "TagsTooLarge"):
        blob.set_blob_tags({f"k{number}": "v" for number in range(11)})
    blob.set_blob_tags({})
    assert blob.get_blob_tags() == {}


def test_blob_lease(container: ContainerClient) -> None:
    """A leased blob can be read by all and written by its holder only; every step of the lease's life."""
    blob = container.upload_blob("l", b"data")
    lease = blob.acquire_lease(lease_duration=15)
    held = blob.get_blob_properties().lease
    assert (held.status, held.state, held.duration) == ("locked", "leased", "fixed")
    assert blob.download_blob().readall() == b"data"
    with refused(412, "LeaseIdMissing"):
        blob.upload_blob(b"other", overwrite=True)
    with refused(412, "LeaseIdMismatchWithBlobOperation"):
        blob.set_blob_metadata({"a": "b"}, lease=str(uuid.uuid4()))
    with refused(409, "LeaseAlreadyPresent"):
        blob.acquire_lease()
    blob.upload_blob(b"mine", overwrite=True, lease=lease)
    lease.renew()
    lease.change(str(uuid.uuid4()))
    with refused(412, "LeaseIdMissing"):
        blob.delete_blob()
    lease.release()
    assert blob.get_blob_properties().lease.state == "available"

    endless = blob.acquire_lease()
    assert blob.get_blob_properties().lease.duration == "infinite"
    assert endless.break_lease() == 0
    assert blob.get_blob_properties().lease.state == "broken"
    with refused(409, "LeaseNotPresentWithLeaseOperation"):
        endless.change(str(uuid.uuid4()))
    blob.delete_blob()
    with refused(412, "LeaseNotPresentWithBlobOperation"):
        container.upload_blob("fresh", b"").set_blob_metadata({"a": "b"}, lease=str(uuid.uuid4()))


def test_container_lease(container: ContainerClient) -> None:
    """A container's lease guards its deletion, not the blobs in it."""
    lease = container.acquire_lease(lease_duration=-1)
    properties = container.get_container_properties()
    assert (properties.lease.state, properties.lease.duration) == ("leased", "infinite")
    container.upload_blob("inside", b"fine")
    with refused(412, "LeaseIdMissing"):
        container.delete_container()
    assert lease.break_lease(lease_break_period=0) == 0
    container.delete_container()


def test_snapshots(container: ContainerClient) -> None:
    """A snapshot keeps bytes, properties and metadata of its moment, is listed, read-only, and guards its blob."""
    blob = container.upload_blob("s", b"one", metadata={"v": "1"})
    first = blob.create_snapshot()
    second = blob.create_snapshot(metadata={"v": "override"})
    blob.upload_blob(b"two", overwrite=True, metadata={"v": "2"})
    then = container.get_blob_client("s", snapshot=str(first["snapshot"]))
    assert then.download_blob().readall() == b"one"
    assert then.get_blob_properties().metadata == {"v": "1"}
    assert container.get_blob_client("s", snapshot=str(second["snapshot"])).get_blob_properties().metadata == {
        "v": "override"
    }
    listed = [(item.snapshot, item.size) for item in container.list_blobs(include=["snapshots"])]
    assert listed == [(first["snapshot"], 3), (second["snapshot"], 3), (None, 3)]
    with refused(409, "SnapshotsPresent"):
        blob.delete_blob()
    then.delete_blob()
    with refused(404, "BlobNotFound"):
        then.download_blob()
    assert blob.exists()
    blob.delete_blob(delete_snapshots="include")
    assert list(container.list_blobs(include=["snapshots"])) == []


def test_restore_from_snapshot(container: ContainerClient) -> None:
    """Promoting a snapshot is a copy of it over its blob."""
    blob = container.upload_blob("s", b"good", metadata={"v": "1"})
    snapshot = blob.create_snapshot()["snapshot"]
    blob.upload_blob(b"bad", overwrite=True)
    blob.start_copy_from_url(f"{blob.url}?snapshot={snapshot}")
    assert blob.download_blob().readall() == b"good"
    assert blob.get_blob_properties().metadata == {"v": "1"}


@pytest.mark.parametrize("keep", ["include", "only"])
def test_delete_snapshots(container: ContainerClient, keep: str) -> None:
    blob = container.upload_blob("s", b"data")
    blob.create_snapshot()
    blob.delete_blob(delete_snapshots=keep)
    assert blob.exists() == (keep == "only")
    assert all(item.snapshot is None for item in container.list_blobs(include=["snapshots"]))
