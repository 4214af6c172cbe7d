"""One client connection: requests off the wire in order, one at a time, answers back.

    READ --head--> BUSY --answer sent--> READ            keep-alive; requests that came meanwhile wait their turn
                        --------------> DRAIN --> READ   the handler left a short rest of a body unread
                        --------------> LINGER --> CLOSED  last answer; input is thrown away so no reset eats it

Guarantees: a request is understood whole or refused with 400 and the connection closes; what is buffered is bounded
(`pipelined_bytes_max` of waiting requests, two pieces of a body, `write_buffer_bytes_max` of answers) and reading stops
beyond it; every state in which the other side has to act has a deadline. A client that goes away while its body is
incomplete makes the body's reader raise ClientDisconnected; later than that, the handler is cancelled.

The fast path: an application may have `try_sync(request) -> Response | None`. It is called first for a request without
a body, in the parser's callback. A response costs no coroutine, no task and no turn of the event loop; None means "not
without waiting", and nothing may have happened by then (no bytes, no log line, no counter), as the same request goes
through the coroutine next. [A GET of 4 KiB costs 22 us of processor time so, 24 us with a task.]

Bodies with a length go from the socket into the body's own buffer, uncopied; everything else through one receive
buffer that all connections of the worker share, so an idle connection owns none.
"""

import asyncio
import enum
import logging
from typing import Final, cast

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.message import Response
from dataplane.server.answer import CONTINUE, AnswerError, bug, refusal
from dataplane.server.body import BodyReader, ClientDisconnected
from dataplane.server.deadline import Deadline
from dataplane.server.diskpool import busy
from dataplane.server.head import RawRequest, check_partial, parse_head
from dataplane.server.intake import BodyIntake
from dataplane.server.options import ServerContext
from dataplane.server.sender import AnswerSender, discard
from dataplane.server.sendfile import FileTruncated

__all__ = ["BodyReader", "ClientDisconnected", "HttpConnection", "RawRequest"]

log = logging.getLogger(__name__)
_HEAD_END: Final = b"\r\n\r\n"
#: An idle connection closes only after one more look at its socket, as a request may have arrived with the deadline.
_LAST_LOOK_SECONDS: Final = 0.005


class State(enum.Enum):
    READ = "read"
    BUSY = "busy"
    DRAIN = "drain"
    LINGER = "linger"
    CLOSED = "closed"


#: An enum's member costs a lookup through its class; a request passes a dozen.
_READ, _BUSY, _DRAIN, _LINGER, _CLOSED = State


class HttpConnection(asyncio.BufferedProtocol):
    """The protocol of one accepted socket; `secure` tells that TLS is below it."""

    __slots__ = (
        "__weakref__", "_answering", "_body_paused", "_checked", "_close_after", "_context", "_deadline",
        "_discard_left", "_eof", "_intake", "_last_look", "_local_port", "_looping", "_peer", "_pending", "_reading",
        "_request", "_secure", "_sender", "_state", "_task", "_transport",
    )  # fmt: skip

    def __init__(self, context: ServerContext, secure: bool) -> None:
        self._context = context
        self._secure = secure
        self._state = _READ
        self._pending = b""  # bytes of requests that wait, or of a head that is not whole
        self._checked = 0  # how much of a partial head was looked at
        self._request: RawRequest | None = None
        self._intake: BodyIntake | None = None  # while the request in work has a body
        self._body_paused = False
        self._task: asyncio.Task[None] | None = None
        self._answering = False
        self._close_after = False
        self._discard_left = 0
        self._reading = True
        self._eof = False
        self._looping = False
        self._last_look = False
        context.arriving.add(self)

    # --- asyncio's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        context = self._context
        self._transport = cast(asyncio.Transport, transport)
        self._peer, self._local_port = _addresses(self._transport)
        self._deadline = Deadline(context.loop, self._expired)
        self._sender = AnswerSender(context, self._transport, self._secure, self._progress, self._answer_sent)
        context.arriving.discard(self)
        context.connections.add(self)
        context.counters.accepted += 1
        context.counters.open += 1
        if context.counters.open > context.options.connections_max:
            self._refuse(busy())
        elif context.draining:
            self._deadline.set(context.options.drain_idle_seconds)
        else:
            self._deadline.set(context.options.head_read_seconds_max)

    def get_buffer(self, sizehint: int) -> memoryview:
        shared = self._context.receive_buffer
        intake = self._intake
        return shared if intake is None or intake.body.complete else intake.window(shared)

    def buffer_updated(self, nbytes: int) -> None:
        shared = self._context.receive_buffer
        intake = self._intake
        if intake is not None and not intake.body.complete:
            self._received_body(intake, intake.received(nbytes, shared))
        elif self._state is _READ:
            self._last_look = False
            received = bytes(shared[:nbytes])
            self._process(self._pending + received if self._pending else received)
        else:
            self._received_early(shared[:nbytes])

    def eof_received(self) -> bool:
        """A client may close its half after a whole request and still gets its answer (not so on TLS)."""
        self._eof = True
        self._sender.flush()  # the transport closes itself when this returns False
        if self._state is not _BUSY or self._secure:
            return False
        if self._intake is not None:
            self._intake.body.fail(ClientDisconnected())
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        context = self._context
        context.connections.discard(self)
        context.counters.open -= 1
        if not context.connections:
            context.emptied.set()
        if self._state is _BUSY:
            context.counters.disconnects += 1
        self._stop_request()
        self._deadline.close()

    def pause_writing(self) -> None:
        self._sender.pause()
        if self._state is _READ and not self._looping:  # by an answer that was held until now
            self._await_client()
        self._flow()

    def resume_writing(self) -> None:
        self._sender.resume()
        if self._state is _READ and not self._looping:
            self._context.loop.call_soon(self._continue)
        self._flow()

    # --- the listener's side ---

    def drain(self) -> None:
        """The worker stops: this request, if any, is the last one. `context.draining` is set already."""
        if self._state is _READ and not self._pending:
            self._deadline.set(self._context.options.drain_idle_seconds)

    def abort(self) -> None:
        """Close now; a handler that runs is cancelled, a body that is incomplete fails."""
        self._stop_request()
        self._sender.flush()
        self._transport.abort()

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """The handler that runs, if any."""
        return self._task

    # --- the body's side ---

    def body_wanted(self) -> None:
        if self._state is not _BUSY:
            return
        assert self._request is not None
        assert self._intake is not None
        if self._request.expects_continue and not self._intake.body.touched:
            self._sender.flush()
            self._transport.write(CONTINUE)
        if not self._body_paused:
            self._deadline.set(self._context.options.body_idle_seconds_max)

    def body_resume(self) -> None:
        self._body_paused = False
        if self._state is _BUSY:
            self._deadline.set(self._context.options.body_idle_seconds_max)
            self._flow()

    def body_pause(self) -> None:
        self._body_paused = True
        if self._state is _BUSY:
            self._deadline.clear()
            self._flow()

    # --- requests ---

    def _process(self, data: bytes) -> None:
        """Start the requests in `data`, as far as they are whole and the one before is answered."""
        self._looping = True
        turns = 0
        while data and self._state is _READ and not self._sender.paused:
            if turns == limits.pipelined_requests_max:
                self._context.loop.call_soon(self._continue)
                break
            end = data.find(_HEAD_END, max(0, self._checked - 3))
            if end < 0:
                self._partial(data)
                break
            data = self._begin(data, end)
            turns += 1
        self._looping = False
        if self._state is _READ or self._state is _BUSY:
            self._pending = data
            if len(data) > limits.pipelined_bytes_max or not self._reading:
                self._flow()
            if self._sender.paused:
                self._await_client()
            elif not data and self._state is _READ:
                self._rest()

    def _continue(self) -> None:
        """Go on with requests that waited, for the answer before them or for a turn of the loop."""
        if self._state is _READ:
            self._process(self._pending)

    def _rest(self) -> None:
        """Nothing to do until the next request."""
        if self._eof:
            self._close()
        elif self._context.draining:
            self._deadline.set(self._context.options.drain_idle_seconds)
        else:
            self._deadline.set(self._context.options.keep_alive_seconds_max)

    def _await_client(self) -> None:
        """The next request waits until the client has taken enough of the answers."""
        self._sender.note_unsent()
        self._deadline.set(self._context.options.send_idle_seconds_max)

    def _partial(self, data: bytes) -> None:
        try:
            check_partial(data, self._checked)
        except BlobError as error:
            self._refuse(error)
            return
        if not self._checked:
            self._deadline.set(self._context.options.head_read_seconds_max)
        self._checked = len(data)
        if self._eof:
            self._close()

    def _begin(self, data: bytes, end: int) -> bytes:
        """Start the request whose head ends at `end`; what is left of `data` after it."""
        self._checked = 0
        try:
            if end > limits.request_header_bytes_max:
                check_partial(data[:end], end)
            request = parse_head(data[:end])
        except BlobError as error:
            self._refuse(error)
            return b""
        request.secure, request.peer, request.local_port = self._secure, self._peer, self._local_port
        self._context.counters.requests += 1
        self._request = request
        self._state = _BUSY
        rest = data[end + len(_HEAD_END) :]
        if request.has_body:
            return self._begin_body(request, rest)
        if self._context.try_sync is not None and self._try_sync(request):
            return rest
        self._deadline.clear()
        self._spawn(request, self._context.empty_body)
        return rest

    def _begin_body(self, request: RawRequest, rest: bytes) -> bytes:
        intake = self._intake = BodyIntake(request, self, self._context.buffers)
        self._body_paused = False
        rest = intake.begin(rest)
        if intake.body.complete or request.expects_continue or self._body_paused:
            self._deadline.clear()
        else:
            self._deadline.set(self._context.options.body_idle_seconds_max)
        self._spawn(request, intake.body)
        return rest

    def _try_sync(self, request: RawRequest) -> bool:
        """Whether the application answered at once."""
        assert self._context.try_sync is not None
        try:
            response = self._context.try_sync(request)
        except BlobError as error:
            response = refusal(error, self._context.clock)
        except Exception as error:
            response = self._bug(error)
        if response is None:
            return False
        self._respond(response)
        return True

    def _spawn(self, request: RawRequest, body: BodyReader) -> None:
        self._task = self._context.loop.create_task(self._handle(request, body))

    async def _handle(self, request: RawRequest, body: BodyReader) -> None:
        try:
            response = await self._context.app(request, body)
        except ClientDisconnected:
            self._task = None
            self._abandon()
            return
        except BlobError as error:
            response = refusal(error, self._context.clock)
        except Exception as error:
            response = self._bug(error)
        except asyncio.CancelledError:
            self._task = None
            self._abandon()
            raise
        self._task = None
        try:
            self._respond(response)
        except Exception as error:
            self._bug(error)  # no answer that could be sent; without this the connection would wait for ever
            self._abandon()

    def _abandon(self) -> None:
        """Nobody is left to answer."""
        self._release_body()
        if self._state is not _CLOSED:
            self.abort()

    # --- input outside of READ ---

    def _received_body(self, intake: BodyIntake, rest: bytes) -> None:
        if not intake.body.complete:
            if not self._body_paused:
                self._deadline.set(self._context.options.body_idle_seconds_max)
            return
        # From here on only the handler's work counts; further input is the next request.
        self._body_paused = False
        if not self._answering:
            self._deadline.clear()
        self._pending += rest
        self._flow()

    def _received_early(self, data: memoryview) -> None:
        """Input while a request is in work, or that nobody wants any more."""
        if self._state is _BUSY:
            self._pending += data
            self._flow()
            return
        self._discard_left -= len(data)
        if self._state is _DRAIN and self._discard_left <= 0:
            self._next(bytes(data[len(data) + self._discard_left :]))
        elif self._state is _LINGER and self._discard_left < 0:
            self.abort()

    # --- answers ---

    def _respond(self, response: Response) -> None:
        """Answer the request in work."""
        if self._state is not _BUSY or self._transport.is_closing():
            discard(response)
            self._release_body()
            return
        request = self._request
        assert request is not None
        close = response.close or not request.keep_alive or self._context.draining
        if self._intake is not None:
            close = close or not self._can_drain(self._intake.body, request)
        self._close_after = close
        self._answering = True
        self._send(response, request.method == "HEAD")

    def _can_drain(self, body: BodyReader, request: RawRequest) -> bool:
        """Whether the rest of the body is short and will come, so that the connection can be kept."""
        if body.complete:
            return True
        if body.failed or body.missing is None or (request.expects_continue and not body.started):
            return False
        return body.missing <= limits.body_drain_bytes_max and not self._eof

    def _send(self, response: Response, head_only: bool) -> None:
        try:
            done = self._sender.send(response, head_only=head_only, close=self._close_after)
        except BlobError as error:
            done = self._send_instead(refusal(error, self._context.clock), head_only)
        except (OSError, FileTruncated, AnswerError) as error:
            done = self._send_instead(self._bug(error), head_only)
        if done:
            self._answer_sent(None)
        elif self._answering:
            self._deadline.set(self._context.options.send_idle_seconds_max)

    def _send_instead(self, response: Response, head_only: bool) -> bool:
        self._close_after = self._close_after or response.close
        return self._sender.send(response, head_only=head_only, close=self._close_after)

    def _answer_sent(self, error: Exception | None) -> None:
        if error is not None:
            self._answer_failed(error)
            return
        self._answering = False
        missing = 0
        if self._intake is not None:
            body = self._intake.body
            self._release_body()
            if self._close_after and not body.complete:
                self._linger()
                return
            missing = body.missing or 0
        if self._close_after:
            self._close()
        elif missing:
            self._state = _DRAIN
            self._discard_left = missing
            self._deadline.set(self._context.options.body_idle_seconds_max)
            self._flow()
        elif self._looping:
            self._state = _READ
        else:
            self._next(self._pending)

    def _next(self, data: bytes) -> None:
        """The request in work is over; go on with `data`."""
        self._state = _READ
        self._pending = b""
        self._process(data)

    def _answer_failed(self, error: Exception) -> None:
        """Before the first byte another answer is possible; after it the client has to see a broken one."""
        if not self._sender.begun:
            instead = refusal(error, self._context.clock) if isinstance(error, BlobError) else self._bug(error)
            self._close_after = self._close_after or instead.close
            self._send(instead, head_only=False)
            return
        self._answering = False
        if isinstance(error, FileTruncated):
            self._context.counters.truncated_files += 1
            log.warning("a file became shorter while it was sent; connection closed")
        elif not isinstance(error, ConnectionError):
            log.warning("an answer broke off: %s", error.message if isinstance(error, BlobError) else repr(error))
        self._release_body()
        self.abort()

    def _refuse(self, error: BlobError) -> None:
        """Answer what is not a request, and close."""
        self._context.counters.refused_heads += 1
        self._state = _BUSY
        self._pending = b""
        self._answering = True
        self._close_after = True
        self._sender.send(refusal(error, self._context.clock), head_only=False, close=True)
        self._answering = False
        self._linger()

    def _bug(self, error: Exception) -> Response:
        self._context.counters.bugs += 1
        log.error("a request failed inside the server", exc_info=error)
        return bug(self._context.clock)

    # --- ends ---

    def _stop_request(self) -> None:
        """The connection is over: whoever works on its request learns it. Nothing is written from here on."""
        state, self._state = self._state, _CLOSED
        self._pending = b""
        if state is not _BUSY:
            return
        if self._answering:
            self._sender.abort(ClientDisconnected())
            self._release_body()
        elif self._intake is not None and not self._intake.body.complete:
            self._intake.body.fail(ClientDisconnected())
        elif self._task is not None:
            self._task.cancel()

    def _release_body(self) -> None:
        if self._intake is not None:
            self._intake.body.release()
            self._intake = None
            self._body_paused = False

    def _linger(self) -> None:
        """Throw input away until the client closes: closing over unread input would reset the answer away."""
        self._state = _LINGER
        self._discard_left = limits.linger_bytes_max
        self._pending = b""
        if self._eof or self._transport.is_closing():
            self._close()
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._deadline.set(self._context.options.linger_seconds_max)
        self._flow()

    def _close(self) -> None:
        """Close after what is written has gone out."""
        self._state = _CLOSED
        self._pending = b""
        self._sender.note_unsent()
        self._deadline.set(self._context.options.send_idle_seconds_max)
        self._transport.close()

    def _flow(self) -> None:
        """Read from the socket, or not, as the state wants it."""
        if self._state is _LINGER or self._state is _DRAIN:
            wanted = True
        elif self._intake is not None and not self._intake.body.complete:
            wanted = not self._body_paused
        else:
            wanted = len(self._pending) <= limits.pipelined_bytes_max and not self._sender.paused
        if wanted is self._reading or self._eof or self._state is _CLOSED:
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _progress(self) -> None:
        """The client took bytes of a long answer."""
        self._deadline.set(self._context.options.send_idle_seconds_max)

    def _expired(self) -> None:
        """The deadline of the present state has come."""
        if self._state is _READ and not self._pending and not self._sender.paused:
            if self._last_look:
                self._close()
            else:
                self._last_look = True
                self._deadline.set(_LAST_LOOK_SECONDS)
            return
        if (self._sender.paused or self._state is _CLOSED) and self._sender.took_some():
            self._progress()
            return
        if self._sender.waits:  # the client has all that there is
            self._progress()
            return
        self._context.counters.timeouts += 1
        if self._state is _READ and not self._sender.paused:
            self._refuse(BlobError(ErrorCode.REQUEST_TIMEOUT, message="The request head was not received in time."))
        elif self._state is _BUSY and not self._answering and self._intake is not None:
            self._intake.body.fail(BlobError(ErrorCode.REQUEST_TIMEOUT, close=True))
        else:
            self.abort()


def _addresses(transport: asyncio.Transport) -> tuple[str, int]:
    """(address of the peer, local port); "" and 0 for sockets that have none."""
    peer = transport.get_extra_info("peername")
    local = transport.get_extra_info("sockname")
    return (
        str(peer[0]) if isinstance(peer, tuple) else "",
        int(local[1]) if isinstance(local, tuple) else 0,
    )
