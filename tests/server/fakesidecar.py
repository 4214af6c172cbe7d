"""A sidecar for the worker's tests: the real socket and messages, real files handed over, bytes that arrive as told.

Each connection has a thread and a file of its own, which gets the blob's bytes at their own offsets, `step` at a time,
just before they are told. A test turns the knobs between requests; it may change `blobs` at any time.
"""

import array
import contextlib
import os
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dataplane.ipc import recalls
from dataplane.ipc.recalls import Bring, Brought, Failed, Have, Message, Want

WAIT_SECONDS: Final = 20.0
Blobs = dict[tuple[str, str, str], tuple[str, bytes]]  # (account, container, name): (ETag, content)


class FakeSidecar:
    """Listens at DIRECTORY/recall.sock from the start; `journal` is what a worker's settings get."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.journal = directory / "journal"
        self.journal.mkdir(parents=True, exist_ok=True)
        self.blobs: Blobs = {}
        self.step = 64 * 1024
        self.failures: deque[Failed] = deque()  # instead of the next answers
        self.fail_at: tuple[int, Failed | bytes | None] | None = (
            None  # from this offset on: say it; b"": go away; None: hold
        )
        self.then: Blobs = {}  # what is there after that
        self.gate = threading.Event()  # bytes arrive while it is set
        self.gate.set()
        self.on_bring: Callable[[Bring], None] = lambda bring: None
        self.wants: list[Want] = []
        self.brings: list[Bring] = []
        self.bring_told = 0  # times that the next Bring hears of its bytes before it is done
        self.connections = 0  # now
        self._lock = threading.Lock()
        self._links: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listen()

    def close(self) -> None:
        """Go away, as a process that is killed; call it again to no effect."""
        self.gate.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for link in self._links:
                with contextlib.suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()
        (self.directory / recalls.SOCKET_NAME).unlink(missing_ok=True)

    def _listen(self) -> None:
        opened = os.open(self.directory, os.O_PATH)
        try:
            self._listener.bind(f"/proc/self/fd/{opened}/{recalls.SOCKET_NAME}")
        finally:
            os.close(opened)
        self._listener.listen(128)
        thread = threading.Thread(target=self._accept, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._links.add(link)
                self.connections += 1
            thread = threading.Thread(target=self._serve, args=(link,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, link: socket.socket) -> None:
        try:
            with tempfile.TemporaryFile(dir=self.directory) as file:
                while packet := link.recv(recalls.MESSAGE_BYTES_MAX):
                    self._answer(link, file.fileno(), recalls.decode(packet))
        except OSError:
            return  # the worker closed its end
        finally:
            with self._lock:
                self._links.discard(link)
                self.connections -= 1
            link.close()

    def _answer(self, link: socket.socket, fd: int, message: Message) -> None:
        if isinstance(message, Want):
            self.wants.append(message)
        else:
            assert isinstance(message, Bring)
            self.brings.append(message)
        etag, content = self.blobs.get((message.account, message.container, message.name), ("", b""))
        if self.failures:
            _send(link, self.failures.popleft())
        elif etag != message.etag:
            _send(link, Failed("changed", "The blob is another version."))
        elif isinstance(message, Bring):
            while self.bring_told:
                self.bring_told -= 1
                _send(link, Have(1))
            self.on_bring(message)
            _send(link, Brought())
        else:
            self._arrive(link, fd, content, message)

    def _arrive(self, link: socket.socket, fd: int, content: bytes, want: Want) -> None:
        at, until = want.offset, want.offset + want.length
        passed: int | None = fd
        while at < until:
            self._wait(link)
            if self.fail_at is not None and at >= self.fail_at[0]:
                said = self.fail_at[1]
                if said is None:
                    self.gate.clear()
                    continue
                if isinstance(said, Failed):
                    if self.then:
                        self.fail_at, self.blobs = None, self.then
                    _send(link, said)
                    return
                if said:
                    link.send(said)
                    return
                raise ConnectionResetError
            end = min(at + self.step, until)
            os.pwrite(fd, content[at:end], at)
            _send(link, Have(end), passed)
            at, passed = end, None

    def _wait(self, link: socket.socket) -> None:
        """Until the gate is open. Raises ConnectionResetError when the reader goes away meanwhile."""
        while not self.gate.wait(0.01):
            with contextlib.suppress(BlockingIOError):
                if not link.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    raise ConnectionResetError


def _send(link: socket.socket, message: Message, fd: int | None = None) -> None:
    passed = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
    link.sendmsg([recalls.encode(message)], passed)
