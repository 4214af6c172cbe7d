"""Metadata headers: names, values, sizes, and back again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.blobapi import metadata
from dataplane.blobapi.errors import BlobError, ErrorCode

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30)


def test_only_metadata_headers_count_and_names_keep_their_case() -> None:
    headers = {"x-ms-version": "2020-10-02", "x-ms-meta-UP": " v ", "X-Ms-Meta-low": "", "content-type": "a/b"}
    assert metadata.from_headers(headers) == {"UP": "v", "low": ""}


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("", "v", ErrorCode.EMPTY_METADATA_KEY),
        ("a-b", "v", ErrorCode.INVALID_METADATA),
        ("1a", "v", ErrorCode.INVALID_METADATA),
        ("a!b", "v", ErrorCode.INVALID_METADATA),
        ("a\n", "v", ErrorCode.INVALID_METADATA),
        ("ä", "v", ErrorCode.INVALID_METADATA),
        ("a", "ä", ErrorCode.INVALID_METADATA),
        ("a", "\udce4", ErrorCode.INVALID_METADATA),
        ("a", "b\r\nx-ms-evil: 1", ErrorCode.INVALID_METADATA),
        ("a", "b\x7f", ErrorCode.INVALID_METADATA),
        ("a", "v" * 8192, ErrorCode.METADATA_TOO_LARGE),
    ],
)
def test_refusals(name: str, value: str, code: ErrorCode) -> None:
    with pytest.raises(BlobError) as caught:
        metadata.from_headers({metadata.PREFIX + name: value})
    assert caught.value.code is code


def test_eight_kibibytes_fit() -> None:
    assert metadata.from_headers({"x-ms-meta-a": "v" * 8191})["a"] == "v" * 8191


def test_names_that_differ_in_case_only_are_one_name() -> None:
    with pytest.raises(BlobError) as caught:
        metadata.from_headers({"x-ms-meta-a": "1", "x-ms-meta-A": "2"})
    assert caught.value.code is ErrorCode.INVALID_METADATA


@given(st.dictionaries(NAMES, VALUES, max_size=10))
def test_round_trip(values: dict[str, str]) -> None:
    if len({name.lower() for name in values}) == len(values):
        assert metadata.from_headers(dict(metadata.to_headers(values))) == values
