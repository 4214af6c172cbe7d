"""The parts of the HTTP layer that need no connection: chunk decoding, answer heads, deadlines, thread pools."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.message import FileBody, Response
from dataplane.server.answer import AnswerError, DateLine, answer_head, refusal
from dataplane.server.chunked import ChunkedDecoder
from dataplane.server.deadline import Deadline
from dataplane.server.diskpool import DiskPool, DiskPools, PoolLimits
from tests.server.smuggling_corpus import BODIES

DATE = DateLine(lambda: 0.0)


# --- chunks ---


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.binary(max_size=20), st.integers(1, 50), st.data())
def test_chunks_come_out_whole_however_they_are_cut(
    pieces: list[bytes], after: bytes, step: int, data: st.DataObject
) -> None:
    form = data.draw(st.sampled_from([b"%x", b"%X", b"%016x"]))
    stream = b"".join(form % len(piece) + b"\r\n" + piece + b"\r\n" for piece in pieces) + b"0\r\n\r\n" + after
    decoder, payload, at = ChunkedDecoder(), b"", 0
    while not decoder.complete:
        views, used = decoder.feed(memoryview(stream[at : at + step]))
        assert used == min(step, len(stream) - at) or decoder.complete
        payload += b"".join(views)
        at += used
    assert payload == b"".join(pieces)
    assert stream[at:] == after


def refuses(stream: bytes, step: int) -> bool:
    """Whether the stream is refused; if not, all of it was used or the body has ended."""
    decoder = ChunkedDecoder()
    for at in range(0, len(stream), step):
        piece = memoryview(stream[at : at + step])
        try:
            _, used = decoder.feed(piece)
        except BlobError as error:
            return error.close
        assert used == len(piece) or decoder.complete
    return False


@pytest.mark.parametrize("step", [1, 2, 1000])
@pytest.mark.parametrize("stream", [pytest.param(stream, id=name) for name, stream in BODIES])
def test_broken_chunks_are_refused(stream: bytes, step: int) -> None:
    body = stream.partition(b"\r\n\r\n")[2]
    assert refuses(body, step)


@given(st.binary(max_size=60))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    assert refuses(data, 60) in (True, False)


def test_a_body_in_many_tiny_chunks_is_refused() -> None:
    tiny = b"1\r\nx\r\n"
    assert not refuses(tiny * (limits.small_chunks_count_max - 1) + b"0\r\n\r\n", 65536)
    assert refuses(tiny * (limits.small_chunks_count_max + 1), 65536)


# --- answers ---


def test_the_head_of_an_answer() -> None:
    head = answer_head(Response(206, [("ETag", '"a"'), ("x-ms-meta-a", "ä\udcff")], b"abc"), DATE, close=True)
    assert head == (
        b'HTTP/1.1 206 Partial Content\r\nETag: "a"\r\nx-ms-meta-a: \xc3\xa4\xff\r\nContent-Length: 3\r\n'
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nConnection: close\r\n\r\n"
    )


def test_a_date_of_the_handler_is_kept() -> None:
    head = answer_head(Response(200, [("Date", "x")]), DATE, close=False)
    assert head.count(b"Date") == 1


def test_the_date_changes_with_the_second() -> None:
    now = 0.0
    date = DateLine(lambda: now)
    first = date.line()
    now = 0.9
    assert date.line() is first
    now = 1.0
    assert date.line() == "Date: Thu, 01 Jan 1970 00:00:01 GMT\r\n"


def test_a_length_of_its_own_and_one_of_a_file() -> None:
    assert b"Content-Length: 7\r\n" in answer_head(Response(200, content_length=7), DATE, close=False)
    assert b"Content-Length: 9\r\n" in answer_head(Response(200, body=FileBody(-1, 3, 9)), DATE, close=False)


@given(
    st.lists(st.tuples(st.text(max_size=5), st.text(max_size=10)), max_size=4),
    st.sampled_from(["\r", "\n", "\0", "\r\n", ""]),
)
def test_whatever_the_headers_an_answer_has_the_lines_it_was_given(headers: list[tuple[str, str]], poison: str) -> None:
    headers = [(name, value + poison) for name, value in headers]
    try:
        head = answer_head(Response(200, headers), DATE, close=False)
    except (AnswerError, UnicodeEncodeError):
        return
    assert head.endswith(b"\r\n\r\n")
    lines = head[:-4].split(b"\r\n")
    assert len(lines) == 1 + len(headers) + 1 + (not any(name.lower() == "date" for name, _ in headers))
    assert b"\n" not in b"".join(lines)


def test_a_refusal_is_azures() -> None:
    response = refusal(BlobError(ErrorCode.INVALID_INPUT, reason="<&>"), lambda: 1.5)
    headers = dict(response.headers)
    assert response.status == 400
    assert isinstance(response.body, bytes)
    assert headers["x-ms-request-id"].encode() in response.body
    assert b"Time:1970-01-01T00:00:01.5000000Z" in response.body
    assert b"<Reason>&lt;&amp;&gt;</Reason>" in response.body


# --- deadlines ---


class Timeline(asyncio.SelectorEventLoop):
    """A loop whose clock is moved by the test."""

    now = 1000.0

    def time(self) -> float:
        return self.now


def test_a_deadline_moves_with_few_timers() -> None:
    loop = Timeline()
    expired: list[float] = []
    armed = 0
    call_at = loop.call_at

    def counted(*args: Any, **rest: Any) -> asyncio.TimerHandle:
        nonlocal armed
        armed += 1
        return call_at(*args, **rest)

    loop.call_at = counted  # type: ignore[method-assign, assignment]
    deadline = Deadline(loop, lambda: expired.append(loop.now))

    def at(time: float) -> None:
        loop.now = 1000.0 + time
        loop.call_soon(loop.stop)
        loop.run_forever()

    for tenth in range(100):
        at(tenth / 10)
        deadline.set(10)
    assert armed == 1
    at(10.5)
    assert not expired
    at(19.9)
    assert expired == [1019.9]
    deadline.set(5)
    deadline.set(1)
    at(21)
    assert len(expired) == 2
    deadline.set(1)
    deadline.clear()
    at(30)
    deadline.set(1)
    deadline.close()
    at(40)
    assert len(expired) == 2
    loop.close()


# --- pools ---


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await test()

    asyncio.run(bounded())


def test_results_and_errors_come_back() -> None:
    async def test() -> None:
        pool = DiskPool("test", 2, 4)
        assert await pool.run(divmod, 7, 2) == (3, 1)
        assert await pool.run(int, "ff", base=16) == 255
        with pytest.raises(ZeroDivisionError):
            await pool.run(divmod, 1, 0)
        assert pool.statistics().done == 3
        assert pool.statistics().running == pool.statistics().depth == 0
        pool.close()

    run(test)


def test_a_full_pool_sheds_and_recovers() -> None:
    async def test() -> None:
        gate = threading.Event()
        now = 5.0
        pool = DiskPool("test", 2, 3, clock=lambda: now)
        calls = [asyncio.create_task(pool.run(gate.wait)) for _ in range(5)]
        while pool.statistics().running < 2:  # noqa: ASYNC110 - threads tell no event
            await asyncio.sleep(0)
        with pytest.raises(BlobError) as refused:
            await pool.run(gate.wait)
        assert refused.value.code is ErrorCode.SERVER_BUSY
        assert refused.value.headers == (("Retry-After", "1"),)
        now = 7.0
        statistics = pool.statistics()
        assert (statistics.threads, statistics.running, statistics.depth, statistics.shed) == (2, 2, 3, 1)
        assert statistics.oldest_running_seconds == 2.0
        admitted = asyncio.create_task(pool.run_admitted(gate.wait))
        await asyncio.sleep(0)
        gate.set()
        assert await asyncio.gather(*calls, admitted) == [True] * 6
        assert await pool.run(len, "abc") == 3
        pool.close()

    run(test)


def test_a_cancelled_caller_waits_for_a_call_that_runs() -> None:
    """What the call uses may be freed in `finally`."""

    async def test() -> None:
        gate, started, over = threading.Event(), threading.Event(), threading.Event()
        freed_early: list[bool] = []

        def call() -> None:
            started.set()
            gate.wait()
            over.set()

        async def caller() -> None:
            try:
                await pool.run(call)
            finally:
                freed_early.append(not over.is_set())

        pool = DiskPool("test", 1, 4)
        task = asyncio.create_task(caller())
        while not started.is_set():  # noqa: ASYNC110 - a thread's event
            await asyncio.sleep(0)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert freed_early == [False]
        pool.close()

    run(test)


def test_a_call_that_waits_never_runs_after_its_caller_was_cancelled() -> None:
    async def test() -> None:
        gate = threading.Event()
        ran: list[int] = []
        pool = DiskPool("test", 1, 4)
        first = asyncio.create_task(pool.run(gate.wait))
        second = asyncio.create_task(pool.run(ran.append, 2))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert pool.statistics().depth + pool.statistics().running == 1
        gate.set()
        await first
        await pool.run(ran.append, 3)
        assert ran == [3]
        pool.close()

    run(test)


def test_a_detached_call_does_not_hold_its_caller() -> None:
    async def test() -> None:
        gate = threading.Event()
        pool = DiskPool("test", 1, 4)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await pool.run_detached(gate.wait)
        assert pool.statistics().running == 1
        gate.set()
        assert await pool.run_detached(len, "ab") == 2
        pool.close()

    run(test)


def test_metadata_does_not_wait_for_data() -> None:
    async def test() -> None:
        gate = threading.Event()
        pools = DiskPools(bounds=PoolLimits(1, 1, 4))
        blocked = asyncio.create_task(pools.data(gate.wait))
        await asyncio.sleep(0)
        assert await pools.metadata(len, "abc") == 3
        gate.set()
        assert await blocked
        pools.close()

    run(test)
