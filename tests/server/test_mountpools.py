"""Which threads serve which file system, and that what waits too long is answered for while it still runs."""

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.ipc.settings import AccountSettings
from dataplane.server import opening
from dataplane.server.diskpool import DiskPool, DiskPools
from dataplane.server.mountpools import MountPools, place_of
from dataplane.server.patience import in_time

WAIT_SECONDS = 10.0
SHORT_SECONDS = 0.05


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), WAIT_SECONDS))


def opened(path: str | Path) -> int:
    return os.open(path, os.O_RDONLY)


@pytest.fixture
def shared_memory() -> str:
    if not os.path.ismount("/dev/shm"):
        pytest.skip("no second file system: /dev/shm is none")
    return "/dev/shm"


def test_trees_on_one_file_system_share_threads(tmp_path: Path) -> None:
    pools = MountPools()
    (tmp_path / "other").mkdir()
    fds = [opened(tmp_path), opened(tmp_path / "other")]
    first, second = (pools.add(place_of(fd), local=True) for fd in fds)
    assert first is second
    assert pools.across([first, second]) is first
    assert pools.of_file(fds[1]) is first
    assert first.data_pool.statistics().threads == 0  # until there is work
    for fd in fds:
        os.close(fd)


def test_file_systems_have_their_own_and_so_has_what_touches_both(tmp_path: Path, shared_memory: str) -> None:
    pools = MountPools()
    fds = [opened(tmp_path), opened(shared_memory), opened("/proc")]
    here, there = pools.add(place_of(fds[0]), local=True), pools.add(place_of(fds[1]), local=False)
    assert here is not there
    assert [pools.of_file(fd) for fd in fds] == [here, there, pools.other]
    both = pools.across([here, there])
    assert both is pools.across([there, here, there])
    assert both not in (here, there)
    assert not both.local
    assert set(pools) == {here, there, both, pools.other}
    for fd in fds:
        os.close(fd)


def test_threads_of_one_file_system_hang_and_the_others_work(tmp_path: Path, shared_memory: str) -> None:
    async def test() -> None:
        pools = MountPools()
        fds = [opened(tmp_path), opened(shared_memory)]
        here, there = (pools.add(place_of(fd), local=False) for fd in fds)
        gate = threading.Event()
        stuck = [asyncio.ensure_future(here.data(gate.wait)) for _ in range(100)]
        assert await there.data(len, "abc") == 3
        assert not pools.idle()
        gate.set()
        assert all(await asyncio.gather(*stuck))
        assert pools.idle()
        for fd in fds:
            os.close(fd)
        pools.close()

    run(test)


def unwanted_is_nothing(result: object) -> None:
    raise AssertionError("there was no result")


def test_a_call_that_takes_too_long_is_answered_for_and_goes_on() -> None:
    async def test() -> None:
        gate, left, freed = threading.Event(), asyncio.Event(), asyncio.Event()
        pool = DiskPool("test", 1, 4, call_seconds_max=SHORT_SECONDS)

        async def handler() -> None:
            try:
                await pool.run(gate.wait)
            finally:
                freed.set()

        with pytest.raises(BlobError) as refused:
            await in_time(handler(), SHORT_SECONDS, left.set, unwanted_is_nothing)
        assert refused.value.code is ErrorCode.OPERATION_TIMED_OUT
        assert left.is_set()
        assert not freed.is_set()  # the thread may still use what the handler holds
        gate.set()
        await freed.wait()
        pool.close()

    run(test)


def test_a_long_request_of_short_calls_is_not_cut_short() -> None:
    async def test() -> None:
        pool = DiskPool("test", 1, 4, call_seconds_max=WAIT_SECONDS)

        async def handler() -> str:
            for _ in range(5):
                await pool.run(len, "")
                await asyncio.sleep(SHORT_SECONDS)  # waits for its client: as long as it likes
            return "done"

        assert await in_time(handler(), SHORT_SECONDS, pytest.fail, unwanted_is_nothing) == "done"
        pool.close()

    run(test)


def test_a_result_that_comes_too_late_is_given_away() -> None:
    async def test() -> None:
        gate, late = asyncio.Event(), asyncio.Event()
        pool = DiskPool("test", 1, 4, call_seconds_max=SHORT_SECONDS)
        hold = threading.Event()

        async def handler() -> str:
            try:
                await pool.run(hold.wait)
            except asyncio.CancelledError:
                return "late"
            return "in time"

        results: list[str] = []

        def unwanted(result: str) -> None:
            results.append(result)
            late.set()

        with pytest.raises(BlobError):
            await in_time(handler(), SHORT_SECONDS, gate.set, unwanted)
        hold.set()
        await late.wait()
        assert results == ["late"]
        pool.close()

    run(test)


def test_a_client_that_goes_away_waits_for_the_call() -> None:
    async def test() -> None:
        gate, started, freed = threading.Event(), threading.Event(), asyncio.Event()
        pools = DiskPools()

        def call() -> None:
            started.set()
            gate.wait()

        async def handler() -> None:
            try:
                await pools.data(call)
            finally:
                freed.set()

        request = asyncio.ensure_future(in_time(handler(), WAIT_SECONDS, pytest.fail, unwanted_is_nothing))
        await asyncio.to_thread(started.wait)
        request.cancel()
        await asyncio.sleep(0)
        request.cancel()
        assert not freed.is_set()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert freed.is_set()
        pools.close()

    run(test)


def test_outside_of_handlers_a_call_has_the_same_time() -> None:
    async def test() -> None:
        gate = threading.Event()
        pool = DiskPool("test", 1, 4, call_seconds_max=SHORT_SECONDS)
        with pytest.raises(BlobError) as refused:
            await pool.run_in_time(gate.wait)
        assert refused.value.code is ErrorCode.OPERATION_TIMED_OUT
        gate.set()
        with pytest.raises(TimeoutError):
            await pool.run_in_time(_time_out)
        pool.close()

    run(test)


def _time_out() -> None:
    raise TimeoutError("of the call itself")


def test_a_mount_that_fails_while_it_is_opened_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by ETIMEDOUT, which Python makes a TimeoutError: it is an answer, there is none to wait for."""

    def failing(_: int) -> NoReturn:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    async def body() -> None:
        stores = opening.Opening([AccountSettings("acct", str(tmp_path), ())], asyncio.get_running_loop())
        with pytest.raises(opening.BootError, match=r"account acct: cannot open .*timed out"):
            stores.then("acct", lambda _: None)

    monkeypatch.setattr(opening, "place_of", failing)
    run(body)
