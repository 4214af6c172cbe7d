"""What is kept of a request with a SAS is never used for one that would be answered otherwise."""

import asyncio
import base64
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from dataplane.blobapi.dates import iso_ticks
from dataplane.blobapi.message import FileBody, Response
from dataplane.blobapi.model import BlobProperties, ContainerProperties
from dataplane.blobapi.sharedkey import signature
from dataplane.ipc.settings import AccountSettings, Settings
from dataplane.server.build import build_node, close_node
from dataplane.server.head import RawRequest, parse_head
from dataplane.server.mountpools import MountPools
from dataplane.server.node import Node
from dataplane.store.store import BlobRef
from tests.support import ACCOUNT, KEY

NOW = 1_800_000_000
EXPIRY = NOW + 100


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    settings = Settings(
        worker=0,
        workers=1,
        slot_fd=-1,
        listeners=(),
        accounts=(AccountSettings(name=ACCOUNT, keys=(KEY,), root=str(tmp_path)),),
    )
    loop = asyncio.new_event_loop()
    node = build_node(settings, loop, MountPools())
    node.clock = lambda: NOW * 1_000_000_000
    store = node.accounts[ACCOUNT].store
    store.run(store.create_container("box", ContainerProperties("0x8D1", NOW)))
    store.run(store.put(BlobRef("box", "blob"), b"data", lambda _: BlobProperties("0x8D2", NOW, NOW, tags={"a": "b"})))
    yield node
    assert close_node(node, 10.0)
    loop.close()


def token(permissions: str = "r", address: str = "") -> str:
    """An account SAS (REST page "Create an account SAS")."""
    expiry = iso_ticks(EXPIRY * 10_000_000)
    fields = [ACCOUNT, permissions, "b", "o", "", expiry, address, "", "2020-12-06", ""]
    signed = signature(base64.b64decode(KEY), "\n".join(fields) + "\n")
    extra = f"&sip={address}" if address else ""
    return f"sv=2020-12-06&ss=b&srt=o&sp={permissions}&se={quote(expiry)}{extra}&sig={quote(signed, safe='')}"


def get(node: Node, query: str, headers: str = "", peer: str = "127.0.0.1", method: str = "GET") -> Response | None:
    head = f"{method} /{ACCOUNT}/box/blob?{query} HTTP/1.1\r\nHost: localhost{headers}"
    raw: RawRequest = replace(parse_head(head.encode()), peer=peer)
    response = node.app.try_sync(raw)
    if response is not None and isinstance(response.body, FileBody):
        os.close(response.body.fd)
    return response


def status(node: Node, query: str, headers: str = "", peer: str = "127.0.0.1", method: str = "GET") -> int:
    response = get(node, query, headers, peer, method)
    assert response is not None
    return response.status


def test_a_kept_request_ends_with_its_token(node: Node) -> None:
    sas = token()
    assert [status(node, sas) for _ in range(3)] == [200, 200, 200]
    node.clock = lambda: (EXPIRY + 1) * 1_000_000_000
    assert status(node, sas) == 403


def test_another_peer_is_another_request(node: Node) -> None:
    sas = token(address="10.0.0.1")
    assert status(node, sas, peer="10.0.0.1") == 200
    assert status(node, sas, peer="10.0.0.1") == 200
    assert status(node, sas, peer="10.0.0.2") == 403


def test_headers_that_change_the_outcome_are_looked_at_each_time(node: Node) -> None:
    sas = token()
    assert status(node, sas) == 200
    assert status(node, sas, "\r\nx-ms-if-tags: \"a\"='b'") == 403  # the permission t is missing
    assert status(node, sas, "\r\nAuthorization: SharedKey x:y") >= 400
    assert status(node, sas, "\r\nx-ms-encryption-key: AAAA") == 400
    assert status(node, sas, "\r\nx-ms-version: nonsense") == 400
    assert status(node, sas, "\r\nIf-None-Match: 0x8D2") == 304
    assert status(node, sas, "\r\nRange: bytes=0-1") == 206
    assert status(node, sas) == 200


def test_an_altered_signature_is_refused_beside_a_kept_one(node: Node) -> None:
    sas = token()
    assert status(node, sas) == 200
    assert status(node, sas[:-4] + "AAA%3D") == 403
    assert status(node, sas, method="HEAD") == 200
