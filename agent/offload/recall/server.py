"""The socket where workers ask for bytes that are in the cloud: the messages of dataplane/ipc/recalls.py.

Each connection is one reader, with one question at a time. The socket has mode 0600, in a directory of ours; one that
is there already is what a killed sidecar left, as only the sidecar that holds the queue's lock binds it. A worker that
says what is no message, or asks before it was answered, is cut off. Rejected: a reader that may ask for several ranges
at once (a client has one connection for each anyway).
"""

import array
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from agent.offload.recall.reasons import NotComing, not_coming
from agent.offload.recall.recall import Reader
from agent.offload.recall.recalls import Recalls
from dataplane.ipc.recalls import MESSAGE_BYTES_MAX, Bring, Brought, Have, Message, RecallError, Want, decode, encode

log = logging.getLogger("blobedge.offload")

SOCKET_MODE: Final = 0o600
BACKLOG_COUNT: Final = 128
READERS_COUNT_MAX: Final = 1024
BRING_TELL_SECONDS: Final = 5.0  # a worker waits for a minute of silence
ACCEPT_AGAIN_SECONDS: Final = 0.1  # after a lack of descriptors


def bind(path: Path) -> socket.socket:
    """The listening socket. Its address is made through the directory's descriptor: the path may be longer than an
    address can be (unix(7), 108 bytes). Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    directory = -1
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        path.unlink(missing_ok=True)
        sock.bind(f"/proc/self/fd/{directory}/{path.name}")
        path.chmod(SOCKET_MODE)  # before listen: until then nobody can connect
        sock.listen(BACKLOG_COUNT)
    except BaseException:
        sock.close()
        raise
    finally:
        if directory >= 0:
            os.close(directory)
    return sock


@dataclass(frozen=True, slots=True)
class RecallService:
    """All recalls of a node, and the socket where they are asked for."""

    path: Path
    recalls: Recalls

    async def run(self) -> None:
        """Until cancelled. Raises OSError when the socket cannot be bound."""
        sock = await trio.to_thread.run_sync(bind, self.path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.recalls.run)
            nursery.start_soon(serve, sock, self.recalls)


async def serve(sock: socket.socket, recalls: Recalls) -> None:
    """Answer until cancelled; closes the socket."""
    listener = trio.socket.from_stdlib_socket(sock)
    readers = 0

    async def one(connection: trio.socket.SocketType) -> None:
        nonlocal readers
        readers += 1
        try:
            with connection:
                if readers > READERS_COUNT_MAX:
                    await _send(connection, not_coming("failed", retry_seconds=1).message)
                else:
                    await _Conversation(connection, recalls).run()
        except OSError:
            pass  # the worker is gone
        finally:
            readers -= 1

    with listener:
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    connection, _ = await listener.accept()
                except OSError:
                    await trio.sleep(ACCEPT_AGAIN_SECONDS)
                    continue
                nursery.start_soon(one, connection)


class _Conversation:
    """One connection."""

    def __init__(self, connection: trio.socket.SocketType, recalls: Recalls) -> None:
        self._connection: Final = connection
        self._recalls: Final = recalls
        self._reader: Final = Reader()
        self._answering = False

    async def run(self) -> None:
        """Until the worker closes its end, or breaks the protocol. Raises OSError."""
        try:
            async with trio.open_nursery() as nursery:
                while packet := await self._connection.recv(MESSAGE_BYTES_MAX + 1):
                    try:
                        message = self._asked(packet)
                    except RecallError:
                        break
                    self._answering = True
                    nursery.start_soon(self._answer, message, nursery.cancel_scope)
                nursery.cancel_scope.cancel()
        except* OSError:
            pass  # the worker is gone, in the middle of an answer
        finally:
            self._recalls.leave(self._reader)

    def _asked(self, packet: bytes) -> Want | Bring:
        """Raises RecallError."""
        message = decode(packet)
        if len(packet) > MESSAGE_BYTES_MAX or self._answering or not isinstance(message, Want | Bring):
            raise RecallError("not a question")
        return message

    async def _answer(self, message: Want | Bring, scope: trio.CancelScope) -> None:
        try:
            if isinstance(message, Bring):
                await self._bring(message)
                answer: Message | None = Brought()
            else:
                await self._recalls.read(self._reader, message, self._tell)
                answer = None
        except NotComing as failure:
            answer = failure.message
        except RecallError:
            scope.cancel()
            return
        except OSError:
            raise
        except Exception:  # a bug that one reader meets must not end the others
            log.exception("a reader of bytes in the cloud")
            answer = not_coming("failed").message
        self._answering = False
        if answer is not None:
            await _send(self._connection, answer)

    async def _bring(self, message: Bring) -> None:
        """Raises what `Recalls.bring` does, and OSError. Says what came every BRING_TELL_SECONDS."""
        came = 0
        failure: Exception | None = None

        def progress(count: int) -> None:
            nonlocal came
            came += count

        async def tell() -> None:
            told = 0
            while True:
                await trio.sleep(BRING_TELL_SECONDS)
                if came > told:
                    told = came
                    await _send(self._connection, Have(told))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell)
            try:
                await self._recalls.bring(message.account, message.container, message.name, progress)
            except Exception as error:  # to be raised out here, in no group
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _tell(self, end: int, fd: int) -> None:
        if self._reader.want is not None and end == self._reader.want.offset + self._reader.want.length:
            self._answering = False  # the worker may ask again as soon as it has this
        await _send(self._connection, Have(end), fd)


async def _send(connection: trio.socket.SocketType, message: Message, fd: int = -1) -> None:
    """One packet, with a descriptor that becomes the worker's."""
    ancillary = [] if fd < 0 else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
    await connection.sendmsg([encode(message)], ancillary)
