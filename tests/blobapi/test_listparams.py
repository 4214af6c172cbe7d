"""maxresults and include."""

import pytest

from dataplane.blobapi import listparams
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.listparams import LIST_BLOBS_INCLUDE


@pytest.mark.parametrize(
    ("text", "found"),
    [(None, (None, 5000)), ("", (None, 5000)), ("1", (1, 1)), ("5000", (5000, 5000)), ("5001", (5001, 5000))],
)
def test_max_results(text: str | None, found: tuple[int | None, int]) -> None:
    assert listparams.max_results(text) == found


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("0", ErrorCode.OUT_OF_RANGE_QUERY_PARAMETER_VALUE),
        ("-1", ErrorCode.OUT_OF_RANGE_QUERY_PARAMETER_VALUE),
        ("2147483648", ErrorCode.OUT_OF_RANGE_QUERY_PARAMETER_VALUE),
        ("two", ErrorCode.INVALID_QUERY_PARAMETER_VALUE),
        ("1e3", ErrorCode.INVALID_QUERY_PARAMETER_VALUE),
        (" 1", ErrorCode.INVALID_QUERY_PARAMETER_VALUE),
        ("1\n", ErrorCode.INVALID_QUERY_PARAMETER_VALUE),
        ("٣", ErrorCode.INVALID_QUERY_PARAMETER_VALUE),  # a digit of another script
        ("9" * 5000, ErrorCode.INVALID_QUERY_PARAMETER_VALUE),
    ],
)
def test_refusals_of_max_results(text: str, code: ErrorCode) -> None:
    with pytest.raises(BlobError) as caught:
        listparams.max_results(text)
    assert caught.value.code is code
    assert ("QueryParameterName", "maxresults") in caught.value.detail


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, set()),
        ("", set()),
        ("Snapshots", {"snapshots"}),
        ("metadata,copy,", {"metadata", "copy"}),
        (",".join(LIST_BLOBS_INCLUDE), LIST_BLOBS_INCLUDE),
    ],
)
def test_include(text: str | None, found: set[str]) -> None:
    assert listparams.include(text, LIST_BLOBS_INCLUDE) == found


@pytest.mark.parametrize("text", ["snapshot", "metadata;tags", "metadata,x"])
def test_unknown_datasets_are_refused(text: str) -> None:
    with pytest.raises(BlobError) as caught:
        listparams.include(text, LIST_BLOBS_INCLUDE)
    assert caught.value.code is ErrorCode.INVALID_QUERY_PARAMETER_VALUE
