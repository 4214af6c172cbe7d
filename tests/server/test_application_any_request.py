"""No request, however odd, gets a 500, no answer at all, or an error without a code.

Requests are made from the words of the protocol in any combination, with junk among them, and signed, so that they get
past authorisation and into the handlers.
"""

import logging
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import InProcessServer, WireClient

PATHS = [
    "", "/", "/cont", "/cont/", "/cont/blob", "/cont/dir/blob", "/cont//", "/cont/..%2f..%2fetc", "/absent/blob",
    "/$root", "/$root/blob", "/blob", "/$web", "/$logs", "/cont/%F0%9F%98%80", "/cont/%01", "/cont/a%5Cb",
    "/cont/" + "a" * 300, "/cont/" + "/".join("x" * 300),
]  # fmt: skip
METHODS = ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "MERGE"]
JUNK = [
    "",
    "0",
    "-1",
    "1",
    "true",
    "*",
    "junk",
    "99999999999999999999",
    "a,b",
    "\u00e9",
    "2026-01-01T00:00:00.0000000Z",
]
COMPS = [
    "list", "properties", "metadata", "acl", "lease", "snapshot", "copy", "tier", "tags", "block", "blocklist", "batch",
    "blobs", "stats", "userdelegationkey", "appendblock", "page", "pagelist", "undelete", "query", "seal", "junk",
]  # fmt: skip
QUERIES = {
    "comp": COMPS, "restype": ["container", "service", "account", "junk"], "snapshot": JUNK, "blockid": ["MQ==", *JUNK],
    "blocklisttype": ["all", *JUNK], "prefix": JUNK, "delimiter": ["/", *JUNK], "marker": JUNK, "maxresults": JUNK,
    "include": ["metadata,snapshots,tags,copy,uncommittedblobs,deleted", *JUNK], "where": ["\"a\"='b'", *JUNK],
    "copyid": JUNK, "timeout": JUNK, "versionid": JUNK, "startFrom": JUNK,
}  # fmt: skip
GUID = "5f2d7a0e-8a7b-4b57-9c1f-0d6ad0b3b6f1"
HEADERS = {
    "x-ms-blob-type": ["BlockBlob", "AppendBlob", *JUNK], "x-ms-lease-id": [GUID, *JUNK],
    "x-ms-lease-action": ["acquire", "renew", "change", "release", "break", *JUNK],
    "x-ms-lease-duration": ["15", "-1", *JUNK], "x-ms-lease-break-period": JUNK,
    "x-ms-proposed-lease-id": [GUID, *JUNK],
    "x-ms-access-tier": ["Hot", "Archive", *JUNK], "x-ms-rehydrate-priority": ["High", *JUNK],
    "x-ms-copy-source": ["https://127.0.0.1/testaccount/cont/blob", "/testaccount/cont/blob", *JUNK],
    "x-ms-requires-sync": ["true", *JUNK], "x-ms-copy-action": ["abort", *JUNK],
    "x-ms-source-range": ["bytes=0-1", *JUNK], "x-ms-delete-snapshots": ["include", "only", *JUNK],
    "x-ms-meta-a": JUNK, "x-ms-tags": ["a=1", *JUNK], "x-ms-if-tags": ["\"a\" = '1'", *JUNK],
    "x-ms-range": ["bytes=0-", "bytes=1-0", *JUNK], "range": ["bytes=0-0", *JUNK], "if-match": JUNK,
    "if-none-match": JUNK, "if-modified-since": ["Thu, 09 May 2019 00:00:00 GMT", *JUNK],
    "content-md5": ["XUFAKrxLKna5cZ2REBfFkg==", *JUNK], "x-ms-content-crc64": JUNK, "x-ms-blob-content-md5": JUNK,
    "x-ms-range-get-content-md5": ["true", *JUNK], "x-ms-range-get-content-crc64": ["true", *JUNK],
    "x-ms-structured-body": ["XSM/1.0; properties=crc64", *JUNK], "x-ms-structured-content-length": JUNK,
    "content-type": ["multipart/mixed; boundary=b", "application/xml", *JUNK], "origin": ["https://a.example", *JUNK],
    "access-control-request-method": ["PUT", *JUNK], "x-ms-blob-public-access": ["blob", *JUNK],
    "x-ms-version": ["2014-02-14", "2018-11-09", "2026-10-06", "2013-08-15", "junk"],
}  # fmt: skip
BODIES = [
    b"", b"hello", b"<BlockList><Latest>MQ==</Latest></BlockList>", b"<Tags><TagSet/></Tags>", b"<SignedIdentifiers/>",
    b"<StorageServiceProperties/>", b"<a" * 100, b"\xff\xfe\x00", b"--b\r\n\r\n--b--\r\n",
    b"--b\r\nContent-ID: 0\r\n\r\n",
]  # fmt: skip


def some(words: dict[str, list[str]]) -> st.SearchStrategy[dict[str, str]]:
    """A few of the names, each with one of its values."""
    pair = st.sampled_from(sorted(words)).flatmap(lambda name: st.tuples(st.just(name), st.sampled_from(words[name])))
    return st.lists(pair, max_size=5).map(dict)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(METHODS), path=st.sampled_from(PATHS), query=some(QUERIES), headers=some(HEADERS),
    body=st.sampled_from(BODIES),
)  # fmt: skip
def test_any_request(
    server: InProcessServer, caplog: pytest.LogCaptureFixture, method: str, path: str, query: dict[str, str],
    headers: dict[str, str], body: bytes,
) -> None:  # fmt: skip
    client = server.client()
    client.request("PUT", "/cont", {"restype": "container"})
    client.request("PUT", "/cont/blob", None, {"x-ms-blob-type": "BlockBlob"}, b"hello")
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        answer = client.request(method, path, query, headers, b"" if method in ("GET", "HEAD") else body)
    client.close()
    assert answer.status != 500, caplog.text
    assert not caplog.records, caplog.text
    assert answer.status < 500 or answer.code == "ServerBusy"
    if answer.status >= 400:
        assert answer.code
        assert method == "HEAD" or answer.xml().findtext("Code") == answer.code
    _check_nothing_of_the_machine(server, client, answer.body)


def _check_nothing_of_the_machine(server: InProcessServer, client: WireClient, body: bytes) -> None:
    root = Path(server.node.accounts[client.account].settings.root)
    for piece in (str(root), quote(str(root)), client.key, "Traceback", ".py"):
        assert piece.encode() not in body
