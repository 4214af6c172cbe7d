"""Conditional headers: a small truth table checked against an independent statement of Azure's expressions."""

import itertools
from collections.abc import Callable, Mapping

import pytest

from dataplane.blobapi.conditions import (
    NO_CONDITIONS,
    ConditionalHeaders,
    Outcome,
    check_absent,
    check_container,
    check_create,
    check_read,
    check_source,
    check_write,
    evaluate_read,
    parse_conditions,
    parse_source_conditions,
)
from dataplane.blobapi.dates import http_date
from dataplane.blobapi.errors import BlobError

ETAG, OTHER, TIME = "0x8D6D417267A7E98", "0x111111111111111", 1_557_362_521
TAGS: Mapping[str, str] = {"k": "v"}


def matches(expression: str, tags: Mapping[str, str]) -> bool:
    return expression in tags


def refusal(check: Callable[[], None]) -> tuple[int, str] | None:
    """(status, code) of the BlobError that a check raises, None when it passes."""
    try:
        check()
    except BlobError as error:
        return error.code.status, error.code.code
    return None


def read(conditions: ConditionalHeaders) -> tuple[int, str] | None:
    return refusal(lambda: check_read(conditions, ETAG, TIME, TAGS, matches))


def write(conditions: ConditionalHeaders) -> tuple[int, str] | None:
    return refusal(lambda: check_write(conditions, ETAG, TIME, TAGS, matches))


def create(conditions: ConditionalHeaders, lease_held: bool = False) -> tuple[int, str] | None:
    return refusal(lambda: check_create(conditions, ETAG, TIME, TAGS, matches, lease_held=lease_held))


FAILED = (412, "ConditionNotMet")
NOT_MODIFIED = (304, "ConditionNotMet")
MULTIPLE = (400, "MultipleConditionHeadersNotSupported")


def test_parsing() -> None:
    found = parse_conditions(
        {
            "if-match": f'"{ETAG}", {OTHER} ,',
            "if-none-match": f'W/"{ETAG}"',
            "if-modified-since": "Thu, 09 May 2019 00:42:01 GMT",
            "if-unmodified-since": http_date(TIME),
            "x-ms-if-tags": "k",
        }
    )
    assert found == ConditionalHeaders((ETAG, OTHER), (ETAG,), TIME, TIME, "k")
    assert parse_conditions({"if-match": "", "x-ms-source-if-match": "a"}) is NO_CONDITIONS
    assert parse_source_conditions({"x-ms-source-if-match": "a"}) == ConditionalHeaders(("a",))
    assert parse_conditions({"if-match": f'W/"{ETAG}"'}).if_match == (f'W/"{ETAG}"',)  # weak tags never match strongly


@pytest.mark.parametrize("text", ["yesterday", "2019-05-09", f"{http_date(TIME)}, {http_date(TIME)}"])
def test_a_date_that_is_none(text: str) -> None:
    with pytest.raises(BlobError) as caught:
        parse_conditions({"if-unmodified-since": text})
    assert caught.value.code.code == "InvalidHeaderValue"
    assert ("HeaderName", "if-unmodified-since") in caught.value.detail


def combinations() -> list[ConditionalHeaders]:
    etags: list[tuple[str, ...]] = [(), (ETAG,), (OTHER,)]
    times = [None, TIME - 1, TIME, TIME + 1]
    return [ConditionalHeaders(*parts) for parts in itertools.product(etags, etags, times, times)]


@pytest.mark.parametrize("c", combinations())
def test_reads_follow_the_expression(c: ConditionalHeaders) -> None:
    if_match = not c.if_match or ETAG in c.if_match
    unmodified = c.if_unmodified_since is None or c.if_unmodified_since >= TIME
    none_match = bool(c.if_none_match) and ETAG not in c.if_none_match
    modified = c.if_modified_since is not None and c.if_modified_since < TIME
    neither = not c.if_none_match and c.if_modified_since is None
    if not (if_match and unmodified):
        assert read(c) == FAILED
    elif none_match or modified or neither:
        assert read(c) is None
    else:
        assert read(c) == NOT_MODIFIED


@pytest.mark.parametrize("c", combinations())
def test_writes_take_pairs_and_let_etags_win(c: ConditionalHeaders) -> None:
    keep = bool(c.if_match) or c.if_unmodified_since is not None
    change = bool(c.if_none_match) or c.if_modified_since is not None
    if keep and change:
        assert write(c) == MULTIPLE
        return
    if c.if_match:
        passed = c.if_match == (ETAG,)
    elif c.if_none_match:
        passed = c.if_none_match != (ETAG,)
    else:
        passed = (c.if_unmodified_since is None or c.if_unmodified_since >= TIME) and (
            c.if_modified_since is None or c.if_modified_since < TIME
        )
    assert write(c) == (None if passed else FAILED)
    assert create(c) == write(c)


def test_lists_of_etags() -> None:
    assert read(ConditionalHeaders(if_match=(OTHER, ETAG))) is None
    assert read(ConditionalHeaders(if_none_match=(OTHER, ETAG))) == NOT_MODIFIED
    assert write(ConditionalHeaders(if_match=(OTHER, ETAG))) == MULTIPLE
    assert write(ConditionalHeaders(if_none_match=(OTHER, ETAG))) == MULTIPLE


def test_wildcards() -> None:
    star = ("*",)
    assert read(ConditionalHeaders(if_match=star)) is None
    assert read(ConditionalHeaders(if_none_match=star)) == (400, "UnsatisfiableCondition")
    assert write(ConditionalHeaders(if_match=star)) is None
    assert write(ConditionalHeaders(if_none_match=star)) is None
    assert create(ConditionalHeaders(if_none_match=star)) == (409, "BlobAlreadyExists")
    assert create(ConditionalHeaders(if_none_match=star), lease_held=True) is None
    assert create(ConditionalHeaders(if_match=(ETAG,), if_none_match=star)) == MULTIPLE


def test_tags() -> None:
    for check in (read, write, create):
        assert check(ConditionalHeaders(if_tags="k")) is None
        assert check(ConditionalHeaders(if_tags="x")) == FAILED
        assert check(ConditionalHeaders(if_match=(ETAG,), if_tags="x")) == FAILED


def test_absent_blobs() -> None:
    assert refusal(lambda: check_absent(ConditionalHeaders(if_match=("*",)))) == FAILED
    assert refusal(lambda: check_absent(ConditionalHeaders(if_match=(ETAG,)))) == FAILED
    assert refusal(lambda: check_absent(ConditionalHeaders(if_tags="k"))) == FAILED
    others = ConditionalHeaders(if_none_match=("*",), if_modified_since=TIME, if_unmodified_since=0)
    assert refusal(lambda: check_absent(others)) is None


def test_sources() -> None:
    def source(c: ConditionalHeaders, asynchronous: bool) -> tuple[int, str] | None:
        return refusal(lambda: check_source(c, ETAG, TIME, TAGS, matches, asynchronous=asynchronous))

    changed, unchanged = ConditionalHeaders(if_match=(OTHER,)), ConditionalHeaders(if_none_match=(ETAG,))
    assert source(changed, True) == source(unchanged, True) == (412, "SourceConditionNotMet")
    assert source(changed, False) == (412, "CannotVerifyCopySource")
    assert source(unchanged, False) == (304, "CannotVerifyCopySource")
    assert source(NO_CONDITIONS, False) is None


def test_containers() -> None:
    def container(c: ConditionalHeaders, unmodified: bool = True) -> tuple[int, str] | None:
        return refusal(lambda: check_container(c, TIME, unmodified=unmodified))

    assert container(NO_CONDITIONS) is None
    assert container(ConditionalHeaders(if_modified_since=TIME - 1)) is None
    assert container(ConditionalHeaders(if_modified_since=TIME)) == FAILED
    assert container(ConditionalHeaders(if_unmodified_since=TIME)) is None
    assert container(ConditionalHeaders(if_unmodified_since=TIME - 1)) == FAILED
    refused = (400, "ConditionHeadersNotSupported")
    assert container(ConditionalHeaders(if_unmodified_since=TIME), unmodified=False) == refused
    assert container(ConditionalHeaders(if_match=(ETAG,))) == refused


def test_outcomes_are_values_too() -> None:
    assert evaluate_read(NO_CONDITIONS, ETAG, TIME, TAGS, matches) is Outcome.MET
