"""One connection to the sidecar's recall socket: messages, and descriptors of files with them (ipc/recalls.py).

A socket's path may be longer than a Unix address holds (unix(7)), so it is reached through its directory's descriptor.
Whatever goes wrong is a refusal for the client already. Rejected: asyncio's streams, which lose descriptors.
"""

import asyncio
import errno
import os
import socket

from dataplane.ipc import recalls
from dataplane.ipc.recalls import Message, RecallError
from dataplane.server.recallrefusals import broken, busy_with, no_sidecar


class SidecarLink:
    """Messages to and from the sidecar. Its errors are BlobErrors for the client."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self._loop = loop
        self._socket = sock

    def send(self, message: Message) -> None:
        """Raises BlobError."""
        try:
            self._socket.send(recalls.encode(message))
        except OSError:  # one short message fits into an empty buffer, so it is gone, or does not read
            raise no_sidecar() from None

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
            raise busy_with("The blob's bytes do not come from the cloud in time.") from None
        except RecallError as error:
            raise broken(str(error)) from None
        except OSError:
            raise no_sidecar() from None

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


def connected(loop: asyncio.AbstractEventLoop, directory: str, name: str) -> SidecarLink:
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
        return SidecarLink(loop, connecting)
    finally:
        os.close(opened)
