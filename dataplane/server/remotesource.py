"""Copy sources outside this node: one https GET to a host that the configuration names.

A URL in a request makes this server send requests, so: https only; only hosts and ports that `copy_sources` names; the
name is resolved here, every address is judged, and the connection goes to the addresses that were judged, never to a
second answer of the resolver; loopback, link-local and private addresses only where the entry says so; no redirects, no
proxies from the environment, no cookies, no decompression. Certificates are checked against the name in the URL.

aiohttp is imported with the first such copy: most nodes never make one.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from dataplane.blobapi import limits, metadata
from dataplane.blobapi.checksums import parse_md5
from dataplane.blobapi.copysource import SourceHeaders, SourceUrl, TagOption, is_public_address
from dataplane.blobapi.dates import parse_http_date
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.etag import unquoted
from dataplane.blobapi.model import BlobProperties, Block
from dataplane.ipc.settings import CopySource
from dataplane.store.staging import StagedFile

if TYPE_CHECKING:
    import aiohttp

#: Sent where a bearer token goes along: the first version that takes one for all copy operations.
_BEARER_VERSION: Final = "2020-10-02"
_CHUNK_BYTES: Final = limits.MIB
_FORWARDED: Final = {
    "x-ms-source-if-match": "If-Match",
    "x-ms-source-if-none-match": "If-None-Match",
    "x-ms-source-if-modified-since": "If-Modified-Since",
    "x-ms-source-if-unmodified-since": "If-Unmodified-Since",
    "x-ms-source-if-tags": "x-ms-if-tags",
}

Run = Callable[..., Awaitable[Any]]


def rule_for(host: str, port: int, rules: Sequence[CopySource]) -> CopySource | None:
    """The entry of the configuration that names a host, None when none does. `*.suffix` stands for any one name or
    more below the suffix, not for the suffix itself."""
    for rule in rules:
        pattern = rule.host.lower().strip("[]").rstrip(".")
        below = host.endswith(pattern[1:]) and not host.startswith(".")
        matches = below if pattern.startswith("*.") else host == pattern
        if matches and port == rule.port:
            return rule
    return None


async def open_remote(
    asked: SourceHeaders, headers: dict[str, str], rules: Sequence[CopySource], ca_file: str
) -> "RemoteSource":
    """Ask for the source and look at its answer's head. `headers` are the request's, for conditions on the source.

    Raises BlobError CannotVerifyCopySource with 404 (a host that is not allowed, or nothing there), 403, 412 or 304.
    """
    import aiohttp

    rule = rule_for(asked.url.host, asked.url.port, rules)
    if rule is None or asked.url.scheme != "https" or not _literal_allowed(asked.url, rule):
        raise BlobError(ErrorCode.CANNOT_VERIFY_COPY_SOURCE_404)
    context = await asyncio.to_thread(ssl.create_default_context, cafile=ca_file or None)
    connector = aiohttp.TCPConnector(
        resolver=_resolver(rule), ssl=context, use_dns_cache=False, force_close=True, limit=1
    )
    session = aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        timeout=aiohttp.ClientTimeout(
            total=None,
            connect=limits.copy_source_connect_seconds_max,
            sock_connect=limits.copy_source_connect_seconds_max,
            sock_read=limits.copy_source_idle_seconds_max,
        ),
    )
    try:
        return await _get(session, asked, headers)
    except BaseException:
        await session.close()
        raise


async def _get(session: "aiohttp.ClientSession", asked: SourceHeaders, headers: dict[str, str]) -> "RemoteSource":
    import aiohttp
    from yarl import URL

    sent = {"Accept-Encoding": "identity", "User-Agent": "blobedge"}
    sent |= {there: headers[here] for here, there in _FORWARDED.items() if headers.get(here)}
    if asked.range is not None:
        sent["Range"] = f"bytes={asked.range.first}-{'' if asked.range.last is None else asked.range.last}"
    if asked.bearer:
        sent |= {"Authorization": asked.bearer, "x-ms-version": _BEARER_VERSION}
    try:
        response = await session.get(URL(asked.url.text, encoded=True), headers=sent, allow_redirects=False)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        raise _unreachable() from None
    try:
        _check_status(response.status, asked.range is not None)
        if asked.tag_option is TagOption.COPY:
            raise BlobError(ErrorCode.FEATURE_NOT_SUPPORTED, header_name="x-ms-copy-source-tag-option")
        return RemoteSource(session, response)
    except BaseException:
        response.close()
        raise


def _check_status(status: int, ranged: bool) -> None:
    if status == (206 if ranged else 200):
        return
    code = {
        304: ErrorCode.CANNOT_VERIFY_COPY_SOURCE_304,
        401: ErrorCode.CANNOT_VERIFY_COPY_SOURCE_403,
        403: ErrorCode.CANNOT_VERIFY_COPY_SOURCE_403,
        404: ErrorCode.CANNOT_VERIFY_COPY_SOURCE_404,
        416: ErrorCode.INVALID_RANGE,
    }.get(status, ErrorCode.CANNOT_VERIFY_COPY_SOURCE_412)
    raise BlobError(code)


def _unreachable() -> BlobError:
    return BlobError(ErrorCode.CANNOT_VERIFY_COPY_SOURCE_412)


class RemoteSource:
    """An answer whose body has not been read. `size` is the length of that body, in bytes."""

    blocks: tuple[Block, ...] = ()

    def __init__(self, session: "aiohttp.ClientSession", response: "aiohttp.ClientResponse") -> None:
        """Raises BlobError 412 CannotVerifyCopySource for an answer without a length, or one that is encoded."""
        if response.content_length is None or response.headers.get("Transfer-Encoding"):
            raise _unreachable()
        blob_type = response.headers.get("x-ms-blob-type", "BlockBlob")
        if blob_type != "BlockBlob":
            raise BlobError(ErrorCode.INVALID_SOURCE_BLOB_TYPE)
        self._session = session
        self._response = response
        self.size: int = response.content_length
        self.properties = _properties(response)

    async def fetch(self, run: Run, staged: StagedFile, progress: Callable[[int], None]) -> None:
        """Write the body to a staged file. Raises BlobError 412 CannotVerifyCopySource when it ends early."""
        import aiohttp

        try:
            async for chunk in self._response.content.iter_chunked(_CHUNK_BYTES):
                await run(staged.write, chunk)
                progress(staged.size)
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            raise _unreachable() from None
        if staged.size != self.size:
            raise _unreachable()

    async def close(self) -> None:
        self._response.close()
        await self._session.close()


def _properties(response: "aiohttp.ClientResponse") -> BlobProperties:
    """What the source says of itself. Headers that cannot be a blob's are left out: the source is not our client."""
    headers = response.headers
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        md5 = parse_md5(lower, "x-ms-blob-content-md5") or parse_md5(lower, "content-md5")
        meta = metadata.from_headers(lower)
    except BlobError:
        raise _unreachable() from None
    return BlobProperties(
        etag=unquoted(headers.get("ETag", "")),
        last_modified=parse_http_date(headers.get("Last-Modified", "")) or 0,
        created=0,
        content_type=headers.get("Content-Type", "application/octet-stream"),
        content_encoding=headers.get("Content-Encoding", ""),
        content_language=headers.get("Content-Language", ""),
        content_disposition=headers.get("Content-Disposition", ""),
        cache_control=headers.get("Cache-Control", ""),
        content_md5=md5 if response.status == 200 else None,
        metadata=meta,
    )


def _literal_allowed(url: SourceUrl, rule: CopySource) -> bool:
    """aiohttp asks no resolver about an address, so one in the URL is judged here."""
    try:
        ip_address(url.host)
    except ValueError:
        return True
    return _address_allowed(url.host, rule)


def _address_allowed(address: str, rule: CopySource) -> bool:
    if rule.private:
        found = ip_address(address)
        return not (found.is_multicast or found.is_unspecified)
    return is_public_address(address)


def _resolver(rule: CopySource) -> "aiohttp.abc.AbstractResolver":
    """A resolver whose answers have all been judged: one address that is not allowed, and there is no answer."""
    from aiohttp.abc import AbstractResolver, ResolveResult

    class JudgedResolver(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
            if not found or not all(_address_allowed(str(item[4][0]), rule) for item in found):
                raise OSError(None, "the name leads to an address that is not allowed")
            return [
                ResolveResult(
                    hostname=host,
                    host=str(address[0]),
                    port=port,
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST,
                )
                for kind, _, protocol, _, address in found[: limits.copy_source_addresses_max]
            ]

        async def close(self) -> None:
            return

    return JudgedResolver()
