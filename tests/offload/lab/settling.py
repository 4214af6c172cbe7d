"""Waiting until the cloud has what the node has, and judging then whether all is as it was promised."""

import re
import time
from collections.abc import Collection, Mapping
from typing import Final, TypeVar

from .edge import Edge
from .oracle import Finding, Ledger, compare, copies, look, lost, sent_twice, versions
from .traffic import Blob

SETTLE_SECONDS_MAX: Final = 120.0
POLL_SECONDS: Final = 0.1
#: What the node has kept in the cloud of a blob that was evicted and then replaced or deleted. It does that where it
#: does not know that a client did it: a power cut takes along what its workers had noted (docs/offload/guarantees.md).
KEPT: Final = re.compile(r"\.conflict-[0-9a-z]+\Z")

T = TypeVar("T")

#: A node that sends at once, finds what was copied onto its mount soon, and deletes in the cloud too.
EVERYTHING_AT_ONCE: Final = """
[offload]
scan_seconds = 10
[[offload.rules]]
upload = "now"
delete = "propagate"
delete_fuse_percent = 100.0
"""


def settle(node: Edge, container: str, unseen: Collection[Blob] = (), *, deletes: bool = True) -> float:
    """Wait until the cloud has each version that the node has, and with `deletes` no other blob; returns the seconds
    that it took. `unseen` blobs do not count. Raises TimeoutError with what is still different and the log's end."""
    begin = time.monotonic()
    while True:
        with node.service() as service:
            here = versions(service, container)
        with node.lab.straight() as cloud:
            there = _but_kept(copies(cloud, container))
        missing = {blob: each for blob, each in here.items() if blob not in unseen and there.get(blob) != each}
        surplus = there.keys() - here.keys() - set(unseen) if deletes else set()
        if not missing and not surplus:
            return time.monotonic() - begin
        if time.monotonic() - begin > SETTLE_SECONDS_MAX:
            raise TimeoutError(f"not in the cloud: {missing}; only there: {surplus}; {node.tail()}")
        time.sleep(POLL_SECONDS)


def resumed(node: Edge, since: float) -> float | None:
    """Return how many seconds after `since` (time.monotonic()) the cloud first did something for the node and the node
    was told; None when nothing was asked of it."""
    for exchange in node.lab.proxy.traffic.all():
        if exchange.when >= since and exchange.answered is not None and exchange.answered < 400:
            return exchange.when - since
    return None


def judge(node: Edge, container: str, ledger: Ledger) -> list[Finding]:
    """Return everything that is wrong once all has settled: differences, losses, versions that were sent twice."""
    with node.service() as service:
        here = look(service, [container])
    with node.lab.straight() as cloud:
        there = _but_kept(look(cloud, [container]))
    return [*compare(here, there), *lost(ledger, here), *sent_twice(node.lab.proxy.traffic)]


def _but_kept(there: Mapping[Blob, T]) -> dict[Blob, T]:
    return {blob: each for blob, each in there.items() if not KEPT.search(blob[1])}
