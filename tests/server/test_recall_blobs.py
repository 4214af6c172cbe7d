"""Stubs as clients meet them: what needs no byte is answered as ever, what needs bytes gets them from the cloud."""

import hashlib
import os
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob._shared.streams import StructuredMessageDecoder

from dataplane.blobapi import limits, structured
from dataplane.blobapi.checksums import crc64, crc64_bytes
from dataplane.blobapi.model import LOST, Remote
from dataplane.ipc.recalls import WINDOW_BYTES_MAX, Bring, Failed
from dataplane.server import recalls
from dataplane.store.store import BlobRef, Store
from tests.server.fakesidecar import WAIT_SECONDS, FakeSidecar
from tests.server.test_copies import SECOND, SECOND_ACCOUNT_KEY, TwoAccounts, token, url
from tests.support import ACCOUNT, Answer, InProcessServer, WireClient

BODY = hashlib.shake_256(b"a blob that is away").digest(300_000)
LONG = hashlib.shake_256(b"a long one").digest(WINDOW_BYTES_MAX + 1_000_001)
BLOCK = {"x-ms-blob-type": "BlockBlob"}
RESIDENCY = "x-blobedge-residency"


class Node:
    """A server with a sidecar beside it, and what a test does to its blobs behind the server's back."""

    def __init__(self, directory: Path) -> None:
        self.sidecar = FakeSidecar(directory / "state")
        self.sidecar.on_bring = self.bring
        (directory / "first2").mkdir()
        self.server: InProcessServer = TwoAccounts(directory / "first", journal_directory=str(self.sidecar.journal))
        self.stores = {ACCOUNT: Store(str(directory / "first")), SECOND: Store(str(directory / "first2"))}

    def close(self) -> None:
        self.server.close()
        self.sidecar.close()
        for store in self.stores.values():
            store.close()

    def evict(self, path: str, body: bytes, account: str = ACCOUNT) -> None:
        """A blob's bytes go to the cloud."""
        ref, store = ref_of(path), self.stores[account]
        state = store.stat_blob(ref)
        assert state is not None
        etag = state.properties.etag
        remote = Remote(len(body), hashlib.md5(body).digest(), "0x8DCLOUD", "cloud", "there", etag, 0, 0)
        assert store.run(store.evict(ref, etag, remote)) == len(body)
        self.sidecar.blobs[account, ref.container, ref.name] = etag, body

    def bring(self, bring: Bring) -> None:
        """They come back."""
        store, ref = self.stores[bring.account], BlobRef(bring.container, bring.name)
        body = self.sidecar.blobs[bring.account, bring.container, bring.name][1]
        staged = store.stage(ref.container)
        os.pwrite(staged.fd, body, 0)
        staged.size = len(body)
        store.run(store.recall(ref, staged, bring.etag))


def ref_of(path: str) -> BlobRef:
    container, _, name = path.strip("/").partition("/")
    return BlobRef(container, name)


@pytest.fixture(scope="module")
def module_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    started = Node(tmp_path_factory.mktemp("node"))
    yield started
    started.close()


@pytest.fixture
def node(module_node: Node) -> Iterator[Node]:
    sidecar = module_node.sidecar
    yield module_node
    assert not sidecar.failures
    sidecar.wants.clear()
    sidecar.brings.clear()


@pytest.fixture
def server(node: Node) -> InProcessServer:
    return node.server


@pytest.fixture
def second(node: Node) -> Iterator[WireClient]:
    opened = node.server.client(account=SECOND, key=SECOND_ACCOUNT_KEY)
    opened.request("PUT", "/theirs", {"restype": "container"})
    yield opened
    opened.close()


@pytest.fixture
def make(node: Node, client: WireClient) -> Callable[[str, bytes], None]:
    def made(path: str, body: bytes) -> None:
        headers = {**BLOCK, "x-ms-meta-k": "v", "content-type": "text/x"}
        assert client.request("PUT", path, None, headers, body).status == 201
        node.evict(path, body)

    return made


@pytest.fixture
def blob(container: str, make: Callable[[str, bytes], None]) -> str:
    """The path of a stub of BODY."""
    make(container + "/a/b", BODY)
    return container + "/a/b"


def logged(node: Node, request_id: str) -> dict[str, Any]:
    """The access log's line of a request, which comes when all is sent."""
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        for line in node.server.log():
            if line["correlationId"] == request_id:
                return line
    raise AssertionError("no line")


def wants(node: Node) -> list[tuple[int, int, int]]:
    return [(want.offset, want.length, want.until) for want in node.sidecar.wants]


# --- reads ---


def test_whole(node: Node, client: WireClient, container: str) -> None:
    path = container + "/whole"
    client.request("PUT", path, None, BLOCK, BODY)
    before = client.request("GET", path)
    assert before.headers[RESIDENCY] == "local"
    node.evict(path, BODY)
    answer = client.request("GET", path)
    assert (answer.status, answer.body) == (200, BODY)
    differ = {RESIDENCY, "date", "x-ms-request-id"}
    assert {k: v for k, v in answer.headers.items() if k not in differ} == {
        k: v for k, v in before.headers.items() if k not in differ
    }
    assert answer.headers[RESIDENCY] == "remote"
    assert wants(node) == [(0, len(BODY), len(BODY))]
    line = logged(node, answer.headers["x-ms-request-id"])
    assert (line["statusCode"], line["properties"]["responseBodySize"]) == (200, len(BODY))
    assert line["sendMs"] <= line["durationMs"]


def test_a_long_one(node: Node, client: WireClient, container: str, make: Callable[[str, bytes], None]) -> None:
    make(container + "/long", LONG)
    assert client.request("GET", container + "/long").body == LONG
    assert wants(node) == [
        (0, WINDOW_BYTES_MAX, len(LONG)),
        (WINDOW_BYTES_MAX, len(LONG) - WINDOW_BYTES_MAX, len(LONG)),
    ]


def test_ranges_ask_for_themselves(node: Node, client: WireClient, blob: str) -> None:
    answer = client.request("GET", blob, headers={"x-ms-range": "bytes=1000-2999"})
    assert (answer.status, answer.body) == (206, BODY[1000:3000])
    assert answer.headers["content-range"] == f"bytes 1000-2999/{len(BODY)}"
    assert client.request("GET", blob, headers={"range": "bytes=299990-"}).body == BODY[299990:]
    assert wants(node) == [(1000, 2000, 3000), (299990, 10, 300000)]


def test_what_needs_no_byte_asks_for_none(node: Node, client: WireClient, container: str, blob: str) -> None:
    head = client.request("HEAD", blob)
    assert (head.status, head.headers["content-length"], head.headers[RESIDENCY]) == (200, str(len(BODY)), "remote")
    etag = head.headers["etag"]
    assert client.request("GET", blob, {"comp": "metadata"}).headers["x-ms-meta-k"] == "v"
    assert client.request("GET", blob, headers={"If-None-Match": etag}).status == 304
    assert client.request("GET", blob, headers={"If-Match": '"0x1"'}).status == 412
    assert client.request("GET", blob, headers={"x-ms-range": "bytes=300000-"}).status == 416
    assert client.request("GET", blob, headers={"x-ms-lease-id": "c" * 8 + "-cccc-cccc-cccc-" + "c" * 12}).status == 412
    listed = client.request("GET", container, {"restype": "container", "comp": "list"})
    assert f"<Content-Length>{len(BODY)}</Content-Length>".encode() in listed.body
    assert client.request("GET", blob, {"comp": "blocklist"}).headers["x-ms-blob-content-length"] == str(len(BODY))
    assert client.request("PUT", blob, {"comp": "metadata"}, {"x-ms-meta-k": "w"}).status == 200
    assert client.request("PUT", blob, {"comp": "properties"}, {"x-ms-blob-content-type": "text/y"}).status == 200
    tags = b"<Tags><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tags>"
    assert client.request("PUT", blob, {"comp": "tags"}, None, tags).status == 204
    assert client.request("PUT", blob, {"comp": "tier"}, {"x-ms-access-tier": "Cool"}).status == 200
    assert client.request("DELETE", blob).status == 202
    assert not node.sidecar.wants
    assert not node.sidecar.brings


def test_checksums_of_a_range(node: Node, client: WireClient, blob: str) -> None:
    part = {"x-ms-range": "bytes=10-70009"}
    answer = client.request("GET", blob, headers={**part, "x-ms-range-get-content-md5": "true"})
    assert answer.body == BODY[10:70010]
    assert answer.headers["content-md5"] == b64encode(hashlib.md5(answer.body).digest()).decode()
    answer = client.request("GET", blob, headers={**part, "x-ms-range-get-content-crc64": "true"})
    assert answer.headers["x-ms-content-crc64"] == b64encode(crc64_bytes(crc64(BODY[10:70010]))).decode()
    answer = client.request("GET", blob, headers={**part, "x-ms-range-get-content-md5": "false"})
    assert answer.body == BODY[10:70010]
    assert set(wants(node)) == {(10, 70000, 70010)}


@pytest.mark.parametrize("body", [BODY, LONG], ids=["short", "long"])
def test_structured_bodies(
    node: Node, client: WireClient, container: str, make: Callable[[str, bytes], None], body: bytes
) -> None:
    make(container + "/s", body)
    answer = client.request("GET", container + "/s", headers={structured.BODY_HEADER: structured.BODY_VALUE})
    assert (answer.status, answer.headers[structured.LENGTH_HEADER]) == (200, str(len(body)))
    assert StructuredMessageDecoder(iter([answer.body]), len(answer.body)).read() == body


def test_a_small_one_goes_on_the_same_connection(
    client: WireClient, container: str, make: Callable[[str, bytes], None]
) -> None:
    make(container + "/small", b"hello")
    for _ in range(3):
        assert client.request("GET", container + "/small").body == b"hello"


def test_another_version_is_looked_at_again(node: Node, client: WireClient, blob: str) -> None:
    node.sidecar.failures.append(Failed("changed", ""))
    assert client.request("GET", blob).body == BODY
    state = node.stores[ACCOUNT].stat_blob(ref_of(blob))
    assert state is not None
    ref = ref_of(blob)
    node.bring(Bring(ACCOUNT, ref.container, ref.name, state.properties.etag))
    node.sidecar.wants.clear()
    answer = client.request("GET", blob)
    assert (answer.body, answer.headers[RESIDENCY], wants(node)) == (BODY, "local", [])


def test_word_of_a_blob_that_is_brought_is_waited_on(node: Node, client: WireClient, blob: str) -> None:
    node.sidecar.bring_told = 3
    assert client.request("PUT", blob, {"comp": "snapshot"}).status == 201
    assert not node.sidecar.bring_told


def test_a_sidecar_that_is_silent_while_it_brings_a_blob(
    node: Node, client: WireClient, blob: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recalls, "SILENCE_SECONDS_MAX", 0.05)
    released = threading.Event()

    def bring(_: Bring) -> None:
        assert released.wait(WAIT_SECONDS)

    node.sidecar.on_bring = bring
    try:
        answer = client.request("PUT", blob, {"comp": "snapshot"})
    finally:
        released.set()
        node.sidecar.on_bring = node.bring
    assert (answer.status, answer.headers["x-ms-error-code"]) == (503, "ServerBusy")
    assert int(answer.headers["retry-after"]) > 0


def test_one_that_changes_for_ever(node: Node, client: WireClient, blob: str) -> None:
    node.sidecar.failures.extend([Failed("changed", "")] * 4)
    answer = client.request("GET", blob)
    assert (answer.status, answer.code) == (503, "ServerBusy")


def test_offline_is_a_clean_503(node: Node, client: WireClient, blob: str) -> None:
    node.sidecar.failures.append(Failed("offline", "There is no way to the cloud now.", 7))
    answer = client.request("GET", blob)
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "ServerBusy", "7")
    assert b"no way to the cloud" in answer.body
    assert client.request("GET", blob).body == BODY


def test_a_stub_that_lost_its_record(node: Node, client: WireClient, container: str) -> None:
    client.request("PUT", container + "/other", None, BLOCK, b"x")
    path = Path(node.server.node.accounts[ACCOUNT].settings.root) / container.strip("/") / "lost"
    path.touch()
    path.chmod(0o1400)
    state = node.stores[ACCOUNT].stat_blob(BlobRef(container.strip("/"), "lost"))
    assert state is not None
    assert state.properties.remote == LOST
    for method in ("GET", "HEAD"):
        answer = client.request(method, container + "/lost")
        assert (answer.status, answer.code) == (503, "ServerBusy")
    assert b"reconcile" in client.request("GET", container + "/lost").body
    source = {"x-ms-copy-source": url(client, container + "/lost")}
    for answer in (
        client.request("PUT", container + "/lost", {"comp": "snapshot"}),
        client.request("PUT", container + "/lost", {"comp": "metadata"}, {"x-ms-meta-k": "w"}),
        client.request("PUT", container + "/copy", None, source),
    ):
        assert (answer.status, answer.code) == (503, "ServerBusy")
        assert b"reconcile" in answer.body
    assert not node.sidecar.wants
    assert not node.sidecar.brings
    assert client.request("DELETE", container + "/lost").status == 202


# --- what needs the whole blob ---


def test_snapshot(node: Node, client: WireClient, blob: str) -> None:
    answer = client.request("PUT", blob, {"comp": "snapshot"})
    assert answer.status == 201
    found = client.request("GET", blob, {"snapshot": answer.headers["x-ms-snapshot"]})
    assert (found.body, found.headers[RESIDENCY]) == (BODY, "local")
    assert [(bring.container, bring.name) for bring in node.sidecar.brings] == [ref_of(blob)[:2]]


def test_snapshot_offline(node: Node, client: WireClient, blob: str) -> None:
    node.sidecar.failures.append(Failed("offline", "There is no way to the cloud now.", 7))
    answer = client.request("PUT", blob, {"comp": "snapshot"})
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "ServerBusy", "7")


def test_its_committed_blocks(node: Node, client: WireClient, container: str) -> None:
    path = container + "/blocks"
    pieces = {"AAAA": BODY[:100_000], "BBBB": BODY[100_000:200_000], "CCCC": BODY[200_000:]}
    for block_id, piece in list(pieces.items())[:2]:
        client.request("PUT", path, {"comp": "block", "blockid": block_id}, None, piece)
    assert commit(client, path, "<Latest>AAAA</Latest><Latest>BBBB</Latest>").status == 201
    node.evict(path, BODY[:200_000])
    client.request("PUT", path, {"comp": "block", "blockid": "CCCC"}, None, pieces["CCCC"])
    more = "<Committed>AAAA</Committed><Committed>BBBB</Committed><Uncommitted>CCCC</Uncommitted>"
    assert commit(client, path, more).status == 201
    assert len(node.sidecar.brings) == 1
    assert client.request("GET", path).body == BODY


def commit(client: WireClient, path: str, blocks: str) -> Answer:
    return client.request("PUT", path, {"comp": "blocklist"}, None, f"<BlockList>{blocks}</BlockList>".encode())


# --- copies ---


@pytest.mark.parametrize("more", [{}, {"x-ms-requires-sync": "true"}, BLOCK])
def test_copies_of_a_stub(node: Node, client: WireClient, container: str, blob: str, more: dict[str, str]) -> None:
    headers = {"x-ms-copy-source": url(client, blob), **more}
    answer = client.request("PUT", container + "/copy", None, headers)
    assert answer.status in (201, 202)
    assert answer.headers.get("x-ms-copy-status", "success") == "success"
    found = client.request("GET", container + "/copy")
    assert (found.body, found.headers[RESIDENCY]) == (BODY, "local")
    assert client.request("HEAD", blob).headers[RESIDENCY] == "remote"


def test_a_copy_to_another_account(node: Node, client: WireClient, second: WireClient, blob: str) -> None:
    signed = token(ACCOUNT, client.key, blob)
    answer = second.request("PUT", "/theirs/copy", None, {"x-ms-copy-source": url(client, blob, signed)})
    assert answer.status == 202
    assert second.request("GET", "/theirs/copy").body == BODY
    assert node.sidecar.wants[0].account == ACCOUNT


def test_a_copy_over_itself(client: WireClient, blob: str) -> None:
    headers = {"x-ms-copy-source": url(client, blob), "x-ms-meta-new": "1"}
    assert client.request("PUT", blob, None, headers).status == 202
    found = client.request("GET", blob)
    assert (found.body, found.headers["x-ms-meta-new"], found.headers[RESIDENCY]) == (BODY, "1", "local")


def test_a_copy_in_the_background(
    client: WireClient, container: str, blob: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "copy_foreground_bytes_max", 1000)
    monkeypatch.setattr(limits, "copy_piece_bytes_max", 4096)
    answer = client.request("PUT", container + "/copy", None, {"x-ms-copy-source": url(client, blob)})
    assert (answer.status, answer.headers["x-ms-copy-status"]) == (202, "pending")
    until = time.monotonic() + WAIT_SECONDS
    while client.request("HEAD", container + "/copy").headers["x-ms-copy-status"] == "pending":
        assert time.monotonic() < until
    assert client.request("GET", container + "/copy").body == BODY


def test_a_block_from_a_range_of_a_stub(node: Node, client: WireClient, container: str, blob: str) -> None:
    headers = {"x-ms-copy-source": url(client, blob), "x-ms-source-range": "bytes=5-100004"}
    answer = client.request("PUT", container + "/b", {"comp": "block", "blockid": "AAAA"}, headers)
    assert answer.status == 201
    assert commit(client, container + "/b", "<Latest>AAAA</Latest>").status == 201
    assert client.request("GET", container + "/b").body == BODY[5:100_005]
    assert wants(node) == [(5, 100_000, 100_005)]


def test_copies_offline(node: Node, client: WireClient, container: str, blob: str) -> None:
    node.sidecar.failures.append(Failed("offline", "There is no way to the cloud now.", 7))
    answer = client.request("PUT", container + "/copy", None, {"x-ms-copy-source": url(client, blob)})
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "ServerBusy", "7")
    assert client.request("HEAD", container + "/copy").status == 404


def test_a_source_that_changes_meanwhile(node: Node, client: WireClient, container: str, blob: str) -> None:
    node.sidecar.failures.append(Failed("changed", ""))
    answer = client.request("PUT", container + "/copy", None, {"x-ms-copy-source": url(client, blob)})
    assert answer.status == 202
    assert client.request("GET", container + "/copy").body == BODY


def test_a_node_whose_offload_is_off(tmp_path: Path) -> None:
    """Stubs of an earlier configuration are still stubs."""
    server = InProcessServer(tmp_path / "root")
    client, store = server.client(), Store(str(tmp_path / "root"))
    try:
        client.request("PUT", "/box", {"restype": "container"})
        client.request("PUT", "/box/b", None, BLOCK, BODY)
        state = store.stat_blob(BlobRef("box", "b"))
        assert state is not None
        remote = Remote(len(BODY), hashlib.md5(BODY).digest(), "0x8", "cloud", "b", state.properties.etag, 0, 0)
        store.run(store.evict(BlobRef("box", "b"), state.properties.etag, remote))
        answer = client.request("GET", "/box/b")
        assert (answer.status, answer.code) == (503, "ServerBusy")
        head = client.request("HEAD", "/box/b")
        assert (head.status, RESIDENCY in head.headers) == (200, False)
    finally:
        client.close()
        server.close()
        store.close()
