"""Headers of reads: the recorded sets of names, what versions add, ranges, snapshots, leases, overrides, the cache."""

from dataclasses import replace

from dataplane.blobapi.blobheaders import blob_headers
from dataplane.blobapi.model import AccessTier, BlobProperties, BlobState, CopyState, CopyStatus, Lease
from dataplane.blobapi.ranges import ByteRange

NOW = 1_557_362_521
RECORDED = "2018-11-09"
PROPERTIES = BlobProperties(
    etag="0x8D6D417267A7E98",
    last_modified=NOW,
    created=NOW,
    content_type="application/octet-stream",
    content_md5=bytes.fromhex("5eb63bbbe01eeed093cb22bb8f5acdc3"),
)
BLOB = BlobState("blob1", 11, PROPERTIES)
COPY = CopyState("a2cf222e-e7b6-4b04-acdb-42785ce144d9", "https://a/b", CopyStatus.SUCCESS, 1024, 1024, NOW)

#: As recorded with 2018-11-09, without x-ms-tag-count: 0, which the service sends no more.
GET_206 = {
    "Accept-Ranges", "Content-Range", "Content-Type", "ETag", "Last-Modified", "x-ms-blob-content-md5",
    "x-ms-blob-type", "x-ms-creation-time", "x-ms-lease-state", "x-ms-lease-status", "x-ms-server-encrypted",
}  # fmt: skip
HEAD_200 = {
    "Accept-Ranges", "Content-MD5", "Content-Type", "ETag", "Last-Modified", "x-ms-access-tier",
    "x-ms-access-tier-inferred", "x-ms-blob-type", "x-ms-creation-time", "x-ms-lease-state", "x-ms-lease-status",
    "x-ms-server-encrypted",
}  # fmt: skip


def of(
    state: BlobState = BLOB,
    version: str = RECORDED,
    *,
    head: bool = True,
    part: ByteRange | None = None,
    overrides: tuple[tuple[str, str], ...] = (),
) -> dict[str, str]:
    found = blob_headers(state, version, NOW, head=head, part=part, overrides=overrides)
    assert len(dict(found)) == len(found)
    return dict(found)


def changed(**more: object) -> BlobState:
    return replace(BLOB, properties=replace(PROPERTIES, **more))  # type: ignore[arg-type]


def test_head() -> None:
    found = of()
    assert set(found) == HEAD_200
    assert found["ETag"] == '"0x8D6D417267A7E98"'
    assert found["Last-Modified"] == found["x-ms-creation-time"] == "Thu, 09 May 2019 00:42:01 GMT"
    assert found["Content-MD5"] == "XrY7u+Ae7tCTyyK7j1rNww=="
    assert (found["x-ms-access-tier"], found["x-ms-access-tier-inferred"]) == ("Hot", "true")
    assert (found["x-ms-lease-state"], found["x-ms-lease-status"]) == ("available", "unlocked")


def test_get_of_a_range_and_of_all() -> None:
    found = of(head=False, part=ByteRange(0, 11, 11))
    assert set(found) == GET_206
    assert found["Content-Range"] == "bytes 0-10/11"
    whole = of(head=False)
    assert set(whole) == GET_206 - {"Content-Range", "x-ms-blob-content-md5"} | {"Content-MD5"}


def test_the_oldest_version() -> None:
    """As recorded for an anonymous request without a version."""
    assert set(of(version="2014-02-14", head=False)) == {
        "Accept-Ranges", "Content-MD5", "Content-Type", "ETag", "Last-Modified", "x-ms-blob-type",
        "x-ms-lease-state", "x-ms-lease-status",
    }  # fmt: skip


def test_properties_that_are_not_there() -> None:
    bare = changed(content_type="", content_md5=None, content_language="spanish", content_disposition="inline")
    assert set(of(bare)) == HEAD_200 - {"Content-Type", "Content-MD5"} | {"Content-Language", "Content-Disposition"}


def test_snapshots_have_no_lease() -> None:
    snapshot = replace(BLOB, snapshot="2019-05-09T00:53:01.3826986Z")
    found = of(snapshot, head=False, part=ByteRange(0, 11, 11))
    assert set(found) == GET_206 - {"x-ms-lease-state", "x-ms-lease-status"} | {"x-ms-snapshot"}


def test_a_lease() -> None:
    leased = of(replace(BLOB, lease=Lease("a", -1, None)))
    assert [leased["x-ms-lease-" + name] for name in ("status", "state", "duration")] == [
        "locked", "leased", "infinite",
    ]  # fmt: skip


def test_tiers() -> None:
    archived = changed(access_tier=AccessTier.ARCHIVE, tier_changed=NOW)
    added = {"x-ms-access-tier-change-time"}
    assert set(of(archived)) == HEAD_200 - {"x-ms-access-tier-inferred"} | added
    coming = changed(
        access_tier=AccessTier.ARCHIVE, tier_changed=NOW, rehydrate_to=AccessTier.HOT, rehydrate_priority="High"
    )
    assert of(coming)["x-ms-archive-status"] == "rehydrate-pending-to-hot"
    assert "x-ms-rehydrate-priority" not in of(coming)
    assert of(coming, "2026-10-06")["x-ms-rehydrate-priority"] == "High"
    assert "x-ms-access-tier" not in of(archived, head=False)


def test_copy_tags_and_metadata() -> None:
    full = changed(copy=COPY, tags={"a": "b"}, metadata={"UP": "UPval", "hello": "world"})
    found = of(full, "2026-10-06", head=False)
    assert found["x-ms-copy-progress"] == "1024/1024"
    assert found["x-ms-copy-status"] == "success"
    assert found["x-ms-copy-completion-time"] == "Thu, 09 May 2019 00:42:01 GMT"
    assert found["x-ms-tag-count"] == "1"
    assert (found["x-ms-meta-UP"], found["x-ms-meta-hello"]) == ("UPval", "world")
    assert "x-ms-tag-count" not in of(full)


def test_overrides_of_a_sas() -> None:
    found = of(head=False, overrides=(("Content-Type", "text/plain"), ("Content-Disposition", "attachment")))
    assert (found["Content-Type"], found["Content-Disposition"]) == ("text/plain", "attachment")
    assert set(found) == set(of(head=False)) | {"Content-Disposition"}


def test_what_changes_without_an_etag_is_seen() -> None:
    assert "x-ms-tag-count" not in of(version="2026-10-06")
    assert of(changed(tags={"a": "b"}), "2026-10-06")["x-ms-tag-count"] == "1"
    assert of(changed(access_tier=AccessTier.COOL))["x-ms-access-tier"] == "Cool"
    assert of()["x-ms-access-tier"] == "Hot"
