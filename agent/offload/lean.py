"""The two requests that every small blob costs, Put Blob and Get Blob Properties, with as little around them as HTTP
allows: the SDK's layers take 2 to 3 ms of CPU for each, which would be the end of a drain before the link is.

Everything else, and these too where an identity signs, goes through the SDK. Headers are those of the REST pages "Put
Blob" and "Get Blob Properties"; the order of signed headers is that of Azure's own clients (sharedkey.py). Connections,
and with them stopping, pace and counting, are transport.py's; errors are raised as the SDK raises them, so that
failures.py has one table. Rejected: verifying many blobs by one List Blobs (it would take the properties' verification
out of the upload that it belongs to, and one lie of a listing would spoil a thousand rows).
"""

import functools
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import AzureError, DecodeError, ServiceRequestError, ServiceResponseError
from requests.utils import check_header_validity
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from agent.offload import transport
from agent.offload.credentials import Credential
from agent.offload.verify import DEFAULT_TYPE, Facts, Seen, Wanted, sorted_metadata
from dataplane.blobapi.sharedkey import signature, word_sort_key

VERSION: Final = "2023-11-03"  # x-ms-version: has all of the headers below
CREATED: Final = 201
_META: Final = "x-ms-meta-"
_SAFE: Final = "~/"  # in paths, as the SDK has it
_SIGNED: Final = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
    "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip
_LENGTH: Final = _SIGNED.index("content-length")
_order: Final = functools.lru_cache(maxsize=1024)(word_sort_key)


class Answer(NamedTuple):
    """What came back; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]


class Refused(AzureError):
    """An answer that says no."""

    def __init__(self, method: str, answer: Answer) -> None:
        super().__init__(f"{method}: {answer.status}")
        self.method = method
        self.answer = answer


class AzureSigningError(AzureError):
    """The key does not sign. Has the name of the SDK's, which failures.py knows."""


class Lean:
    """One account's endpoint. Safe for threads."""

    def __init__(self, endpoint: str, account: str, pool: transport.Pool) -> None:
        self._base: Final = urlsplit(endpoint).path.rstrip("/")
        self._account: Final = account
        self._pool: Final = pool

    def close(self) -> None:
        """Close its connections."""
        self._pool.close()

    def put_blob(
        self, container: str, name: str, data: bytes, md5: bytes, want: Wanted, etag: str, by: Credential
    ) -> str:
        """Put Blob with everything; the cloud's ETag. `etag`: If-Match, "" for If-None-Match: *. Raises AzureError."""
        headers = _described(want) | {
            "x-ms-blob-type": "BlockBlob",
            "content-length": str(len(data)),
            "content-type": DEFAULT_TYPE,
            "content-md5": b64encode(md5).decode(),
        }
        headers |= {"if-match": f'"{etag}"'} if etag else {"if-none-match": "*"}
        answer = self._request("PUT", container, name, headers, data, by)
        if answer.status != CREATED:  # something on the way that answers everything with 200
            raise DecodeError("no answer of a Blob service")
        return answer.headers.get("etag", "").strip('"')

    def look(self, container: str, name: str, by: Credential) -> Seen:
        """Get Blob Properties. Raises AzureError, Refused among them; KeyError for an answer that was cut off."""
        return _seen(self._request("HEAD", container, name, {}, b"", by).headers)

    def _request(
        self, method: str, container: str, name: str, headers: dict[str, str], data: bytes, by: Credential
    ) -> Answer:
        path = f"{self._base}/{quote(container, safe=_SAFE)}/{quote(name, safe=_SAFE)}"
        headers |= {"x-ms-version": VERSION, "x-ms-date": formatdate(usegmt=True)}
        for pair in headers.items():
            check_header_validity(pair)
        if isinstance(by.signer, AzureNamedKeyCredential):
            headers["authorization"] = _signed(method, self._account, path, headers, by.signer)
        url = f"{path}?{by.sas}" if by.sas else path
        try:
            answer = self._pool.send(method, url, headers, data)
        except (NewConnectionError, ConnectTimeoutError) as error:
            raise ServiceRequestError(error, error=error) from None
        except HTTPError as error:
            raise ServiceResponseError(error, error=error) from None
        found = Answer(answer.status, {each.lower(): value for each, value in answer.headers.items()})
        if not 200 <= found.status < 300:
            raise Refused(method, found)
        return found


def _described(want: Wanted) -> dict[str, str]:
    """The headers that say everything but the bytes."""
    facts = want.facts
    headers = {
        "x-ms-blob-content-type": facts.content_type,
        "x-ms-blob-content-encoding": facts.content_encoding,
        "x-ms-blob-content-language": facts.content_language,
        "x-ms-blob-content-disposition": facts.content_disposition,
        "x-ms-blob-cache-control": facts.cache_control,
        "x-ms-blob-content-md5": b64encode(facts.md5 or b"").decode(),
        "x-ms-tags": urlencode(want.tags, quote_via=quote),
        "x-ms-access-tier": want.tier,
    }
    given = {name: value for name, value in headers.items() if value}
    return given | {_META + name.strip(): value.strip() for name, value in want.metadata.items()}


def _seen(headers: Mapping[str, str]) -> Seen:
    """The headers of an answer as we compare them. Raises KeyError, ValueError for one that lacks what each has."""
    text: Callable[[str], str] = functools.partial(_header, headers)
    md5 = text("content-md5")
    facts = Facts(
        size=int(headers["content-length"]),
        md5=b64decode(md5) if md5 else None,
        content_type=text("content-type") or DEFAULT_TYPE,
        content_encoding=text("content-encoding"),
        content_language=text("content-language"),
        content_disposition=text("content-disposition"),
        cache_control=text("cache-control"),
        metadata=sorted_metadata(
            {name.removeprefix(_META): value for name, value in headers.items() if name.startswith(_META)}
        ),
        tags_count=int(text("x-ms-tag-count") or 0),
        blob_type=headers["x-ms-blob-type"],
    )
    return Seen(headers["etag"].strip('"'), facts)


def _header(headers: Mapping[str, str], name: str) -> str:
    return headers.get(name, "")


def _signed(method: str, account: str, path: str, headers: Mapping[str, str], by: AzureNamedKeyCredential) -> str:
    """The Authorization header of Shared Key (REST page "Authorize with Shared Key"). Raises AzureError for a key that
    is no base64."""
    name, key = by.named_key
    lower = {each.lower(): value for each, value in headers.items()}
    fixed = [lower.get(each, "") for each in _SIGNED]
    fixed[_LENGTH] = "" if fixed[_LENGTH] == "0" else fixed[_LENGTH]
    ours = sorted((each for each in lower if each.startswith("x-ms-")), key=_order)
    text = "\n".join([method, *fixed, *(f"{each}:{lower[each]}" for each in ours), f"/{account}{path}"])
    try:
        secret = b64decode(key, validate=True)
    except ValueError:
        raise AzureSigningError("the key is no base64") from None
    return f"SharedKey {name}:{signature(secret, text)}"
