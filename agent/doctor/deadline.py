"""Calls that may hang, with a deadline: each runs in a daemon thread of its own that is given up when it is late.

A thread pool was rejected: the interpreter joins a pool's threads at its end, so one hung NFS server would hang the
command that is to report it. A given-up thread costs its stack until the process ends.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

Result = TypeVar("Result")


def call(function: Callable[[], Result], seconds: float) -> Result:
    """Return what the function returns, or raise what it raises. Raises TimeoutError after `seconds`."""
    return _wait(_start(function), time.monotonic() + seconds)


def call_all(functions: Mapping[str, Callable[[], Result]], seconds: float) -> dict[str, Result | Exception]:
    """Run all side by side under one deadline; what failed or was late has its exception as result."""
    end = time.monotonic() + seconds
    running = {name: _start(function) for name, function in functions.items()}
    results: dict[str, Result | Exception] = {}
    for name, outcome in running.items():
        try:
            results[name] = _wait(outcome, end)
        except Exception as error:
            results[name] = error
    return results


def _start(function: Callable[[], Result]) -> "queue.SimpleQueue[Result | _Raised]":
    outcome: queue.SimpleQueue[Result | _Raised] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put(function())
        except Exception as error:
            outcome.put(_Raised(error))

    threading.Thread(target=run, daemon=True, name="doctor").start()
    return outcome


class _Raised:
    """An exception on its way to the caller's thread."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _wait(outcome: "queue.SimpleQueue[Result | _Raised]", end: float) -> Result:
    try:
        result = outcome.get(timeout=max(end - time.monotonic(), 0))
    except queue.Empty:
        raise TimeoutError("no answer in time") from None
    if isinstance(result, _Raised):
        raise result.error
    return result
