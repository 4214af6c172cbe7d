"""Requests put together at random, against the running product: whatever is asked, the answer is not a 500.

The generator is seeded, so a failure comes back; BLOBEDGE_FUZZ_SEED and BLOBEDGE_FUZZ_COUNT try others. Other than
tests/server/test_application_any_request.py it changes requests that mean something (the rows), so most of them get
far into a handler, and it asks two real workers, whose log is looked at when they stop.
"""

import os
import random
from typing import Final

import pytest

from dataplane.blobapi.operations import Operation
from tests.support import Answer
from tests.wire.documented import REQUEST_HEADERS
from tests.wire.matrix import WRITTEN
from tests.wire.player import SceneFailed, Server, Stage
from tests.wire.rows import Row

SEED: Final = int(os.environ.get("BLOBEDGE_FUZZ_SEED", "20260101"))
COUNT: Final = int(os.environ.get("BLOBEDGE_FUZZ_COUNT", "1500"))
MUTATIONS_MAX: Final = 4
METHODS: Final = ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE", "MERGE", "BREW")
VALUES: Final = (
    "", "0", "-1", "1", "true", "*", "junk", "{etag}", "{guid}", "{future}", "bytes=0-1", "Archive", "a=1", "\u00e9",
    "99999999999999999999", "AAAAAAAAAAAAAAAAAAAAAA==", "x" * 3000, "2026-01-01T00:00:00.0000000Z", "'", '"a" = \'1\'',
)  # fmt: skip
PARAMETERS: Final = (
    "comp", "restype", "snapshot", "versionid", "blockid", "blocklisttype", "prefix", "delimiter", "marker",
    "maxresults", "include", "where", "copyid", "timeout", "startFrom", "sv", "sp", "se", "sr", "sig", "junk",
)  # fmt: skip
COMPS: Final = (
    "list", "properties", "metadata", "acl", "lease", "snapshot", "copy", "tier", "tags", "block", "blocklist", "batch",
    "blobs", "stats", "appendblock", "page", "pagelist", "undelete", "query", "expiry", "userdelegationkey", "rename",
)  # fmt: skip
PATHS: Final = ("b", "nothing", "a/../b", "..", "%2e%2e/%2e%2e", "b/", "/{container}//b", "/$root", "/", "%ff", "%01")
HEADERS: Final = tuple(sorted({name for names in REQUEST_HEADERS.values() for name in names.split()}))
SEEDS: Final = tuple(row for operation in Operation for row in WRITTEN[operation] if "pending" not in row.given)


def mutated(row: Row, dice: random.Random) -> Row:
    """The row with a few things changed."""
    method, _, target = row.ask.partition(" ")
    path, _, query_text = target.partition("?")
    query = dict(part.partition("=")[::2] for part in query_text.split("&") if part)
    headers, body = dict(row.headers), row.body
    for _ in range(dice.randint(1, MUTATIONS_MAX)):
        match dice.randrange(8):
            case 0:
                method = dice.choice(METHODS)
            case 1:
                path = dice.choice(PATHS)
            case 2:
                query[dice.choice(PARAMETERS)] = dice.choice(VALUES)
            case 3:
                query["comp"] = dice.choice(COMPS)
            case 4:
                query.pop(dice.choice([*query, "none"]), None)
            case 5:
                headers.pop(dice.choice([*headers, "none"]), None)
            case 6:
                body = dice.choice((b"", b"<a", b"\xff\xfe", body[: len(body) // 2], body * 2))
            case _:
                headers[dice.choice(HEADERS)] = dice.choice(VALUES)
    if "x-ms-meta" in headers:
        headers["x-ms-meta-a"] = headers.pop("x-ms-meta")
    ask = f"{method} {path}?" + "&".join(f"{name}={value}" for name, value in query.items())
    return Row(ask.removesuffix("?"), 200, headers, body if method not in ("GET", "HEAD") else b"", row.given)


def test_no_request_gets_a_500(product: Server) -> None:
    dice = random.Random(SEED)
    for number in range(COUNT):
        stage = Stage(product)
        try:
            row = mutated(dice.choice(SEEDS), dice)
            try:
                stage.set(row.given)
            except SceneFailed as failed:
                pytest.fail(f"request {number}: {failed}")
            _check(row, stage.send(row), number)
        finally:
            stage.close()


def _check(row: Row, answer: Answer, number: int) -> None:
    told = f"seed {SEED}, request {number}: {row.ask!r} {dict(row.headers)!r} -> {answer.status} {answer.body[:300]!r}"
    assert answer.status < 500 or answer.code == "ServerBusy", told
    assert (answer.status >= 400) == bool(answer.code) or answer.status == 304, told
    if answer.status >= 400 and not row.ask.startswith("HEAD "):
        assert answer.xml().findtext("Code") == answer.code, told
