"""CORS rules: the table of the REST page, recorded Vary headers, preflights."""

import pytest

from dataplane.blobapi import cors
from dataplane.blobapi.cors import CorsRule
from dataplane.blobapi.errors import BlobError, ErrorCode

EXACT = CorsRule(("https://a.example",), ("GET", "PUT"), ("x-ms-meta-data*", "x-ms-version"), ("x-ms-request-id",), 300)
ANY = CorsRule(("*",), ("GET",), ("*",), (), 60)
SUBDOMAINS = CorsRule(("https://*.example.com",), ("GET",))
VARY = ("Vary", "Origin")


def _preflight(origin: str, method: str, headers: str | None = None) -> dict[str, str]:
    found = {"origin": origin, "access-control-request-method": method}
    return found if headers is None else {**found, "access-control-request-headers": headers}


def test_preflight_of_an_exact_origin() -> None:
    asked = "X-MS-Meta-Data1, x-ms-version"
    assert cors.preflight((ANY, EXACT), _preflight("https://a.example", "PUT", asked)) == [
        ("Access-Control-Allow-Origin", "https://a.example"),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Allow-Methods", "PUT"),
        ("Access-Control-Allow-Headers", asked),
        ("Access-Control-Max-Age", "300"),
    ]


def test_preflight_of_any_origin() -> None:
    assert cors.preflight((ANY,), _preflight("null", "GET")) == [
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Allow-Methods", "GET"),
        ("Access-Control-Max-Age", "60"),
    ]


@pytest.mark.parametrize(
    "headers",
    [
        _preflight("https://A.example", "GET"),
        _preflight("https://a.example.", "GET"),
        _preflight("https://a.example", "DELETE"),
        _preflight("https://a.example", "get"),
        _preflight("https://a.example", "GET", "x-ms-version,authorization"),
        _preflight("https://a.example", "GET", "x-ms-version2"),
    ],
)
def test_preflight_without_a_matching_rule(headers: dict[str, str]) -> None:
    with pytest.raises(BlobError) as caught:
        cors.preflight((EXACT,), headers)
    assert caught.value.code is ErrorCode.CORS_PREFLIGHT_FAILURE


@pytest.mark.parametrize("missing", ["origin", "access-control-request-method"])
def test_what_is_not_a_preflight(missing: str) -> None:
    headers = _preflight("https://a.example", "GET")
    del headers[missing]
    with pytest.raises(BlobError) as caught:
        cors.preflight((ANY,), headers)
    assert caught.value.code.status == 400


@pytest.mark.parametrize(
    ("rules", "method", "origin", "expected"),
    [
        ((), "GET", "https://a.example", []),
        ((), "GET", None, []),
        ((EXACT,), "GET", None, [VARY]),
        ((EXACT,), "HEAD", None, [VARY]),
        ((EXACT,), "PUT", None, []),
        ((EXACT, ANY), "GET", None, []),
        ((EXACT,), "GET", "https://other.example", [VARY]),
        ((EXACT,), "DELETE", "https://a.example", []),
        ((ANY,), "GET", "https://other.example", [("Access-Control-Allow-Origin", "*")]),
        (
            (EXACT, ANY),
            "GET",
            "https://a.example",
            [
                ("Access-Control-Allow-Origin", "https://a.example"),
                ("Access-Control-Allow-Credentials", "true"),
                ("Access-Control-Expose-Headers", "x-ms-request-id"),
                VARY,
            ],
        ),
    ],
)
def test_headers_of_actual_requests(
    rules: tuple[CorsRule, ...], method: str, origin: str | None, expected: list[tuple[str, str]]
) -> None:
    assert cors.response_headers(rules, method, origin) == expected


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://a.example.com", True),
        ("https://a.b.example.com", True),
        ("https://example.com", False),
        ("http://a.example.com", False),
        ("https://evil.test/.example.com", False),
        ("https://aexample.com", False),
    ],
)
def test_subdomains(origin: str, allowed: bool) -> None:
    assert SUBDOMAINS.allows_origin(origin) is allowed
