"""A range of a cloud blob as a stream: each byte is given away when it arrives. Blocking: runs on a thread.

What a copy is was verified when it was made, and stands in the stub: its size and MD5. Each answer is held against
them: total length, the MD5 that the service keeps of the whole blob, the range that was asked for. The ETag may have
moved meanwhile (somebody set metadata there), so it counts only together with them: the first answer's ETag is asked
for with If-Match from then on, and a blob that has another one by then is looked at again. What is not there any more
was perhaps kept beside (keep.py), as the stub was moved, and a new version came to its old name: it goes on from there.
OtherContent says that the copy is nowhere. Damage on the way that these do not show is found by whoever hashes all of
the bytes.

A connection that breaks is made again where it was, a few times in a row; `offline` ends that at once.
Rejected: the SDK's download_blob, which reads a chunk of megabytes before it gives its first byte, and repeats requests
by itself.
"""

import base64
import binascii
import random
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import requests
from azure.core.exceptions import DecodeError, HttpResponseError, IncompleteReadError, ServiceRequestError
from urllib3.exceptions import HTTPError

from agent.offload import keep, transport, verify
from agent.offload.cloud import ANSWER_SECONDS_MAX, CONNECT_SECONDS_MAX, Cloud
from agent.offload.failures import CloudFailed, Kind, Request, found, pause
from agent.offload.recall.signing import blob_url, signed
from agent.offload.transport import Errand
from dataplane.blobapi.model import Remote

PIECE_BYTES_MAX: Final = 64 * 1024
TRIES_MAX: Final = 4  # that fail in a row
REDO_BYTES: Final = 1 << 20  # after so many more the failures before are forgotten
WAIT_SECONDS_MAX: Final = 2.0  # for the next try; who asks for more is told to the reader instead
LINK_WAIT_SECONDS: Final = 0.1
_RANGE: Final = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})\Z")

#: Takes the bytes from an offset on; False: no more are wanted.
Sink = Callable[[int, bytes], bool]


class OtherContent(CloudFailed):
    """What the cloud has under this name is not the copy that was verified."""

    def __init__(self, request: Request) -> None:
        super().__init__(found("ConditionNotMet", request).fault)


class Fetcher:
    """Downloads from one cloud. Safe for threads."""

    def __init__(
        self,
        cloud: Cloud,
        *,
        connect_seconds: float = CONNECT_SECONDS_MAX,
        answer_seconds: float = ANSWER_SECONDS_MAX,
    ) -> None:
        """`answer_seconds`: between two bytes of an answer."""
        self.cloud: Final = cloud
        self._session: Final = transport.session()
        if cloud.settings.ca_file is not None:
            self._session.verify = str(cloud.settings.ca_file)
        self._timeouts: Final = (connect_seconds, answer_seconds)

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def get(self, request: Request, headers: Mapping[str, str]) -> requests.Response:
        """Send a Get Blob; its answer's body is not read. Raises CloudFailed, and what requests raises."""
        credential = self.cloud.credentials.current()
        url = blob_url(self.cloud.settings.endpoint, request.container, request.name)
        prepared = signed(self._session, url, headers, credential, datetime.now(UTC))
        try:
            return self._session.send(
                prepared, stream=True, timeout=self._timeouts, allow_redirects=False, verify=self._session.verify
            )
        except requests.RequestException as error:
            raise ServiceRequestError(type(error).__name__, error=error) from error


class CloudCopy:
    """One blob's copy in the cloud. `etag` is the one that the last answer had, "" before the first. `offline`: whether
    there is known to be no way; `failed` hears of each failure, also of those after which it is tried again, and
    whether bytes had come before it; both are called on the fetching thread."""

    def __init__(
        self,
        fetcher: Fetcher,
        remote: Remote,
        offline: Callable[[], bool] = lambda: False,
        failed: Callable[[CloudFailed, bool], None] = lambda failure, came: None,
    ) -> None:
        self.remote: Final = remote
        self.etag = ""
        self._fetcher: Final = fetcher
        self._offline: Final = offline
        self._failed: Final = failed
        self._request = fetcher.cloud.request("Get Blob", "r", remote.container, remote.name)
        self._lock: Final = threading.Lock()  # of the request's place: several downloads share a copy
        self._looked_beside = False

    def fetch(self, start: int, end: int, errand: Errand, sink: Sink) -> None:
        """Give the sink the bytes from `start` up to `end` (exclusive, at least one), in order, until it wants no more.

        Raises CloudFailed: OtherContent, BlobNotFound and the like, or what went wrong too often; what the sink raises,
        it raises.
        """
        at, progress, tries = start, start, 0

        def passed_on(offset: int, piece: bytes) -> bool:
            nonlocal at
            goes_on = sink(offset, piece)
            at = offset + len(piece)
            return goes_on

        while at < end:
            before, asked = at, self._request
            try:
                if not self._once(asked, at, end, errand, passed_on):
                    return
            except CloudFailed as failure:
                if at >= progress + REDO_BYTES:
                    progress, tries = at, 0
                tries += 1
                self._failed(failure, at > before)
                errand.check()
                if not self._is_beside(failure, asked, errand):
                    self._wait(failure, tries, errand)

    def _once(self, request: Request, at: int, end: int, errand: Errand, sink: Sink) -> bool:
        """One request and its answer; False when the sink wants no more."""
        cloud = self._fetcher.cloud
        ended: list[Exception] = []  # what the sink raised is not the cloud's failure

        def work() -> bool:
            headers = {"x-ms-range": f"bytes={at}-{end - 1}", **({"If-Match": f'"{self.etag}"'} if self.etag else {})}
            with closing(self._fetcher.get(request, headers)) as answer:
                self._check(answer, at, end)
                return _pass_on(answer, at, end, sink, ended)

        result = cloud.call(request, errand, work)
        if ended:
            raise ended[0]
        return result

    def _check(self, answer: requests.Response, at: int, end: int) -> None:
        """Raises OtherContent, HttpResponseError for a refusal, DecodeError for an answer that is none to the
        question."""
        if answer.status_code == 412 and self.etag:
            self.etag = ""  # asked again without it, the content says whether it is ours still
            raise found("IncompleteBody", self._request)
        if answer.status_code == 416:
            raise OtherContent(self._request)  # it is shorter
        if answer.status_code != 206:
            raise HttpResponseError("", response=_Refusal(answer))
        given = _RANGE.match(answer.headers.get("Content-Range", ""))
        etag = answer.headers.get("ETag", "").strip('"')
        stored = _md5(answer.headers.get("x-ms-blob-content-md5", ""))
        md5 = verify.content_md5(stored or None, answer.headers.get(f"x-ms-meta-{verify.MD5}", ""))
        if given is None or not etag:
            raise DecodeError("an answer without a range or an ETag")
        if int(given[3]) != self.remote.size or (md5 != self.remote.md5 if md5 else etag != self.remote.etag):
            raise OtherContent(self._request)
        if (int(given[1]), int(given[2])) != (at, end - 1):
            raise DecodeError("another range than was asked for")
        if answer.headers.get("Content-Length", str(end - at)) != str(end - at):
            raise DecodeError("another length than that of the range")
        self.etag = etag

    def _is_beside(self, failure: CloudFailed, asked: Request, errand: Errand) -> bool:
        """Whether what is not where it was asked for was kept beside; it is asked for there from now on. Raises
        CloudFailed."""
        if not (isinstance(failure, OtherContent) or failure.fault.code == "BlobNotFound"):
            return False
        with self._lock:
            if asked is not self._request or self._looked_beside:
                return asked is not self._request
        cloud = self._fetcher.cloud
        kept = keep.kept(cloud, self.remote, errand)  # without the lock: who is stopped is not held by who asks
        with self._lock:
            self._looked_beside = True
            if kept is not None and asked is self._request:
                self._request, self.etag = cloud.request("Get Blob", "r", self.remote.container, kept[0]), ""
            return asked is not self._request

    def _wait(self, failure: CloudFailed, tries: int, errand: Errand) -> None:
        """Until the next try; raises the failure when there is none."""
        fault = failure.fault
        if isinstance(failure, OtherContent) or fault.code == "BlobNotFound" or tries >= TRIES_MAX or self._offline():
            raise failure
        if fault.kind is Kind.LINK:
            seconds: float | None = LINK_WAIT_SECONDS * 2.0**tries
        else:
            seconds = pause(fault, tries - 1, random.random())
        if seconds is None or seconds > WAIT_SECONDS_MAX:
            raise failure
        errand.rest(seconds)


@dataclass(frozen=True, slots=True)
class _Asked:
    method: str


class _Refusal:
    """An answer as the SDK's errors have it, without its body, which nobody reads."""

    def __init__(self, answer: requests.Response) -> None:
        self.status_code = answer.status_code
        self.headers = answer.headers
        self.reason = ""
        self.request = _Asked("GET")

    def text(self) -> str:
        return ""


def _pass_on(answer: requests.Response, at: int, end: int, sink: Sink, ended: list[Exception]) -> bool:
    """Read the body as it arrives. Raises IncompleteReadError when it ends early or breaks, DecodeError when it is
    longer."""
    while True:
        try:
            piece = answer.raw.read1(PIECE_BYTES_MAX, decode_content=False)
        except (HTTPError, OSError) as error:
            raise IncompleteReadError("the answer broke off", error=error) from error
        if not piece:
            break
        if at + len(piece) > end:
            raise DecodeError("more bytes than the range has")
        try:
            goes_on = sink(at, piece)
        except Exception as error:
            ended.append(error)
            goes_on = False
        at += len(piece)
        if not goes_on:
            return False
    if at < end:
        raise IncompleteReadError("the answer ended early")
    return True


def _md5(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""
