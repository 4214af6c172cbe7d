"""What takes more than one exchange, or bytes that no row can send, against the running product."""

import http.client
import itertools
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote

import pytest

from tests.support import Answer, WireClient
from tests.wire.player import Server, Stage
from tests.wire.rows import CONTENT, PUT, Row
from tests.wire.scenes import SCENES

#: A pending copy that was cut off is seen as failed within so many requests; each takes about a millisecond.
POLLS_MAX: Final = 5000
UNSAFE_NAME: Final = "dir/a\ufffe\x01<&>"


@pytest.fixture
def stage(product: Server) -> Iterator[Stage]:
    """A stage with a container of its own."""
    opened = Stage(product)
    opened.set("")
    yield opened
    opened.close()


@pytest.fixture
def client(product: Server) -> Iterator[WireClient]:
    """A signing client with a connection of its own."""
    opened = WireClient(product.port, product.account, product.key)
    yield opened
    opened.close()


def test_the_secondary_answers_reads_and_statistics_and_no_writes(client: WireClient, stage: Stage) -> None:
    stats = client.request("GET", "/", {"restype": "service", "comp": "stats"}, secondary=True)
    assert stats.status == 200
    assert stats.xml().findtext("GeoReplication/Status") == "live"
    assert client.request("GET", f"/{stage.container}", {"restype": "container"}, secondary=True).status == 200
    refused = client.request("PUT", f"/{stage.container}/b", None, PUT, CONTENT, secondary=True)
    assert (refused.status, refused.code) == (403, "AuthorizationFailure")


def test_a_body_needs_a_length_or_chunks(product: Server, client: WireClient, stage: Stage) -> None:
    """http.client adds a Content-Length of its own, so these heads are written by hand."""
    target = f"/{product.account}/{stage.container}/b?{stage.values['sas']}"
    link = http.client.HTTPConnection("127.0.0.1", product.port, timeout=30)
    for name, expected in (("x-none", 411), ("transfer-encoding", 201)):
        link.putrequest("PUT", target)
        link.putheader("x-ms-blob-type", "BlockBlob")
        link.putheader(name, "chunked")
        link.endheaders()
        if expected == 201:
            link.send(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
        answer = link.getresponse()
        answer.read()
        assert answer.status == expected
        assert (answer.getheader("x-ms-error-code") == "MissingContentLengthHeader") == (expected == 411)
    link.close()
    assert client.request("GET", f"/{stage.container}/b").body == CONTENT


def test_a_copy_that_was_cut_off_says_why(stage: Stage) -> None:
    assert stage.send(Row("PUT b", 202, {"x-ms-copy-source": "{outside}/cut"})).status == 202
    for _ in range(POLLS_MAX):
        found = stage.send(Row("HEAD b", 200))
        if found.headers["x-ms-copy-status"] != "pending":
            break
    assert found.headers["x-ms-copy-status"] == "failed"
    assert found.headers["x-ms-copy-status-description"]
    read = stage.send(Row("GET b", 200))
    assert read.headers["x-ms-copy-status-description"] == found.headers["x-ms-copy-status-description"]
    assert (read.status, read.body) == (200, b"")


def test_answers_to_other_origins_follow_the_rules(stage: Stage) -> None:
    for step in (*SCENES["blob"], *SCENES["cors"]):
        assert stage.send(step).status == step.status
    allowed = stage.send(Row("GET b", 200, {"origin": "https://a.example"}))
    assert allowed.headers["access-control-allow-origin"] == "https://a.example"
    assert allowed.headers["access-control-expose-headers"] == "etag"
    assert allowed.headers["vary"] == "Origin"
    other = stage.send(Row("GET b", 200, {"origin": "https://b.example"}))
    assert "access-control-allow-origin" not in other.headers
    assert other.status == 200


def test_names_that_xml_cannot_carry_are_listed_encoded(stage: Stage) -> None:
    assert stage.send(Row(f"PUT {quote(UNSAFE_NAME, safe='/')}", 201, PUT, CONTENT)).status == 201
    listed = stage.send(Row("GET ?restype=container&comp=list", 200)).xml().find("Blobs/Blob/Name")
    assert listed is not None
    assert (listed.get("Encoded"), listed.text) == ("true", quote(UNSAFE_NAME, safe=""))


@pytest.mark.parametrize("container", ["$root", "$web"])
def test_special_containers_hold_blobs(client: WireClient, container: str) -> None:
    path = "/page.html" if container == "$root" else f"/{container}/page.html"
    created = client.request("PUT", f"/{container}", {"restype": "container"})
    assert created.status == 201
    assert client.request("PUT", path, None, PUT, CONTENT).status == 201
    assert client.request("GET", path).body == CONTENT
    listed = client.request("GET", f"/{container}", {"restype": "container", "comp": "list"})
    assert [node.text for node in listed.xml().iter("Name")] == ["page.html"]
    assert client.request("DELETE", f"/{container}", {"restype": "container"}).status == 202


def test_limits_are_where_azure_has_them(stage: Stage) -> None:
    """One less passes; one more is in the rows."""
    metadata = {**PUT, "x-ms-meta-a": "x" * 8191}
    assert stage.send(Row("PUT b", 201, metadata, CONTENT)).status == 201
    assert stage.send(Row("PUT " + "n" * 1024, 201, PUT, CONTENT)).status == 201
    assert stage.send(Row("PUT " + "/".join("n" * 254), 201, PUT, CONTENT)).status == 201
    tags = "&".join(f"k{number}={'v' * 200}" for number in range(10))
    assert stage.send(Row("PUT b", 201, {**PUT, "x-ms-tags": tags}, CONTENT)).status == 201


def test_a_batch_has_256_parts(stage: Stage) -> None:
    for number in range(256):
        assert stage.send(Row(f"PUT b{number}", 201, PUT)).status == 201
    parts = "".join(
        f"--b\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n"
        f"DELETE /{{account}}/{{container}}/b{number}?{{sas}} HTTP/1.1\r\n\r\n"
        for number in range(256)
    )
    headers = {"content-type": "multipart/mixed; boundary=b"}
    answer = stage.send(Row("POST /?comp=batch", 202, headers, f"{parts}--b--\r\n".encode()))
    assert answer.status == 202
    assert answer.body.count(b"HTTP/1.1 202 Accepted") == 256
    assert _names(stage.send(Row("GET ?restype=container&comp=list", 200))) == []


def test_pages_of_a_listing_hold_together(stage: Stage) -> None:
    names = [f"{letter}/{number}" for letter, number in itertools.product("abc", range(5))] + ["z"]
    for name in names:
        assert stage.send(Row(f"PUT {name}", 201, PUT)).status == 201
    seen: list[str] = []
    marker = ""
    while True:
        page = stage.send(Row(f"GET ?restype=container&comp=list&maxresults=4&marker={marker}", 200))
        assert len(_names(page)) <= 4
        seen += _names(page)
        marker = page.xml().findtext("NextMarker") or ""
        if not marker:
            break
    assert seen == sorted(names)


def test_deleting_an_upload_discards_its_blocks(stage: Stage) -> None:
    """azure-storage-node issue 350; AzCopy cancels an upload this way."""
    assert stage.send(Row("PUT b?comp=block&blockid=QQ==", 201, {}, CONTENT)).status == 201
    assert stage.send(Row("DELETE b", 202)).status == 202
    assert stage.send(Row("GET b?comp=blocklist&blocklisttype=all", 404)).code == "BlobNotFound"
    assert stage.send(Row("DELETE b", 404)).code == "BlobNotFound"


def test_the_oldest_version_writes_and_reads(stage: Stage) -> None:
    assert stage.send(Row("PUT b", 201, PUT, CONTENT, version="2014-02-14")).status == 201
    read = stage.send(Row("GET b", 200, version="2014-02-14"))
    assert (read.body, read.headers["x-ms-version"]) == (CONTENT, "2014-02-14")
    assert "x-ms-server-encrypted" not in read.headers
    newest = stage.send(Row("GET b", 200, version="2031-01-01"))
    assert (newest.status, newest.headers["x-ms-version"]) == (200, "2031-01-01")


def test_what_every_answer_says(stage: Stage) -> None:
    first, second = (stage.send(Row("GET absent", 404)) for _ in range(2))
    assert first.headers["x-ms-request-id"] != second.headers["x-ms-request-id"]
    assert parsedate_to_datetime(first.headers["date"]).tzinfo is not None
    assert first.headers["server"].startswith("Windows-Azure-Blob/1.0 ")
    long = stage.send(Row("GET absent", 404, {"x-ms-client-request-id": "x" * 1025}))
    assert "x-ms-client-request-id" not in long.headers
    root = ET.fromstring(first.body.decode("utf-8-sig"))
    assert [node.tag for node in root] == ["Code", "Message"]


def _names(answer: Answer) -> list[str]:
    return [node.text or "" for node in answer.xml().findall("Blobs/Blob/Name")]
