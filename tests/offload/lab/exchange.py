"""One connection of the proxy: requests come in, go on to the cloud or not, and answers go back, as the faults say.

Content is passed on as it arrives, never held: what a cut link interrupts was half sent to the cloud too, and the
backpressure of a slow cloud reaches the edge. Rejected: sockets without h11 (what is cut in the middle has to be cut
at a known place) and a proxy on an event loop (a thread a connection is plain code, and there are a few dozen).
"""

import base64
import hashlib
import http.client
import socket
import struct
from collections.abc import Iterable, Iterator
from email.utils import formatdate
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import h11

from .faults import Act, Fault
from .traffic import Exchange

CHUNK_BYTES: Final = 256 << 10
SOURCE_ETAG_HEADER: Final = b"x-ms-meta-blobedge_etag"
#: Headers of one connection, not of the request (RFC 9110 section 7.6.1); h11 and http.client write their own.
HOP_BY_HOP: Final = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"proxy-connection"})
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER, on, for 0 s: close(2) sends RST
ERROR: Final = "<?xml version='1.0' encoding='utf-8'?><Error><Code>{}</Code><Message>{}</Message>{}</Error>"
DETAIL: Final = "<AuthenticationErrorDetail>{}</AuthenticationErrorDetail>"

#: What Azure says when content and its MD5 do not match; Azurite calls it InvalidOperation.
AZURES_MISMATCH: Final = Fault(Act.SPOIL, status=400, code="Md5Mismatch")

Headers = list[tuple[bytes, bytes]]


class CutOff(Exception):
    """The connection to the edge ended, by a fault or by the edge."""


class EdgeSide:
    """The server's half: reads requests of one socket and answers them."""

    def __init__(self, link: socket.socket) -> None:
        self._socket = link
        self._protocol = h11.Connection(h11.SERVER)

    def request(self) -> h11.Request | None:
        """Return the next head, None when the edge has no more. Raises CutOff."""
        if self._protocol.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            self._protocol.start_next_cycle()
        if self._protocol.our_state is not h11.IDLE:
            return None
        event = self._next()
        return event if isinstance(event, h11.Request) else None

    def content(self) -> Iterator[bytes]:
        """Yield the content of the request as it arrives. Raises CutOff."""
        while isinstance(event := self._next(), h11.Data):
            yield bytes(event.data)

    def answer(self, status: int, headers: Headers, content: Iterable[bytes], cut_after: int | None = None) -> int:
        """Send an answer and return the bytes of its content; `cut_after`: end after so many of them; 0 is
        after the status line. Raises CutOff."""
        sent = 0
        head = self._protocol.send(h11.Response(status_code=status, headers=headers)) or b""
        if cut_after == 0:
            self._write(head[: head.index(b"\r\n") + 2])
            raise CutOff
        self._write(head)
        for piece in content:
            if cut_after is not None and sent + len(piece) >= cut_after:
                self._write(self._protocol.send(h11.Data(data=piece[: cut_after - sent])) or b"")
                raise CutOff
            self._write(self._protocol.send(h11.Data(data=piece)) or b"")
            sent += len(piece)
        self._write(self._protocol.send(h11.EndOfMessage()) or b"")
        return sent

    def reset(self) -> None:
        """End the connection with a TCP reset. Raises CutOff always."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        raise CutOff

    def _next(self) -> object:
        try:
            while (event := self._protocol.next_event()) is h11.NEED_DATA:
                self._protocol.receive_data(self._socket.recv(CHUNK_BYTES))
        except (OSError, h11.RemoteProtocolError) as error:
            raise CutOff from error
        return event

    def _write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise CutOff from error


class Exchanger:
    """Takes one request through its fault and writes down what happened."""

    def __init__(self, edge: EdgeSide, cloud: http.client.HTTPConnection) -> None:
        self._edge = edge
        self._cloud = cloud

    def run(self, head: h11.Request, fault: Fault | None, record: Exchange) -> None:
        """One request. Raises CutOff when the connection to the edge is over."""
        act = fault.act if fault else None
        record.act = act or ""
        record.source_etag = _header(head, SOURCE_ETAG_HEADER).strip('"')
        content = self._counted(record)
        if act is Act.RESET_BEFORE:
            self._edge.reset()
        if fault is not None and act is Act.REFUSE:
            _drain(content)
            self._refuse(fault, record)
        elif act is Act.LIE:
            self._lie(content, record)
        else:
            self._pass_on(head, content, fault, record)

    def _counted(self, record: Exchange) -> Iterator[bytes]:
        for piece in self._edge.content():
            record.bytes_up += len(piece)
            yield piece

    def _refuse(self, fault: Fault, record: Exchange) -> None:
        detail = DETAIL.format(fault.detail) if fault.detail else ""
        body = ERROR.format(fault.code, "A fault of the lab.", detail).encode()
        headers = [(b"content-type", b"application/xml"), (b"x-ms-error-code", fault.code.encode())]
        if fault.retry_after_seconds is not None:
            headers.append((b"retry-after", str(fault.retry_after_seconds).encode()))
        if record.request.operation.endswith("Properties"):
            body = b""  # HEAD has none
        self._edge.answer(fault.status, [*headers, (b"content-length", b"%d" % len(body))], [body] if body else [])
        record.answered = fault.status

    def _lie(self, content: Iterable[bytes], record: Exchange) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        for piece in content:
            digest.update(piece)
        record.etag = f'"0x8{record.number:014X}"'
        headers = [
            (b"etag", record.etag.encode()),
            (b"last-modified", formatdate(usegmt=True).encode()),
            (b"content-md5", base64.b64encode(digest.digest())),
            (b"x-ms-request-server-encrypted", b"true"),
            (b"content-length", b"0"),
        ]
        self._edge.answer(201, headers, [])
        record.answered = 201

    def _pass_on(self, head: h11.Request, content: Iterable[bytes], fault: Fault | None, record: Exchange) -> None:
        act = fault.act if fault else None
        reply = self._ask(head, _spoilt(content) if act is Act.SPOIL else content, act, record)
        record.cloud_status = reply.status
        record.etag = reply.headers.get("etag", "")
        if fault is not None and act is Act.REFUSE_LATE:
            reply.read()
            self._refuse(fault, record)
        elif act is Act.RESET_AFTER:
            reply.read()
            self._edge.reset()
        elif act is Act.SPOIL and reply.status == HTTPStatus.BAD_REQUEST:
            reply.read()
            self._refuse(AZURES_MISMATCH, record)
        else:
            self._pass_back(reply, act, record)

    def _ask(
        self, head: h11.Request, content: Iterable[bytes], act: Act | None, record: Exchange
    ) -> http.client.HTTPResponse:
        """Send the request to the cloud and return its answer."""
        size = int(_header(head, b"content-length") or 0)
        self._cloud.putrequest(head.method.decode(), head.target.decode(), skip_host=True, skip_accept_encoding=True)
        for name, value in head.headers:
            if name not in HOP_BY_HOP:
                self._cloud.putheader(name.decode(), value)
        self._cloud.endheaders()
        for piece in content:
            if act is Act.RESET_MIDDLE and record.bytes_up >= size // 2:
                self._cloud.close()
                self._edge.reset()
            self._cloud.send(piece)
        return self._cloud.getresponse()

    def _pass_back(self, reply: http.client.HTTPResponse, act: Act | None, record: Exchange) -> None:
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in reply.getheaders()]
        headers = [(name, _altered(name, value, act)) for name, value in headers if name not in HOP_BY_HOP]
        size = int(reply.headers.get("content-length") or 0)
        has_content = record.request.operation != "GetBlobProperties"
        cut_after = (size // 2 if has_content else 0) if act is Act.TRUNCATE else None
        content = iter(lambda: reply.read1(CHUNK_BYTES), b"")
        record.bytes_down = self._edge.answer(reply.status, headers, content, cut_after)
        reply.close()  # read1 leaves it open at its end, and http.client then takes no other request
        record.answered = reply.status


def operation_of(head: h11.Request) -> tuple[str, str, str, str]:
    """Return operation, container, blob and block id of a request to a path-style account. Operations that carry no
    content of blobs and have no name here are called by their method and `comp`."""
    parts = urlsplit(head.target.decode())
    query = {name.lower(): values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    _, _, container, blob = (*parts.path.split("/", 3), "", "")[:4]
    method, comp = head.method.decode(), query.get("comp", "")
    named = {
        ("PUT", ""): "PutBlob",
        ("PUT", "block"): "PutBlock",
        ("PUT", "blocklist"): "PutBlockList",
        ("PUT", "metadata"): "SetBlobMetadata",
        ("GET", "blocklist"): "GetBlockList",
        ("GET", ""): "GetBlob",
        ("HEAD", ""): "GetBlobProperties",
        ("DELETE", ""): "DeleteBlob",
    }
    name = named.get((method, comp)) if blob else None
    return name or f"{method} {comp}".strip(), container, unquote(blob), query.get("blockid", "")


def _drain(content: Iterable[bytes]) -> None:
    for _ in content:
        pass


def _spoilt(content: Iterable[bytes]) -> Iterator[bytes]:
    """Change the first byte."""
    first = True
    for piece in content:
        yield bytes([piece[0] ^ 1]) + piece[1:] if first and piece else piece
        first = first and not piece


def _altered(name: bytes, value: bytes, act: Act | None) -> bytes:
    if act is Act.WRONG_MD5 and name == b"content-md5":
        return base64.b64encode(hashlib.md5(value, usedforsecurity=False).digest())
    if act is Act.WRONG_ETAG and name == b"etag":
        return b'"0x8DEADBEEFDEADBE"'
    return value


def _header(head: h11.Request, name: bytes) -> str:
    return next((value.decode("latin-1") for found, value in head.headers if found == name), "")
