"""List Blobs and List Containers over the wire: order, pages, parameters and their refusals."""

import itertools
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from urllib.parse import quote, unquote

import pytest

from tests.support import ACCOUNT, Answer, InProcessServer, WireClient

LIST: Mapping[str, str] = {"restype": "container", "comp": "list"}
BLOCK_BLOB = {"x-ms-blob-type": "BlockBlob"}
NAMES = sorted(["a", "a/b", "a/b/c", "a//d", "a-b", "b/1", "b/2", "c", "c\uffff", "ö/ß &<>\"'", "z z+%2F", "~"])
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessServer]:
    running = InProcessServer(tmp_path_factory.mktemp("store") / "root")
    yield running
    running.close()


@pytest.fixture
def client(server: InProcessServer) -> Iterator[WireClient]:
    found = server.client()
    yield found
    found.close()


@pytest.fixture
def container(client: WireClient) -> str:
    name = f"listing{next(_numbers)}"
    assert client.request("PUT", f"/{name}", {"restype": "container"}).status == 201
    return name


@pytest.fixture
def filled(client: WireClient, container: str) -> str:
    for name in NAMES:
        _put(client, container, name)
    return container


def _put(client: WireClient, container: str, name: str, headers: Mapping[str, str] | None = None) -> None:
    answer = client.request(
        "PUT", f"/{container}/{quote(name, safe='')}", None, {**BLOCK_BLOB, **(headers or {})}, b"hello"
    )
    assert answer.status == 201


def _list(client: WireClient, container: str, **parameters: str) -> Answer:
    return client.request("GET", f"/{container}", {**LIST, **parameters})


def _text(element: ET.Element | None) -> str:
    assert element is not None
    text = element.text or ""
    return unquote(text) if element.get("Encoded") == "true" else text


def _items(root: ET.Element) -> list[str]:
    """Names of a page in order; prefixes are marked."""
    blobs = root.find("Blobs")
    assert blobs is not None
    return [("prefix " if item.tag == "BlobPrefix" else "") + _text(item.find("Name")) for item in blobs]


def _pages(client: WireClient, container: str, **parameters: str) -> list[list[str]]:
    pages, marker = [], ""
    while True:
        answer = _list(client, container, **parameters, **({"marker": marker} if marker else {}))
        assert answer.status == 200
        root = answer.xml()
        pages.append(_items(root))
        marker = _text(root.find("NextMarker"))
        if not marker:
            return pages


def test_an_empty_container(client: WireClient, container: str) -> None:
    answer = _list(client, container)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/xml"
    endpoint = f"http://127.0.0.1:{client.port}/{ACCOUNT}/"
    assert answer.body.decode("utf-8-sig") == (
        f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="{endpoint}" '
        f'ContainerName="{container}"><Blobs /><NextMarker /></EnumerationResults>'
    )


def test_all_names_in_order(client: WireClient, filled: str) -> None:
    assert _pages(client, filled) == [NAMES]


@pytest.mark.parametrize("size", range(1, len(NAMES) + 2))
def test_pages_of_any_size_are_the_whole(client: WireClient, filled: str, size: int) -> None:
    pages = _pages(client, filled, maxresults=str(size))
    assert list(itertools.chain(*pages)) == NAMES
    assert all(len(page) == size for page in pages[:-1])


def _grouped(names: list[str], prefix: str, delimiter: str) -> list[str]:
    found: list[str] = []
    for name in names:
        if name.startswith(prefix):
            cut = name.find(delimiter, len(prefix)) if delimiter else -1
            item = name if cut < 0 else "prefix " + name[: cut + len(delimiter)]
            if item not in found:
                found.append(item)
    return found


@pytest.mark.parametrize("size", ["1", "2", "5000"])
@pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "ö/", "none", "c\uffff"])
@pytest.mark.parametrize("delimiter", ["", "/", "//", "-", "b"])
def test_prefix_and_delimiter(client: WireClient, filled: str, prefix: str, delimiter: str, size: str) -> None:
    pages = _pages(client, filled, prefix=prefix, delimiter=delimiter, maxresults=size)
    assert list(itertools.chain(*pages)) == _grouped(NAMES, prefix, delimiter)


@pytest.mark.parametrize("start", ["a", "a/b", "a0", "b/2", "\uffff", "~~~"])
def test_start_from_is_inclusive(client: WireClient, filled: str, start: str) -> None:
    assert _pages(client, filled, startFrom=start) == [[name for name in NAMES if name >= start]]
    pages = _pages(client, filled, startFrom=start, maxresults="2", delimiter="/")
    assert list(itertools.chain(*pages)) == _grouped([name for name in NAMES if name >= start], "", "/")


def test_a_name_that_xml_cannot_carry(client: WireClient, container: str) -> None:
    _put(client, container, "dir1/dir2/file\uffff.blob")
    body = _list(client, container, prefix="dir1/").body
    assert b'<Name Encoded="true">dir1%2Fdir2%2Ffile%EF%BF%BF.blob</Name>' in body


def test_what_is_listed_of_a_blob(client: WireClient, container: str) -> None:
    headers = {
        "x-ms-blob-content-type": "text/plain",
        "x-ms-blob-cache-control": "no-cache",
        "x-ms-meta-key": "value",
        "x-ms-tags": "k=v",
        "x-ms-access-tier": "Cool",
    }
    _put(client, container, "blob", headers)
    head = client.request("HEAD", f"/{container}/blob")
    (blob,) = _list(client, container, include="metadata,tags").xml().iterfind("Blobs/Blob")
    found = {element.tag: element.text or "" for element in blob.iterfind("Properties/*")}
    assert found["Etag"] == head.headers["etag"].strip('"')
    assert found["Last-Modified"] == head.headers["last-modified"]
    assert found["Content-MD5"] == head.headers["content-md5"]
    assert {name: found[name] for name in ("Content-Length", "Content-Type", "Cache-Control", "AccessTier")} == {
        "Content-Length": "5",
        "Content-Type": "text/plain",
        "Cache-Control": "no-cache",
        "AccessTier": "Cool",
    }
    assert found["TagCount"] == "1"
    assert blob.findtext("Metadata/key") == "value"
    assert blob.findtext("Tags/TagSet/Tag/Key") == "k"
    assert blob.findtext("Tags/TagSet/Tag/Value") == "v"
    plain = _list(client, container).body
    assert b"<Metadata" not in plain
    assert b"<Tags>" not in plain


def test_snapshots_come_before_their_blob(client: WireClient, container: str) -> None:
    _put(client, container, "a")
    _put(client, container, "b")
    taken = [client.request("PUT", f"/{container}/a", {"comp": "snapshot"}).headers["x-ms-snapshot"] for _ in range(2)]
    root = _list(client, container, include="snapshots", maxresults="1").xml()
    assert [(blob.findtext("Name"), blob.findtext("Snapshot")) for blob in root.iterfind("Blobs/Blob")] == [
        ("a", taken[0]),
        ("a", taken[1]),
        ("a", None),
    ]
    assert _pages(client, container) == [["a", "b"]]


def test_blobs_of_uncommitted_blocks(client: WireClient, container: str) -> None:
    answer = client.request("PUT", f"/{container}/new", {"comp": "block", "blockid": "MQ=="}, None, b"block")
    assert answer.status == 201
    assert _pages(client, container) == [[]]
    assert _pages(client, container, include="uncommittedblobs") == [["new"]]


def test_a_lease_is_shown(client: WireClient, container: str) -> None:
    _put(client, container, "blob")
    lease = {"x-ms-lease-action": "acquire", "x-ms-lease-duration": "-1"}
    assert client.request("PUT", f"/{container}/blob", {"comp": "lease"}, lease).status == 201
    (blob,) = _list(client, container).xml().iterfind("Blobs/Blob")
    assert [blob.findtext(f"Properties/Lease{word}") for word in ("Status", "State", "Duration")] == [
        "locked",
        "leased",
        "infinite",
    ]


@pytest.mark.parametrize(
    ("parameters", "status", "code"),
    [
        ({"maxresults": "0"}, 400, "OutOfRangeQueryParameterValue"),
        ({"maxresults": "-5"}, 400, "OutOfRangeQueryParameterValue"),
        ({"maxresults": "x"}, 400, "InvalidQueryParameterValue"),
        ({"include": "everything"}, 400, "InvalidQueryParameterValue"),
        ({"marker": "not one of ours"}, 400, "InvalidQueryParameterValue"),
        ({"showonly": "deleted"}, 400, "InvalidQueryParameterValue"),
    ],
)
def test_refusals(client: WireClient, container: str, parameters: dict[str, str], status: int, code: str) -> None:
    answer = _list(client, container, **parameters)
    assert (answer.status, answer.code) == (status, code)


def test_more_than_five_thousand_may_be_asked_for(client: WireClient, filled: str) -> None:
    answer = _list(client, filled, maxresults="100000", include="")
    assert answer.status == 200
    assert answer.xml().findtext("MaxResults") == "100000"


def test_a_container_that_is_not_there(client: WireClient) -> None:
    answer = _list(client, "no-such-container")
    assert (answer.status, answer.code) == (404, "ContainerNotFound")


@pytest.fixture
def containers(client: WireClient) -> list[str]:
    number = next(_numbers)
    names = [f"many{number}-{letter}" for letter in "abcde"]
    for name in names:
        headers = {"x-ms-meta-letter": name[-1]}
        assert client.request("PUT", f"/{name}", {"restype": "container"}, headers).status == 201
    return names


def _containers(client: WireClient, **parameters: str) -> ET.Element:
    answer = client.request("GET", "/", {"comp": "list", **parameters})
    assert answer.status == 200
    return answer.xml()


def test_containers_by_prefix_and_page(client: WireClient, containers: list[str]) -> None:
    prefix, found, marker = containers[0][:-1], [], ""
    while True:
        root = _containers(client, prefix=prefix, maxresults="2", **({"marker": marker} if marker else {}))
        found += [item.findtext("Name") for item in root.iterfind("Containers/Container")]
        marker = root.findtext("NextMarker") or ""
        if not marker:
            break
        assert marker == f"/{ACCOUNT}/{containers[len(found)]}"
    assert found == containers


def test_containers_with_metadata(client: WireClient, containers: list[str]) -> None:
    root = _containers(client, prefix=containers[0], include="metadata")
    assert root.findtext("Containers/Container/Metadata/letter") == "a"
    head = client.request("GET", f"/{containers[0]}", {"restype": "container"})
    assert root.findtext("Containers/Container/Properties/Etag") == head.headers["etag"]
    assert _containers(client, prefix=containers[0]).find("Containers/Container/Metadata") is None


@pytest.mark.parametrize(
    "parameters", [{"maxresults": "0"}, {"include": "blobs"}, {"marker": "/otheraccount/container"}]
)
def test_refusals_of_list_containers(client: WireClient, parameters: dict[str, str]) -> None:
    assert client.request("GET", "/", {"comp": "list", **parameters}).status == 400
