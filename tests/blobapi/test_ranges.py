"""Ranges: the forms of the REST page, what is ignored, what is clipped, what is refused."""

import random

import pytest

from dataplane.blobapi.errors import BlobError
from dataplane.blobapi.ranges import ByteRange, RangeRequest, parse_range, parse_range_value, resolve

MAX = 2**64 - 1


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-33554431", 0, 33554431),
        ("bytes=255-", 255, None),
        (" Bytes=1-2 ", 1, 2),
        ("bytes=-5", None, 5),
        (f"bytes=0-{MAX}", 0, MAX),
        (f"bytes={MAX}-", MAX, None),
        ("bytes=007-008", 7, 8),
    ],
)
def test_forms(text: str, first: int | None, last: int | None) -> None:
    assert parse_range_value(text) == RangeRequest(first, last)


@pytest.mark.parametrize(
    "text",
    [
        "bytes=0--1",
        "bytes=",
        "bytes=-",
        "bytes=5-4",
        "bytes=0-1,3-4",
        "bytes= 0-1",
        "bytes=0-1 ",
        "bytes=a-b",
        "bytes=+1-2",
        "bytes=1.0-2",
        "octets=0-1",
        "0-1",
        "bytes=٣-٤",
        "bytes=0-1\n2",
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_malformed_is_ignored(text: str) -> None:
    if text.endswith(" "):
        assert parse_range_value(text) == RangeRequest(0, 1)
    else:
        assert parse_range_value(text) is None


def test_x_ms_range_hides_range() -> None:
    assert parse_range({"range": "bytes=1-2", "x-ms-range": "bytes=3-4"}) == RangeRequest(3, 4)
    assert parse_range({"range": "bytes=1-2", "x-ms-range": "nonsense"}) is None
    assert parse_range({"range": "bytes=1-2", "x-ms-range": ""}) == RangeRequest(1, 2)
    assert parse_range({}) is None


@pytest.mark.parametrize(
    ("request_", "size", "expected"),
    [
        (RangeRequest(0, 33554431), 1024, ByteRange(0, 1024, 1024)),
        (RangeRequest(5, None), 6, ByteRange(5, 1, 6)),
        (RangeRequest(0, MAX), 1, ByteRange(0, 1, 1)),
        (RangeRequest(None, 2), 6, ByteRange(4, 2, 6)),
        (RangeRequest(None, MAX), 6, ByteRange(0, 6, 6)),
    ],
)
def test_resolve(request_: RangeRequest, size: int, expected: ByteRange) -> None:
    assert resolve(request_, size) == expected


@pytest.mark.parametrize(
    ("request_", "size"),
    [
        (RangeRequest(0, 5), 0),
        (RangeRequest(3, 5), 0),
        (RangeRequest(0, None), 0),
        (RangeRequest(6, None), 6),
        (RangeRequest(MAX, MAX), 6),
        (RangeRequest(None, 0), 6),
        (RangeRequest(None, 3), 0),
    ],
)
def test_beyond_the_end(request_: RangeRequest, size: int) -> None:
    with pytest.raises(BlobError) as caught:
        resolve(request_, size)
    assert caught.value.code.status == 416
    assert caught.value.headers == (("Content-Range", f"bytes */{size}"),)


def test_content_range() -> None:
    assert ByteRange(61440, 4096, 65541).content_range == "bytes 61440-65535/65541"


def test_resolved_ranges_lie_inside() -> None:
    chance = random.Random(7)
    for _ in range(3000):
        size = chance.choice([0, 1, 2, 17, 2**40])
        first, last = (chance.choice([None, 0, 1, size - 1 if size else 0, size, MAX]) for _ in "ab")
        if last is None if first is None else last is not None and last < first:
            continue  # the parser lets no such range through
        try:
            found = resolve(RangeRequest(first, last), size)
        except BlobError:
            continue
        assert 0 <= found.offset < size
        assert 1 <= found.length <= size - found.offset
