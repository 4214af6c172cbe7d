"""The XML reader refuses everything it should, and what the writer makes is read back as it was."""

import contextlib
import xml.etree.ElementTree as ET
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.blobapi import limits, xmlcodec
from dataplane.blobapi.errors import BlobError, ErrorCode

DECLARATION = b'<?xml version="1.0" encoding="utf-8"?>'
BOMB = (
    b"""<?xml version="1.0"?><!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;"><!ENTITY c "&b;&b;&b;">]><r>&c;</r>"""
)

HOSTILE = {
    "billion laughs": BOMB,
    "external entity": b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><r>&x;</r>',
    "external subset": b'<!DOCTYPE r SYSTEM "http://192.0.2.1/r.dtd"><r/>',
    "parameter entity": b'<!DOCTYPE r [<!ENTITY % p SYSTEM "http://192.0.2.1/p">%p;]><r/>',
    "empty doctype": b"<!DOCTYPE r><r/>",
    "unknown entity": b"<r>&nbsp;</r>",
    "too deep": b"<r>" + b"<a>" * 100_000,
    "one too deep": b"<r>" + b"<a>" * limits.xml_depth_max + b"</a>" * limits.xml_depth_max + b"</r>",
    "UTF-16 with BOM": "<r/>".encode("utf-16"),
    "UTF-16 without BOM": "<r/>".encode("utf-16-le"),
    "UTF-16 declared": b'<?xml version="1.0" encoding="utf-16"?><r/>',
    "Latin-1 declared": b'<?xml version="1.0" encoding="iso-8859-1"?><r>\xe9</r>',
    "EBCDIC declared": b'<?xml version="1.0" encoding="cp037"?><r/>',
    "Latin-1 unlabelled": b"<r>\xe9</r>",
    "overlong UTF-8": b"<r>\xc0\xaf</r>",
    "surrogate": b"<r>\xed\xa0\x80</r>",
    "NUL": b"<r>\0</r>",
    "control character reference": b"<r>&#1;</r>",
    "U+FFFF reference": b"<r>&#xFFFF;</r>",
    "nothing": b"",
    "BOM alone": xmlcodec.BOM,
    "two BOMs": xmlcodec.BOM * 2 + b"<r/>",
    "text": b"hello",
    "JSON": b'{"r": 1}',
    "unclosed": b"<r><a></r>",
    "two documents": b"<r/><r/>",
    "rubbish after the end": b"<r/>x",
    "other document element": b"<s/>",
    "mixed content": b"<r>text<a/></r>",
    "duplicate attribute": b'<r a="1" a="2"/>',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_documents_are_refused(body: bytes) -> None:
    with pytest.raises(BlobError) as caught:
        xmlcodec.parse(body, "r")
    assert caught.value.code is ErrorCode.INVALID_XML_DOCUMENT


def test_size_is_bounded() -> None:
    with pytest.raises(BlobError) as caught:
        xmlcodec.parse(b"<r>" + b" " * 100 + b"</r>", "r", bytes_max=64)
    assert caught.value.code is ErrorCode.REQUEST_BODY_TOO_LARGE


@pytest.mark.parametrize(
    "prologue", [b"", DECLARATION, xmlcodec.BOM, xmlcodec.BOM + DECLARATION, b"<?xml version='1.0'?>"]
)
def test_what_clients_send_is_read(prologue: bytes) -> None:
    root = xmlcodec.parse(
        prologue + "\n<r x='1'><!-- c --><a> ä&amp;&#x41;<![CDATA[<b>]]></a><?pi ?><b/></r>\n".encode(), "r"
    )
    assert [(child.tag, child.text) for child in root.children] == [("a", " ä&A<b>"), ("b", "")]
    assert root.required("a").leaf() == "ä&A<b>"


def test_the_deepest_allowed_document_is_read() -> None:
    depth = limits.xml_depth_max - 1
    assert xmlcodec.parse(b"<r>" + b"<a>" * depth + b"</a>" * depth + b"</r>", "r").children


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<r/>", ErrorCode.INVALID_XML_DOCUMENT),
        (b"<r><a/><a/></r>", ErrorCode.INVALID_XML_DOCUMENT),
        (b"<r><a><b/></a></r>", ErrorCode.INVALID_XML_DOCUMENT),
        (b"<r><a>yes</a></r>", ErrorCode.INVALID_XML_DOCUMENT),
    ],
)
def test_refusals_of_a_boolean_child(body: bytes, code: ErrorCode) -> None:
    with pytest.raises(BlobError) as caught:
        xmlcodec.parse_boolean(xmlcodec.parse(body, "r").required("a"))
    assert caught.value.code is code


@pytest.mark.parametrize(("text", "value"), [("True", True), (" false\n", False), ("1", True), ("0", False)])
def test_booleans(text: str, value: bool) -> None:
    assert xmlcodec.parse_boolean(xmlcodec.parse(f"<r><a>{text}</a></r>".encode(), "r").required("a")) is value


def test_unexpected_children_are_refused() -> None:
    with pytest.raises(BlobError) as caught:
        xmlcodec.parse(b"<r><a/><z/></r>", "r").only(("a",))
    assert caught.value.code is ErrorCode.INVALID_XML_DOCUMENT
    assert ("Reason", "The element z is not expected here.") in caught.value.detail


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail_otherwise(body: bytes) -> None:
    with contextlib.suppress(BlobError):
        xmlcodec.parse(b"<r>" + body, "r")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_names_survive_a_round_trip(name: str) -> None:
    body = xmlcodec.document(["<r>", xmlcodec.name_node("Name", name), "</r>"])
    element = ET.fromstring(body.decode("utf-8-sig"))[0]
    text = element.text or ""
    assert (unquote(text) if element.get("Encoded") == "true" else text) == name


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_texts_and_attributes_are_always_well_formed(text: str) -> None:
    body = xmlcodec.document([f'<r a="{xmlcodec.escape_attribute(text)}">', xmlcodec.node("a", text), "</r>"])
    root = ET.fromstring(body.decode("utf-8-sig"))
    expected = "".join(char if xmlcodec.representable(char) else "\ufffd" for char in text)
    assert root.get("a") == expected
    assert (root[0].text or "") == expected


def test_the_recorded_name_that_xml_cannot_carry() -> None:
    name = "dir1/dir2/file\uffff.blob"
    assert xmlcodec.name_node("Name", name) == '<Name Encoded="true">dir1%2Fdir2%2Ffile%EF%BF%BF.blob</Name>'


def test_bodies_begin_as_the_service_does() -> None:
    assert xmlcodec.document(["<r />"]) == b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?><r />'
