"""The worker's end of a recall: bytes of a stub, asked of the sidecar over its socket, read from the file it hands on.

Guarantees: one connection for each reader, closed with it, so a client that goes away stops what only it wanted; at
most WINDOW_BYTES_MAX are asked for ahead of what was read, and none of them passes through this process's memory here;
nothing waits for ever: the other end is silent for SILENCE_SECONDS_MAX at most. Every reason why bytes do not come has
one answer (`refusal`); only "the blob is another version now" (BlobChanged) is the caller's to try again. When bytes
were sent already, the blob is looked at here: as long as its content is the same (its bytes came back, its metadata was
set), the reader goes on where it was.

A socket's path may be longer than a Unix address holds, so it is reached through its directory's descriptor.

Rejected: one connection for all readers (a slow one would hold up others, and a close would say nothing), bytes over
the socket (copied twice more, and lost for the next reader).
"""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, cast

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import BlobProperties, BlobState
from dataplane.ipc import recalls
from dataplane.ipc.recalls import WINDOW_BYTES_MAX, Bring, Brought, Failed, Have, Message, RecallError, Want
from dataplane.server.diskpool import Kept
from dataplane.store.store import BlobRef, OpenBlob

SILENCE_SECONDS_MAX: Final = 60.0  # without a byte for a reader; the link's own time-outs are shorter
BRING_SECONDS_MAX: Final = 3600.0  # for a whole blob, of which nothing is told before it is here
LOOKS_COUNT_MAX: Final = 4  # at a blob that is another each time
CONNECT_SECONDS_MAX: Final = 2.0  # while the socket's queue is full
CONNECT_PAUSE_SECONDS: Final = 0.02
RETRY_AFTER_SECONDS: Final = 10  # the sidecar is started again within seconds

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
            answer, fd = await connection.receive(BRING_SECONDS_MAX)
            if fd is not None:
                os.close(fd)
            if isinstance(answer, Failed) and answer.why != "changed":
                raise refusal(answer)
            if not isinstance(answer, Brought | Failed):
                raise _broken(f"{type(answer).__name__} in answer to Bring")
        finally:
            connection.close()

    async def connect(self) -> "_Connection":
        """A new connection to the sidecar. Raises BlobError."""
        if self._path is None:
            raise _busy("The blob is in the cloud, and this node has no rule that would bring it back.")
        loop = asyncio.get_running_loop()
        until = loop.time() + CONNECT_SECONDS_MAX
        while True:
            try:
                return _connected(loop, str(self._path.parent), self._path.name)
            except BlockingIOError:  # the queue is full: unix(7)
                if loop.time() > until:
                    raise _no_sidecar() from None
            except OSError as error:
                _log.debug("recall: no connection: %s", error)
                raise _no_sidecar() from None
            await asyncio.sleep(CONNECT_PAUSE_SECONDS)


class Recalled:
    """One reader's bytes as they come (message.Arriving). Owns its connection and the descriptor that it has."""

    def __init__(self, connect: Callable[[], Awaitable["_Connection"]], stub: Stub, until: int) -> None:
        self._connect = connect
        self._connection: _Connection | None = None
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
            raise _broken(f"{type(message).__name__} in answer to Want")
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


class _Connection:
    """Messages to and from the sidecar. Its errors are BlobErrors for the client."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connected: socket.socket) -> None:
        self._loop = loop
        self._socket = connected

    def send(self, message: Message) -> None:
        """Raises BlobError."""
        try:
            self._socket.send(recalls.encode(message))
        except OSError:  # one short message fits into an empty buffer, so it is gone, or does not read
            raise _no_sidecar() from None

    async def receive(self, seconds: float) -> tuple[Message, int | None]:
        """The next message, and the descriptor that came with it, which is the caller's. Raises BlobError."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        return self._received()
                    except BlockingIOError:
                        await self._readable()
        except TimeoutError:
            raise _busy("The blob's bytes do not come from the cloud in time.") from None
        except RecallError as error:
            raise _broken(str(error)) from None
        except OSError:
            raise _no_sidecar() from None

    def close(self) -> None:
        self._socket.close()

    def _received(self) -> tuple[Message, int | None]:
        packet, fds, _, _ = socket.recv_fds(self._socket, recalls.MESSAGE_BYTES_MAX, 1, socket.MSG_CMSG_CLOEXEC)
        try:
            if not packet:
                raise ConnectionResetError(errno.ECONNRESET, "the sidecar went away")
            return recalls.decode(packet), fds.pop() if fds else None
        finally:
            for fd in fds:
                os.close(fd)

    async def _readable(self) -> None:
        arrived = self._loop.create_future()
        fd = self._socket.fileno()
        self._loop.add_reader(fd, _wake, arrived)
        try:
            await arrived
        finally:
            self._loop.remove_reader(fd)


def _wake(arrived: "asyncio.Future[None]") -> None:
    if not arrived.done():
        arrived.set_result(None)


def _connected(loop: asyncio.AbstractEventLoop, directory: str, name: str) -> _Connection:
    """Raises OSError; BlockingIOError when the other end has too many connections to take."""
    opened = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connecting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connecting.setblocking(False)
            connecting.connect(f"/proc/self/fd/{opened}/{name}")
        except BaseException:
            connecting.close()
            raise
        return _Connection(loop, connecting)
    finally:
        os.close(opened)


# --- answers to clients ---


def refusal(failed: Failed) -> BlobError:
    """What a client is told when bytes do not come. 503 wherever trying again later may help."""
    make = _REFUSALS.get(failed.why)
    return make(failed) if make is not None else _busy(failed.text, failed.retry_seconds)


def check_known(properties: BlobProperties) -> None:
    """Raises BlobError ServerBusy for a stub that has lost its record: nobody knows what it stands for."""
    if properties.remote is not None and not properties.remote.container:
        raise _busy(
            "The blob's bytes are in the cloud, but the record of it is gone: blobedge reconcile --repair mends it."
        )


def _archived(failed: Failed) -> BlobError:
    return BlobError(ErrorCode.BLOB_ARCHIVED)


def _missing(failed: Failed) -> BlobError:
    _log.error("recall: a blob's bytes are neither here nor in the cloud: %s", failed.text)
    return BlobError(ErrorCode.INTERNAL_ERROR, message=failed.text)


_REFUSALS: Final[Mapping[str, Callable[[Failed], BlobError]]] = MappingProxyType(
    {"archived": _archived, "missing": _missing}
)


def _no_sidecar() -> BlobError:
    return _busy("The blob is in the cloud, and the part of this node that brings it back does not answer now.")


def _broken(reason: str) -> BlobError:
    _log.error("recall: the sidecar broke the protocol: %s", reason)
    return _no_sidecar()


def _busy(text: str, seconds: int = RETRY_AFTER_SECONDS) -> BlobError:
    return BlobError(ErrorCode.SERVER_BUSY, message=text, headers=(("Retry-After", str(seconds)),))
