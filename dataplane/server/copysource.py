"""Find a copy's source, check that it may be read, and open it: a blob of an account of this node, or a remote URL.

A URL is one of this node's when its host means an account that is served here (host style, whatever the name server
says of it: the node recognises its own public names instead of connecting to them), or when it has the authority of the
request itself, or a loopback name with the port of a listener, path style. Everything else is remote (remotesource.py).

Reading a source is authorised like Get Blob: by the SAS in the URL, by public access, or, for an unsigned source in the
same account, by the request itself when the account's key signed it. A caller with a SAS has to sign its source: its
token was checked for the destination only. A local source is opened before anything is answered, so what is copied is
one version of it, also when it is replaced or deleted meanwhile. The bytes of a stub are copied as they arrive.
"""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from dataplane.blobapi import conditions, limits, tiers
from dataplane.blobapi.authorization import Caller, authorize
from dataplane.blobapi.copysource import SOURCE_HEADER, SourceHeaders, SourceUrl, TagOption
from dataplane.blobapi.dates import parse_iso_ticks
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.message import Level, Request
from dataplane.blobapi.model import AccessPolicy, BlobProperties, Block, ContainerState, PublicAccess
from dataplane.blobapi.operations import SPECS, Operation
from dataplane.blobapi.ranges import resolve
from dataplane.ipc.settings import Settings
from dataplane.server.addressing import Address, Hosts, locate
from dataplane.server.call import Call
from dataplane.server.diskpool import DiskPools, Kept, busy
from dataplane.server.handlers.shared import tags_match
from dataplane.server.node import Account
from dataplane.server.recallrefusals import check_known
from dataplane.server.recalls import LOOKS_COUNT_MAX, BlobChanged, Recalled, Stub
from dataplane.server.remotesource import open_remote
from dataplane.store.staging import StagedFile
from dataplane.store.store import BlobRef, OpenBlob

Run = Callable[..., Awaitable[Any]]

_READ: Final = SPECS[Operation.GET_BLOB]


class Source(Protocol):
    """An open source. `size` is what will be copied, in bytes; `blocks` the committed blocks that go along."""

    size: int
    blocks: tuple[Block, ...]
    properties: BlobProperties

    async def fetch(self, run: Run, staged: StagedFile, progress: Callable[[int], None]) -> None:
        """Write all of it to a staged file; `run` calls what blocks on a thread, `progress` hears the bytes so far.

        Raises BlobError 412 CannotVerifyCopySource when the source ends early; StoreError."""

    async def close(self) -> None: ...


@dataclass(slots=True)
class LocalSource:
    """A blob of this node, or a range of it. Blocks are shared with the destination where the file system can.

    Our own blobs are never rewritten in place. A file of another writer may be, so its size and mtime have to be the
    same after the copy as before."""

    opened: OpenBlob
    pools: DiskPools  # of its file system
    properties: BlobProperties
    offset: int
    size: int
    before: tuple[int, int]  # its seal
    blocks: tuple[Block, ...] = ()

    def content(self) -> bytes:
        """All of it at once, for small ones. Raises BlobError as fetch does."""
        data = os.pread(self.opened.fd, self.size, self.offset)
        if len(data) != self.size:
            raise BlobError(ErrorCode.CANNOT_VERIFY_COPY_SOURCE_412)
        self._check_unchanged()
        return data

    async def fetch(self, run: Run, staged: StagedFile, progress: Callable[[int], None]) -> None:
        whole = self.size <= limits.copy_foreground_bytes_max
        piece = self.size if whole else limits.copy_piece_bytes_max
        while staged.size < self.size:
            wanted = min(piece, self.size - staged.size)
            if await run(staged.copy_from, self.opened.fd, self.offset + staged.size, wanted) != wanted:
                raise BlobError(ErrorCode.CANNOT_VERIFY_COPY_SOURCE_412)
            progress(staged.size)
        await run(self._check_unchanged)

    async def close(self) -> None:
        self.opened.close()

    def _check_unchanged(self) -> None:
        if self.properties.foreign and _seal(self.opened.fd) != self.before:
            raise BlobError(ErrorCode.CANNOT_VERIFY_COPY_SOURCE_412)


@dataclass(slots=True)
class RecalledSource:
    """A stub of this node, or a range of it: its bytes are copied as they arrive from the cloud."""

    recalled: Recalled
    pools: DiskPools  # of the file system that they arrive on
    properties: BlobProperties
    offset: int
    size: int
    blocks: tuple[Block, ...] = ()

    async def fetch(self, run: Run, staged: StagedFile, progress: Callable[[int], None]) -> None:
        while staged.size < self.size:
            at = self.offset + staged.size
            try:
                fd, end = await self.recalled.readable(at)
            except BlobChanged:
                raise BlobError(ErrorCode.CANNOT_VERIFY_COPY_SOURCE_412) from None
            if await run(staged.copy_from, fd, at, end - at) != end - at:
                raise BlobError(ErrorCode.CANNOT_VERIFY_COPY_SOURCE_412)
            progress(staged.size)

    async def close(self) -> None:
        self.recalled.close()


async def open_source(call: Call, asked: SourceHeaders, *, asynchronous: bool) -> Source:
    """The source of a request, open and checked. `asynchronous` is Copy Blob, whose refusals are other ones than those
    of the From URL operations.

    Raises BlobError CannotVerifyCopySource (404, 403, 412, 304), BlobNotFound, SourceConditionNotMet, InvalidRange.
    """
    address = _own_address(call, asked.url)
    if address is None:
        settings = call.node.settings
        return await open_remote(asked, dict(call.request.headers), settings.copy_sources, settings.copy_ca_file)
    account = call.node.accounts.get(address.resource.account)
    if account is None or address.resource.level is not Level.BLOB:
        raise BlobError(ErrorCode.CANNOT_VERIFY_COPY_SOURCE_404)
    if asked.bearer or "versionid" in address.query:
        raise BlobError(ErrorCode.CANNOT_VERIFY_COPY_SOURCE_403)
    caller = await _reader(call, account, address)
    if asked.tag_option is TagOption.COPY and not caller.holds("t"):
        raise BlobError(ErrorCode.CANNOT_VERIFY_COPY_SOURCE_403)
    for _ in range(LOOKS_COUNT_MAX):
        try:
            return await _open_local(call, account, address, asked, asynchronous)
        except BlobChanged:  # between our look and the sidecar's
            continue
    raise busy()


def _own_address(call: Call, url: SourceUrl) -> Address | None:
    """The source as a blob of this node; None for a URL that leads elsewhere. Raises BlobError for a bad one."""
    settings = call.node.settings
    names = {host: account.name for account in settings.accounts for host in account.host_names}
    account = Hosts(settings.host_suffixes, names).account(url.authority)[1]
    if account is not None:
        known = account.removesuffix("-secondary") in call.node.accounts
    else:
        known = url.authority == call.request.host.lower() or _is_own_loopback(url, settings)
    if not known:
        return None
    return locate(url.text, url.authority, Hosts(settings.host_suffixes, names))


def _is_own_loopback(url: SourceUrl, settings: Settings) -> bool:
    """A client on this machine may write one loopback name to connect and another one in its URLs."""
    loopback = url.host == "localhost" or url.host.startswith("127.") or url.host == "::1"
    return loopback and any(url.port == each.port and url.scheme == each.scheme for each in settings.listeners)


async def _reader(call: Call, account: Account, address: Address) -> Caller:
    """Who reads the source. Raises BlobError 403 CannotVerifyCopySource."""
    if account is call.account and "sig" not in address.query and call.caller.permissions is None:
        return call.caller
    headers = {"x-ms-version": call.version}
    tag_condition = call.request.headers.get("x-ms-source-if-tags")
    if tag_condition:
        headers["x-ms-if-tags"] = tag_condition
    request = Request(
        "GET", call.request.headers[SOURCE_HEADER], headers, address.resource, address.query, call.version,
        secure=call.request.secure, peer=call.request.peer, host=address.host,
    )  # fmt: skip
    name = address.resource.container
    container: ContainerState | None = await account.pools(name).read(account.store.container, name)

    def policies(_: str) -> tuple[AccessPolicy, ...] | None:
        return container.properties.policies if container is not None else None

    def public_access(_: str) -> PublicAccess:
        return container.properties.public_access if container is not None else PublicAccess.NONE

    node = call.node
    try:
        return authorize(request, _READ, node.keys, policies, public_access, call.now, cache=node.sas_cache)
    except BlobError as refusal:
        message = refusal.message if refusal.code.status == 403 else None
        raise BlobError(ErrorCode.CANNOT_VERIFY_COPY_SOURCE_403, message=message) from None


async def _open_local(
    call: Call, account: Account, address: Address, asked: SourceHeaders, asynchronous: bool
) -> LocalSource | RecalledSource:
    """Raises BlobError, BlobChanged."""
    ref = BlobRef(address.resource.container, address.resource.blob, address.query.get("snapshot", ""))
    if "snapshot" in address.query and parse_iso_ticks(ref.snapshot) is None:
        raise BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name=SOURCE_HEADER)
    pools, opening = account.pools(ref.container), Kept(account.store.open_blob)
    try:
        opened = await pools.read(opening, ref)
        if opened is None:
            near = asynchronous and account is call.account
            raise BlobError(ErrorCode.BLOB_NOT_FOUND if near else ErrorCode.CANNOT_VERIFY_COPY_SOURCE_404)
        properties = tiers.settled(opened.state.properties, call.now)
        conditions.check_source(
            asked.conditions, properties.etag, properties.last_modified, properties.tags, tags_match,
            asynchronous=asynchronous,
        )  # fmt: skip
        before = await pools.read(_seal, opened.fd)
        part = resolve(asked.range, opened.state.size) if asked.range is not None else None
        offset, size = (0, opened.state.size) if part is None else (part.offset, part.length)
        blocks = await _blocks(account, ref, opened) if part is None else ()
        source = LocalSource(opened, pools, properties, offset, size, before, blocks)
        if properties.remote is None:
            return source
        recalled = await _recalled(call, account, ref, source)
    except BaseException:
        if opening.value is not None:
            opening.value.close()
        raise
    if recalled is None:
        return source
    opened.close()
    return recalled


async def _recalled(call: Call, account: Account, ref: BlobRef, stub: LocalSource) -> RecalledSource | None:
    """The source of a stub's bytes, of which the first are there; None when there are none to copy. Raises BlobError,
    BlobChanged."""
    properties = stub.properties
    check_known(properties)
    stub.properties = replace(properties, remote=None)  # the copy's bytes are going to be here
    if not stub.size:
        return None
    away = Stub(account.name, ref, stub.opened.state, account.store.open_blob, stub.pools.read)
    recalled = await call.node.recalls.open(away, stub.offset, stub.offset + stub.size)
    return RecalledSource(recalled, stub.pools, stub.properties, stub.offset, stub.size, stub.blocks)


def _seal(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_size, status.st_mtime_ns


async def _blocks(account: Account, ref: BlobRef, opened: OpenBlob) -> tuple[Block, ...]:
    """The committed blocks of a whole source. A list that does not fit the open version belongs to a later one."""
    if not opened.state.properties.block_list:
        return ()
    lists = await account.pools(ref.container).data(account.store.block_list, ref)
    committed: tuple[Block, ...] = lists[0] if lists is not None else ()
    return committed if sum(block.size for block in committed) == opened.state.size else ()
