"""Binding: one socket per worker, the same port for all, and honest answers when an address cannot be had."""

import socket

import pytest

from agent.listen import Listen, parse_listen
from agent.problems import OperatorError
from agent.supervision.sockets import bind_all


def test_port_0_is_one_port_for_all_workers() -> None:
    (bound,) = bind_all([Listen("http", "127.0.0.1", 0)], 3)
    assert {sock.getsockname() for sock in bound.sockets} == {("127.0.0.1", bound.port)}
    assert all(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for sock in bound.sockets)
    assert not any(sock.get_inheritable() for sock in bound.sockets)
    bound.close()


def test_a_second_service_of_the_same_user_is_refused() -> None:
    """SO_REUSEPORT alone would let it in and give it half of the connections."""
    (bound,) = bind_all([Listen("http", "127.0.0.1", 0)], 2)
    with pytest.raises(OperatorError, match="is in use"):
        bind_all([Listen("http", "127.0.0.1", bound.port)], 2)
    bound.close()


def test_accepted_connections_send_keepalives() -> None:
    (bound,) = bind_all([Listen("http", "127.0.0.1", 0)], 1)
    bound.sockets[0].settimeout(10)
    with socket.create_connection(("127.0.0.1", bound.port)), bound.sockets[0].accept()[0] as accepted:
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    bound.close()


def test_an_address_that_fails_leaves_none_bound() -> None:
    (probe,) = bind_all([Listen("http", "127.0.0.1", 0)], 1)
    probe.close()
    with pytest.raises(OperatorError, match="no address of this machine"):
        bind_all([Listen("http", "127.0.0.1", probe.port), Listen("http", "192.0.2.1", 0)], 1)
    (again,) = bind_all([Listen("http", "127.0.0.1", probe.port)], 1)
    again.close()


def test_a_name_without_an_address() -> None:
    with pytest.raises(OperatorError, match="has no address"):
        bind_all([Listen("http", "no-such-host.invalid", 1)], 1)


def test_urls_put_ipv6_in_brackets() -> None:
    assert parse_listen("http://[::1]:80").url() == "http://[::1]:80"
    assert parse_listen("https://h.example:0").url(8443) == "https://h.example:8443"
