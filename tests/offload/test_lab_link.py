"""The link of the lab: each trouble has the effect it is named for and ends when healed; nothing stays behind."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from tests.durability.processes import session
from tests.offload.lab import need
from tests.offload.lab.cloud import lab
from tests.offload.lab.link import CLOUD_ADDRESS, Link, link

SECONDS_MAX = 1.0  # what a test waits for something that must not come
CONTENT = b"x" * 1000


class Listener:
    """A server in the cloud's namespace that returns what it gets."""

    def __init__(self, link: Link) -> None:
        self._link = link
        with link.in_cloud():
            self._socket = socket.create_server((CLOUD_ADDRESS, 0))
        self._port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def dial(self, seconds: float = SECONDS_MAX) -> socket.socket:
        """A connection from the edge."""
        with self._link.at_edge():
            return socket.create_connection((CLOUD_ADDRESS, self._port), timeout=seconds)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                taken, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(taken,), daemon=True).start()

    @staticmethod
    def _echo(taken: socket.socket) -> None:
        with taken:
            try:
                while data := taken.recv(1 << 16):
                    taken.sendall(data)
            except OSError:
                return


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    need()


@pytest.fixture(scope="module")
def way() -> Iterator[Link]:
    with link() as made:
        yield made


@pytest.fixture
def far(way: Link) -> Iterator[Listener]:
    with closing(Listener(way)) as listener:
        yield listener
    way.heal()


def echoes(connection: socket.socket) -> bool:
    connection.sendall(CONTENT)
    got = b""
    while len(got) < len(CONTENT):
        piece = connection.recv(1 << 16)
        if not piece:
            return False
        got += piece
    return got == CONTENT


def test_healthy(far: Listener) -> None:
    with far.dial() as connection:
        assert echoes(connection)


def test_the_ends_see_each_other_and_nothing_else(way: Link) -> None:
    way.assert_closed()
    with way.at_edge(), socket.socket() as outside, pytest.raises(OSError, match="unreachable"):
        outside.connect(("198.51.100.1", 80))


def test_a_default_route_is_noticed() -> None:
    with link() as made:
        with made.at_edge(), IPRoute() as ip:
            ip.route("add", dst="0.0.0.0/0", gateway=CLOUD_ADDRESS, family=socket.AF_INET)
        with pytest.raises(AssertionError, match="default route"):
            made.assert_closed()


@pytest.mark.parametrize("trouble", ["cut", "drop", "unplug"])
def test_nothing_comes_through(way: Link, far: Listener, trouble: str) -> None:
    with far.dial() as connection:
        assert echoes(connection)
        getattr(way, trouble)()
        with pytest.raises(TimeoutError):
            echoes(connection)
        with pytest.raises(OSError, match=r"timed out|unreachable"):
            far.dial()
        way.heal()
        connection.settimeout(30)
        assert connection.recv(1), "what was on its way arrives after all: TCP sends it again"
    with far.dial() as connection:
        assert echoes(connection)


def test_a_reset_ends_connections_and_refuses_new_ones(way: Link, far: Listener) -> None:
    with far.dial() as connection:
        assert echoes(connection)
        way.reset()
        with pytest.raises(ConnectionResetError):
            echoes(connection)
    with pytest.raises(ConnectionRefusedError):
        far.dial()
    way.heal()
    with far.dial() as connection:
        assert echoes(connection)


def test_a_black_hole_takes_connections_and_swallows_content(way: Link, far: Listener) -> None:
    way.blackhole()
    with far.dial() as connection, pytest.raises(TimeoutError):
        echoes(connection)


def test_a_lossy_link_drops_its_share_and_tcp_makes_up_for_it(way: Link, far: Listener) -> None:
    way.lose(50)
    with way.in_cloud(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind((CLOUD_ADDRESS, 0))
        with way.at_edge(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
            for _ in range(400):
                source.sendto(b"x", sink.getsockname())
        sink.setblocking(False)
        arrived = 0
        while True:
            try:
                sink.recv(1)
            except BlockingIOError:
                break
            arrived += 1
    assert 120 < arrived < 280, "400 draws of a half: outside of this once in 10^15 runs"
    way.lose(10)
    with far.dial(30) as connection:
        assert echoes(connection)


def test_a_limit_stays_over_a_heal(way: Link, far: Listener) -> None:
    way.limit(8.0)
    way.cut()
    way.heal()
    size, begin = 1 << 20, time.monotonic()
    with far.dial(30) as connection:
        sender = threading.Thread(target=connection.sendall, args=(bytes(size),))
        sender.start()
        got = 0
        while got < size:
            got += len(connection.recv(1 << 16))
        sender.join()
    # 1 MiB less the bucket of 64 KiB at 1 MB/s: it cannot have been faster, however slow this machine is.
    assert time.monotonic() - begin > 0.9
    way.unlimit()


@pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="NO SLOW LINK ON THIS MACHINE: it has no tun devices")
def test_a_slow_link_takes_its_time_and_can_be_cut_and_healed() -> None:
    with link(delay_ms=50) as slow, closing(Listener(slow)) as far:
        for _ in range(2):
            begin = time.monotonic()
            with far.dial(30) as connection:
                assert echoes(connection)
            assert time.monotonic() - begin >= 0.2, "a handshake and an echo are two round trips"
            slow.cut()
            with pytest.raises(TimeoutError):
                far.dial(0.3)
            slow.heal()


def test_all_is_gone_after_a_failure(tmp_path: Path) -> None:
    azurites: list[int] = []

    def fail() -> None:
        with lab(tmp_path) as made:
            made.link.drop()
            azurites.extend(_processes_in(made.link.cloud))
            raise RuntimeError("the test fails")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="the test fails"):
        fail()
    assert azurites
    assert not [pid for pid in azurites if session(pid)]
    assert threading.active_count() == before


def _processes_in(namespace: int) -> list[int]:
    """The processes, other than this one, whose network is this namespace."""
    here = Path(f"/proc/self/fd/{namespace}").readlink().name
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "ns" / "net").readlink().name == here:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
