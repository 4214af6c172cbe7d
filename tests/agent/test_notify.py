"""The service manager's protocols: each state as it arrives at a real socket, the variables, the descriptor store."""

import os
import secrets
import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from agent.listen import Listen
from agent.supervision.sockets import adopt, bind_all, forget_all, socket_name, store_all
from agent.supervision.systemd import Inherited, ServiceManager, take


@pytest.fixture(params=["path", "abstract"])
def listening(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[tuple[socket.socket, str]]:
    """The manager's socket, and its address as NOTIFY_SOCKET has it."""
    address = f"{tmp_path}/notify" if request.param == "path" else f"@blobedge-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind(address.replace("@", "\0"))
        yield sock, address


def told(sock: socket.socket) -> list[str]:
    """All that was said so far; descriptors are closed."""
    found: list[str] = []
    while True:
        try:
            data, fds, _, _ = socket.recv_fds(sock, 4096, 1)
        except BlockingIOError:
            return found
        for fd in fds:
            os.close(fd)
        found.append(data.decode() + (" +fd" if fds else ""))


def test_states(listening: tuple[socket.socket, str]) -> None:
    sock, address = listening
    manager = ServiceManager(address)
    manager.ready()
    manager.stopping()
    manager.status("two\nlines")
    assert told(sock) == ["READY=1", "STOPPING=1", "STATUS=two lines"]
    manager.reloading()
    (reloading,) = told(sock)
    assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")


def test_the_watchdog_is_fed_twice_in_its_time(listening: tuple[socket.socket, str]) -> None:
    sock, address = listening

    async def live() -> None:
        with trio.move_on_after(25):
            await ServiceManager(address, watchdog_seconds=10).watchdog()

    trio.run(live, clock=trio.testing.MockClock(autojump_threshold=0))
    assert told(sock) == ["WATCHDOG=1"] * 5  # at 0, 5, 10, 15 and 20 s


def test_without_a_manager_nothing_happens() -> None:
    manager, inherited = take({}, 1)
    manager.ready()
    assert manager.watchdog_seconds is None
    assert not inherited


def test_a_manager_that_is_gone_is_no_error(tmp_path: object) -> None:
    ServiceManager(f"{tmp_path}/gone").ready()


def test_the_variables_are_read_and_removed() -> None:
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "17", "PATH": "/bin"}
    manager, _ = take(environ, 17)
    assert manager.watchdog_seconds == 3
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("changed", [{"WATCHDOG_PID": "18"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}])
def test_a_watchdog_for_somebody_else_is_none(changed: dict[str, str]) -> None:
    manager, _ = take({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "17"} | changed, 17)
    assert manager.watchdog_seconds is None


def test_descriptors_for_another_process_are_left_alone() -> None:
    assert take({"LISTEN_FDS": "1", "LISTEN_PID": "18", "LISTEN_FDNAMES": "x"}, 17)[1] == []


def test_sockets_are_stored_by_name_and_adopted_with_their_queue(listening: tuple[socket.socket, str]) -> None:
    sock, address = listening
    manager = ServiceManager(address)
    (probe,) = bind_all([Listen("http", "127.0.0.1", 0)], 1)
    probe.close()
    listen = Listen("http", "127.0.0.1", probe.port)
    (first,) = bind_all([listen], 2)
    store_all([first], manager)
    names = [socket_name(("127.0.0.1", probe.port), index) for index in range(2)]
    assert told(sock) == [f"FDSTORE=1\nFDNAME={name} +fd" for name in names]
    kept = [Inherited(name, os.dup(each.fileno())) for name, each in zip(names, first.sockets, strict=True)]
    first.close()  # the first life is over
    with socket.create_connection(("127.0.0.1", probe.port)):
        adopted = adopt(kept, manager)
        (second,) = bind_all([listen], 1, adopted)
        adopted.close(manager)
        assert len(second.share(0, 1)) == 2, "one worker serves both queues"
        assert sum(_waiting(each) for each in second.sockets) == 1
    assert told(sock) == []
    forget_all([second], manager)
    assert told(sock) == [f"FDSTOREREMOVE=1\nFDNAME={name}" for name in names]
    second.close()


def _waiting(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_what_is_no_listening_socket_of_its_name_is_closed_and_forgotten(listening: tuple[socket.socket, str]) -> None:
    sock, address = listening
    manager = ServiceManager(address)
    (bound,) = bind_all([Listen("http", "127.0.0.1", 0)], 1)
    name = socket_name(("127.0.0.1", bound.port), 0)
    left, right = socket.socketpair()
    wrong = [
        Inherited("blobedge-127.0.0.1-1-0", os.dup(bound.sockets[0].fileno())),
        Inherited(name, left.detach()),
        Inherited("memory", os.memfd_create("x")),
    ]
    assert not adopt(wrong, manager).sockets
    assert told(sock) == [f"FDSTOREREMOVE=1\nFDNAME={each.name}" for each in wrong]
    for each in wrong:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(each.fd)
    right.close()
    bound.close()


def test_a_socket_of_an_address_that_is_not_served_any_more_is_dropped(listening: tuple[socket.socket, str]) -> None:
    sock, address = listening
    manager = ServiceManager(address)
    (bound,) = bind_all([Listen("http", "127.0.0.1", 0)], 1)
    name = socket_name(("127.0.0.1", bound.port), 0)
    adopted = adopt([Inherited(name, os.dup(bound.sockets[0].fileno()))], manager)
    assert list(adopted.sockets) == [name]
    adopted.close(manager)
    assert told(sock) == [f"FDSTOREREMOVE=1\nFDNAME={name}"]
    bound.close()
