"""Tag expressions: both dialects, every refusal with its error, evaluation against a plain reading."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.tagquery import Comparison, TagQuery, parse_condition, parse_where

TAGS = {"a": "1", "b": "two", "long key": "x=y", "@": "no"}


@pytest.mark.parametrize(
    ("text", "container", "found"),
    [
        ("a='1'", "c", True),
        ("\"a\"='1'", "c", True),
        ("a = '1'  AND b>='two' and b <= 'two'", "c", True),
        ("b > 't' And b < 'u'", "c", True),
        ("b>'two'", "c", False),
        ("missing<'z'", "c", False),
        ("\"long key\"='x=y'", "c", True),
        ("@container='c' AND a='1'", "c", True),
        ("@container='c' AND a='1'", "d", False),
        ("a='1' AND @container = 'c'", "c", True),
        ("@container='c'", "c", True),
        ("a=''", "c", False),
        ("  a='1'  ", "c", True),
    ],
)
def test_where(text: str, container: str, found: bool) -> None:
    assert parse_where(text).matches(container, TAGS) is found


def test_where_tells_container_and_keys() -> None:
    query = parse_where("@container='c' AND \"a b\">'0' AND \"a b\"<='9' AND k='v'")
    assert query == TagQuery(
        "c",
        (Comparison("a b", ">", "0"), Comparison("a b", "<=", "9"), Comparison("k", "=", "v")),
        frozenset({"a b", "k"}),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "astring",
        "a",
        "a=",
        "a=1",
        'a="1"',
        "'a'='1'",
        "'1'='1'",
        "a='1' OR b='2'",
        "(a='1')",
        "a<>'1'",
        "a='1",
        "\"a='1'",
        "a='1' AND",
        "AND a='1'",
        "a='1' b='2'",
        "a='1' AND AND b='2'",
        "a=='1'",
        "a='1';",
        "a-b='1'",
        "a='x@'",
        "a='x''y'",
        "\"\"='1'",
        "\"a<\"='1'",
        "a='1' AND a='2'",
        "a>'1' AND a>='2'",
        "a<'1' AND a<='2'",
        "a>'1' AND a='2'",
        "@container>'c'",
        "@container='c' AND @container='d'",
        "@tags='c'",
        "@@container='c'",
        "k" * 129 + "='1'",
        "a='" + "v" * 257 + "'",
        " AND ".join(f"k{n}='v'" for n in range(11)),
        "a='1'" + " " * limits.tag_expression_chars_max,
        "a\x00='1'",
        "é='1'",
    ],
)
def test_refusals_of_where(text: str) -> None:
    with pytest.raises(BlobError) as caught:
        parse_where(text)
    assert caught.value.code is ErrorCode.INVALID_QUERY_PARAMETER_VALUE
    assert caught.value.message.startswith("Error parsing query at or near character position ")
    assert caught.value.detail == (("QueryParameterName", "where"), ("QueryParameterValue", text))


def test_ten_keys_are_allowed() -> None:
    query = parse_where(" AND ".join(f"k{n}='v'" for n in range(10)))
    assert query.matches("c", {f"k{n}": "v" for n in range(10)})


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("a='1'", True),
        ("a<>'1'", False),
        ("a<>'2'", True),
        ("missing<>'2'", False),
        ("a='2' OR b='two'", True),
        ("a='1' OR a='2' AND b='x'", True),
        ("(a='1' OR a='2') AND b='x'", False),
        ("a='1' AND (b='x' OR (b='two'))", True),
        ("a='1' AND a='1' AND a='1'", True),
        ("\"a\" >= '1' or missing = 'x'", True),
    ],
)
def test_conditions(text: str, holds: bool) -> None:
    assert parse_condition(text).holds(TAGS) is holds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a='1' OR",
        "(a='1'",
        "a='1')",
        "()",
        "NOT a='1'",
        "@container='c'",
        "(" * 100 + "a='1'" + ")" * 100,
        " OR ".join(["a='1'"] * (limits.tag_expression_terms_max + 1)),
    ],
)
def test_refusals_of_conditions(text: str) -> None:
    with pytest.raises(BlobError) as caught:
        parse_condition(text)
    assert caught.value.code is ErrorCode.INVALID_HEADER_VALUE
    assert caught.value.detail == (("HeaderName", "x-ms-if-tags"), ("HeaderValue", text))


@given(st.text("ab='\"<>() ANDor@\n", max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for parse in (parse_where, parse_condition):
        try:
            parse(text)
        except BlobError:
            continue


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("123"), st.booleans()), min_size=1, max_size=8))
def test_and_binds_tighter_than_or(terms: list[tuple[str, str, bool]]) -> None:
    tags = {"a": "1", "b": "2", "c": "3"}
    text, python = "", ""
    for key, value, conjunction in terms:
        joint = " AND " if conjunction else " OR "
        text += (joint if text else "") + f"{key}='{value}'"
        python += (joint.lower() if python else "") + str(tags[key] == value)
    assert parse_condition(text).holds(tags) is eval(python)


def test_an_unclosed_string_is_refused_in_linear_time() -> None:
    with pytest.raises(BlobError):
        parse_where("a='" + "''" * (limits.tag_expression_chars_max // 2 - 10))
