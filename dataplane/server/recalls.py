"""The worker's end of a recall: bytes of a stub, asked of the sidecar over its socket, read from the file it hands on.

Guarantees: one connection for each reader, closed with it, so a client that goes away stops what only it wanted; at
most WINDOW_BYTES_MAX are asked for ahead of what was read, and none of them passes through this process's memory here;
nothing waits for ever: the other end is silent for SILENCE_SECONDS_MAX at most. Every reason why bytes do not come has
one answer (`refusal`); only "the blob is another version now" (BlobChanged) is the caller's to try again. When bytes
were sent already, the blob is looked at here: as long as its content is the same (its bytes came back, its metadata was
set), the reader goes on where it was.

Rejected: one connection for all readers (a slow one would hold up others, and a close would say nothing), bytes over
the socket (copied twice more, and lost for the next reader).
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from dataplane.blobapi.model import BlobState
from dataplane.ipc import recalls
from dataplane.ipc.recalls import WINDOW_BYTES_MAX, Bring, Brought, Failed, Have, Message, Want
from dataplane.server.diskpool import Kept
from dataplane.server.recallrefusals import broken, busy_with, no_sidecar, refusal
from dataplane.server.sidecarlink import SidecarLink, connected
from dataplane.store.store import BlobRef, OpenBlob

SILENCE_SECONDS_MAX: Final = 60.0  # without a byte for a reader; the link's own time-outs are shorter
LOOKS_COUNT_MAX: Final = 4  # at a blob that is another each time
CONNECT_SECONDS_MAX: Final = 5.0  # while the socket's queue is full, or a sidecar begins, which takes one to three
CONNECT_PAUSE_SECONDS: Final = 0.02

_log = logging.getLogger(__name__)


class BlobChanged(Exception):
    """The blob here is another version than the one that was opened, or its bytes are back: look again."""


@dataclass(frozen=True, slots=True)
class Stub:
    """A blob whose bytes are to be recalled, as it was opened. `run` calls what reads the store's metadata."""

    account: str
    ref: BlobRef
    state: BlobState
    open_blob: Callable[[BlobRef], OpenBlob | None]
    run: Callable[..., Awaitable[Any]]

    async def look(self) -> OpenBlob | None:
        """The blob as it is now, open; the caller's."""
        opening = Kept(self.open_blob)
        try:
            return cast(OpenBlob | None, await self.run(opening, self.ref))
        except BaseException:
            if opening.value is not None:
                opening.value.close()
            raise

    def has_content_of(self, state: BlobState) -> bool:
        """Whether a later state of the blob certainly has the same bytes. Content-MD5 says nothing: clients set it."""
        before, now = self.state.properties, state.properties
        same = before.remote is not None and now.remote is not None and now.remote.md5 == before.remote.md5
        return state.size == self.state.size and (now.etag == before.etag or same)


class Recalls:
    """Asks for bytes of stubs. `journal_directory` is that of the settings; "" while this node has no offload."""

    def __init__(self, journal_directory: str) -> None:
        self._path = recalls.socket_path(journal_directory) if journal_directory else None
        self.answers = 0  # and copies that began with bytes from the cloud, since the start

    async def open(self, stub: Stub, offset: int, until: int) -> "Recalled":
        """Its bytes from `offset` to `until`; the first can be read. Raises BlobError, BlobChanged."""
        recalled = Recalled(self.connect, stub, until)
        try:
            await recalled.begin(offset)
        except BaseException:
            recalled.close()
            raise
        self.answers += 1
        return recalled

    async def bring(self, account: str, ref: BlobRef, etag: str) -> None:
        """Wait until a stub's bytes are here as a file. Raises BlobError; a blob that changed is as good as one that
        was brought: either way its caller looks again."""
        connection = await self.connect()
        try:
            connection.send(Bring(account, ref.container, ref.name, etag))
            answer: Message = Have(0)
            while isinstance(answer, Have):
                answer, fd = await connection.receive(SILENCE_SECONDS_MAX)
                if fd is not None:
                    os.close(fd)
            if isinstance(answer, Failed) and answer.why != "changed":
                raise refusal(answer)
            if not isinstance(answer, Brought | Failed):
                raise broken(f"{type(answer).__name__} in answer to Bring")
        finally:
            connection.close()

    async def connect(self) -> SidecarLink:
        """A new connection to the sidecar, which is waited for a little: it is ready a moment after the workers, and
        away for as long when it is replaced. Raises BlobError."""
        if self._path is None:
            raise busy_with("The blob is in the cloud, and this node has no rule that would bring it back.")
        loop = asyncio.get_running_loop()
        until = loop.time() + CONNECT_SECONDS_MAX
        while True:
            try:
                return connected(loop, str(self._path.parent), self._path.name)
            except (BlockingIOError, ConnectionRefusedError, FileNotFoundError) as error:  # full: unix(7); or not there
                if loop.time() > until:
                    _log.debug("recall: no connection: %s", error)
                    raise no_sidecar() from None
            except OSError as error:
                _log.debug("recall: no connection: %s", error)
                raise no_sidecar() from None
            await asyncio.sleep(CONNECT_PAUSE_SECONDS)


class Recalled:
    """One reader's bytes as they come (message.Arriving). Owns its connection and the descriptor that it has."""

    def __init__(self, connect: Callable[[], Awaitable[SidecarLink]], stub: Stub, until: int) -> None:
        self._connect = connect
        self._connection: SidecarLink | None = None
        self._stub = stub
        self._etag = stub.state.properties.etag
        self._until = until
        self._fd = -1
        self._end = -1  # readable up to here; -1 before the first window
        self._window_end = -1

    async def begin(self, offset: int) -> None:
        """Wait for the first bytes. Raises BlobError, BlobChanged."""
        await self._told(offset)

    async def readable(self, offset: int) -> tuple[int, int]:
        """As message.Arriving. Raises BlobError, and BlobChanged when the blob's content is another now."""
        for _ in range(LOOKS_COUNT_MAX):
            try:
                return await self._told(offset)
            except BlobChanged:
                await self._look_again()
        raise BlobChanged

    async def whole(self, offset: int) -> int:
        """Wait for all bytes from `offset` on, of which there are WINDOW_BYTES_MAX at most; returns the descriptor to
        read them with. Raises BlobError, BlobChanged."""
        fd, end = await self._told(offset)
        while end < self._until:
            now, end = await self._told(end)
            if now != fd:  # it has the bytes that come, not those that came
                raise BlobChanged
        return fd

    def close(self) -> None:
        self._disconnect()
        self._take(-1)

    async def _told(self, offset: int) -> tuple[int, int]:
        if self._window_end <= offset:
            await self._ask(offset)
        while self._end <= offset:
            await self._receive()
        return self._fd, self._end

    async def _ask(self, offset: int) -> None:
        if self._connection is None:
            self._connection = await self._connect()
        length = min(self._until - offset, WINDOW_BYTES_MAX)
        self._window_end, self._end = offset + length, offset
        ref = self._stub.ref
        self._connection.send(
            Want(self._stub.account, ref.container, ref.name, self._etag, offset, length, self._until)
        )

    async def _receive(self) -> None:
        assert self._connection is not None
        message, fd = await self._connection.receive(SILENCE_SECONDS_MAX)
        if fd is not None:
            self._take(fd)
        if isinstance(message, Failed):
            if message.why == "changed":
                raise BlobChanged
            raise refusal(message)
        if not isinstance(message, Have) or self._fd < 0:
            raise broken(f"{type(message).__name__} in answer to Want")
        self._end = min(message.end, self._window_end)

    async def _look_again(self) -> None:
        """The blob was changed, or is here again: go on if its content is the same. Raises BlobChanged."""
        self._disconnect()
        opened = await self._stub.look()
        if opened is None:
            raise BlobChanged
        properties = opened.state.properties
        if not self._stub.has_content_of(opened.state):
            opened.close()
            raise BlobChanged
        if properties.remote is None:
            self._take(opened.fd)
            self._end = self._window_end = self._until
            return
        opened.close()
        self._etag, self._window_end = properties.etag, -1

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _take(self, fd: int) -> None:
        """Another descriptor instead of the one before."""
        old, self._fd = self._fd, fd
        if old >= 0:
            os.close(old)
