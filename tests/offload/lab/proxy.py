"""The proxy before the cloud: accepts connections, and meets each request with the faults that are set.

Everything runs in threads that start in the cloud's namespace and stay there. `stop` ends them all.
"""

import contextlib
import http.client
import socket
import threading
import time
from typing import Final

import h11

from .exchange import CutOff, EdgeSide, Exchanger, operation_of
from .faults import Fault, decide
from .traffic import Traffic

BACKLOG: Final = 128
UPSTREAM_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 30.0


class Proxy:
    """Faults come from `meet`; what happened is in `traffic`. `seed` decides whom the faults befall."""

    def __init__(self, listener: socket.socket, upstream_port: int, seed: int) -> None:
        self.traffic = Traffic()
        self.seed = seed
        self._faults: tuple[Fault, ...] = ()
        self._listener = listener
        self._upstream_port = upstream_port
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, name="proxy", daemon=True)

    def start(self) -> None:
        """Accept from now on, in the namespace of the calling thread."""
        self._acceptor.start()

    def meet(self, *faults: Fault) -> None:
        """Meet requests that begin from now on with these faults, and no others; none at all heals."""
        self._faults = faults

    def reset_all(self) -> None:
        """End every connection with a reset."""
        with self._lock:
            for link in self._open:
                with contextlib.suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """End every connection and thread. Raises TimeoutError when one does not end."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(STOP_SECONDS_MAX)
        self._listener.close()
        self.reset_all()
        for thread in self._threads:
            thread.join(STOP_SECONDS_MAX)
            if thread.is_alive():
                raise TimeoutError("a connection of the proxy does not end")

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(link)
            thread = threading.Thread(target=self._serve, args=(link,), name="proxy connection", daemon=True)
            self._threads = [*(old for old in self._threads if old.is_alive()), thread]
            thread.start()

    def _serve(self, link: socket.socket) -> None:
        edge = EdgeSide(link)
        try:
            with contextlib.suppress(CutOff):
                while (head := edge.request()) is not None:
                    self._one(edge, head)
        finally:
            with self._lock:
                self._open.discard(link)
            link.close()

    def _one(self, edge: EdgeSide, head: h11.Request) -> None:
        """A new connection to the cloud each time: a kept one may have been closed by the cloud meanwhile, and then the
        edge would see a fault that nobody set."""
        record = self.traffic.begin(time.monotonic(), *operation_of(head))
        fault = decide(self.seed, self._faults, record.request)
        cloud = http.client.HTTPConnection("127.0.0.1", self._upstream_port, timeout=UPSTREAM_SECONDS_MAX)
        try:
            Exchanger(edge, cloud).run(head, fault, record)
        except (OSError, http.client.HTTPException) as error:
            raise CutOff from error  # the cloud is gone, or answered nonsense: the edge sees its connection end
        finally:
            cloud.close()
