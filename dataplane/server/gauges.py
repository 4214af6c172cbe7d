"""What a worker shows of itself with every heartbeat: connections, and the threads and commits of each file system.

These need not be exact to the request, so nothing on a request's way counts them: they are read from the server and the
pools twice a second.
"""

from dataplane.ipc.gauges import SEVERAL, FileSystemGauges, PoolGauges, show
from dataplane.ipc.slots import Counter, Slot
from dataplane.server.diskpool import DiskPool, DiskPools
from dataplane.server.listener import Server
from dataplane.server.node import Node

_NANOSECONDS: int = 1_000_000_000


class WorkerGauges:
    """Carries the server's and the pools' figures over to the worker's slot."""

    def __init__(self, server: Server, node: Node, slot: Slot) -> None:
        self._server = server
        self._node = node
        self._slot = slot
        self._accepted = self._open = self._shed = self._lost = self._recalled = 0

    def update(self) -> None:
        """Bring the slot up to date."""
        counters, pools = self._server.counters, list(self._node.pools)
        shed = sum(each.metadata_pool.shed + each.data_pool.shed for each in pools)
        self._slot.add(Counter.CONNECTIONS_ACCEPTED, counters.accepted - self._accepted)
        self._slot.add(Counter.CONNECTIONS_OPEN, counters.open - self._open)
        self._slot.add(Counter.REQUESTS_SHED, shed - self._shed)
        self._accepted, self._open, self._shed = counters.accepted, counters.open, shed
        recalled = self._node.recalls.answers
        self._slot.add(Counter.RECALLED, recalled - self._recalled)
        self._recalled = recalled
        if self._node.journal is not None:
            lost = self._node.journal.lost
            self._slot.add(Counter.JOURNAL_LOST, lost - self._lost)
            self._lost = lost
        show(self._slot, [self._file_system(each) for each in pools])

    def _file_system(self, pools: DiskPools) -> FileSystemGauges:
        in_flight = self._node.committer.in_flight(pools)
        return FileSystemGauges(
            pools.device or SEVERAL, _gauges(pools.metadata_pool), _gauges(pools.data_pool), in_flight
        )


def _gauges(pool: DiskPool) -> PoolGauges:
    now = pool.statistics()
    oldest_ns = round(now.oldest_running_seconds * _NANOSECONDS)
    return PoolGauges(now.threads, now.depth, now.running, oldest_ns)
