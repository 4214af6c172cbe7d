"""Checksums: the rules of each kind of body, the recorded codes, and CRC-64/NVME against a bitwise reference."""

import hashlib
from base64 import b64encode

import pytest

from dataplane.blobapi.checksums import (
    BodyDigest,
    Purpose,
    check_md5,
    crc64,
    crc64_bytes,
    encoded,
    joined_crc64,
    parse_crc64,
    parse_md5,
)
from dataplane.blobapi.errors import BlobError

BODY = b"hello world"
MD5 = "XrY7u+Ae7tCTyyK7j1rNww=="  # as recorded for this body
WRONG_MD5 = b64encode(hashlib.md5(b"other").digest()).decode()
CRC = encoded(crc64_bytes(crc64(BODY)))
WRONG_CRC = "AQIDBAUGBwg="
OLD, EDGE, NEW = "2018-11-09", "2019-02-02", "2026-10-06"


def reference_crc64(data: bytes) -> int:
    """CRC-64/NVME bit by bit: reflected polynomial 0x9a6c9329ac4bc9b5, all ones in and out."""
    crc = (1 << 64) - 1
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x9A6C9329AC4BC9B5 if crc & 1 else 0)
    return crc ^ ((1 << 64) - 1)


def digest(headers: dict[str, str], purpose: Purpose, version: str = NEW) -> BodyDigest:
    found = BodyDigest(headers, version, purpose)
    found.update(BODY[:4])
    found.update(memoryview(BODY)[4:])
    found.finish()
    return found


def refused(headers: dict[str, str], purpose: Purpose) -> BlobError:
    with pytest.raises(BlobError) as caught:
        digest(headers, purpose)
    return caught.value


def test_crc64_is_nvme() -> None:
    assert crc64(b"123456789") == 0xAE8B14860A799888  # the published check value
    for data in (b"", b"a", BODY, bytes(range(256)) * 3):
        assert crc64(data) == reference_crc64(data)
        assert crc64(data[5:], crc64(data[:5])) == crc64(data)
        assert joined_crc64(crc64(data[:5]), len(data[:5]), crc64(data[5:]), len(data[5:])) == crc64(data)
    assert crc64(bytearray(BODY)) == crc64(memoryview(BODY)) == crc64(BODY)


@pytest.mark.parametrize(
    ("purpose", "version", "sent", "names"),
    [
        (Purpose.BLOB, OLD, {}, ["Content-MD5"]),
        (Purpose.BLOB, NEW, {}, ["Content-MD5", "x-ms-content-crc64"]),
        (Purpose.BLOB, NEW, {"x-ms-content-crc64": CRC}, ["Content-MD5", "x-ms-content-crc64"]),
        (Purpose.BLOCK, OLD, {}, ["Content-MD5"]),
        (Purpose.BLOCK, EDGE, {}, ["Content-MD5", "x-ms-content-crc64"]),
        (Purpose.BLOCK, NEW, {}, ["x-ms-content-crc64"]),
        (Purpose.BLOCK, NEW, {"content-md5": MD5}, ["Content-MD5"]),
        (Purpose.BLOCK, NEW, {"x-ms-content-crc64": CRC}, ["x-ms-content-crc64"]),
        (Purpose.BLOCK_LIST, OLD, {}, ["Content-MD5"]),
        (Purpose.BLOCK_LIST, NEW, {}, ["x-ms-content-crc64"]),
    ],
)
def test_what_is_echoed(purpose: Purpose, version: str, sent: dict[str, str], names: list[str]) -> None:
    found = dict(digest(sent, purpose, version).response_headers())
    assert list(found) == names
    assert found.get("Content-MD5", MD5) == MD5
    assert found.get("x-ms-content-crc64", CRC) == CRC


def test_put_blob_stores_an_md5() -> None:
    for sent in ({}, {"content-md5": MD5}, {"x-ms-blob-content-md5": ""}, {"x-ms-content-crc64": CRC}):
        assert encoded(digest(sent, Purpose.BLOB).md5 or b"") == MD5
    assert digest({}, Purpose.BLOCK).md5 is None


def test_blob_content_md5_hides_content_md5() -> None:
    digest({"x-ms-blob-content-md5": MD5, "content-md5": WRONG_MD5}, Purpose.BLOB)
    error = refused({"x-ms-blob-content-md5": WRONG_MD5, "content-md5": MD5}, Purpose.BLOB)
    assert error.code.code == "Md5Mismatch"


@pytest.mark.parametrize("purpose", [Purpose.BLOCK, Purpose.BLOCK_LIST])
def test_blocks_ignore_blob_content_md5(purpose: Purpose) -> None:
    digest({"x-ms-blob-content-md5": WRONG_MD5}, purpose)
    digest({"x-ms-blob-content-md5": "nonsense"}, purpose)


@pytest.mark.parametrize("purpose", list(Purpose))
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"content-md5": WRONG_MD5}, "Md5Mismatch"),
        ({"content-md5": "AAAA"}, "InvalidMd5"),
        ({"content-md5": "not base64!"}, "InvalidMd5"),
        ({"x-ms-content-crc64": WRONG_CRC}, "Crc64Mismatch"),
        ({"x-ms-content-crc64": "AAAA"}, "InvalidHeaderValue"),
        ({"x-ms-content-crc64": "*"}, "InvalidHeaderValue"),
        ({"content-md5": MD5, "x-ms-content-crc64": CRC}, "BothCrc64AndMd5HeaderPresent"),
    ],
)
def test_refusals(purpose: Purpose, headers: dict[str, str], code: str) -> None:
    error = refused(headers, purpose)
    assert (error.code.status, error.code.code) == (400, code)


def test_mismatches_show_both_values() -> None:
    assert refused({"content-md5": WRONG_MD5}, Purpose.BLOCK).detail == (
        ("UserSpecifiedMd5", WRONG_MD5),
        ("ServerCalculatedMd5", MD5),
    )
    assert refused({"x-ms-content-crc64": WRONG_CRC}, Purpose.BLOCK).detail == (
        ("UserSpecifiedCrc", WRONG_CRC),
        ("ServerCalculatedCrc", CRC),
    )


def test_empty_headers_mean_none() -> None:
    assert parse_md5({"content-md5": ""}, "content-md5") is None
    assert parse_crc64({}, "x-ms-content-crc64") is None
    check_md5(None, None)
