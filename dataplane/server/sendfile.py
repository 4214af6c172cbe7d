"""A file's range onto a socket, without copying it through Python and without stalling the event loop.

Plain TCP uses sendfile(2) on a duplicate of the socket's descriptor: uvloop implements no loop.sendfile and refuses
add_writer on a descriptor that a transport owns, a duplicate it accepts. That is sound only while the transport has
nothing buffered; the connection sees to that. The head goes out first through the same descriptor with MSG_MORE, so
head and first bytes share a segment. One slice a turn of the loop, so a 10 GiB blob and a hot 4 KiB one take turns.

Whether pages are cached is asked with preadv2(RWF_NOWAIT) at both ends of a slice. If not (or if the file system does
not tell, as NFS and tmpfs, and reads are not declared quick), the same sendfile call runs on a pool thread: one trip
for up to a socket buffer of data, no second copy, and the disk is asked for the next slice meanwhile.

A file that ends early raises FileTruncated: the length is on the wire already, so the connection closes and the client
sees a short body; nothing is ever padded.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from dataplane.blobapi import limits
from dataplane.blobapi.message import FileBody
from dataplane.server.mountpools import MountPools

T = TypeVar("T")

_NOT_TOLD: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


class FileTruncated(Exception):
    """The file became shorter than the range that was promised."""


def read_cached(body: FileBody, quick: bool, buffer: memoryview) -> bytes | memoryview | None:
    """A range no longer than `buffer` if the page cache has all of it, else None. `quick`: reads are always short here.

    What comes back may be in the buffer. Raises FileTruncated, or OSError as read(2) does.
    """
    view = buffer[: body.length]
    try:
        count = os.preadv(body.fd, [view], body.offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno not in _NOT_TOLD:
            raise
        return read_whole(body) if quick else None
    if count == body.length:
        return view
    if count == 0 and body.length:
        raise FileTruncated
    return None  # partly cached, or truncated: the thread finds out


def read_whole(body: FileBody) -> bytes:
    """A short range, from the disk if need be; may block. Raises FileTruncated, OSError."""
    pieces = []
    left = body.length
    while left:
        piece = os.pread(body.fd, left, body.offset + body.length - left)
        if not piece:
            raise FileTruncated
        pieces.append(piece)
        left -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def is_cached(fd: int, offset: int, length: int, quick: bool) -> bool:
    """Whether both ends of a range are in the page cache; `quick` when the file system does not tell."""
    probe = bytearray(1)
    try:
        for position in (offset, offset + length - 1):
            os.preadv(fd, [probe], position, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        return quick and error.errno in _NOT_TOLD
    return True


async def on_thread(body: FileBody, run: Callable[..., Awaitable[T]], function: Callable[..., T], *args: object) -> T:
    """Read by `run`, a pool's, under the eyes of whoever watches the answer."""
    if body.sending is None:
        return await run(function, *args)
    return await body.sending.on_thread(run, function, *args)


def close_file(body: FileBody) -> None:
    """An answer's file is not needed any more."""
    os.close(body.fd)
    if body.sending is not None:
        body.sending.over()


class FileTransfer:
    """One head and one file range on their way to a plain socket, driven by its writability.

    `finished(error)` is called once, from the loop, when all is sent or it failed; `progress()` whenever the client
    took bytes. The descriptors of the file and of the duplicate are closed by then.
    """

    __slots__ = (
        "_body", "_finished", "_head", "_in_thread", "_loop", "_offset", "_pools", "_progress", "_quick", "_socket",
        "_stop", "_task", "_until", "_watching",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport_socket: socket.socket,
        head: bytes,
        body: FileBody,
        pools: MountPools,
        *,
        quick: bool,
        progress: Callable[[], None],
        finished: Callable[[Exception | None], None],
    ) -> None:
        self._loop = loop
        self._head = memoryview(head)
        self._body = body
        self._offset = body.offset
        self._until = body.offset + body.length
        self._pools = pools
        self._quick = quick
        self._progress = progress
        self._finished = finished
        self._watching = False
        self._in_thread = False
        self._stop: Exception | None = None
        self._task: asyncio.Task[None] | None = None
        family, kind = transport_socket.family, transport_socket.type
        self._socket = socket.socket(family, kind, 0, os.dup(transport_socket.fileno()))
        self._socket.setblocking(False)

    def start(self) -> None:
        """Send what fits now; the rest follows by itself."""
        self._step()

    def abort(self, error: Exception) -> None:
        """Stop; a call that runs on a thread ends first. `finished` gets `error`."""
        self._stop = error
        if not self._in_thread:
            self._end(error)

    def _step(self) -> None:
        """One turn of the loop: the head, then a slice."""
        try:
            if self._head and not self._send_head():
                self._watch()
                return
            count = min(self._until - self._offset, limits.sendfile_slice_bytes_max)
            if not is_cached(self._body.fd, self._offset, count, self._quick):
                self._continue_on_thread()
                return
            self._advance(self._sendfile())
        except Exception as error:
            self._end(error)
            return
        if self._offset == self._until:
            self._end(None)
        else:
            self._watch()

    def _send_head(self) -> bool:
        try:
            sent = self._socket.send(self._head, socket.MSG_MORE)
        except BlockingIOError:
            return False
        self._head = self._head[sent:]
        self._progress()
        return not self._head

    def _sendfile(self) -> int:
        """Bytes that went out; 0 when the socket takes none. Raises FileTruncated, OSError."""
        count = min(self._until - self._offset, limits.sendfile_slice_bytes_max)
        try:
            sent = os.sendfile(self._socket.fileno(), self._body.fd, self._offset, count)
        except BlockingIOError:
            return 0
        if sent == 0:
            raise FileTruncated
        return sent

    def _sendfile_cold(self) -> int:
        sent = self._sendfile()
        ahead = self._offset + sent
        if ahead < self._until:
            os.posix_fadvise(self._body.fd, ahead, limits.sendfile_ahead_bytes, os.POSIX_FADV_WILLNEED)
        return sent

    def _advance(self, sent: int) -> None:
        self._offset += sent
        if sent:
            self._progress()

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            self._loop.add_writer(self._socket.fileno(), self._step)

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_writer(self._socket.fileno())

    def _continue_on_thread(self) -> None:
        """The same call where it may block. Admitted even behind a full queue: the answer has begun."""
        self._unwatch()
        self._in_thread = True
        self._task = self._loop.create_task(self._one_on_thread())

    async def _one_on_thread(self) -> None:
        error: Exception | None = None
        sent = 0
        try:
            pool = self._pools.of_file(self._body.fd).data_pool
            sent = await on_thread(self._body, pool.run_admitted, self._sendfile_cold)
        except Exception as raised:
            error = raised
        self._in_thread = False
        error = self._stop or error
        if error is not None:
            self._end(error)
            return
        self._advance(sent)
        if self._offset == self._until:
            self._end(None)
        else:
            self._watch()

    def _end(self, error: Exception | None) -> None:
        self._unwatch()
        self._socket.close()
        close_file(self._body)
        self._finished(error)
