"""Blob Batch bodies: what SDKs send is read, what has two meanings is refused, answers look as recorded."""

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.blobapi import batch, limits
from dataplane.blobapi.batch import BatchAnswer, BatchPart
from dataplane.blobapi.errors import BlobError, ErrorCode

NAME = "batch_74db003e-8d61-11e9-a293-001a7dda7113"
TYPE = f"multipart/mixed; boundary={NAME}"
DELETE = "DELETE /container/blob HTTP/1.1"


def _part(request: str = DELETE, number: int = 0, headers: str = "Content-Length: 0\r\nx-ms-date: D\r\n") -> str:
    return (
        f"--{NAME}\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n"
        f"Content-Transfer-Encoding: binary\r\n\r\n{request}\r\n{headers}\r\n\r\n"
    )


def _body(*parts: str) -> bytes:
    return ("".join(parts) + f"--{NAME}--\r\n").encode()


def test_the_recorded_form() -> None:
    first = _part(
        "DELETE /c/%C3%B6? HTTP/1.1", 0, "x-ms-delete-snapshots: include\r\nAuthorization: SharedKey a:b=\r\n"
    )
    assert batch.parse(TYPE, _body(first, _part("DELETE /c/1?snapshot=s HTTP/1.1", 1))) == [
        BatchPart("0", "DELETE", "/c/%C3%B6?", {"x-ms-delete-snapshots": "include", "authorization": "SharedKey a:b="}),
        BatchPart("1", "DELETE", "/c/1?snapshot=s", {"content-length": "0", "x-ms-date": "D"}),
    ]


def test_other_forms_that_clients_send() -> None:
    tight = (
        f"\r\n--{NAME}\r\ncontent-id: 7\r\ncontent-type: application/http\r\n\r\n"
        f"PUT /account/c/b?comp=tier HTTP/1.1\r\nx-ms-access-tier:Cool\r\n\r\n--{NAME}--"
    )
    (part,) = batch.parse(f'Multipart/Mixed;boundary="{NAME}"', tight.encode())
    assert part == BatchPart("7", "PUT", "/account/c/b?comp=tier", {"x-ms-access-tier": "Cool"})
    bare = f"--{NAME}\r\nContent-Type: application/http\r\n\r\n{DELETE}\r\n--{NAME}--"
    assert batch.parse(TYPE, bare.encode()) == [BatchPart("", "DELETE", "/container/blob", {})]


def test_as_many_parts_as_allowed() -> None:
    parts = [_part(number=number) for number in range(limits.batch_requests_max)]
    assert [part.content_id for part in batch.parse(TYPE, _body(*parts))] == [str(n) for n in range(256)]
    with pytest.raises(BlobError) as caught:
        batch.parse(TYPE, _body(*parts, _part()))
    assert caught.value.code is ErrorCode.EXCEEDS_MAX_BATCH_REQUEST_COUNT


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--" + NAME.encode() + b"--\r\n",
        _body(_part())[: -len("--\r\n")],
        _body(_part()) + b"x",
        b"preamble\r\n" + _body(_part()),
        _body(_part()).replace(b"\r\n", b"\n"),
        _body(_part(), _part("PUT /c/b?comp=tier HTTP/1.1")),
        _body(_part("GET /c/b HTTP/1.1")),
        _body(_part("PUT /c/b HTTP/1.1")),
        _body(_part("POST /?comp=batch HTTP/1.1")),
        _body(_part("DELETE /c?restype=container HTTP/1.1")),
        _body(_part("DELETE /c/b?comp=lease HTTP/1.1")),
        _body(_part("DELETE /c/b HTTP/1.0")),
        _body(_part("DELETE c/b HTTP/1.1")),
        _body(_part("DELETE  /c/b HTTP/1.1")),
        _body(_part("DELETE /c/b b HTTP/1.1")),
        _body(_part("delete /c/b HTTP/1.1")),
        _body(_part("DELETE /c/ö HTTP/1.1")),
        _body(_part("")),
        _body(_part(headers="Content-Length: 5\r\n\r\nhello")),
        _body(_part(headers="Content-Length: 5\r\n")),
        _body(_part(headers="Content-Length: 0\r\n\r\nhello")),
        _body(_part(headers="Transfer-Encoding: chunked\r\n")),
        _body(_part(headers="x-ms-date: 1\r\nX-MS-Date: 2\r\n")),
        _body(_part(headers="x-ms-date : 1\r\n")),
        _body(_part(headers="no colon\r\n")),
        _body(_part(headers=" folded: 1\r\n")),
        _body(_part(headers="a: b\rc: d\r\n")),
        _body(_part(headers="a: \x00\r\n")),
        _body(_part(headers="a: " + "v" * limits.batch_part_header_bytes_max + "\r\n")),
        _body(_part(headers="".join(f"a{n}: v\r\n" for n in range(limits.batch_part_header_count_max + 1)))),
        _body(_part()).replace(b"application/http", b"text/plain"),
        _body(_part()).replace(b"binary", b"base64"),
        _body(_part()).replace(b"Content-ID: 0", b"Content-ID: a b"),
        _body(_part()).replace(b"x-ms-date: D", b"x-ms-date: \xff"),
        f"--{NAME}x\r\n".encode() + _body(_part()),
    ],
)
def test_bodies_that_are_refused(body: bytes) -> None:
    with pytest.raises(BlobError) as caught:
        batch.parse(TYPE, body)
    assert caught.value.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize(
    ("content_type", "code"),
    [
        (None, ErrorCode.MISSING_REQUIRED_HEADER),
        ("multipart/form-data; boundary=x", ErrorCode.INVALID_HEADER_VALUE),
        ("multipart/mixed", ErrorCode.INVALID_HEADER_VALUE),
        ("multipart/mixed; boundary=", ErrorCode.INVALID_HEADER_VALUE),
        ('multipart/mixed; boundary="a ', ErrorCode.INVALID_HEADER_VALUE),
        ('multipart/mixed; boundary="a "', ErrorCode.INVALID_HEADER_VALUE),
        ("multipart/mixed; boundary=" + "b" * 71, ErrorCode.INVALID_HEADER_VALUE),
        ("multipart/mixed; boundary=a; boundary=b", ErrorCode.INVALID_HEADER_VALUE),
        ("multipart/mixed; boundary=é", ErrorCode.INVALID_HEADER_VALUE),
    ],
)
def test_content_types_that_are_refused(content_type: str | None, code: ErrorCode) -> None:
    with pytest.raises(BlobError) as caught:
        batch.parse(content_type, _body(_part()))
    assert caught.value.code is code


def test_a_body_that_is_too_large() -> None:
    with pytest.raises(BlobError) as caught:
        batch.parse(TYPE, bytes(limits.batch_body_bytes_max + 1))
    assert caught.value.code is ErrorCode.REQUEST_BODY_TOO_LARGE


@given(st.binary(max_size=200), st.integers(0, 300), st.integers(0, 50))
def test_damage_never_makes_another_error(noise: bytes, where: int, cut: int) -> None:
    body = _body(_part(), _part(number=1))
    damaged = body[:where] + noise + body[where + cut :]
    try:
        parts = batch.parse(TYPE, damaged)
    except BlobError:
        return
    assert all(part.method in ("DELETE", "PUT") for part in parts)


def test_the_recorded_answer() -> None:
    answers = [
        BatchAnswer("0", 202, "Accepted", [("x-ms-request-id", "r0"), ("x-ms-version", "2018-11-09")]),
        BatchAnswer("1", 404, "The specified blob does not exist.", [("x-ms-error-code", "BlobNotFound")], b"<Error/>"),
    ]
    assert batch.render("batchresponse_1", answers) == (
        b"--batchresponse_1\r\nContent-Type: application/http\r\nContent-ID: 0\r\n\r\n"
        b"HTTP/1.1 202 Accepted\r\nx-ms-request-id: r0\r\nx-ms-version: 2018-11-09\r\n\r\n"
        b"--batchresponse_1\r\nContent-Type: application/http\r\nContent-ID: 1\r\n\r\n"
        b"HTTP/1.1 404 The specified blob does not exist.\r\nx-ms-error-code: BlobNotFound\r\n\r\n<Error/>\r\n"
        b"--batchresponse_1--"
    )


def test_an_independent_reader_finds_the_parts() -> None:
    body = batch.render("b1", [BatchAnswer(str(n), 200, "OK", [("x-ms-version", "v")], b"x" * n) for n in range(3)])
    message = email.message_from_bytes(
        b"Content-Type: multipart/mixed; boundary=b1\r\n\r\n" + body, policy=email.policy.HTTP
    )
    assert [part["Content-ID"] for part in message.iter_parts()] == ["0", "1", "2"]
