"""Copies between blobs of this node, over the wire: what is copied, who may, conditions, and every refusal."""

import base64
import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dataplane.blobapi import sas
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import BlobProperties, BlobState
from dataplane.ipc.settings import AccountSettings
from dataplane.server.copysource import LocalSource
from dataplane.server.diskpool import DiskPools
from dataplane.store.store import OpenBlob
from tests.support import ACCOUNT, KEY, Answer, InProcessServer, WireClient

LATER = "2099-01-01"
SECOND = "secondaccount"
SECOND_ACCOUNT_KEY = base64.b64encode(hashlib.sha256(b"key of the second account").digest()).decode()
SMALL = b"small content"
LARGE = bytes(range(256)) * 1024  # above what is copied in memory
PUT = {"x-ms-blob-type": "BlockBlob"}
SYNC = {"x-ms-requires-sync": "true"}


class TwoAccounts(InProcessServer):
    """The server with a second account beside the first."""

    async def _serve(self) -> None:
        root = self._settings.accounts[0].root + "2"
        second = AccountSettings(SECOND, root, (SECOND_ACCOUNT_KEY,), durability="relaxed")
        self._settings = replace(self._settings, accounts=(*self._settings.accounts, second))
        await super()._serve()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessServer]:
    root = tmp_path_factory.mktemp("roots") / "first"
    (root.parent / "first2").mkdir()
    started = TwoAccounts(root)
    yield started
    started.close()


@pytest.fixture
def second(server: InProcessServer) -> Iterator[WireClient]:
    opened = server.client(account=SECOND, key=SECOND_ACCOUNT_KEY)
    opened.request("PUT", "/theirs", {"restype": "container"})
    yield opened
    opened.close()


def put(client: WireClient, path: str, content: bytes, **headers: str) -> Answer:
    sent = {**PUT, **{name.replace("_", "-"): value for name, value in headers.items()}}
    answer = client.request("PUT", path, None, sent, content)
    assert answer.status == 201
    return answer


def url(client: WireClient, path: str, query: str = "") -> str:
    return f"http://127.0.0.1:{client.port}/{client.account}{path}" + (f"?{query}" if query else "")


def copy(client: WireClient, to: str, source: str, more: dict[str, str] | None = None, **options: Any) -> Answer:
    return client.request("PUT", to, None, {"x-ms-copy-source": source, **(more or {})}, **options)


def read(client: WireClient, path: str) -> Answer:
    answer = client.request("GET", path)
    assert answer.status == 200
    return answer


# --- Copy Blob ---


@pytest.mark.parametrize("content", [b"", SMALL, LARGE])
def test_copy_blob(client: WireClient, container: str, content: bytes) -> None:
    put(client, container + "/a", content, x_ms_meta_k="v", content_type="text/x", x_ms_blob_cache_control="no-store")
    answer = copy(client, container + "/b", url(client, container + "/a"))
    assert (answer.status, answer.headers["x-ms-copy-status"]) == (202, "success")
    found = read(client, container + "/b")
    source = read(client, container + "/a")
    assert found.body == content
    for name in ("content-type", "cache-control", "content-md5", "x-ms-meta-k"):
        assert found.headers[name] == source.headers[name]
    assert found.headers["etag"] == answer.headers["etag"] != source.headers["etag"]
    assert found.headers["x-ms-copy-id"] == answer.headers["x-ms-copy-id"]
    assert found.headers["x-ms-copy-progress"] == f"{len(content)}/{len(content)}"
    assert found.headers["x-ms-copy-source"] == url(client, container + "/a")


def test_metadata_of_the_request_replaces_the_sources(client: WireClient, container: str) -> None:
    put(client, container + "/a", SMALL, x_ms_meta_k="v", x_ms_tags="a=1")
    copy(client, container + "/b", url(client, container + "/a"), {"x-ms-meta-own": "1", "x-ms-tags": "b=2"})
    found = read(client, container + "/b")
    assert (found.headers["x-ms-meta-own"], "x-ms-meta-k" in found.headers) == ("1", False)
    assert found.headers["x-ms-tag-count"] == "1"


def test_committed_blocks_go_along(client: WireClient, container: str) -> None:
    for number in ("AAAA", "BBBB"):
        client.request("PUT", container + "/a", {"comp": "block", "blockid": number}, None, LARGE)
    body = b"<BlockList><Latest>AAAA</Latest><Latest>BBBB</Latest></BlockList>"
    assert client.request("PUT", container + "/a", {"comp": "blocklist"}, None, body).status == 201
    assert copy(client, container + "/b", url(client, container + "/a")).status == 202
    lists = client.request("GET", container + "/b", {"comp": "blocklist"}).xml()
    assert [node.text for node in lists.iter("Name")] == ["AAAA", "BBBB"]
    assert read(client, container + "/b").body == LARGE * 2


def test_onto_itself_and_promotion_of_a_snapshot(client: WireClient, container: str) -> None:
    put(client, container + "/a", SMALL)
    snapshot = client.request("PUT", container + "/a", {"comp": "snapshot"}).headers["x-ms-snapshot"]
    put(client, container + "/a", b"newer")
    assert copy(client, container + "/a", url(client, container + "/a"), {"x-ms-meta-k": "v"}).status == 202
    assert read(client, container + "/a").headers["x-ms-meta-k"] == "v"
    source = url(client, container + "/a", "snapshot=" + quote(snapshot, safe=""))
    assert copy(client, container + "/a", source).status == 202
    assert read(client, container + "/a").body == SMALL


def test_source_by_its_public_name(client: WireClient, container: str) -> None:
    put(client, container + "/a%20b", SMALL)
    source = f"https://{ACCOUNT}.blob.core.windows.net{container}/a%20b"
    assert copy(client, container + "/b", source).status == 202
    assert read(client, container + "/b").body == SMALL


def test_source_by_another_loopback_name(client: WireClient, container: str) -> None:
    put(client, container + "/a", SMALL)
    source = f"http://localhost:{client.port}/{ACCOUNT}{container}/a"
    assert copy(client, container + "/b", source).status == 202
    other = f"http://localhost:{client.port + 1}/{ACCOUNT}{container}/a"
    assert copy(client, container + "/b", other).code == "CannotVerifyCopySource"


def test_file_of_another_writer(server: InProcessServer, client: WireClient, container: str) -> None:
    directory = Path(server.node.accounts[ACCOUNT].settings.root) / container.strip("/")
    for name, content in (("f", SMALL), ("g", LARGE)):
        (directory / name).write_bytes(content)
        assert copy(client, container + "/b", url(client, f"{container}/{name}")).status == 202
        assert read(client, container + "/b").body == content


@pytest.mark.parametrize("foreign", [True, False])
def test_file_that_is_rewritten_during_the_copy(tmp_path: Path, foreign: bool) -> None:
    path = tmp_path / "f"
    path.write_bytes(SMALL)
    properties = BlobProperties("0x1", 1, 1, foreign=foreign)
    opened = OpenBlob(os.open(path, os.O_RDONLY), BlobState("f", len(SMALL), properties))
    status = path.stat()
    before = (status.st_size, status.st_mtime_ns)
    source = LocalSource(opened, DiskPools(), properties, 0, len(SMALL), before)
    os.utime(path, ns=(1, 1))
    if foreign:
        with pytest.raises(BlobError) as caught:
            source.content()
        assert caught.value.code is ErrorCode.CANNOT_VERIFY_COPY_SOURCE_412
    else:
        assert source.content() == SMALL  # metadata that was set meanwhile moves the mtime of our own files
    opened.close()


def test_lease_of_the_destination(client: WireClient, container: str) -> None:
    put(client, container + "/a", SMALL)
    put(client, container + "/b", b"old")
    lease = {"x-ms-lease-action": "acquire", "x-ms-lease-duration": "-1"}
    held = client.request("PUT", container + "/b", {"comp": "lease"}, lease).headers["x-ms-lease-id"]
    source = url(client, container + "/a")
    assert copy(client, container + "/b", source).code == "LeaseIdMissing"
    assert copy(client, container + "/b", source, {"x-ms-lease-id": held}).status == 202
    assert client.request("HEAD", container + "/b").headers["x-ms-lease-state"] == "leased"


@pytest.mark.parametrize("more", [{}, SYNC, PUT])
def test_conditions_of_the_destination(client: WireClient, container: str, more: dict[str, str]) -> None:
    put(client, container + "/a", SMALL)
    put(client, container + "/b", b"old")
    source = url(client, container + "/a")
    answer = copy(client, container + "/b", source, {**more, "If-None-Match": "*"})
    assert (answer.status, answer.code) == (409, "BlobAlreadyExists")
    assert copy(client, container + "/b", source, {**more, "If-Match": '"0x1"'}).status == 412
    assert read(client, container + "/b").body == b"old"
    assert copy(client, container + "/new", source, {**more, "If-None-Match": "*"}).status in (201, 202)


@pytest.mark.parametrize(
    ("more", "mismatch", "unchanged"),
    [
        ({}, (412, "SourceConditionNotMet"), (412, "SourceConditionNotMet")),
        (SYNC, (412, "CannotVerifyCopySource"), (304, "CannotVerifyCopySource")),
        (PUT, (412, "CannotVerifyCopySource"), (304, "CannotVerifyCopySource")),
    ],
)
def test_conditions_of_the_source(
    client: WireClient, container: str, more: dict[str, str], mismatch: tuple[int, str], unchanged: tuple[int, str]
) -> None:
    etag = put(client, container + "/a", SMALL).headers["etag"]
    source = url(client, container + "/a")
    answer = copy(client, container + "/b", source, {**more, "x-ms-source-if-match": '"0x1"'})
    assert (answer.status, answer.code) == mismatch
    answer = copy(client, container + "/b", source, {**more, "x-ms-source-if-none-match": etag})
    assert (answer.status, answer.code) == unchanged
    assert client.request("HEAD", container + "/b").status == 404
    assert copy(client, container + "/b", source, {**more, "x-ms-source-if-match": etag}).status in (201, 202)


def test_tiers(client: WireClient, container: str) -> None:
    put(client, container + "/a", SMALL, x_ms_access_tier="Archive")
    source = url(client, container + "/a")
    assert copy(client, container + "/b", source).code == "BlobArchived"
    assert copy(client, container + "/b", source, SYNC).code == "BlobArchived"
    assert copy(client, container + "/b", source, {"x-ms-access-tier": "Hot"}).status == 202
    found = client.request("HEAD", container + "/b").headers
    assert (found["x-ms-access-tier"], found["x-ms-archive-status"]) == ("Archive", "rehydrate-pending-to-hot")
    put(client, container + "/c", SMALL, x_ms_access_tier="Cool")
    copy(client, container + "/b2", url(client, container + "/c"), {"x-ms-access-tier": "Cold"})
    assert client.request("HEAD", container + "/b2").headers["x-ms-access-tier"] == "Cold"


# --- From URL ---


def md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()


@pytest.mark.parametrize("content", [SMALL, LARGE])
def test_copy_blob_from_url_checks_and_echoes_md5(client: WireClient, container: str, content: bytes) -> None:
    put(client, container + "/a", content)
    source = url(client, container + "/a")
    answer = copy(client, container + "/b", source, SYNC)
    assert (answer.status, answer.headers["x-ms-copy-status"], "content-md5" in answer.headers) == (
        202, "success", False,
    )  # fmt: skip
    answer = copy(client, container + "/b", source, {**SYNC, "x-ms-source-content-md5": md5(content)})
    assert answer.headers["content-md5"] == md5(content)
    answer = copy(client, container + "/b", source, {**SYNC, "x-ms-source-content-md5": md5(b"other")})
    assert (answer.status, answer.code) == (400, "Md5Mismatch")


def test_tags_go_along_when_asked_for(client: WireClient, container: str) -> None:
    put(client, container + "/a", SMALL, x_ms_tags="a=1&b=2")
    source = url(client, container + "/a")
    for more in (SYNC, PUT):
        copy(client, container + "/b", source, {**more, "x-ms-copy-source-tag-option": "COPY"})
        assert read(client, container + "/b").headers["x-ms-tag-count"] == "2"
        copy(client, container + "/b", source, more)
        assert "x-ms-tag-count" not in read(client, container + "/b").headers


@pytest.mark.parametrize("content", [b"", SMALL, LARGE])
def test_put_blob_from_url(client: WireClient, container: str, content: bytes) -> None:
    put(client, container + "/a", content, content_type="text/x", x_ms_meta_k="v", x_ms_blob_content_language="de")
    more = {**PUT, "x-ms-blob-content-language": "fr", "x-ms-meta-own": "1"}
    answer = copy(client, container + "/b", url(client, container + "/a"), more)
    assert (answer.status, answer.headers["content-md5"]) == (201, md5(content))
    found = read(client, container + "/b")
    assert (found.body, found.headers["content-type"], found.headers["content-language"]) == (content, "text/x", "fr")
    assert (found.headers["x-ms-meta-own"], "x-ms-meta-k" in found.headers) == ("1", False)
    assert "x-ms-copy-id" not in found.headers
    more = {**PUT, "x-ms-copy-source-blob-properties": "false"}
    copy(client, container + "/b", url(client, container + "/a"), more)
    assert read(client, container + "/b").headers["content-type"] == "application/octet-stream"
    answer = copy(client, container + "/b", url(client, container + "/a"), {"x-ms-blob-type": "PageBlob"})
    assert answer.code == "FeatureNotSupported"


def block(client: WireClient, to: str, source: str, number: str, more: dict[str, str] | None = None) -> Answer:
    query = {"comp": "block", "blockid": number}
    return client.request("PUT", to, query, {"x-ms-copy-source": source, **(more or {})})


def test_put_block_from_url(client: WireClient, container: str) -> None:
    put(client, container + "/a", LARGE)
    source = url(client, container + "/a")
    for number, wanted in (("AAAA", "bytes=0-99"), ("BBBB", "bytes=100-"), ("CCCC", "bytes=262143-999999")):
        assert block(client, container + "/b", source, number, {"x-ms-source-range": wanted}).status == 201
    names = "".join(f"<Latest>{number}</Latest>" for number in ("AAAA", "BBBB", "CCCC"))
    body = f"<BlockList>{names}</BlockList>".encode()
    assert client.request("PUT", container + "/b", {"comp": "blocklist"}, None, body).status == 201
    assert read(client, container + "/b").body == LARGE + LARGE[-1:]


def test_put_block_from_url_checks(client: WireClient, container: str) -> None:
    put(client, container + "/a", LARGE)
    source, to = url(client, container + "/a"), container + "/b"
    part = {"x-ms-source-range": "bytes=10-19"}
    good = block(client, to, source, "AAAA", {**part, "x-ms-source-content-md5": md5(LARGE[10:20])})
    assert (good.status, good.headers["content-md5"]) == (201, md5(LARGE[10:20]))
    plain = block(client, to, source, "AAAA", part)
    assert "x-ms-content-crc64" in plain.headers
    crc = plain.headers["x-ms-content-crc64"]
    assert block(client, to, source, "AAAA", {**part, "x-ms-source-content-crc64": crc}).status == 201
    bad = block(client, to, source, "AAAA", {"x-ms-source-content-crc64": crc})
    assert (bad.status, bad.code) == (400, "Crc64Mismatch")
    assert block(client, to, source, "AAAA", {"x-ms-source-range": "bytes=262144-"}).status == 416
    assert block(client, to, source, "no base64!").code == "InvalidBlockId"
    assert block(client, "/absent/b", source, "AAAA").code == "ContainerNotFound"


# --- who may read the source ---


def token(account: str, key: str, path: str, resource: str = "b", letters: str = "r") -> str:
    unsigned = sas.service_token(resource, letters, LATER)
    return sas.issue(unsigned, account, base64.b64decode(key), path).query()


@pytest.mark.parametrize("more", [{}, SYNC, PUT])
def test_sources_in_another_account(
    client: WireClient, second: WireClient, container: str, more: dict[str, str]
) -> None:
    put(second, "/theirs/a", LARGE)
    refused = copy(client, container + "/b", url(second, "/theirs/a"), more)
    assert (refused.status, refused.code) == (403, "CannotVerifyCopySource")
    wrong = token(SECOND, SECOND_ACCOUNT_KEY, "/theirs/other")
    assert copy(client, container + "/b", url(second, "/theirs/a", wrong), more).status == 403
    blind = token(SECOND, SECOND_ACCOUNT_KEY, "/theirs", "c", "wl")
    assert copy(client, container + "/b", url(second, "/theirs/a", blind), more).status == 403
    good = token(SECOND, SECOND_ACCOUNT_KEY, "/theirs/a")
    assert copy(client, container + "/b", url(second, "/theirs/a", good), more).status in (201, 202)
    found = read(client, container + "/b")
    assert found.body == LARGE
    assert "sig" not in found.headers.get("x-ms-copy-source", "")


def test_public_source_in_another_account(client: WireClient, second: WireClient, container: str) -> None:
    second.request("PUT", "/public", {"restype": "container"}, {"x-ms-blob-public-access": "blob"})
    put(second, "/public/a", SMALL, x_ms_tags="a=1")
    source = url(second, "/public/a")
    assert copy(client, container + "/b", source).status == 202
    answer = copy(client, container + "/b", source, {**SYNC, "x-ms-copy-source-tag-option": "COPY"})
    assert (answer.status, answer.code) == (403, "CannotVerifyCopySource")


def sas_copy(client: WireClient, letters: str, container: str, to: str, source: str, **more: str) -> Answer:
    """A copy whose caller has a container SAS alone."""
    fields = token(ACCOUNT, KEY, container, "c", letters)
    headers = {name.replace("_", "-"): value for name, value in more.items()}
    headers |= {"x-ms-copy-source": source, "x-ms-version": "2023-11-03", "content-length": "0"}
    headers["host"] = f"127.0.0.1:{client.port}"
    return client.send("PUT", f"/{ACCOUNT}{to}?{fields}", headers)


def test_a_caller_with_a_sas_signs_its_source(client: WireClient, container: str) -> None:
    put(client, container + "/a", SMALL)
    source = url(client, container + "/a")
    bare = sas_copy(client, "rcwl", container, container + "/b", source)
    assert (bare.status, bare.code) == (403, "CannotVerifyCopySource")
    signed = url(client, container + "/a", token(ACCOUNT, KEY, container, "c", "r"))
    assert sas_copy(client, "cw", container, container + "/b", signed).status == 202


def test_create_may_copy_but_not_overwrite(client: WireClient, container: str) -> None:
    put(client, container + "/a", SMALL)
    signed = url(client, container + "/a", token(ACCOUNT, KEY, container, "c", "r"))
    assert sas_copy(client, "c", container, container + "/b", signed).status == 202
    for more in ({}, {"x_ms_requires_sync": "true"}, {"x_ms_blob_type": "BlockBlob"}):
        again = sas_copy(client, "c", container, container + "/b", signed, **more)
        assert (again.status, again.code) == (403, "UnauthorizedBlobOverwrite")
    assert sas_copy(client, "r", container, container + "/c", signed).code == "AuthorizationPermissionMismatch"


# --- refusals ---


@pytest.mark.parametrize(
    ("source", "status", "code"),
    [
        ("/c/b", 400, "InvalidHeaderValue"),
        ("https://user:secret@host/c/b", 400, "InvalidHeaderValue"),
        ("https://example.org/c/b", 404, "CannotVerifyCopySource"),
        ("http://example.org/c/b", 404, "CannotVerifyCopySource"),
        ("https://127.0.0.1/c/b", 404, "CannotVerifyCopySource"),
        ("https://169.254.169.254/metadata/instance", 404, "CannotVerifyCopySource"),
        ("https://[::1]/c/b", 404, "CannotVerifyCopySource"),
        ("https://unknown.blob.core.windows.net/c/b", 404, "CannotVerifyCopySource"),
    ],
)
@pytest.mark.parametrize("more", [{}, SYNC, PUT])
def test_sources_that_are_refused(
    client: WireClient, container: str, source: str, status: int, code: str, more: dict[str, str]
) -> None:
    answer = copy(client, container + "/b", source, more)
    assert (answer.status, answer.code) == (status, code)
    assert b"secret" not in answer.body


def test_absent_sources(client: WireClient, container: str) -> None:
    """.NET SDK tests: BlobNotFound for Copy Blob in the account, CannotVerifyCopySource for the From URL operations."""
    source = url(client, container + "/absent")
    assert (copy(client, container + "/b", source).status, copy(client, container + "/b", source).code) == (
        404, "BlobNotFound",
    )  # fmt: skip
    for more in (SYNC, PUT):
        answer = copy(client, container + "/b", source, more)
        assert (answer.status, answer.code) == (404, "CannotVerifyCopySource")
    stranger = f"http://127.0.0.1:{client.port}/stranger/c/b"
    assert copy(client, container + "/b", stranger).code == "CannotVerifyCopySource"
    empty = url(client, container + "/a", "snapshot=")
    assert copy(client, container + "/b", empty).code == "InvalidHeaderValue"
    assert copy(client, "/absent/b", source).code == "ContainerNotFound"


def test_a_question_mark_in_a_name_is_a_name(client: WireClient, container: str) -> None:
    put(client, container + "/a%3Fsnapshot%3Dx", SMALL)
    assert copy(client, container + "/b", url(client, container + "/a%3Fsnapshot%3Dx")).status == 202
    assert copy(client, container + "/b", url(client, container + "/a%253Fsnapshot")).code == "BlobNotFound"


def test_requests_with_a_body_are_refused(client: WireClient, container: str) -> None:
    put(client, container + "/a", SMALL)
    for more in ({}, SYNC, PUT):
        sent = {"x-ms-copy-source": url(client, container + "/a"), **more}
        answer = client.request("PUT", container + "/b", None, sent, b"body")
        assert (answer.status, answer.code) == (400, "InvalidHeaderValue")


def test_abort_without_a_pending_copy(client: WireClient, container: str) -> None:
    put(client, container + "/a", SMALL)
    abort = {"x-ms-copy-action": "abort"}
    query = {"comp": "copy", "copyid": "7c9c0f5e-0000-0000-0000-000000000000"}
    answer = client.request("PUT", container + "/a", query, abort)
    assert (answer.status, answer.code) == (409, "NoPendingCopyOperation")
    assert client.request("PUT", container + "/none", query, abort).code == "BlobNotFound"
    assert client.request("PUT", "/absent/none", query, abort).code == "ContainerNotFound"
    assert client.request("PUT", container + "/a", query).code == "MissingRequiredHeader"
    assert client.request("PUT", container + "/a", query, {"x-ms-copy-action": "x"}).code == "InvalidHeaderValue"


def test_staged_files_and_descriptors_do_not_pile_up(
    server: InProcessServer, client: WireClient, container: str
) -> None:
    put(client, container + "/a", LARGE)
    source = url(client, container + "/a")
    for more in ({}, {**SYNC, "x-ms-source-content-md5": md5(b"wrong")}, {**PUT, "If-Match": '"0x1"'}):
        for _ in range(3):
            copy(client, container + "/b", source, more)
    staging = Path(server.node.accounts[ACCOUNT].settings.root) / ".blobedge" / "staging"
    assert [path for path in staging.rglob("*") if path.is_file()] == []
    targets = [os.path.realpath(entry.path) for entry in os.scandir("/proc/self/fd")]
    assert [target for target in targets if target.endswith(container + "/a")] == []
