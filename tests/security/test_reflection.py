"""What a client sends comes back only where, and as, it may (attack inputs 11, 12, 19): headers, logs, XML, ranges."""

import json
import re
import xml.etree.ElementTree as ET
from typing import Final
from urllib.parse import quote

import pytest

from tests.security.client import Stranger
from tests.security.endpoint import Endpoint

PUT: Final = {"x-ms-blob-type": "BlockBlob"}
_OVERRIDES: Final = ("rscc", "rscd", "rsce", "rscl", "rsct")
_HOSTILE: Final = [
    "a\r\nX-Injected: 1", "a\nX-Injected: 1", "a\rX-Injected: 1", "\r\n\r\n<html>", "a\0b", "a\x1b[31mb", "\x7f",
    "\x0b", "\x0c",
]  # fmt: skip
_WIDE: Final = [
    "\u560d\u560a",
    "\u010d\u010a",
    "\u2028",
    "\x85",
    "\u00e9",
    "\U0001f600",
    "%0d%0aX-Injected: 1",
    "\\r\\n",
]


@pytest.fixture
def blob(stranger: Stranger, container: str) -> str:
    assert stranger.signed("PUT", f"/{container}/b", headers=PUT, body=b"0123456789").status == 201
    return f"/{container}/b"


@pytest.mark.parametrize("parameter", _OVERRIDES)
def test_header_overrides_stay_in_their_line(stranger: Stranger, blob: str, parameter: str) -> None:
    for text in _HOSTILE:
        answer = stranger.bare("GET", blob, stranger.service_sas(blob, "r", sr="b", **{parameter: text}))
        assert answer.status in (400, 403), (text, answer)
        assert "x-injected" not in answer.headers
    for text in [*_WIDE, "x" * 4000]:
        answer = stranger.bare("GET", blob, stranger.service_sas(blob, "r", sr="b", **{parameter: text}))
        assert answer.status in (200, 403), (text, answer)
        assert "x-injected" not in answer.headers
    assert (
        stranger.bare("GET", blob, stranger.service_sas(blob, "r", sr="b", rsct="text/x")).headers["content-type"]
        == "text/x"
    )
    assert stranger.bare("GET", blob, stranger.account_sas(rsct="text/x")).headers["content-type"] != "text/x"
    assert stranger.signed("GET", blob, "rsct=text/x").headers["content-type"] != "text/x"


def test_client_request_ids_are_bounded_and_plain(endpoint: Endpoint, stranger: Stranger, blob: str) -> None:
    for text in (
        "x" * 1024,
        "x" * 1025,
        "x" * 10_240,
        "\x1b[31m",
        "a\tb",
        "\u00e9",
        '"}\\',
        "<script>",
        "${jndi:ldap://x}",
        "",
    ):
        answer = stranger.bare("GET", blob, stranger.account_sas(), {"x-ms-client-request-id": text})
        assert answer.status in (200, 400)
        assert answer.headers.get("x-ms-client-request-id", text) == text
        assert len(answer.headers.get("x-ms-client-request-id", "")) <= 1024


def test_log_lines_stay_lines(endpoint: Endpoint, stranger: Stranger, blob: str) -> None:
    marks = ["\x1b[31mANSI", "tab\tbed", '"},{"forged":"yes', "\u2028line", "\u00e9", "\\n", "%0a"]
    for mark in marks:
        stranger.bare("GET", blob, stranger.account_sas(), {"user-agent": mark, "referer": mark})
        stranger.signed("GET", f"{blob}{quote(mark)}%0aforged%1b%5b31m")
    lines = []
    for _ in range(200):  # the log is written a little later, by another thread
        lines = [line for line in endpoint.log().split("\n") if "forged" in line]
        if len(lines) >= len(marks):
            break
        stranger.signed("GET", blob)
    assert len(lines) >= len(marks)
    for line in lines:
        assert line.isprintable() or not re.search("[\x00-\x1f\x7f]", line), line
        assert "forged" not in json.loads(line)


def test_errors_escape_what_they_show(stranger: Stranger, container: str) -> None:
    markup = quote("</Code><Injected/>&x;\"'\x01\uffff")
    requests = [
        ("GET", f"/{container}", f"comp={markup}&restype=container"), ("GET", f"/{container}", f"restype={markup}"),
        ("GET", f"/{container}", f"restype=container&comp=list&maxresults={markup}"),
        ("GET", f"/{container}", f"restype=container&comp=list&include={markup}"),
        ("GET", f"/{container}", f"restype=container&comp=list&showonly={markup}"),
        ("GET", f"/{container}", f"restype=container&comp=list&marker={markup}"),
        ("GET", f"/{container}", f"restype=container&comp=list&{markup}=1&{markup}=2"),
        ("GET", f"/{container}", f"restype=container&comp=blobs&where={markup}"),
        ("GET", f"/{container}/b", f"snapshot={markup}"), ("PUT", f"/{container}/b", f"snapshot={markup}"),
        ("PUT", f"/{container}/b", f"comp=block&blockid={markup}"),
        ("GET", f"/{container}/b", f"comp=blocklist&blocklisttype={markup}"),
        ("GET", f"/{markup}", "restype=container"), ("GET", f"/{container}/{markup}", f"sp=r&sig={markup}"),
        ("GET", f"/{container}/{markup}", f"sv=2022-11-02&sr=b&se=2099-01-01&sp=r&sig={markup}"),
    ]  # fmt: skip
    for method, path, query in requests:
        for answer in (stranger.signed(method, path, query), stranger.bare(method, path, query)):
            if answer.body:
                assert ET.fromstring(answer.body.decode("utf-8-sig")).find(".//Injected") is None
    for name in (
        "x-ms-blob-type", "x-ms-lease-id", "x-ms-access-tier", "x-ms-tags", "x-ms-meta-a", "content-md5",
        "x-ms-version", "x-ms-blob-content-type", "if-match", "x-ms-lease-action", "x-ms-if-tags", "origin",
        "x-ms-structured-body",
    ):  # fmt: skip
        for path, query in (
            (f"/{container}/b", ""),
            (f"/{container}/b", "comp=lease"),
            (f"/{container}/b", "comp=tier"),
        ):
            answer = stranger.signed("PUT", path, query, {**PUT, name: "</Code><Injected/>&x;'"})
            if answer.body:
                assert ET.fromstring(answer.body.decode("utf-8-sig")).find(".//Injected") is None


def test_origins_are_not_echoed_without_a_rule(stranger: Stranger, blob: str) -> None:
    for origin in ("null", "https://evil.example", "*", "https://evil.example, https://x", "\u00e9", "a" * 5000):
        answer = stranger.signed("GET", blob, "", {"origin": origin})
        assert not [name for name in answer.headers if name.startswith("access-control")]
        preflight = stranger.bare("OPTIONS", blob, "", {"origin": origin, "access-control-request-method": "PUT"})
        assert preflight.status in (400, 403)


def test_names_in_listings_are_escaped(stranger: Stranger, container: str) -> None:
    names = [
        "</Name><Injected/>",
        "]]>",
        "&amp;",
        "&lt;",
        "\x01",
        "\x7f",
        "\ufffe",
        "\uffff",
        "a\nb",
        "\r",
        "\t",
        "'\"",
        "<!--",
        "<![CDATA[",
    ]
    for name in names:
        assert stranger.signed("PUT", f"/{container}/{quote(name, safe='')}", headers=PUT, body=b"x").status == 201, (
            name
        )
    for delimiter in ("", "&delimiter=%3C", "&delimiter=%0a", "&delimiter=%01"):
        for prefix in ("", "&prefix=%3C", "&prefix=%01", "&prefix=%EF%BF%BF"):
            answer = stranger.signed("GET", f"/{container}", f"restype=container&comp=list{delimiter}{prefix}")
            root = ET.fromstring(answer.body.decode("utf-8-sig"))
            assert root.find(".//Injected") is None
    listing = stranger.signed("GET", f"/{container}", "restype=container&comp=list").body
    assert len(ET.fromstring(listing.decode("utf-8-sig")).findall(".//Name")) == len(names)


RANGES: Final = [
    "bytes=" + ",".join(["0-0"] * 2000), "bytes=-0", "bytes=0--1", "bytes=--1", "bytes=-", "bytes=", "bytes", "=0-1",
    "0-1", "bytes=a-b", f"bytes={2**64 - 1}-", f"bytes={2**64}-", f"bytes=0-{2**64}", f"bytes=-{2**64}",
    "bytes=" + "9" * 5000 + "-", "bytes=5-2", "bytes=10-", "bytes=9-", "bytes=0x0-0x1", "bytes=+0-1", "bytes= 0 - 1",
    "bytes=0-1,", "bytes=0-1;", "lines=0-1", "bytes=\u0660-\u0661", "BYTES=0-1", "bytes=0-1\t", "bytes=1e1-2",
    "bytes=0.0-1", "none", "*",
]  # fmt: skip


@pytest.mark.parametrize("header", ["range", "x-ms-range"])
def test_ranges_stay_inside(stranger: Stranger, blob: str, header: str) -> None:
    content = b"0123456789"
    for text in RANGES:
        for more in ({}, {"x-ms-range-get-content-md5": "true"}, {"x-ms-range-get-content-crc64": "true"}):
            answer = stranger.signed("GET", blob, "", {header: text, **more})
            assert answer.status in (200, 206, 400, 416), (text, answer)
            if answer.status in (200, 206):
                assert answer.body in content
                assert len(answer.body) <= len(content)
    answer = stranger.signed("GET", blob, "", {"range": "bytes=0-1", "x-ms-range": "bytes=4-5"})
    assert (answer.body, answer.headers["content-range"]) == (b"45", "bytes 4-5/10")


def _bombs() -> dict[str, bytes]:
    """XML that means too much, or something else."""
    laughs = b"".join(b'<!ENTITY l%d "%s">' % (i, b"&l%d;" % (i - 1) * 10) for i in range(1, 12))
    return {
        "laughs": b'<!DOCTYPE x [<!ENTITY l0 "lol">' + laughs + b"]><R>&l11;</R>",
        "quadratic": b'<!DOCTYPE x [<!ENTITY a "' + b"a" * 50_000 + b'">]><R>' + b"&a;" * 10_000 + b"</R>",
        "external": b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><R>&e;</R>',
        "external-dtd": b'<!DOCTYPE R SYSTEM "http://127.0.0.1:1/x.dtd"><R/>',
        "parameter": b'<!DOCTYPE x [<!ENTITY % p SYSTEM "file:///etc/passwd">%p;]><R/>',
        "doctype": b"<!DOCTYPE R><R/>",
        "deep": b"<R>" * 100_000,
        "deep-closed": b"<R>" + b"<a>" * 5000 + b"</a>" * 5000 + b"</R>",
        "wide": b"<R>" + b"<a/>" * 700_000 + b"</R>",
        "attributes": b"<R " + b" ".join(b"a%d='x'" % i for i in range(100_000)) + b"/>",
        "same-attributes": b"<R a='1' a='2'/>",
        "long-name": b"<" + b"a" * 3_000_000 + b"/>",
        "utf-16": "<R/>".encode("utf-16"),
        "utf-16-claimed": b'<?xml version="1.0" encoding="utf-16"?><R/>',
        "utf-7": b'<?xml version="1.0" encoding="utf-7"?>+ADw-R+AC8APg-',
        "ebcdic": b"\x4c\x6f\xa7\x94\x93",
        "latin": b'<?xml version="1.0" encoding="latin-1"?><R>\xe9</R>',
        "nul": b"<R>\0</R>",
        "unknown-entity": b"<R>&nbsp;</R>",
        "character-reference": b"<R>&#0;&#xD800;&#xFFFFFFFF;</R>",
        "include": b'<R xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="file:///etc/passwd"/></R>',
        "stylesheet": b'<?xml-stylesheet href="file:///etc/passwd"?><R/>',
        "unfinished": b"<R",
        "two-roots": b"<R/><R/>",
        "nothing": b"",
        "json": b'{"R": 1}',
        "cdata": b"<R><![CDATA[" + b"x" * 1_000_000 + b"]]></R>",
        "comments": b"<R>" + b"<!---->" * 300_000 + b"</R>",
    }


BOMBS: Final = _bombs()
HARMLESS: Final = ("comments", "nothing", "stylesheet", "attributes")  # skipped, as the service's own reader does
_DOCUMENTS: Final = {
    "BlockList": ("/{c}/b", "comp=blocklist"),
    "Tags": ("/{c}/b", "comp=tags"),
    "SignedIdentifiers": ("/{c}", "restype=container&comp=acl"),
    "StorageServiceProperties": ("/", "restype=service&comp=properties"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_xml_bombs_are_refused_cheaply(
    endpoint: Endpoint, stranger: Stranger, container: str, blob: str, name: str
) -> None:
    before = endpoint.rss_bytes()
    for root, (path, query) in _DOCUMENTS.items():
        body = BOMBS[name].replace(b"<R", b"<" + root.encode()).replace(b"</R", b"</" + root.encode())
        answer = stranger.signed("PUT", path.format(c=container), query, body=body)
        assert answer.status in (400, 413) or (answer.status < 300 and name in HARMLESS), answer
        assert b"root:" not in answer.raw
    after = endpoint.rss_bytes()
    assert before.keys() == after.keys()
    for pid, held in after.items():
        assert held - before[pid] < 96 << 20, (name, (held - before[pid]) >> 20)


def test_block_lists_at_and_beyond_the_limit(stranger: Stranger, container: str) -> None:
    entry = b"<Latest>MQ==</Latest>"
    for count, code in ((50_001, "BlockListTooLong"), (400_000, "BlockListTooLong")):
        body = b"<BlockList>" + entry * count + b"</BlockList>"
        assert stranger.signed("PUT", f"/{container}/b", "comp=blocklist", body=body).code == code
    for block_id in (
        "",
        "MQ",
        "M===",
        "====",
        "M Q=",
        "MQ==\n",
        "<a/>",
        "../../x",
        "A" * 4000,
        "%2e%2e",
        "\u00e9",
        "MQ==,Mg==",
    ):
        body = f"<BlockList><Latest>{block_id}</Latest></BlockList>".encode()
        assert stranger.signed("PUT", f"/{container}/b", "comp=blocklist", body=body).status == 400, block_id
        answer = stranger.signed("PUT", f"/{container}/b", f"comp=block&blockid={quote(block_id, safe='')}", body=b"x")
        assert answer.status == 400, block_id
    for block_id in ("Li4vLi4v", "Ly8v", "////", "++++", "AAAA"):  # base64 of ../../, ///, and base64's own slashes
        assert (
            stranger.signed(
                "PUT", f"/{container}/{quote(block_id, '')}", f"comp=block&blockid={quote(block_id, '')}", body=b"x"
            ).status
            == 201
        )
        body = f"<BlockList><Latest>{block_id}</Latest></BlockList>".encode()
        assert stranger.signed("PUT", f"/{container}/{quote(block_id, '')}", "comp=blocklist", body=body).status == 201
