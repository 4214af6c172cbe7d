"""Shared Key and Shared Key Lite: the strings to sign of a request, for the side that signs and the side that verifies.

Source: REST page "Authorize with Shared Key", Blob service, versions 2009-09-19 and newer. One string is canonical and
is what `sign` uses. Where that page leaves room and clients in the field differ, verification also tries the other
readings of the same request, all of them made from the bytes that came:

- the order of header names: ordinal (Go, Rust, .NET) or the word sort of Windows, in which a dash weighs last
  (Python, JavaScript); they differ only for odd metadata names;
- a length of zero: empty (2015-02-21 and newer) or "0" (older versions, boostedblob);
- runs of blanks inside a value: as sent (every SDK), or folded to one (the page's text).

No reading leaves a signed part out, so that none of them weakens the signature. Rejected: one "most lenient" string,
which two different requests could share. The Date header counts as empty when x-ms-date is there, and only x-ms-date is
then looked at; an empty x-ms- header is signed from 2016-05-31 on, as the page says.
"""

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import Final

from dataplane.blobapi import limits
from dataplane.blobapi.dates import parse_http_date

SHARED_KEY: Final = "SharedKey"
SHARED_KEY_LITE: Final = "SharedKeyLite"

_SIGNED_HEADERS: Final = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
    "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip
_SIGNED_HEADERS_LITE: Final = ("content-md5", "content-type", "date")
_EMPTY_HEADERS_SIGNED_SINCE: Final = "2016-05-31"
_BLANKS: Final = re.compile(r"[ \t\r\n]+")

#: The characters of header names in the order of the Windows word sort; dash and apostrophe only break ties.
_WORD_SORT: Final = {char: weight for weight, char in enumerate("!#$%&*.^_`|~+0123456789abcdefghijklmnopqrstuvwxyz", 2)}
_LAST_WEIGHTS: Final = {"'": 2, "-": 3}
_END: Final = 1  # the end of a name weighs more than a character without weight, and less than any other


def word_sort_key(name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The place of a lower-case header name in the Windows word sort, as the Python and JavaScript SDKs compute it."""
    first = tuple(_WORD_SORT[char] for char in name if char in _WORD_SORT)
    return (*first, _END), (*(_LAST_WEIGHTS.get(char, 0) for char in name), _END)


def signature(key: bytes, string_to_sign: str) -> str:
    """Base64 of HMAC-SHA256, the signature of Shared Key and SAS alike. `key` is the decoded account key."""
    return b64encode(hmac_digest(key, string_to_sign.encode("utf-8", "surrogateescape"), "sha256")).decode("ascii")


def signature_matches(keys: tuple[bytes, ...], string_to_sign: str, presented: str) -> bool:
    """Whether any of the keys made the signature. Takes the same time wherever a wrong one differs (compare_digest).

    The texts are compared, not what they decode to: base64 can write the same bytes in more than one way.
    """
    given = presented.encode("utf-8", "surrogateescape")
    return any(compare_digest(signature(key, string_to_sign).encode("ascii"), given) for key in keys)


def sign(
    method: str,
    account: str,
    raw_path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    key: bytes,
    *,
    scheme: str = SHARED_KEY,
) -> str:
    """The value of the Authorization header for a request.

    `raw_path` is the whole path as it is sent; names of `query` and `headers` are lower-case, values of `query`
    decoded. `headers` has x-ms-date or date already.
    """
    string = next(strings_to_sign(method, account, raw_path, query, headers, scheme))
    return f"{scheme} {account}:{signature(key, string)}"


def strings_to_sign(
    method: str,
    account: str,
    raw_path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    scheme: str,
) -> Iterator[str]:
    """Every reading of the request that a client may have signed, the canonical one first, none twice."""
    lite = scheme == SHARED_KEY_LITE
    resource = (_resource_lite if lite else _resource)(account, raw_path, query)
    lengths = ("",) if lite or headers.get("content-length", "0") != "0" else ("", "0")
    seen: set[str] = set()
    for block in _header_blocks(headers):
        for length in lengths:
            string = f"{method}\n{_standard_headers(headers, lite, length)}{block}{resource}"
            if string not in seen:
                seen.add(string)
                yield string


def request_time(headers: Mapping[str, str]) -> int | None:
    """Seconds since the epoch that the client says it is; None when it does not say, or not in RFC 1123 form.

    x-ms-date counts before Date (REST page "Authorize with Shared Key", "Specifying the Date header").
    """
    text = headers.get("x-ms-date") or headers.get("date")
    return parse_http_date(text) if text else None


def is_fresh(time: int, now: int) -> bool:
    """Whether a request's time is within 15 minutes of ours (same page)."""
    return abs(now - time) <= limits.clock_skew_seconds_max


def _standard_headers(headers: Mapping[str, str], lite: bool, zero_length: str) -> str:
    """One line for each of the fixed headers. Where Content-Length is zero or absent, it is written as told."""
    lines = []
    for name in _SIGNED_HEADERS_LITE if lite else _SIGNED_HEADERS:
        value = headers.get(name, "").strip()
        if name == "date" and headers.get("x-ms-date"):
            value = ""
        elif name == "content-length" and value in ("", "0"):
            value = zero_length
        lines.append(value + "\n")
    return "".join(lines)


def _header_blocks(headers: Mapping[str, str]) -> Iterator[str]:
    """The canonicalised x-ms- headers, in the readings that the module head names; the usual one costs no other."""
    empty_too = headers.get("x-ms-version", "") >= _EMPTY_HEADERS_SIGNED_SINCE
    values = {n.lower(): v.strip() for n, v in headers.items() if n.startswith("x-ms-") and (empty_too or v.strip())}
    ordinal = sorted(values)
    yield _lines(values, ordinal)
    word_sorted = sorted(ordinal, key=word_sort_key)
    folded = {name: _BLANKS.sub(" ", value) for name, value in values.items()}
    yield _lines(values, word_sorted)
    yield _lines(folded, ordinal)
    yield _lines(folded, word_sorted)


def _lines(values: Mapping[str, str], names: list[str]) -> str:
    return "".join([f"{name}:{values[name]}\n" for name in names])


def _resource(account: str, raw_path: str, query: Mapping[str, str]) -> str:
    """The canonicalised resource: every query parameter, by name, decoded."""
    return f"/{account}{raw_path}" + "".join([f"\n{name}:{query[name]}" for name in sorted(query)])


def _resource_lite(account: str, raw_path: str, query: Mapping[str, str]) -> str:
    """The same for Shared Key Lite, which signs `comp` alone."""
    comp = query.get("comp")
    return f"/{account}{raw_path}" + (f"?comp={comp}" if comp is not None else "")
