"""Answers to requests that failed, and the headers that every answer has.

Four kinds of failure reach this place: a refusal (BlobError, the client's fault or a state that Azure defines), a
StoreError (the storage behind us: 503 with Retry-After, as the client shall try again), a PermissionError (the mount's
users keep a file from us: 403), and anything else, which is our bug: 500,
the traceback in the log under the request id, and nothing of it in the answer.

HEAD answers and 304 have neither body nor Content-Type; the code is in x-ms-error-code (recordings of the service).
"""

import re
from typing import Final

from dataplane.blobapi import limits
from dataplane.blobapi.dates import iso_ticks
from dataplane.blobapi.errors import BlobError, ErrorCode, error_body
from dataplane.blobapi.message import Response
from dataplane.store.errors import NameNotStorable, NoSpace, StoreError

RETRY_AFTER_SECONDS: Final = 5
#: EACCES and EPERM: the mount's own users may keep files from us. Trying again would not help, so it is no 503.
_NOT_OURS: Final = "The permissions of the file on the mount do not allow this."
XML: Final = ("Content-Type", "application/xml")

_CLIENT_ID_UNSAFE = re.compile(r"[^\x20-\x7e]")


def refusal(error: BaseException) -> BlobError | None:
    """What a client is told about an exception; None for one that only a bug of ours can raise."""
    if isinstance(error, BlobError):
        return error
    if isinstance(error, StoreError):
        code = ErrorCode.OUT_OF_SPACE if isinstance(error, NoSpace) else ErrorCode.SERVER_BUSY
        return BlobError(code, headers=(("Retry-After", str(RETRY_AFTER_SECONDS)),))
    if isinstance(error, NameNotStorable):
        return BlobError(ErrorCode.INVALID_RESOURCE_NAME)
    if isinstance(error, PermissionError):
        return BlobError(ErrorCode.AUTHORIZATION_FAILURE, message=_NOT_OURS)
    return None


def error_answer(error: BlobError, method: str, request_id: str, ticks: int) -> Response:
    """The answer to a refused request; `ticks` is the time in 100 ns since the epoch."""
    headers = [*error.headers, ("x-ms-error-code", error.code.code)]
    status = error.code.status
    if method == "HEAD" or status == 304:
        return Response(status, headers, close=error.close)
    body = error_body(error, request_id, iso_ticks(ticks))
    return Response(status, [*headers, XML], body, close=error.close)


def echoed_client_id(text: str | None) -> str | None:
    """x-ms-client-request-id to send back: bounded, and only characters that can do no harm in a header or a log."""
    if not text or len(text) > limits.client_request_id_chars_max or _CLIENT_ID_UNSAFE.search(text):
        return None
    return text
