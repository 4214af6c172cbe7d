"""Copies as pure functions: URLs, headers, addresses, what the destination is made of, and pending copies over time."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.blobapi import copysource, limits
from dataplane.blobapi.copysource import TagOption
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import AccessTier, BlobProperties, BlobState, CopyState, CopyStatus

NOW = 1_750_000_000
URL = "https://acct.blob.core.windows.net/c/b"


def code_of(text: str) -> ErrorCode:
    with pytest.raises(BlobError) as caught:
        copysource.parse_source_url(text)
    return caught.value.code


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        (URL, "acct.blob.core.windows.net", 443, URL),
        (URL + "?sv=1&sig=secret", "acct.blob.core.windows.net", 443, URL),
        ("HTTP://Host:10000/a/c/b%20x", "host", 10000, "HTTP://Host:10000/a/c/b%20x"),
        ("https://[::1]:8443/a/c/b", "::1", 8443, "https://[::1]:8443/a/c/b"),
        ("https://host./c/b", "host", 443, "https://host./c/b"),
        (f"{URL}?snapshot=2025-01-01T00:00:00.0000000Z&sig=x", "acct.blob.core.windows.net", 443,
         f"{URL}?snapshot=2025-01-01T00:00:00.0000000Z"),
        ("https://host/c/caf\u00e9", "host", 443, "https://host/c/caf\u00e9"),
    ],
)  # fmt: skip
def test_urls(text: str, host: str, port: int, shown: str) -> None:
    url = copysource.parse_source_url(text)
    assert (url.host, url.port, url.shown) == (host, port, shown)


@pytest.mark.parametrize(
    "text",
    [
        "/c/b", "c/b", "//host/c/b", "ftp://host/c/b", "file:///etc/passwd", "https:///c/b", "https://user@host/c/b",
        "https://user:pass@host/c/b", "https://host:99999/c/b", "https://host:x/c/b", "https://ho st/c/b",
        "https://host/c/b#part", "https://host\\@evil/c/b", "https://host/c b", "https://host/c\tb",
        "https://host/c\r\nb", "https://[::1/c/b", "https://ho%73t/c/b", "https://" + "h" * 20000,
        "https://a,b/c", "https://host:80:80/c/b", "https://\u24d0.example/c/b",
    ],
)  # fmt: skip
def test_what_is_no_source(text: str) -> None:
    assert code_of(text) is ErrorCode.INVALID_HEADER_VALUE


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    for candidate in (text, "https://" + text):
        try:
            url = copysource.parse_source_url(candidate)
        except BlobError:
            continue
        assert url.scheme in ("http", "https")
        assert url.host
        assert "@" not in url.authority


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("20.38.98.100", True), ("2603:1030:b00::1", True), ("127.0.0.1", False), ("10.1.2.3", False),
        ("172.16.0.1", False), ("192.168.1.1", False), ("169.254.169.254", False), ("100.64.0.1", False),
        ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False), ("::1", False), ("::", False),
        ("fe80::1", False), ("fd00::1", False), ("::ffff:127.0.0.1", False), ("::ffff:20.38.98.100", True),
        ("64:ff9b::a9fe:a9fe", False), ("2002:7f00:1::", False), ("2002:a9fe:a9fe::1", False), ("ff02::1", False),
        ("2001:0:a9fe:a9fe::1", False),
    ],
)  # fmt: skip
def test_addresses(address: str, public: bool) -> None:
    assert copysource.is_public_address(address) is public


def headers(**more: str) -> dict[str, str]:
    return {"x-ms-copy-source": URL, **{name.replace("_", "-"): value for name, value in more.items()}}


def test_headers() -> None:
    asked = copysource.parse_source_headers(
        headers(x_ms_source_range="bytes=5-9", x_ms_copy_source_tag_option="COPY", x_ms_source_if_match='"0x1"')
    )
    assert asked.range is not None
    assert (asked.range.first, asked.range.last) == (5, 9)
    assert asked.tag_option is TagOption.COPY
    assert asked.conditions.if_match == ("0x1",)
    assert asked.properties


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"x-ms-source-range": "bytes=9-5"}, ErrorCode.INVALID_HEADER_VALUE),
        ({"x-ms-source-range": "bytes=-5"}, ErrorCode.INVALID_HEADER_VALUE),
        ({"x-ms-source-range": "bytes=0-1,3-4"}, ErrorCode.INVALID_HEADER_VALUE),
        ({"x-ms-copy-source-tag-option": "MERGE"}, ErrorCode.INVALID_HEADER_VALUE),
        ({"x-ms-copy-source-tag-option": "COPY", "x-ms-tags": "a=b"}, ErrorCode.INVALID_HEADER_VALUE),
        ({"x-ms-copy-source-blob-properties": "maybe"}, ErrorCode.INVALID_HEADER_VALUE),
        ({"x-ms-copy-source-authorization": "SharedKey a:b"}, ErrorCode.INVALID_HEADER_VALUE),
        ({"x-ms-source-content-md5": "AAAA"}, ErrorCode.INVALID_MD5),
        ({"x-ms-source-if-modified-since": "yesterday"}, ErrorCode.INVALID_HEADER_VALUE),
    ],
)
def test_headers_that_are_wrong(more: dict[str, str], code: ErrorCode) -> None:
    with pytest.raises(BlobError) as caught:
        copysource.parse_source_headers({"x-ms-copy-source": URL, **more})
    assert caught.value.code is code


def test_a_refused_url_is_not_shown() -> None:
    with pytest.raises(BlobError) as caught:
        copysource.parse_source_headers({"x-ms-copy-source": "c/b?sig=secret"})
    assert "secret" not in repr(caught.value.detail)


# --- what the destination is made of ---

SOURCE = BlobProperties(
    etag="0x1", last_modified=1, created=1, content_type="text/plain", cache_control="no-store", content_md5=b"m" * 16,
    metadata={"a": "1"}, tags={"t": "1"}, access_tier=AccessTier.COOL, block_list="@list",
)  # fmt: skip


def test_copy_takes_properties_and_metadata_but_no_tags_tier_or_block_list() -> None:
    made = copysource.copied_properties(SOURCE, headers(), etag="0x2", now=NOW, access_tier=None)
    assert (made.content_type, made.cache_control, made.content_md5) == ("text/plain", "no-store", b"m" * 16)
    assert (made.metadata, made.tags, made.access_tier, made.block_list) == ({"a": "1"}, {}, None, "")
    assert (made.etag, made.created, made.last_modified, made.copy) == ("0x2", NOW, NOW, None)


def test_copy_with_metadata_of_its_own_and_tags() -> None:
    given_headers = headers(x_ms_meta_b="2", x_ms_tags="x=y")
    made = copysource.copied_properties(SOURCE, given_headers, etag="0x2", now=NOW, access_tier=AccessTier.COLD)
    assert (made.metadata, made.tags, made.access_tier, made.tier_changed) == (
        {"b": "2"}, {"x": "y"}, AccessTier.COLD, NOW,
    )  # fmt: skip
    made = copysource.copied_properties(SOURCE, headers(), etag="0x2", now=NOW, access_tier=None, copy_tags=True)
    assert made.tags == {"t": "1"}


def test_upload_fills_in_what_the_request_leaves_out() -> None:
    base = BlobProperties("0x2", NOW, NOW, content_type="application/octet-stream", cache_control="mine")
    asked = copysource.parse_source_headers(headers())
    made = copysource.uploaded_properties(SOURCE, asked, headers(x_ms_blob_cache_control="mine"), base)
    assert (made.content_type, made.cache_control, made.metadata, made.tags) == ("text/plain", "mine", {}, {})
    kept = copysource.parse_source_headers(headers(x_ms_copy_source_blob_properties="false"))
    assert copysource.uploaded_properties(SOURCE, kept, headers(), base) == base


def test_archived_sources() -> None:
    archived = replace(SOURCE, access_tier=AccessTier.ARCHIVE)
    copysource.check_archived(SOURCE, None, NOW)
    copysource.check_archived(archived, AccessTier.HOT, NOW)
    for tier in (None, AccessTier.ARCHIVE):
        with pytest.raises(BlobError) as caught:
            copysource.check_archived(archived, tier, NOW)
        assert caught.value.code is ErrorCode.BLOB_ARCHIVED
    made = copysource.copied_properties(archived, headers(), etag="0x2", now=NOW, access_tier=AccessTier.HOT)
    assert (made.access_tier, made.rehydrate_to) == (AccessTier.ARCHIVE, AccessTier.HOT)


# --- pending copies ---

PENDING = BlobState("b", 0, BlobProperties("0x2", NOW, NOW, copy=CopyState("id", URL, CopyStatus.PENDING, 0, 100)))


def status_of(properties: BlobProperties) -> CopyStatus | None:
    return properties.copy.status if properties.copy is not None else None


def test_a_silent_copy_reads_as_failed() -> None:
    alive = NOW + limits.copy_silence_seconds_max
    assert copysource.observed(PENDING.properties, alive) is PENDING.properties
    found = copysource.observed(PENDING.properties, alive + 1)
    assert status_of(found) is CopyStatus.FAILED
    assert found.copy is not None
    assert found.copy.description == copysource.INTERRUPTED
    with pytest.raises(BlobError) as caught:
        copysource.check_no_pending(PENDING, alive)
    assert caught.value.code is ErrorCode.PENDING_COPY_OPERATION
    copysource.check_no_pending(PENDING, alive + 1)
    copysource.check_no_pending(None, NOW)


def test_progress_keeps_it_alive() -> None:
    noted = copysource.progressed(PENDING, "id", 40, NOW + 100)
    assert noted is not None
    assert noted.copy is not None
    assert (noted.copy.bytes_copied, noted.last_modified) == (40, NOW + 100)
    assert copysource.is_pending(noted, NOW + 100 + limits.copy_silence_seconds_max)
    assert copysource.progressed(PENDING, "other", 40, NOW) is None
    assert copysource.progressed(None, "id", 40, NOW) is None


def test_ends() -> None:
    done = copysource.completed(PENDING, "id", "0x3", NOW + 5)
    assert (status_of(done), done.etag, done.copy and done.copy.bytes_copied) == (CopyStatus.SUCCESS, "0x3", 100)
    failed = copysource.ended(PENDING, "id", CopyStatus.FAILED, "why", NOW + 5)
    assert (status_of(failed), failed.etag) == (CopyStatus.FAILED, "0x2")
    assert status_of(copysource.aborted(PENDING, "id", NOW)) is CopyStatus.ABORTED


@pytest.mark.parametrize("state", [None, replace(PENDING, properties=replace(PENDING.properties, copy=None))])
def test_a_copy_that_was_replaced_ends_nothing(state: BlobState | None) -> None:
    with pytest.raises(BlobError) as caught:
        copysource.completed(state, "id", "0x3", NOW)
    assert caught.value.code is ErrorCode.NO_PENDING_COPY_OPERATION
    with pytest.raises(BlobError):
        copysource.ended(state, "id", CopyStatus.FAILED, "", NOW)


def test_abort() -> None:
    with pytest.raises(BlobError) as caught:
        copysource.aborted(PENDING, "other", NOW)
    assert caught.value.code is ErrorCode.COPY_ID_MISMATCH
    with pytest.raises(BlobError) as caught:
        copysource.aborted(PENDING, "id", NOW + 1000)
    assert caught.value.code is ErrorCode.NO_PENDING_COPY_OPERATION
