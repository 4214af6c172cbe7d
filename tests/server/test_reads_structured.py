"""Structured bodies of Get Blob, taken apart by the Python SDK's own decoder."""

import hashlib
from collections.abc import Iterator

import pytest
from azure.storage.blob._shared.streams import StructuredMessageDecoder

from dataplane.blobapi import limits, structured
from tests.support import WireClient

HEADERS = {structured.BODY_HEADER: structured.BODY_VALUE}


@pytest.mark.parametrize("size", [0, 11, limits.range_checksum_bytes_max + 5])
def test_structured_bodies(client: WireClient, container: str, size: int) -> None:
    data = hashlib.shake_256(b"structured").digest(size)
    path = container + "/blob"
    assert client.request("PUT", path, headers={"x-ms-blob-type": "BlockBlob"}, body=data).status == 201
    answer = client.request("GET", path, headers=HEADERS)
    assert answer.status == 200
    assert answer.headers[structured.BODY_HEADER] == structured.BODY_VALUE
    assert answer.headers[structured.LENGTH_HEADER] == str(size)
    pieces: Iterator[bytes] = iter([answer.body])
    assert StructuredMessageDecoder(pieces, int(answer.headers["content-length"])).read() == data


def test_a_range_of_one(client: WireClient, container: str) -> None:
    path = container + "/blob"
    assert client.request("PUT", path, headers={"x-ms-blob-type": "BlockBlob"}, body=b"hello world").status == 201
    answer = client.request("GET", path, headers={**HEADERS, "x-ms-range": "bytes=6-10"})
    assert (answer.status, answer.headers["content-range"]) == (206, "bytes 6-10/11")
    pieces: Iterator[bytes] = iter([answer.body])
    assert StructuredMessageDecoder(pieces, len(answer.body)).read() == b"world"


def test_one_that_is_too_long_to_write_out_first(
    client: WireClient, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "structured_read_bytes_max", 10)
    path = container + "/blob"
    assert client.request("PUT", path, headers={"x-ms-blob-type": "BlockBlob"}, body=b"hello world").status == 201
    assert client.request("GET", path, headers=HEADERS).headers["x-ms-error-code"] == "OutOfRangeInput"
    assert client.request("GET", path, headers={**HEADERS, "x-ms-range": "bytes=6-10"}).status == 206
