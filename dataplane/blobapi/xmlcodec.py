"""XML in and out: a strict, bounded reader of request bodies, and the escaping of everything that is written.

The reader takes a subset of XML that means one thing only: UTF-8 (a BOM is fine, another declared encoding is not), no
document type, hence no entities beyond XML's five, nothing external, bounded size and depth. It is expat underneath;
defusedxml was rejected because it has no bounds on size and depth, lxml because it is one more native parser to patch.
Comments and processing instructions are skipped, as the service's own reader does.

The service checks bodies against a schema, and whatever is wrong with one it calls InvalidXmlDocument (recorded for
unknown, missing and misspelt elements alike; the codes MissingRequiredXmlNode and UnsupportedXmlNode of the REST pages
were seen nowhere). So it is here, with line, position and a reason; only values that a schema cannot judge are
InvalidXmlNodeValue.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote
from xml.parsers import expat

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode

BOM: Final = b"\xef\xbb\xbf"
_DECLARATION: Final = '<?xml version="1.0" encoding="utf-8"?>'
_BLANK: Final = " \t\r\n"
#: What XML 1.0 section 2.2 has no way to carry, not even as a reference.
_ILLEGAL: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKUP: Final = re.compile("[&<>\r]")


@dataclass(slots=True)
class Element:
    """One element of a request body: its text if it is a leaf, else its children.

    `line` (from 1) and `end_column` (from 0, in bytes) tell where its end tag ends.
    """

    tag: str
    text: str = ""
    children: list["Element"] = field(default_factory=list)
    line: int = 0
    end_column: int = 0

    def child(self, tag: str) -> "Element | None":
        """The child of that name. Raises BlobError InvalidXmlDocument when there are two."""
        found = [child for child in self.children if child.tag == tag]
        if len(found) > 1:
            raise invalid_document(f"The element {tag} occurs more than once.", found[1])
        return found[0] if found else None

    def required(self, tag: str) -> "Element":
        """The child of that name. Raises BlobError InvalidXmlDocument."""
        found = self.child(tag)
        if found is None:
            raise invalid_document(f"The element {tag} is missing.", self)
        return found

    def only(self, tags: Sequence[str]) -> None:
        """Refuse children of other names. Raises BlobError InvalidXmlDocument."""
        for child in self.children:
            if child.tag not in tags:
                raise invalid_document(f"The element {child.tag} is not expected here.", child)

    def leaf(self) -> str:
        """The text, blanks around it removed. Raises BlobError InvalidXmlDocument when there are children."""
        if self.children:
            raise invalid_document(f"The element {self.tag} may only have text.", self)
        return self.text.strip(_BLANK)


def invalid_document(reason: str, element: Element | None = None) -> BlobError:
    """InvalidXmlDocument; with an element, LineNumber and LinePosition are those of the service's reader, which has by
    then moved on to the name in the tag that follows (recording test_retention_too_long)."""
    detail: tuple[tuple[str, str], ...] = ()
    if element is not None:
        position = element.end_column + len("</") + 1
        detail = (("LineNumber", str(element.line)), ("LinePosition", str(position)))
    return BlobError(ErrorCode.INVALID_XML_DOCUMENT, detail=(*detail, ("Reason", reason)))


def invalid_value(element: Element) -> BlobError:
    """InvalidXmlNodeValue for an element, with its name and text."""
    detail = (("XmlNodeName", element.tag), ("XmlNodeValue", element.text[: limits.xml_error_value_chars_max]))
    return BlobError(ErrorCode.INVALID_XML_NODE_VALUE, detail=detail)


class _Reader:
    """The callbacks of one parse. Text is collected per open element and must be blank beside children."""

    def __init__(self, parser: expat.XMLParserType, elements_max: int, too_many: ErrorCode) -> None:
        self._parser = parser
        self._elements_left = elements_max
        self._too_many = too_many
        self._open: list[tuple[Element, list[str]]] = []
        self.root: Element | None = None
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._doctype
        parser.XmlDeclHandler = self._declaration

    def _start(self, tag: str, _attributes: dict[str, str]) -> None:
        if len(self._open) >= limits.xml_depth_max:
            raise invalid_document("The document is nested too deeply.")
        self._elements_left -= 1
        if self._elements_left < 0:
            raise BlobError(self._too_many)
        element = Element(tag)
        if self._open:
            self._open[-1][0].children.append(element)
        else:
            self.root = element
        self._open.append((element, []))

    def _end(self, tag: str) -> None:
        element, text = self._open.pop()
        element.text = "".join(text)
        element.line = self._parser.CurrentLineNumber
        element.end_column = self._parser.CurrentColumnNumber + len(f"</{tag}>".encode())
        if element.children and element.text.strip(_BLANK):
            raise invalid_document("An element has text beside its child elements.", element)

    def _text(self, data: str) -> None:
        self._open[-1][1].append(data)

    def _doctype(self, *_: object) -> None:
        raise invalid_document("Document type declarations are not allowed.")

    def _declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() not in ("utf-8", "utf8"):
            raise invalid_document("The document must be encoded as UTF-8.")


def parse(
    data: bytes,
    root: str,
    bytes_max: int = limits.xml_body_bytes_max,
    elements_max: int = limits.xml_elements_max,
    too_many: ErrorCode = ErrorCode.INVALID_XML_DOCUMENT,
) -> Element:
    """The tree of a request body whose document element must be `root`. Attributes are ignored.

    Raises BlobError InvalidXmlDocument for anything that is not well-formed, RequestBodyTooLarge above bytes_max,
    `too_many` above elements_max: an element of four bytes takes fifty times that in memory.
    """
    if len(data) > bytes_max:
        raise BlobError(ErrorCode.REQUEST_BODY_TOO_LARGE)
    text = data.removeprefix(BOM)
    _check_encoding(text)
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    reader = _Reader(parser, elements_max, too_many)
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise BlobError(
            ErrorCode.INVALID_XML_DOCUMENT,
            detail=(("LineNumber", str(error.lineno)), ("LinePosition", str(error.offset + 1))),
        ) from None
    if reader.root is None or reader.root.tag != root:
        raise invalid_document(f"The document element must be {root}.")
    return reader.root


def _check_encoding(text: bytes) -> None:
    """expat guesses UTF-16 from the first bytes whatever encoding it is told, so that is ruled out before."""
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        raise invalid_document("The document must be encoded as UTF-8.") from None
    if b"\0" in text or text.startswith(BOM):
        raise invalid_document("The document must be encoded as UTF-8.")


def escape(text: str) -> str:
    """Character data. A carriage return is written as a reference, because readers turn a literal one into a newline.
    The text must be one that XML can carry; names go through `name_element`."""
    if _MARKUP.search(text) is None:
        return text
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#xD;")


def escape_attribute(text: str) -> str:
    """A value to stand between double quotes; what XML cannot carry becomes U+FFFD."""
    text = escape(_ILLEGAL.sub("\ufffd", text))
    return text.replace('"', "&quot;").replace("\n", "&#xA;").replace("\t", "&#x9;")


def representable(text: str) -> bool:
    """Whether XML can carry the text at all."""
    return _ILLEGAL.search(text) is None


def node(tag: str, text: str) -> str:
    """A leaf; an empty one as `<Tag />`, the way Azure writes it. What XML cannot carry becomes U+FFFD."""
    if not text:
        return f"<{tag} />"
    if not (text.isascii() and text.isprintable()):
        text = _ILLEGAL.sub("\ufffd", text)
    return f"<{tag}>{escape(text)}</{tag}>"


def name_node(tag: str, name: str) -> str:
    """A leaf with a blob name, prefix or delimiter; one that XML cannot carry is percent-encoded and marked so
    (REST page "List Blobs", remarks on names with characters that are invalid in XML)."""
    if name.isascii() and name.isprintable():
        return f"<{tag}>{escape(name)}</{tag}>"
    if _ILLEGAL.search(name) is None:
        return f"<{tag}>{escape(name)}</{tag}>"
    return f'<{tag} Encoded="true">{quote(name, safe="", errors="surrogatepass")}</{tag}>'


def boolean(value: bool) -> str:
    """As in XML bodies."""
    return "true" if value else "false"


def parse_boolean(element: Element) -> bool:
    """True or false in any case (the Python SDK of 2019 sends "True"), also 1 and 0. Raises InvalidXmlDocument."""
    text = element.leaf().lower()
    if text in ("true", "1"):
        return True
    if text in ("false", "0"):
        return False
    raise invalid_document(f"The element {element.tag} must be true or false.", element)


def document(pieces: Iterable[str]) -> bytes:
    """A whole answer: byte order mark, declaration, content."""
    return BOM + (_DECLARATION + "".join(pieces)).encode("utf-8")
