"""Find Blobs by Tags over the wire, and how a page of it ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dataplane.blobapi import listing
from dataplane.blobapi.model import BlobProperties, ContainerProperties
from dataplane.blobapi.tagquery import parse_where
from dataplane.server.handlers.find import find
from dataplane.store.store import BlobRef, Store
from tests.support import Answer, InProcessServer, WireClient

BLOBS = {
    ("one", "a"): "k=1&state=new",
    ("one", "b"): "k=2",
    ("one", "c/d"): "k=1",
    ("two", "a"): "k=3&state=old+one",
    ("two", "untagged"): "",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path_factory.mktemp("store") / "root")
    client = running.client()
    for name in ("one", "two"):
        assert client.request("PUT", f"/{name}", {"restype": "container"}).status == 201
    for (container, blob), tags in BLOBS.items():
        headers = {"x-ms-blob-type": "BlockBlob", **({"x-ms-tags": tags} if tags else {})}
        assert client.request("PUT", f"/{container}/{blob}", None, headers, b"x").status == 201
    client.close()
    yield running
    running.close()


@pytest.fixture
def client(server: InProcessServer) -> Iterator[WireClient]:
    found = server.client()
    yield found
    found.close()


def _find(client: WireClient, container: str = "", **parameters: str) -> Answer:
    restype = {"restype": "container"} if container else {}
    return client.request("GET", f"/{container}", {**restype, "comp": "blobs", **parameters})


def _found(answer: Answer) -> list[tuple[str, str]]:
    assert answer.status == 200
    blobs = answer.xml().iterfind("Blobs/Blob")
    return [(blob.findtext("ContainerName") or "", blob.findtext("Name") or "") for blob in blobs]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("k='1'", [("one", "a"), ("one", "c/d")]),
        ("k>='2'", [("one", "b"), ("two", "a")]),
        ("k='1' AND state='new'", [("one", "a")]),
        ("@container='two' AND k>'0'", [("two", "a")]),
        ("state='old one'", [("two", "a")]),
        ("k='9'", []),
        ("@container='none' AND k='1'", []),
    ],
)
def test_in_the_account(client: WireClient, where: str, expected: list[tuple[str, str]]) -> None:
    answer = _find(client, where=where)
    assert _found(answer) == expected
    assert answer.xml().findtext("Where") == where


def test_only_the_tags_that_were_asked_for_come_back(client: WireClient) -> None:
    root = _find(client, where="k='3'").xml()
    assert [tag.findtext("Key") for tag in root.iterfind("Blobs/Blob/Tags/TagSet/Tag")] == ["k"]


def test_in_one_container(client: WireClient) -> None:
    assert _found(_find(client, "one", where="k>'0'")) == [("one", "a"), ("one", "b"), ("one", "c/d")]
    assert _found(_find(client, "one", where="@container='two' AND k>'0'")) == []
    missing = _find(client, "none", where="k='1'")
    assert (missing.status, missing.code) == (404, "ContainerNotFound")


def test_pages(client: WireClient) -> None:
    found, marker = [], ""
    while True:
        answer = _find(client, where="k>'0'", maxresults="1", **({"marker": marker} if marker else {}))
        page = _found(answer)
        assert len(page) <= 1
        found += page
        marker = answer.xml().findtext("NextMarker") or ""
        if not marker:
            break
    assert found == [("one", "a"), ("one", "b"), ("one", "c/d"), ("two", "a")]


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({}, "MissingRequiredQueryParameter"),
        ({"where": "k"}, "InvalidQueryParameterValue"),
        ({"where": "k<>'1'"}, "InvalidQueryParameterValue"),
        ({"where": "k='1'", "maxresults": "0"}, "OutOfRangeQueryParameterValue"),
        ({"where": "k='1'", "marker": "x"}, "InvalidQueryParameterValue"),
    ],
)
def test_refusals(client: WireClient, parameters: dict[str, str], code: str) -> None:
    answer = _find(client, **parameters)
    assert (answer.status, answer.code) == (400, code)


def _put(store: Store, name: str, properties: BlobProperties) -> None:
    store.run(store.put(BlobRef("abc", name), b"", lambda _: properties))


def test_a_page_ends_after_a_bounded_number_of_blobs(tmp_path: Path) -> None:
    store = Store(str(tmp_path), durable=False)
    store.run(store.create_container("abc", ContainerProperties("0x8D", 1)))
    for number in range(5):
        _put(store, f"blob{number}", BlobProperties("0x8D", 1, 1, tags={"k": str(number)}))
    query = parse_where("k='4'")
    start: tuple[str, ...] = ("", "")
    pages = []
    while True:
        found, marker = find(store, None, query, start, 10, scanned_max=2)
        pages.append([name for _, name, _ in found])
        if not marker:
            break
        start = listing.decode_marker(marker, 2)
    assert pages == [[], [], ["blob4"]]
    store.close()
