"""Which operations of a real server are noted, and as what; and that nothing is where no directory is set."""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataplane.blobapi.model import Remote
from dataplane.journal.record import Kind, freed_name
from dataplane.store.store import BlobRef, Store
from tests.journal.support import read_all
from tests.support import ACCOUNT, Answer, InProcessServer, WireClient

BLOB = "/cont/a blob".replace(" ", "%20")
NAME = "a blob"
BLOCK_BLOB = {"x-ms-blob-type": "BlockBlob"}
BLOCK = base64.b64encode(b"block-1").decode()
BLOCK_LIST = f"<?xml version='1.0'?><BlockList><Latest>{BLOCK}</Latest></BlockList>".encode()


class Journaled:
    """A server with a journal, and what the journal got with the last request."""

    def __init__(self, root: Path, directory: Path, strict: bool = False) -> None:
        self.directory = directory
        self.server = InProcessServer(root, strict=strict, journal_directory=str(directory))
        self.client = self.server.client()
        self._seen = 0
        self.does("PUT", "/cont", {"restype": "container"})
        self.does("PUT", BLOB, None, BLOCK_BLOB, b"hello")

    def does(self, *request: object) -> list[tuple[Kind, str]]:
        """Send a request, which has to succeed; the kinds and names that it left."""
        answer = self.answer(*request)
        assert answer.status < 300, answer
        records = read_all(self.directory)[self._seen :]
        self._seen += len(records)
        assert {(record.account, record.container) for record in records} <= {(ACCOUNT, "cont")}
        return [(record.kind, record.name) for record in records]

    def answer(self, *request: object) -> Answer:
        return self.client.request(*request)  # type: ignore[arg-type]


@pytest.fixture
def journaled(tmp_path: Path) -> Iterator[Journaled]:
    made = Journaled(tmp_path / "root", tmp_path / "journal")
    yield made
    made.client.close()
    made.server.close()


BOTH = [(Kind.INTENT, NAME), (Kind.DONE, NAME)]


@pytest.mark.parametrize(
    "request_",
    [
        ("PUT", BLOB, None, BLOCK_BLOB, b"new"),
        ("PUT", BLOB, {"comp": "metadata"}, {"x-ms-meta-a": "b"}),
        ("PUT", BLOB, {"comp": "properties"}, {"x-ms-blob-content-type": "text/x"}),
        ("PUT", BLOB, {"comp": "tier"}, {"x-ms-access-tier": "Cool"}),
        ("PUT", BLOB, {"comp": "tags"}, {}, b"<Tags><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tags>"),
        ("DELETE", BLOB),
    ],
    ids=lambda request_: "-".join(
        map(str, (request_[0], *(request_[2] or {}).values())) if len(request_) > 2 else request_
    ),
)
def test_a_change_of_a_blob_is_noted_before_and_after(journaled: Journaled, request_: tuple[object, ...]) -> None:
    assert journaled.does(*request_) == BOTH


def test_a_copy_is_a_change_of_its_destination(journaled: Journaled) -> None:
    source = f"http://127.0.0.1:{journaled.server.port}/{ACCOUNT}{BLOB}"
    noted = journaled.does("PUT", "/cont/copy", None, {"x-ms-copy-source": source})
    assert noted == [(Kind.INTENT, "copy"), (Kind.DONE, "copy")]


def test_blocks_are_noted_when_they_are_committed(journaled: Journaled) -> None:
    assert journaled.does("PUT", BLOB, {"comp": "block", "blockid": BLOCK}, {}, b"piece") == []
    assert journaled.does("PUT", BLOB, {"comp": "blocklist"}, {}, BLOCK_LIST) == BOTH


def test_leases_and_snapshots_are_nobody_elses_business(journaled: Journaled) -> None:
    lease = {"x-ms-lease-action": "acquire", "x-ms-lease-duration": "-1"}
    assert journaled.does("PUT", "/cont/a%20blob", {"comp": "snapshot"}) == []
    snapshot = journaled.answer("PUT", BLOB, {"comp": "snapshot"}).headers["x-ms-snapshot"]
    assert journaled.does("DELETE", BLOB, {"snapshot": snapshot}) == []
    assert journaled.does("PUT", BLOB, {"comp": "lease"}, lease) == []


def test_what_is_refused_early_is_not_noted(journaled: Journaled) -> None:
    before = len(read_all(journaled.directory))
    refused = journaled.answer("PUT", BLOB, None, BLOCK_BLOB | {"if-none-match": "*"}, b"x")
    assert refused.status == 409
    assert len(read_all(journaled.directory)) == before


def test_containers_are_noted_without_a_name(journaled: Journaled) -> None:
    both = [(Kind.CONTAINER, "")] * 2
    container = {"restype": "container"}
    assert journaled.does("PUT", "/cont", container | {"comp": "metadata"}, {"x-ms-meta-a": "b"}) == both
    assert journaled.does("DELETE", "/cont", container) == both
    assert [record.kind for record in read_all(journaled.directory)[:2]] == [Kind.CONTAINER] * 2  # it was created


def test_reading_notes_nothing(journaled: Journaled) -> None:
    assert journaled.does("GET", BLOB) == []
    assert journaled.does("GET", "/cont", {"restype": "container", "comp": "list"}) == []


def test_a_server_without_a_journal_makes_none(tmp_path: Path) -> None:
    server = InProcessServer(tmp_path / "root")
    client: WireClient = server.client()
    assert client.request("PUT", "/cont", {"restype": "container"}).status == 201
    client.close()
    server.close()
    assert {path.name for path in tmp_path.iterdir()} == {"root"}


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "relaxed"])
@pytest.mark.parametrize("request_", [("PUT", BLOB, None, BLOCK_BLOB, b"new"), ("DELETE", BLOB)], ids=["PUT", "DELETE"])
def test_a_stub_that_a_client_replaced_is_noted_with_the_change_if_that_is_on_the_disk(
    tmp_path: Path, request_: tuple[object, ...], strict: bool
) -> None:
    journaled = Journaled(tmp_path / "root", tmp_path / "journal", strict)
    store, ref = Store(str(tmp_path / "root")), BlobRef("cont", NAME)
    state = store.stat_blob(ref)
    assert state is not None
    etag = state.properties.etag
    store.run(store.evict(ref, etag, Remote(5, hashlib.md5(b"hello").digest(), "0x1", "cont", NAME, etag, 0, 0)))
    store.close()
    freed = [(Kind.FREED, freed_name(NAME, etag))] if strict else []
    assert journaled.does(*request_) == [*BOTH, *freed]
    journaled.client.close()
    journaled.server.close()
