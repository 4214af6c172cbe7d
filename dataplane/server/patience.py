"""How long a request waits for storage that does not answer.

Guarantees: a handler that waits too long for one call of a mount (or for a thread to take it), or for one group commit,
is answered for: 500 OperationTimedOut, as Azure answers a request that it could not finish in time. The handler is
cancelled, but goes on until its call is over, since a thread in a hung system call cannot be stopped and still uses the
handler's descriptors and buffers; nothing of them is freed or used again before that. A long request whose calls are
answered, an upload of hours say, is never cut short.

The pools and the committer note their callers' waits in a context variable, so tasks that a handler starts count as the
handler. Rejected: a deadline for the whole request (as long as the largest upload takes), asyncio.timeout around each
call (the handler would free what the thread still uses).
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import Any, Final, TypeVar

from dataplane.blobapi.errors import BlobError, ErrorCode

T = TypeVar("T")


class Patience:
    """The waits of one handler. Times are seconds of the loop's clock."""

    __slots__ = ("_deadlines",)

    def __init__(self) -> None:
        self._deadlines: dict[object, float] = {}

    def begin(self, wait: object, deadline: float) -> None:
        self._deadlines[wait] = deadline

    def end(self, wait: object) -> None:
        del self._deadlines[wait]

    def deadline(self) -> float | None:
        """When the first of the waits will have been too long; None when there is none."""
        return min(self._deadlines.values(), default=None)


_of_this_handler: ContextVar[Patience | None] = ContextVar("patience", default=None)
_left: Final[set[asyncio.Task[Any]]] = set()  # handlers that were answered for


@contextmanager
def waiting(seconds: float) -> Iterator[None]:
    """The handler waits for storage in here and may do so for `seconds`."""
    patience = _of_this_handler.get()
    if patience is None:
        yield
        return
    wait = object()
    patience.begin(wait, asyncio.get_running_loop().time() + seconds)
    try:
        yield
    finally:
        patience.end(wait)


async def in_time(
    work: Coroutine[Any, Any, T], seconds: float, left: Callable[[], None], unwanted: Callable[[T], None]
) -> T:
    """Await `work`, whose waits take `seconds` at least before they are too long.

    Then `left` is called, and `unwanted` with the result, should the work have one nevertheless; the same is done with
    a result that comes after a cancellation. Raises BlobError OperationTimedOut, or what the work raises.
    """
    patience, context = Patience(), copy_context()
    context.run(_of_this_handler.set, patience)
    loop = asyncio.get_running_loop()
    task = loop.create_task(work, context=context)
    try:
        while not task.done():
            deadline = patience.deadline()
            if deadline is not None and deadline <= loop.time():
                _leave(task, unwanted)
                left()
                raise timed_out()
            await asyncio.wait([task], timeout=seconds if deadline is None else min(seconds, deadline - loop.time()))
    except asyncio.CancelledError:
        _leave(task, unwanted)
        await _over(task)
        raise
    return task.result()


def timed_out() -> BlobError:
    """500 OperationTimedOut."""
    return BlobError(ErrorCode.OPERATION_TIMED_OUT)


def _leave(task: "asyncio.Task[T]", unwanted: Callable[[T], None]) -> None:
    def over(task: "asyncio.Task[T]") -> None:
        _left.discard(task)
        if not task.cancelled() and task.exception() is None:
            unwanted(task.result())

    _left.add(task)
    task.add_done_callback(over)
    task.cancel()


async def _over(task: "asyncio.Task[Any]") -> None:
    """Wait until a cancelled handler is over. Further cancellations do not cut this short."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
