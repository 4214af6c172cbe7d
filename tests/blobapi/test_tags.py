"""Tags: both forms, every limit, round trips."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.blobapi import tags
from dataplane.blobapi.errors import BlobError, ErrorCode

ALPHABET = "abcXYZ019 +-./:=_"
SETS = st.dictionaries(st.text(ALPHABET, min_size=1, max_size=20), st.text(ALPHABET, max_size=20), max_size=10)


@given(SETS)
def test_header_round_trip(found: dict[str, str]) -> None:
    assert tags.from_header(tags.to_header(found)) == found


@given(SETS)
def test_xml_round_trip(found: dict[str, str]) -> None:
    assert tags.parse(tags.render(found)) == found


def test_the_form_of_the_answer() -> None:
    assert tags.render({"a": "1", "b": ""}).decode("utf-8-sig") == (
        '<?xml version="1.0" encoding="utf-8"?><Tags><TagSet><Tag><Key>a</Key><Value>1</Value></Tag>'
        "<Tag><Key>b</Key><Value /></Tag></TagSet></Tags>"
    )


def test_plus_and_percent_twenty_are_both_blanks() -> None:
    assert tags.from_header("a+b=c%20d&e=%2B") == {"a b": "c d", "e": "+"}


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("a", ErrorCode.INVALID_HEADER_VALUE),
        ("a=1&", ErrorCode.INVALID_HEADER_VALUE),
        ("a=%", ErrorCode.INVALID_HEADER_VALUE),
        ("a=%FF", ErrorCode.INVALID_TAG),
        ("=1", ErrorCode.EMPTY_TAG_NAME),
        ("a=1&a=2", ErrorCode.DUPLICATE_TAG_NAMES),
        ("a=%21", ErrorCode.INVALID_TAG),
        ("a=%0A", ErrorCode.INVALID_TAG),
        ("a%3C=1", ErrorCode.INVALID_TAG),
        ("a" * 129 + "=1", ErrorCode.TAGS_TOO_LARGE),
        ("a=" + "1" * 257, ErrorCode.TAGS_TOO_LARGE),
        ("&".join(f"k{n}=v" for n in range(11)), ErrorCode.TAGS_TOO_LARGE),
    ],
)
def test_refusals_of_headers(header: str, code: ErrorCode) -> None:
    with pytest.raises(BlobError) as caught:
        tags.from_header(header)
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("<Tags/>", ErrorCode.INVALID_XML_DOCUMENT),
        ("<Tags><TagSet><Tag><Key>a</Key></Tag></TagSet></Tags>", ErrorCode.INVALID_XML_DOCUMENT),
        ("<Tags><TagSet><Tag><Key>a</Key><Value><b/></Value></Tag></TagSet></Tags>", ErrorCode.INVALID_XML_DOCUMENT),
        ("<Tags><TagSet><Other/></TagSet></Tags>", ErrorCode.INVALID_XML_DOCUMENT),
        ("<Tags><TagSet><Tag><Key>a,b</Key><Value>1</Value></Tag></TagSet></Tags>", ErrorCode.INVALID_TAG),
    ],
)
def test_refusals_of_bodies(body: str, code: ErrorCode) -> None:
    with pytest.raises(BlobError) as caught:
        tags.parse(body.encode())
    assert caught.value.code is code


def test_no_header_and_an_empty_set_mean_no_tags() -> None:
    assert tags.from_header(None) == tags.from_header("") == tags.parse(b"<Tags><TagSet/></Tags>") == {}
