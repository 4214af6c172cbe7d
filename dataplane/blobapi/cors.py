"""Cross-origin rules: the answer to a preflight, and the headers that other answers get.

Source: REST page "Cross-Origin Resource Sharing (CORS) support for Azure Storage". The first rule that matches decides.
`Vary: Origin` goes on answers that caches keep (GET and HEAD) as soon as any rule names origins, also without an Origin
header and on errors: recorded so, and needed, or a cache would hand an answer without the headers to a browser.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dataplane.blobapi.errors import BlobError, ErrorCode

METHODS: Final = ("DELETE", "GET", "HEAD", "MERGE", "POST", "OPTIONS", "PUT", "PATCH")
_CACHED: Final = ("GET", "HEAD")
_VARY: Final = ("Vary", "Origin")
Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class CorsRule:
    """One CorsRule of the service properties. Methods are in upper case; the rest as it was set."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    allowed_headers: tuple[str, ...] = ()
    exposed_headers: tuple[str, ...] = ()
    max_age_seconds: int = 0

    @property
    def any_origin(self) -> bool:
        return "*" in self.origins

    def allows_origin(self, origin: str) -> bool:
        """Case-sensitive; `*`, and `https://*.example.com` for any subdomain."""
        return any(_origin_matches(pattern, origin) for pattern in self.origins)

    def allows_header(self, name: str) -> bool:
        """Without case; `*` at the end of a pattern stands for any rest."""
        name = name.lower()
        return any(
            name.startswith(pattern[:-1].lower()) if pattern.endswith("*") else name == pattern.lower()
            for pattern in self.allowed_headers
        )


def preflight(rules: Sequence[CorsRule], headers: Mapping[str, str]) -> Headers:
    """The headers of the 200 that a preflight request gets; `headers` are its own, names in lower case.

    Raises BlobError InvalidHeaderValue when it is not a preflight, CorsPreflightFailure when no rule matches.
    """
    origin = headers.get("origin")
    method = headers.get("access-control-request-method")
    if not origin or not method:
        raise BlobError(ErrorCode.INVALID_HEADER_VALUE, message="A required CORS header is not present.")
    asked = headers.get("access-control-request-headers", "")
    names = [name.strip() for name in asked.split(",") if name.strip()]
    for rule in rules:
        if method not in rule.methods or not rule.allows_origin(origin):
            continue
        if not all(rule.allows_header(name) for name in names):
            continue
        return [
            *_allow_origin(rule, origin),
            ("Access-Control-Allow-Methods", method),
            *([("Access-Control-Allow-Headers", asked)] if names else []),
            ("Access-Control-Max-Age", str(rule.max_age_seconds)),
        ]
    raise BlobError(ErrorCode.CORS_PREFLIGHT_FAILURE)


def response_headers(rules: Sequence[CorsRule], method: str, origin: str | None) -> Headers:
    """What is added to the answer of an actual request, whatever its status. Empty without rules."""
    if not rules:
        return []
    vary = [_VARY] if method in _CACHED else []
    applicable = [rule for rule in rules if method in rule.methods]
    if not origin:
        return [] if any(rule.any_origin for rule in applicable) else vary
    for rule in applicable:
        if rule.allows_origin(origin):
            exposed = [("Access-Control-Expose-Headers", ",".join(rule.exposed_headers))]
            return [
                *_allow_origin(rule, origin),
                *(exposed if rule.exposed_headers else []),
                *([] if rule.any_origin else vary),
            ]
    return vary


def _allow_origin(rule: CorsRule, origin: str) -> Headers:
    if rule.any_origin:
        return [("Access-Control-Allow-Origin", "*")]
    return [("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true")]


def _origin_matches(pattern: str, origin: str) -> bool:
    if pattern in ("*", origin):
        return True
    scheme, wildcard, domain = pattern.partition("//*.")
    if not wildcard or not domain:
        return False
    start, end = scheme + "//", "." + domain
    label = origin[len(start) : -len(end)]
    return origin.startswith(start) and origin.endswith(end) and bool(label) and "/" not in label
