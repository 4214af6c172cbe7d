"""Structured bodies: both directions against the Python SDK's own code, pieces of every size, every way to be wrong."""

import random
from collections.abc import Iterator
from io import BytesIO

import pytest
from azure.storage.blob._shared.streams import (
    StructuredMessageDecoder,
    StructuredMessageEncodeStream,
    StructuredMessageProperties,
)

from dataplane.blobapi import structured
from dataplane.blobapi.errors import BlobError
from dataplane.blobapi.structured import StructuredDecoder, content_length, encode, encoded_length, wanted

CRC, NONE = StructuredMessageProperties.CRC64, StructuredMessageProperties.NONE


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def sdk_message(data: bytes, segment: int, flags: StructuredMessageProperties = CRC) -> bytes:
    return StructuredMessageEncodeStream(BytesIO(data), len(data), flags, segment_size=segment).read()


def decode(message: bytes, content_bytes: int, piece: int, announced: int | None = None) -> bytes:
    decoder = StructuredDecoder(len(message) if announced is None else announced, content_bytes)
    found = b"".join(
        part for at in range(0, len(message), piece) for part in decoder.feed(memoryview(message)[at : at + piece])
    )
    decoder.finish()
    return found


@pytest.mark.parametrize(("size", "segment"), [(0, 10), (1, 10), (10, 10), (11, 10), (997, 100), (70_000, 4096)])
@pytest.mark.parametrize("flags", [CRC, NONE])
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_decodes_what_the_sdk_encodes(size: int, segment: int, flags: StructuredMessageProperties, piece: int) -> None:
    data = content(size)
    assert decode(sdk_message(data, segment, flags), size, piece) == data


@pytest.mark.parametrize("size", [0, 1, 997, 70_000])
def test_the_sdk_decodes_what_is_encoded_here(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structured, "SEGMENT_BYTES", 1000)
    data = content(size)
    stream = BytesIO(data)
    message = b"".join(encode(lambda n: stream.read(min(n, 300)), size))
    assert len(message) == encoded_length(size)
    assert message == sdk_message(data, 1000)
    pieces: Iterator[bytes] = iter([message])
    assert StructuredMessageDecoder(pieces, len(message)).read() == data


def test_segments_grow_for_huge_content() -> None:
    count, size = structured.segment_count(190 * 2**40)
    assert count <= structured.SEGMENTS_MAX
    assert (count - 1) * size < 190 * 2**40 <= count * size


def test_content_that_ends_early() -> None:
    stream = BytesIO(b"abc")
    with pytest.raises(EOFError):
        list(encode(stream.read, 4))


DATA = content(250)
GOOD = sdk_message(DATA, 100)


def changed(at: int, to: int | None = None) -> bytes:
    broken = bytearray(GOOD)
    broken[at] = broken[at] ^ 0x55 if to is None else to
    return bytes(broken)


def test_any_changed_byte_is_noticed() -> None:
    for at in range(len(GOOD)):
        with pytest.raises(BlobError) as caught:
            decode(changed(at), len(DATA), 64)
        assert caught.value.code.code in ("Crc64Mismatch", "InvalidInput")


@pytest.mark.parametrize(
    "message",
    [
        GOOD[:-1],
        GOOD[:12],
        GOOD + b"x",
        b"",
        changed(0, 2),  # version
        changed(9, 3),  # properties
        changed(11, 0),  # segments
        changed(13, 2),  # number of the first segment
        changed(15, 99),  # length of the first segment
    ],
)
def test_malformed(message: bytes) -> None:
    with pytest.raises(BlobError) as caught:
        decode(message, len(DATA), 33, announced=len(GOOD))
    assert caught.value.code.code in ("InvalidInput", "Crc64Mismatch")


def test_lengths_have_to_agree() -> None:
    assert decode(GOOD, len(DATA), 50) == DATA
    for content_bytes, announced in ((249, len(GOOD)), (251, len(GOOD)), (250, len(GOOD) + 1)):
        with pytest.raises(BlobError):
            decode(GOOD, content_bytes, 50, announced)


def test_headers() -> None:
    assert wanted({structured.BODY_HEADER: structured.BODY_VALUE})
    assert wanted({structured.BODY_HEADER: "xsm/1.0;properties=crc64"})
    assert not wanted({})
    for headers in ({structured.BODY_HEADER: "XSM/2.0; properties=crc64"}, {structured.BODY_HEADER: "XSM/1.0"}):
        with pytest.raises(BlobError):
            wanted(headers)
    assert content_length({structured.LENGTH_HEADER: "12"}) == 12
    for value in ("", "-1", "1e3", "9" * 21):
        with pytest.raises(BlobError):
            content_length({structured.LENGTH_HEADER: value})
