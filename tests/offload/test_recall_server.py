"""The socket of the recalls: who may reach it, and what becomes of a worker that breaks the protocol."""

import os
import socket
import stat
from pathlib import Path

import pytest
import trio

from agent.offload.cloud import Cloud
from agent.offload.recall import server
from agent.offload.recall.shelf import Key
from dataplane.ipc.recalls import MESSAGE_BYTES_MAX, WINDOW_BYTES_MAX, Bring, Brought, Failed, Have, Want, encode
from tests.offload.recall_support import ACCOUNT, MIB, Worker, held, running, stub
from tests.offload.upload_support import World, settings

KEY = Key(ACCOUNT, "box", "blob", "0x1")
WANT = Want(*KEY, 0, 10, 10)


@pytest.fixture
def nowhere(tmp_path: Path) -> Cloud:
    """A cloud that nobody asks."""
    return Cloud(settings(1, tmp_path))


def test_only_the_owner_may_connect_and_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "recall.sock"
    for _ in range(2):
        with server.bind(path) as sock:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_SEQPACKET


def test_the_path_may_be_longer_than_an_address(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    with server.bind(directory / "recall.sock"), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as worker:
        fd = os.open(directory, os.O_PATH)
        try:
            worker.connect(f"/proc/self/fd/{fd}/recall.sock")
        finally:
            os.close(fd)


@pytest.mark.trio
@pytest.mark.parametrize(
    "packet",
    [
        b"not json",
        b"{}",
        encode(WANT).replace(b'"v":1', b'"v":2'),
        encode(Have(5)),
        encode(Want(*KEY, 0, WINDOW_BYTES_MAX + 1, 2 * WINDOW_BYTES_MAX)),
        encode(Want(*KEY, 5, 10, 10)),
        encode(WANT) + b" " * MESSAGE_BYTES_MAX,
        b'{"v":1,"kind":"want","account":["' + b"x" * 100 + b'"]}',
    ],
)
async def test_nonsense_is_cut_off_and_others_are_answered(packet: bytes, nowhere: Cloud, tmp_path: Path) -> None:
    async with running(nowhere, tmp_path) as made, Worker(made.socket_path) as other:
        async with Worker(made.socket_path) as worker:
            await worker.send_raw(packet)
            assert await worker.hear() is None
        await other.say(WANT)
        heard = await other.hear()
        assert isinstance(heard, Failed)
        assert not made.recalls.document()["readers"]


@pytest.mark.trio
async def test_a_want_beyond_the_end_is_cut_off(world: World, tmp_path: Path) -> None:
    async with running(world.cloud, tmp_path) as made:
        key = stub(made, world, "short", b"x" * 100)
        for start, end in ((0, 101), (100, 200)):
            async with Worker(made.socket_path) as worker:
                await worker.say(Want(*key, start, end - start, end))
                assert await worker.hear() is None
        async with Worker(made.socket_path) as worker:
            assert await worker.read(key, 0, 100) == b"x" * 100


@pytest.mark.trio
async def test_a_second_question_before_the_answer_is_cut_off(world: World, tmp_path: Path) -> None:
    reached, token = trio.Event(), trio.lowlevel.current_trio_token()
    async with running(world.cloud, tmp_path) as made:
        key = stub(made, world, "slow", b"x" * MIB)
        with held(world, lambda: token.run_sync_soon(reached.set)):
            async with Worker(made.socket_path) as worker:
                await worker.say(Want(*key, 0, MIB, MIB))
                await reached.wait()
                await worker.say(Want(*key, 0, MIB, MIB))
                assert await worker.hear() is None


@pytest.mark.trio
async def test_too_many_readers_are_told_so(nowhere: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "READERS_COUNT_MAX", 1)
    async with running(nowhere, tmp_path) as made, Worker(made.socket_path) as first:
        async with Worker(made.socket_path) as second:
            heard = await second.hear()
            assert isinstance(heard, Failed)
            assert await second.hear() is None
        await first.say(WANT)
        assert isinstance(await first.hear(), Failed)


@pytest.mark.trio
async def test_a_whole_file_is_brought(world: World, tmp_path: Path) -> None:
    async with running(world.cloud, tmp_path) as made:
        key = stub(made, world, "whole", b"x" * MIB)
        async with Worker(made.socket_path) as worker:
            for _ in range(2):
                await worker.say(Bring(*key))
                assert await worker.hear() == Brought()
            assert not made.is_stub(key)


@pytest.mark.trio
async def test_while_a_file_is_brought_the_worker_hears_of_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BRING_TELL_SECONDS", 0.0)
    async with running(world.cloud, tmp_path) as made:
        key = stub(made, world, "long", os.urandom(8 * MIB))
        async with Worker(made.socket_path) as worker:
            await worker.say(Bring(*key))
            told = [await worker.hear()]
            while isinstance(told[-1], Have):
                told.append(await worker.hear())
        ends = [each.end for each in told if isinstance(each, Have)]
        assert told[-1] == Brought()
        assert ends == sorted(set(ends))
        assert 0 < ends[0] <= ends[-1] <= 8 * MIB
        assert not made.is_stub(key)


@pytest.mark.trio
async def test_no_byte_is_an_answer_too(world: World, tmp_path: Path) -> None:
    async with running(world.cloud, tmp_path) as made:
        key = stub(made, world, "some", b"x" * 10)
        async with Worker(made.socket_path) as worker:
            assert await worker.read(key, 5, 5) == b""
