"""What the load programs have in common: one operation after another until SIGTERM, one line of JSON for each.

A line is `{"seconds": S, "failure": TEXT or null, "notes": {...}}`. An operation that SIGTERM finds under way is
finished and counted: only then is "none failed" true of everything that was begun.
"""

import json
import signal
import time
from collections.abc import Callable, Mapping
from typing import Final

PACE_SECONDS: Final = 0.02  # between operations: the load shares two cores with the installation that it is to meet


def repeat(operation: Callable[[int], Mapping[str, object] | None]) -> None:
    """Run `operation(0)`, `operation(1)`, ...; what it returns are notes, what it raises is a failure."""
    stopped = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    index = 0
    while not stopped:
        begin = time.monotonic()
        notes, failure = None, None
        try:
            notes = operation(index)
        except Exception as error:  # every failure, of whatever kind, is what the load is there to find
            failure = f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - begin
        print(json.dumps({"seconds": seconds, "failure": failure, "notes": notes or {}}), flush=True)
        index += 1
        time.sleep(PACE_SECONDS)
