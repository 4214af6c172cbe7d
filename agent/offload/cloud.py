"""The cloud as the offload sees it: clients of containers and blobs, and one place where their errors are judged.

Clients are azure-storage-blob's, with its retries, redirects and proxies off: what is tried again is decided by
failures.py. `call` runs one request of an errand and raises CloudFailed, whatever went wrong. Timeouts are of
each socket call; what ends a request that answers a byte at a time is Errand.stop.
"""

import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import AzureError, DecodeError, HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobClient, BlobProperties, BlobServiceClient, ContainerClient
from requests.exceptions import InvalidHeader

from agent.offload import transport
from agent.offload.blocks import SMALL_BYTES_MAX
from agent.offload.credentials import CloudSettings, Credential, Credentials
from agent.offload.failures import CloudFailed, Kind, Observation, Request, found, judge
from agent.offload.lean import Lean, Refused
from agent.offload.transport import Errand
from agent.offload.verify import DEFAULT_TYPE, Facts, Seen, Wanted, sorted_metadata
from agent.problems import OperatorError

CONNECT_SECONDS_MAX: Final = 10.0
ANSWER_SECONDS_MAX: Final = 60.0  # between two bytes of an answer; Azure may take half a minute for a Put Block List
_CAUSES_MAX: Final = 16
#: What the SDK's own code runs into when an answer lacks what it always has, as one does that was cut off.
_UNREADABLE: Final = (AttributeError, KeyError, TypeError)
#: Found inside of the SDK's errors, these say more than the error itself.
_ROOTS: Final = (ssl.SSLCertVerificationError, InvalidHeader, UnicodeEncodeError)

T = TypeVar("T")


class Cloud:
    """One storage account. Safe for threads; connections are shared by all of them."""

    def __init__(
        self,
        settings: CloudSettings,
        *,
        connect_seconds: float = CONNECT_SECONDS_MAX,
        answer_seconds: float = ANSWER_SECONDS_MAX,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Raises OperatorError for settings that cannot work."""
        if settings.ca_file is not None and not settings.ca_file.is_file():
            raise OperatorError(f"[cloud] ca_file: {settings.ca_file} is not there")
        self.settings: Final = settings
        self.account: Final = settings.account_name()
        self.credentials: Final = Credentials(settings)
        self._now: Final = now
        self._transport: Final = RequestsTransport(
            session=transport.session(),
            session_owner=True,
            connection_timeout=connect_seconds,
            read_timeout=answer_seconds,
            connection_verify=str(settings.ca_file) if settings.ca_file else True,
        )
        ca_file = str(settings.ca_file) if settings.ca_file else None
        pool = transport.Pool(settings.endpoint, connect_seconds, answer_seconds, ca_file)
        self._lean: Final = Lean(settings.endpoint, self.account, pool)
        self._service: tuple[int, BlobServiceClient] | None = None

    def close(self) -> None:
        """Close all connections. Nothing may be under way."""
        self._transport.close()
        self._lean.close()

    def container_names(self, errand: Errand) -> list[str]:
        """The containers of the account. Raises CloudFailed."""
        request = Request("List Containers", "l", self.account)
        client = self._client(self._credential(request))
        return self.call(request, errand, lambda: [str(each.name) for each in client.list_containers()])

    def container(self, name: str) -> ContainerClient:
        """A client of a container. Raises CloudFailed when the credential does not read."""
        return self._client(self._credential(Request("open", "", self.account, name))).get_container_client(name)

    def blob(self, container: str, name: str) -> BlobClient:
        """A client of a blob. Raises CloudFailed when the credential does not read."""
        credential = self._credential(Request("open", "", self.account, container, name))
        return self._client(credential).get_blob_client(container, name)

    def source_url(self, blob: BlobClient) -> str:
        """Where the service itself reads a blob from: with a SAS, if that is what we have. A secret."""
        credential = self._credential(Request("open", "", self.account, blob.container_name, blob.blob_name))
        return f"{blob.url}?{credential.sas}" if credential.sas else str(blob.url)

    def request(self, action: str, permission: str, container: str, name: str) -> Request:
        """What is asked for, for the texts of failures."""
        return Request(action, permission, self.account, container, name)

    def call(self, request: Request, errand: Errand, function: Callable[[], T]) -> T:
        """Run one request. Raises CloudFailed, for an errand that was stopped too."""
        credential = self._credential(request)
        try:
            with errand:
                errand.check()
                return function()
        except CloudFailed:
            raise
        except (AzureError, OSError, ValueError, *_UNREADABLE) as error:
            errand.check()  # stopped: what broke was broken by us
            raise self._judged(request, error, credential) from None

    def look(self, blob: BlobClient, request: Request, errand: Errand) -> Seen | None:
        """What the cloud has of a client's blob now; None when there is no such blob. Raises CloudFailed."""
        return self.head(request.container or str(blob.container_name), request.name or str(blob.blob_name), errand)

    def head(self, container: str, name: str, errand: Errand) -> Seen | None:
        """What the cloud has now; None when there is no such blob. Raises CloudFailed."""
        request = self.request("Get Blob Properties", "r", container, name)
        credential = self._credential(request)
        if not credential.is_plain:
            properties = self.properties(self.blob(container, name), request, errand)
            return None if properties is None else seen_of(properties)
        try:
            return self.call(request, errand, lambda: self._lean.look(container, name, credential))
        except CloudFailed as failed:
            if failed.fault.code == "BlobNotFound":
                return None
            raise

    def put_blob(
        self, request: Request, errand: Errand, data: bytes, md5: bytes, want: Wanted, etag: str
    ) -> str | None:
        """Put Blob with everything, guarded by `etag` ("" for: there must be none); the cloud's ETag. None: the
        credential needs the SDK. Raises CloudFailed."""
        credential = self._credential(request)
        if not credential.is_plain:
            return None
        place = request.container, request.name
        return self.call(request, errand, lambda: self._lean.put_blob(*place, data, md5, want, etag, credential))

    def properties(self, blob: BlobClient, request: Request, errand: Errand) -> BlobProperties | None:
        """Get Blob Properties; None when there is no such blob. Raises CloudFailed."""
        try:
            return self.call(request, errand, lambda: _whole(blob.get_blob_properties()))
        except CloudFailed as failed:
            if failed.fault.code == "BlobNotFound":
                return None
            raise

    def _credential(self, request: Request) -> Credential:
        try:
            return self.credentials.current()
        except OperatorError:
            raise found("CredentialUnreadable", request) from None

    def _client(self, credential: Credential) -> BlobServiceClient:
        if self._service is None or self._service[0] != credential.serial:
            client = BlobServiceClient(
                self.settings.endpoint,
                credential=credential.signer,
                transport=self._transport,
                retry_total=0,
                permit_redirects=False,
                max_single_put_size=SMALL_BYTES_MAX,
            )
            self._service = (credential.serial, client)
        return self._service[1]

    def _judged(self, request: Request, error: Exception, credential: Credential) -> CloudFailed:
        """The failure of an SDK's exception. Whether the service has done it all the same is open unless it refused.
        A refusal of a credential that was replaced since the request began is for nobody to mend."""
        expires = credential.expires.isoformat() if credential.expires else ""
        known = Request(
            request.action, request.permission, request.account, request.container, request.name,
            expires, credential.expired(self._now()), isinstance(credential.signer, AzureNamedKeyCredential),
        )  # fmt: skip
        seen = observation(error, self._now())
        fault = judge(known, seen)
        if fault.kind is Kind.OPERATOR and self._credential(request).serial != credential.serial:
            return found("CredentialChanged", request)
        return CloudFailed(fault, maybe_done=not 400 <= seen.status < 500)


def _whole(properties: BlobProperties) -> BlobProperties:
    """Raises DecodeError for an answer without the ETag that each has: it was cut off, and shows no version at all."""
    if not properties.etag:
        raise DecodeError("an answer without an ETag")
    return properties


def observation(error: Exception, now: datetime) -> Observation:
    """What an exception of the SDK tells. Nothing that the server wrote is taken over but its error code."""
    if isinstance(error, HttpResponseError) and error.response is not None:
        response: Any = error.response  # either of azure.core's two kinds
        headers = response.headers
        code = headers.get("x-ms-error-code") or getattr(error, "error_code", None) or ""
        status = error.status_code or 0
        if status == 404 and not code:
            code = "BlobNotFound" if response.request.method == "HEAD" else ""
        return Observation(status, str(getattr(code, "value", code)), "", _seconds(headers.get("Retry-After"), now))
    if isinstance(error, Refused):
        status, headers = error.answer
        missing = status == 404 and error.method == "HEAD"
        code = headers.get("x-ms-error-code") or ("BlobNotFound" if missing else "")
        return Observation(status, code, "", _seconds(headers.get("retry-after"), now))
    return Observation(exception=type(_root(error)).__name__)


def _root(error: BaseException) -> BaseException:
    """The cause inside that says most, else the error itself."""
    waiting, looked = [error], 0
    while waiting and looked < _CAUSES_MAX:
        each = waiting.pop(0)
        looked += 1
        if isinstance(each, _ROOTS):
            return each
        named = (getattr(each, "inner_exception", None), getattr(each, "reason", None))  # azure.core's, urllib3's
        inner = (*named, each.__cause__, each.__context__, *each.args)
        waiting += [cause for cause in inner if isinstance(cause, BaseException)]
    return error


def _seconds(text: str | None, now: datetime) -> float | None:
    """Retry-After: seconds, or a date (RFC 9110, 10.2.3); None for none and for nonsense."""
    if not text:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return float(text.strip()[:9])
    try:
        return (parsedate_to_datetime(text) - now).total_seconds()
    except (ValueError, TypeError):
        return None


def seen_of(properties: BlobProperties) -> Seen:
    """The SDK's properties as we compare them."""
    content = properties.content_settings
    facts = Facts(
        size=properties.size,
        md5=bytes(content.content_md5) if content.content_md5 else None,
        content_type=content.content_type or DEFAULT_TYPE,
        content_encoding=content.content_encoding or "",
        content_language=content.content_language or "",
        content_disposition=content.content_disposition or "",
        cache_control=content.cache_control or "",
        metadata=sorted_metadata(properties.metadata or {}),
        tags_count=properties.tag_count or 0,
        blob_type=str(getattr(properties.blob_type, "value", properties.blob_type)),
    )
    return Seen((properties.etag or "").strip('"'), facts)


def host_and_port(endpoint: str) -> tuple[str, int]:
    """For the link's probe."""
    parts = urlsplit(endpoint)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
