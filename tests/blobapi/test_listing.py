"""Listing documents: recorded answers byte for byte, versions, markers, speed."""

import base64
import time
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.blobapi import limits, listing
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.listing import BlobRenderer, Include, PageHead
from dataplane.blobapi.model import (
    AccessTier,
    BlobProperties,
    BlobState,
    ContainerProperties,
    ContainerState,
    CopyState,
    CopyStatus,
    Lease,
    PublicAccess,
)

NOW = 1_557_363_469  # Thu, 09 May 2019 00:57:49 GMT
MD5 = base64.b64decode("XrY7u+Ae7tCTyyK7j1rNww==")
PROPERTIES = BlobProperties("0x8D6D4195BBBCCE8", NOW, NOW, "application/octet-stream", content_md5=MD5)
BLOB = BlobState("blob1", 11, PROPERTIES)
HEAD = PageHead("https://storagename.blob.core.windows.net/", "containerab171296")

RECORDED_HEAD = (
    '<?xml version="1.0" encoding="utf-8"?><EnumerationResults '
    'ServiceEndpoint="https://storagename.blob.core.windows.net/" ContainerName="containerab171296">'
)
RECORDED_PROPERTIES = (
    "<Creation-Time>Thu, 09 May 2019 00:57:49 GMT</Creation-Time>"
    "<Last-Modified>Thu, 09 May 2019 00:57:49 GMT</Last-Modified><Etag>0x8D6D4195BBBCCE8</Etag>"
    "<Content-Length>11</Content-Length><Content-Type>application/octet-stream</Content-Type><Content-Encoding />"
    "<Content-Language /><Content-MD5>XrY7u+Ae7tCTyyK7j1rNww==</Content-MD5><Cache-Control /><Content-Disposition />"
    "<BlobType>BlockBlob</BlobType>"
)
SITUATION = (
    "<AccessTier>Hot</AccessTier><AccessTierInferred>true</AccessTierInferred>"
    "<LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState>"
)
ENCRYPTED = "<ServerEncrypted>true</ServerEncrypted>"


NOTHING = Include()


def _blob(state: BlobState, include: Include = NOTHING, version: str = "2018-11-09") -> str:
    return BlobRenderer(include, version, NOW).blob(state)


def test_the_recorded_hierarchical_page() -> None:
    renderer = BlobRenderer(Include(), "2018-11-09", NOW)
    page = listing.render_blobs(
        replace(HEAD, delimiter="/"), [renderer.prefix("a/"), renderer.prefix("b/"), renderer.blob(BLOB)], ""
    )
    assert page.decode("utf-8-sig") == (
        f"{RECORDED_HEAD}<Delimiter>/</Delimiter><Blobs><BlobPrefix><Name>a/</Name></BlobPrefix>"
        f"<BlobPrefix><Name>b/</Name></BlobPrefix><Blob><Name>blob1</Name><Properties>{RECORDED_PROPERTIES}"
        f"{SITUATION}{ENCRYPTED}</Properties></Blob></Blobs><NextMarker /></EnumerationResults>"
    )


def test_the_recorded_empty_page_and_its_parameters() -> None:
    page = listing.render_blobs(replace(HEAD, prefix="p<", marker="m", max_results=2), [], "n")
    assert page.decode("utf-8-sig") == (
        f"{RECORDED_HEAD}<Prefix>p&lt;</Prefix><Marker>m</Marker><MaxResults>2</MaxResults><Blobs />"
        "<NextMarker>n</NextMarker></EnumerationResults>"
    )


def test_the_recorded_snapshot() -> None:
    snapshot = replace(BLOB, snapshot="2019-05-09T00:57:53.4284115Z")
    assert _blob(snapshot) == (
        "<Blob><Name>blob1</Name><Snapshot>2019-05-09T00:57:53.4284115Z</Snapshot>"
        f"<Properties>{RECORDED_PROPERTIES}{ENCRYPTED}</Properties></Blob>"
    )


def test_the_recorded_uncommitted_blob() -> None:
    assert BlobRenderer(Include(), "2018-11-09", NOW).uncommitted("blob1") == (
        "<Blob><Name>blob1</Name><Properties><Content-Length>0</Content-Length><BlobType>BlockBlob</BlobType>"
        f"{SITUATION}<ServerEncrypted>false</ServerEncrypted></Properties></Blob>"
    )


def test_the_recorded_copy_is_there_when_asked_for() -> None:
    copy = CopyState("fdc6aa9a", "https://h/c/blob1", CopyStatus.SUCCESS, 11, 11, NOW)
    state = replace(BLOB, properties=replace(PROPERTIES, copy=copy))
    nodes = (
        "<CopyId>fdc6aa9a</CopyId><CopySource>https://h/c/blob1</CopySource><CopyStatus>success</CopyStatus>"
        "<CopyProgress>11/11</CopyProgress><CopyCompletionTime>Thu, 09 May 2019 00:57:49 GMT</CopyCompletionTime>"
    )
    assert f"{SITUATION}{nodes}{ENCRYPTED}" in _blob(state, Include(copy=True))
    assert "Copy" not in _blob(state)


def test_tiers_leases_and_what_newer_versions_add() -> None:
    properties = replace(
        PROPERTIES,
        content_md5=None,
        content_type="",
        access_tier=AccessTier.ARCHIVE,
        tier_changed=NOW,
        rehydrate_to=AccessTier.COOL,
        tags={"k": "v"},
        metadata={"Key": "a<b"},
    )
    state = replace(BLOB, properties=properties, lease=Lease("id", -1, None))
    assert _blob(state, Include(metadata=True, tags=True), "2021-12-02") == (
        "<Blob><Name>blob1</Name><Properties><Creation-Time>Thu, 09 May 2019 00:57:49 GMT</Creation-Time>"
        "<Last-Modified>Thu, 09 May 2019 00:57:49 GMT</Last-Modified><Etag>0x8D6D4195BBBCCE8</Etag>"
        "<Content-Length>11</Content-Length><Content-Type>application/octet-stream</Content-Type><Content-Encoding />"
        "<Content-Language /><Content-CRC64 /><Content-MD5 /><Cache-Control /><Content-Disposition />"
        "<BlobType>BlockBlob</BlobType><AccessTier>Archive</AccessTier>"
        "<ArchiveStatus>rehydrate-pending-to-cool</ArchiveStatus><RehydratePriority>Standard</RehydratePriority>"
        "<AccessTierChangeTime>Thu, 09 May 2019 00:57:49 GMT</AccessTierChangeTime>"
        "<LeaseStatus>locked</LeaseStatus><LeaseState>leased</LeaseState><LeaseDuration>infinite</LeaseDuration>"
        f"{ENCRYPTED}<TagCount>1</TagCount></Properties><Metadata><Key>a&lt;b</Key></Metadata>"
        "<Tags><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tags><OrMetadata /></Blob>"
    )
    assert "<Metadata />" in _blob(BLOB, Include(metadata=True))
    assert "TagCount" not in _blob(state)


def test_a_blob_that_came_back_from_archive_is_listed_online() -> None:
    """The listing asks the same clock as Get Blob Properties; the record still says archived."""
    coming = replace(PROPERTIES, access_tier=AccessTier.ARCHIVE, rehydrate_to=AccessTier.COOL, tier_changed=NOW)
    later = NOW + limits.rehydrate_seconds_standard
    for state in (replace(BLOB, properties=coming), replace(BLOB, properties=coming, snapshot="s")):
        listed = BlobRenderer(Include(), "2021-12-02", later).blob(state)
        assert "<AccessTier>Cool</AccessTier>" in listed
        assert "ArchiveStatus" not in listed
        assert "rehydrate-pending-to-cool" in BlobRenderer(Include(), "2021-12-02", later - 1).blob(state)


CONTAINER = ContainerState("container1", ContainerProperties("0x8D6D419604362AB", NOW))


def _containers(state: ContainerState, version: str, metadata: bool = False) -> str:
    head = PageHead("https://storagename.blob.core.windows.net/", prefix="container")
    page = listing.render_containers(head, [state], "", metadata=metadata, version=version, now=NOW)
    return page.decode("utf-8-sig")


def test_the_recorded_container() -> None:
    state = replace(CONTAINER, properties=replace(CONTAINER.properties, public_access=PublicAccess.BLOB))
    assert _containers(state, "2018-11-09").endswith(
        '<EnumerationResults ServiceEndpoint="https://storagename.blob.core.windows.net/"><Prefix>container</Prefix>'
        "<Containers><Container><Name>container1</Name><Properties>"
        '<Last-Modified>Thu, 09 May 2019 00:57:49 GMT</Last-Modified><Etag>"0x8D6D419604362AB"</Etag>'
        "<LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState><PublicAccess>blob</PublicAccess>"
        "<HasImmutabilityPolicy>false</HasImmutabilityPolicy><HasLegalHold>false</HasLegalHold></Properties>"
        "</Container></Containers><NextMarker /></EnumerationResults>"
    )


def test_containers_of_newer_versions() -> None:
    state = replace(
        CONTAINER, properties=replace(CONTAINER.properties, metadata={"key": "val"}, lease=Lease("i", -1, None))
    )
    page = _containers(state, "2022-11-02", metadata=True)
    assert (
        "<LeaseStatus>locked</LeaseStatus><LeaseState>leased</LeaseState><LeaseDuration>infinite</LeaseDuration>"
        "<DefaultEncryptionScope>$account-encryption-key</DefaultEncryptionScope>"
        "<DenyEncryptionScopeOverride>false</DenyEncryptionScopeOverride>"
        "<HasImmutabilityPolicy>false</HasImmutabilityPolicy><HasLegalHold>false</HasLegalHold>"
        "<ImmutableStorageWithVersioningEnabled>false</ImmutableStorageWithVersioningEnabled></Properties>"
        "<Metadata><key>val</key></Metadata></Container>"
    ) in page


def test_found_blobs() -> None:
    page = listing.render_found("http://h/a/", "k>'1'", [("c", "b&b", {"k": "2"})], "next")
    assert page.decode("utf-8-sig").endswith(
        "<EnumerationResults ServiceEndpoint=\"http://h/a/\"><Where>k&gt;'1'</Where><Blobs><Blob><Name>b&amp;b</Name>"
        "<ContainerName>c</ContainerName><Tags><TagSet><Tag><Key>k</Key><Value>2</Value></Tag></TagSet></Tags></Blob>"
        "</Blobs><NextMarker>next</NextMarker></EnumerationResults>"
    )


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)


@given(NAMES)
def test_any_name_makes_a_well_formed_page_and_survives(name: str) -> None:
    renderer = BlobRenderer(Include(), "2021-12-02", NOW)
    state = replace(BLOB, name=name, properties=replace(PROPERTIES, content_type=name, cache_control=name))
    head = PageHead(f"http://h/{name}/", "c", prefix=name, delimiter=name, marker=name)
    page = listing.render_blobs(head, [renderer.blob(state), renderer.prefix(name), renderer.uncommitted(name)], "")
    root = ET.fromstring(page.decode("utf-8-sig"))
    assert len(root.findall("Blobs/Blob/Name")) == 2
    assert len(root.findall("Blobs/BlobPrefix/Name")) == 1


@given(NAMES, NAMES)
def test_marker_round_trip(first: str, second: str) -> None:
    assert listing.decode_marker(listing.encode_marker(first)) == (first,)
    marker = listing.encode_marker(first, second)
    assert listing.decode_marker(marker, 2) == (first, second)
    assert marker.replace("-", "").replace("_", "").isalnum()


def test_no_marker() -> None:
    assert listing.encode_marker("") == ""
    assert listing.decode_marker("") == ("",)
    assert listing.decode_marker("", 2) == ("", "")


@pytest.mark.parametrize(
    "marker",
    ["x", "blob1", "é", "AA==", "AQ==", "AWE=", "AWE\n", "AWF", "AWE.", "Ag", "Af8", "AWEAYg", "2!68!MDAwMDA2IWJs"],
)
def test_other_markers_are_refused(marker: str) -> None:
    with pytest.raises(BlobError) as caught:
        listing.decode_marker(marker)
    assert caught.value.code is ErrorCode.INVALID_QUERY_PARAMETER_VALUE


@given(st.text(max_size=30))
def test_any_marker_is_read_or_refused(marker: str) -> None:
    try:
        names = listing.decode_marker(marker)
    except BlobError:
        return
    assert listing.encode_marker(*names) == marker


def test_a_page_of_five_thousand_is_quick() -> None:
    """A bound with room for a slow machine; 11 to 15 ms were measured on two cores of 2026."""
    states = [replace(BLOB, name=f"directory/file number {n:06d}.bin", size=n) for n in range(5000)]
    renderer = BlobRenderer(Include(metadata=True), "2023-11-03", NOW)
    started = time.process_time()
    page = listing.render_blobs(HEAD, [renderer.blob(state) for state in states], "")
    seconds = time.process_time() - started
    assert page.count(b"<Blob>") == 5000
    assert seconds < 0.15
