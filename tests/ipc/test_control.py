"""The control channel: every message round-trips, nothing foreign is accepted, end of file is told."""

import json
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.ipc.control import (
    MESSAGE_BYTES_MAX,
    PROTOCOL_VERSION,
    Channel,
    ControlError,
    Failed,
    LogLevel,
    Message,
    Mount,
    Ready,
    Report,
    Start,
    Stop,
    decode,
    encode,
    pair,
    ready,
)

MOUNT = Mount("acct", "", "/data", False, {"local": True})
MESSAGES: list[Message] = [
    Start({"a": [1, "x"]}),
    Ready(17, (MOUNT,)),
    Failed("no room"),
    Stop(2.5),
    LogLevel("debug"),
    Report("cloud", {"reachable": False}),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_round_trips_through_a_real_socket(message: Message) -> None:
    ours, theirs = pair()
    ours.send(message)
    assert theirs.receive() == message
    with pytest.raises(BlockingIOError):
        theirs.receive_nowait()
    ours.close()
    assert theirs.receive_nowait() is None
    theirs.close()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\xff\xfe", "not JSON"),
        (b"[]", "protocol version"),
        (b'{"kind":"ready","pid":1}', "protocol version"),
        (json.dumps({"protocol": PROTOCOL_VERSION + 1, "kind": "ready", "pid": 1}).encode(), "protocol version"),
        (json.dumps({"protocol": PROTOCOL_VERSION, "kind": "reboot"}).encode(), "unknown kind"),
        (json.dumps({"protocol": PROTOCOL_VERSION, "kind": ["ready"]}).encode(), "unknown kind"),
        (json.dumps({"protocol": PROTOCOL_VERSION, "kind": "ready"}).encode(), "unexpected fields"),
        (json.dumps({"protocol": PROTOCOL_VERSION, "kind": "ready", "pid": 1, "x": 2}).encode(), "unexpected fields"),
        (
            json.dumps({"protocol": PROTOCOL_VERSION, "kind": "ready", "pid": 1, "mounts": [1]}).encode(),
            "not a list of mounts",
        ),
        (b" " * (MESSAGE_BYTES_MAX + 1), "too long"),
    ],
)
def test_what_is_not_a_message_is_refused(data: bytes, what: str) -> None:
    with pytest.raises(ControlError, match=what):
        decode(data)


@given(st.binary(max_size=200))
def test_no_datagram_crashes_the_reader(data: bytes) -> None:
    with pytest.raises(ControlError):
        decode(data)


def test_the_longest_message_fits_the_socket_and_a_longer_one_is_refused_by_the_sender() -> None:
    room = MESSAGE_BYTES_MAX - len(encode(Failed("")))
    ours, theirs = pair()
    ours.send(Failed("x" * room))
    received = theirs.receive()
    assert isinstance(received, Failed)
    assert len(received.reason) == room
    with pytest.raises(ControlError, match="at most"):
        ours.send(Failed("x" * (room + 1)))
    ours.close()
    theirs.close()


def test_an_end_that_closed_with_messages_unread_is_an_end_of_file() -> None:
    ours, theirs = pair()
    ours.send(Stop(1.0))
    theirs.close()
    assert ours.receive() is None
    with pytest.raises(BrokenPipeError):
        ours.send(Stop(1.0))
    ours.close()


def test_a_sender_never_blocks_on_an_end_that_does_not_read() -> None:
    ours, theirs = pair()

    def flood() -> None:
        for _ in range(100_000):
            ours.send(LogLevel("debug"))

    with pytest.raises(BlockingIOError):
        flood()
    ours.close()
    theirs.close()


def test_a_channel_from_an_inherited_number() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left:
        channel = Channel.from_fd(os.dup(right.fileno()))
        right.close()
        left.send(encode(Ready(3)))
        assert channel.receive() == Ready(3)
        channel.close()


def test_keys_do_not_show_in_a_log_line() -> None:
    assert "secret" not in repr(Start({"accounts": [{"keys": ["secret"]}]}))


def test_mounts_that_do_not_fit_a_message_are_left_out() -> None:
    message = ready(17, [MOUNT] * 10_000)
    assert 500 < len(message.mounts) < 10_000
    assert decode(encode(message)) == message
