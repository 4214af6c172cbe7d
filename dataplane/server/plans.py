"""What was worked out for a request with a SAS, kept for the next one with the same words.

A training job reads with the same token over and over, and retries and ranges repeat whole targets. Address, route and
permission follow from the target (the signature is in it), the method, the version, the Host, the peer and whether it
came over TLS, and hold until the token expires: all of that is the key. Headers that could change the outcome keep a
request from being kept or found: another credential, a tag condition (it needs a permission of its own), whatever is
refused by name. Tokens of a stored access policy are never kept, as the policy may change at any moment.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dataplane.blobapi.authorization import Caller
from dataplane.blobapi.dates import parse_iso_ticks
from dataplane.blobapi.message import Request, Resource
from dataplane.blobapi.operations import OperationSpec
from dataplane.server.call import Call
from dataplane.server.head import RawRequest
from dataplane.server.node import Account

PLANS_COUNT_MAX: Final = 4096
TARGET_CHARS_MAX: Final = 768
_TICKS_A_SECOND: Final = 10_000_000

Key = tuple[str, str, bool, str, str | None, str | None]


@dataclass(frozen=True, slots=True)
class Plan:
    """A request's address, operation and caller. It holds while the time in seconds is below `until`."""

    resource: Resource
    query: Mapping[str, str]
    version: str
    spec: OperationSpec
    account: Account
    caller: Caller
    secondary: bool
    until: int

    def request(self, raw: RawRequest) -> Request:
        """The request that the plan was made for, with these headers."""
        return Request(
            raw.method, raw.target, raw.headers, self.resource, self.query, self.version, raw.secure, raw.peer,
            raw.headers.get("host", ""), raw.content_length, raw.chunked,
        )  # fmt: skip


class Plans:
    """The plans of one worker. `distinct` are the header names that no planned request has."""

    def __init__(self, distinct: frozenset[str]) -> None:
        self._distinct = distinct | {"authorization", "x-ms-if-tags"}
        self._plans: dict[Key, Plan] = {}

    def find(self, raw: RawRequest, now: int) -> Plan | None:
        """The plan for a request, None when it has to be worked out. `now` in seconds."""
        plan = self._plans.get(_key(raw))
        if plan is None or now >= plan.until or not self._distinct.isdisjoint(raw.headers):
            return None
        return plan

    def keep(self, raw: RawRequest, call: Call) -> None:
        """Remember what was worked out for an authorised request, if it may be."""
        query = call.request.query
        if "sig" not in query or "si" in query or "skoid" in query or len(raw.target) > TARGET_CHARS_MAX:
            return
        expiry = parse_iso_ticks(query.get("se", ""))
        if expiry is None or not self._distinct.isdisjoint(raw.headers):
            return
        if len(self._plans) >= PLANS_COUNT_MAX:
            self._plans.clear()
        self._plans[_key(raw)] = Plan(
            call.request.resource, query, call.version, call.spec, call.account, call.caller, call.secondary,
            expiry // _TICKS_A_SECOND,
        )  # fmt: skip


def _key(raw: RawRequest) -> Key:
    headers = raw.headers
    return raw.target, raw.method, raw.secure, raw.peer, headers.get("host"), headers.get("x-ms-version")
