"""Answers onto a connection: bytes in one write with their head, files by the cheapest way that cannot stall the loop.

- bytes, and files up to 64 KiB that the page cache has: one write with the head, in this turn of the loop (outbox.py);
- short cold files: read on a data thread, then the same;
- longer files on plain TCP: FileTransfer (sendfile);
- longer files on TLS: slices, read from the cache or on a thread, each taken by the client before the next is read;
- blobs that arrive from the cloud: the same, each slice as soon as it is there.

A file's descriptor, or the recall, is closed on every path. Nothing of an answer is written before the first read of
its file has succeeded where that read is short, so that a full pool or an I/O error still gets an answer of its own.
"""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Final

from dataplane.blobapi import limits
from dataplane.blobapi.message import FileBody, RecallBody, Response
from dataplane.server.answer import answer_head
from dataplane.server.diskpool import DiskPool, DiskPools, busy
from dataplane.server.options import ServerContext
from dataplane.server.patience import in_time
from dataplane.server.sendfile import FileTransfer, close_file, is_cached, on_thread, read_cached, read_whole

_WITHOUT_BODY: Final = frozenset({204, 304})


def discard(response: Response) -> None:
    """Close what an answer holds that will not be sent."""
    if isinstance(response.body, FileBody):
        close_file(response.body)
    elif isinstance(response.body, RecallBody):
        response.body.close()


class AnswerSender:
    """Sends one answer at a time. `sent(error)` tells the end of those that `send` did not finish itself;
    `progress()`, that the client took bytes. `begun` is whether any byte of the present answer was written."""

    __slots__ = ("_context", "_held", "_progress", "_resumed", "_secure", "_sent", "_task", "_transfer", "_transport",
                 "_unsent", "begun", "paused", "waits")  # fmt: skip

    def __init__(
        self,
        context: ServerContext,
        transport: asyncio.Transport,
        secure: bool,
        progress: Callable[[], None],
        sent: Callable[[Exception | None], None],
    ) -> None:
        self._context = context
        self._transport = transport
        self._secure = secure
        self._progress = progress
        self._sent = sent
        self._task: asyncio.Task[None] | None = None
        self._transfer: FileTransfer | None = None
        self._resumed: asyncio.Future[None] | None = None
        self._unsent = 0
        self._held = b""  # an answer that waits for the end of the loop's turn
        self.paused = False
        self.begun = False
        self.waits = False  # for bytes from the cloud, with nothing left to send: whoever brings them has a deadline
        transport.set_write_buffer_limits(high=limits.write_buffer_bytes_max)

    def send(self, response: Response, *, head_only: bool, close: bool) -> bool:
        """True when the answer is out of our hands but for `flush`, False when `sent` told or will tell.

        Raises AnswerError, BlobError ServerBusy, OSError, FileTruncated before anything was written; the file is
        closed then.
        """
        self.begun = False
        body = response.body
        if isinstance(body, RecallBody):
            return self._send_recalled(response, body, head_only=head_only, close=close)
        if not isinstance(body, FileBody):
            head = answer_head(response, self._context.date, close=close)
            bare = head_only or response.status in _WITHOUT_BODY
            self._write_soon(head if bare else head + body, close)
            return True
        kept = False
        try:
            head = answer_head(response, self._context.date, close=close)
            if head_only or not body.length or response.status in _WITHOUT_BODY:
                self._write_soon(head, close)
                return True
            if body.length <= limits.file_inline_bytes_max:
                data = read_cached(body, self._context.options.quick_reads, self._context.file_buffer)
                if data is not None:
                    self._write_soon(b"".join((head, data)), close)
                    return True
            kept = self._start(head, body)
        finally:
            if not kept:
                close_file(body)
        return False

    def flush(self) -> None:
        """Write the answer that is held. Whoever else uses the transport calls this first."""
        if self._held:
            data, self._held = self._held, b""
            if not self._transport.is_closing():
                self._transport.write(data)

    def pause(self) -> None:
        """The transport holds more than it wants to."""
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)

    def note_unsent(self) -> None:
        """Remember how much the transport holds, for `took_some`."""
        self.flush()
        self._unsent = self._transport.get_write_buffer_size()

    def took_some(self) -> bool:
        """Whether the client took bytes of what the transport holds since the last look."""
        before = self._unsent
        self.note_unsent()
        return self._unsent < before

    def abort(self, error: Exception) -> None:
        """Stop sending; `sent` is not called any more. Threads that read end first, then files are closed."""
        self._sent = _forget
        if self._transfer is not None:
            self._transfer.abort(error)
        if self._task is not None:
            self._task.cancel()

    def _write(self, data: bytes) -> None:
        self.begun = True
        self.flush()
        self._transport.write(data)

    def _write_soon(self, data: bytes, close: bool) -> None:
        """Write a whole answer at the end of this turn of the loop, or now when waiting would serve nobody."""
        context = self._context
        if close or self._held or context.counters.open < 2 or len(data) > limits.outbox_answer_bytes_max:
            self._write(data)
            return
        self.begun = True
        self._held = data
        context.outbox.add(self)

    def _start(self, head: bytes, body: FileBody) -> bool:
        """Begin what takes more than one turn of the loop; the descriptor is its own from now on."""
        self.flush()
        plain_long = body.length > limits.file_inline_bytes_max and not self._secure
        if plain_long:
            quick = self._context.options.quick_reads
            if self._context.pools.full_for(body.fd) and not is_cached(body.fd, body.offset, body.length, quick):
                raise busy()
            if not self._transport.get_write_buffer_size():
                self._begin_transfer(head, body)
                return True
        self._task = self._context.loop.create_task(self._flush() if plain_long else self._send_slowly(head, body))
        self._task.add_done_callback(lambda task: self._task_done(task, head, body, plain_long))
        return True

    def _task_done(self, task: asyncio.Task[None], head: bytes, body: FileBody, plain_long: bool) -> None:
        """Not the task's own `finally`: a task that is cancelled before its first step runs none."""
        self._task = None
        error: BaseException | None = asyncio.CancelledError() if task.cancelled() else task.exception()
        if plain_long and error is None:
            try:
                self._begin_transfer(head, body)
            except OSError as raised:
                error = raised
            else:
                return
        close_file(body)
        if error is None or isinstance(error, Exception):
            self._sent(error)

    def _send_recalled(self, response: Response, body: RecallBody, *, head_only: bool, close: bool) -> bool:
        """`send` for a blob that arrives from the cloud."""
        try:
            head = answer_head(response, self._context.date, close=close)
        except BaseException:
            body.close()
            raise
        if head_only or response.status in _WITHOUT_BODY:
            body.close()
            self._write_soon(head, close)
            return True
        self.flush()
        self._task = self._context.loop.create_task(self._send_arriving(head, body))
        self._task.add_done_callback(lambda task: self._recalled_done(task, body))
        return False

    def _recalled_done(self, task: asyncio.Task[None], body: RecallBody) -> None:
        self._task = None
        error: BaseException | None = asyncio.CancelledError() if task.cancelled() else task.exception()
        body.close()
        if error is None or isinstance(error, Exception):
            self._sent(error)

    def _begin_transfer(self, head: bytes, body: FileBody) -> None:
        self._transfer = FileTransfer(
            self._context.loop,
            self._transport.get_extra_info("socket"),
            head,
            body,
            self._context.pools,
            quick=self._context.options.quick_reads,
            progress=self._progress,
            finished=self._transfer_finished,
        )
        self.begun = True
        self._transfer.start()

    def _transfer_finished(self, error: Exception | None) -> None:
        self._transfer = None
        self._sent(error)

    async def _send_slowly(self, head: bytes, body: FileBody) -> None:
        if body.length <= limits.file_inline_bytes_max:
            self._write(head + await self._first_read(self._context.pools.of_file(body.fd), body))
        else:
            await self._send_slices(head, body)

    async def _send_slices(self, head: bytes, body: FileBody) -> None:
        """TLS: read a slice, write it, wait until the transport has little left; constant memory."""
        pools, end = self._context.pools.of_file(body.fd), body.offset + body.length
        for offset in range(body.offset, end, limits.tls_slice_bytes_max):
            part = FileBody(body.fd, offset, min(limits.tls_slice_bytes_max, end - offset), body.sending)
            await self._send_slice(head, pools, part)

    async def _send_arriving(self, head: bytes, body: RecallBody) -> None:
        """The same with what is there; what is not is waited for only when the client has taken the rest."""
        at, until = body.offset, body.offset + body.length
        while at < until:
            fd, end = await self._arrived(body, at)
            pools = self._context.pools.of_file(fd)
            while at < end:
                part = FileBody(fd, at, min(limits.tls_slice_bytes_max, end - at), body.sending)
                await self._send_slice(head, pools, part)
                at += part.length

    async def _arrived(self, body: RecallBody, at: int) -> tuple[int, int]:
        since_ns, self.waits = time.perf_counter_ns(), True
        try:
            arrived = await body.source.readable(at)
        finally:
            self.waits = False
            body.waited_ns += time.perf_counter_ns() - since_ns
        self._progress()
        return arrived

    async def _send_slice(self, head: bytes, pools: DiskPools, part: FileBody) -> None:
        """Read and write it, after the head when it is the first; returns when the client has taken enough of it."""
        data = read_cached(part, self._context.options.quick_reads, self._context.file_buffer)
        if data is None:
            data = await (self._later_read(pools, part) if self.begun else self._first_read(pools, part))
        self._write(bytes(data) if self.begun else b"".join((head, data)))
        await self._writable()
        self._progress()

    async def _first_read(self, pools: DiskPools, body: FileBody) -> bytes:
        """What decides about the answer's status. Raises BlobError ServerBusy, OperationTimedOut; FileTruncated."""
        if pools.local:
            return await on_thread(body, pools.data_pool.run, read_whole, body)
        return await in_time(_read_alone(pools.data_pool, body), pools.bounds.call_seconds_max, _nothing, _forget)

    async def _later_read(self, pools: DiskPools, body: FileBody) -> bytes:
        """The next slice of an answer that has begun: it waits, as a 503 is too late. Raises FileTruncated, OSError."""
        return await on_thread(body, pools.data_pool.run_admitted, read_whole, body)

    async def _flush(self) -> None:
        """Wait until the transport holds nothing, so that the socket may be written to directly."""
        self._transport.set_write_buffer_limits(high=0)
        while self.paused:
            await self._writable()
        self._transport.set_write_buffer_limits(high=limits.write_buffer_bytes_max)

    async def _writable(self) -> None:
        if not self.paused:
            await asyncio.sleep(0)
            return
        self._resumed = self._context.loop.create_future()
        try:
            await self._resumed
        finally:
            self._resumed = None


async def _read_alone(pool: DiskPool, body: FileBody) -> bytes:
    """On a descriptor of its own: the file's may be closed while the mount still does not answer."""
    fd = os.dup(body.fd)
    try:
        return await on_thread(body, pool.run, read_whole, FileBody(fd, body.offset, body.length))
    finally:
        os.close(fd)


def _nothing() -> None:
    return None


def _forget(unwanted: object) -> None:
    return None
