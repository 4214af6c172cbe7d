"""The threads of a worker by file system, so that a mount that hangs holds up its own requests and no others.

Guarantees: trees on one file system (st_dev) share their threads, however many accounts and containers they are; trees
on different ones share none. Threads are made when there is work for them (diskpool.py), so an idle file system costs
none. What reads one file system and writes another (copies) or looks at all of an account's (List Containers) has
threads of its own for each such combination: they may be held up by any of its mounts, but hold up nobody else.

Files to send are found by their mount id in /proc, not by fstat, which itself waits for a hung NFS server.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from dataplane.server.diskpool import DEFAULT_LIMITS, DiskPools, PoolLimits

_MOUNT_ID: Final = "mnt_id:"


@dataclass(frozen=True, slots=True)
class MountPlace:
    """The file system that a tree is on (st_dev), and the mount, None without /proc."""

    device: int
    mount_id: int | None


def place_of(directory_fd: int) -> MountPlace:
    """Where an open tree is. Asks the file system; raises OSError."""
    return MountPlace(os.fstat(directory_fd).st_dev, _mount_id(directory_fd))


class MountPools:
    """All pools of one worker."""

    def __init__(self, bounds: PoolLimits = DEFAULT_LIMITS) -> None:
        self._bounds = bounds
        self._by_device: dict[int, DiskPools] = {}
        self._by_mount_id: dict[int, DiskPools] = {}
        self._across: dict[frozenset[DiskPools], DiskPools] = {}
        self.other: Final = DiskPools("other", bounds, local=False)  # files of mounts nobody told us of

    def add(self, place: MountPlace, local: bool) -> DiskPools:
        """The pools for a tree; `local`: its calls are short enough for the event loop."""
        device = place.device
        pools = self._by_device.get(device)
        if pools is None:
            name = f"{os.major(device)}:{os.minor(device)}"
            pools = self._by_device[device] = DiskPools(name, self._bounds, local=local, device=device)
        if place.mount_id is not None:
            self._by_mount_id[place.mount_id] = pools
        return pools

    def across(self, file_systems: Iterable[DiskPools]) -> DiskPools:
        """The pools for work that touches all of these at once: theirs, when they are one."""
        key = frozenset(file_systems)
        if len(key) == 1:
            return next(iter(key))
        pools = self._across.get(key)
        if pools is None:
            name = "+".join(sorted(each.name for each in key))
            local = all(each.local for each in key)
            pools = self._across[key] = DiskPools(name, self._bounds, local=local)
        return pools

    def of_file(self, fd: int) -> DiskPools:
        """The pools for an open file. Waits for no mount."""
        if len(self._by_device) == 1:
            return next(iter(self._by_device.values()))  # a mount inside of the tree counts as the tree
        return self._by_mount_id.get(_mount_id(fd) or 0, self.other)

    def full_for(self, fd: int) -> bool:
        """Whether one more read of an open file would have to wait behind too many."""
        return any(each.data_pool.full() for each in self) and self.of_file(fd).data_pool.full()

    def idle(self) -> bool:
        """Whether no call waits or runs."""
        return all(pool.idle() for each in self for pool in (each.metadata_pool, each.data_pool))

    def __iter__(self) -> Iterator[DiskPools]:
        yield from self._by_device.values()
        yield from self._across.values()
        yield self.other

    def close(self) -> None:
        """Let idle threads end. Joins nothing."""
        for pools in self:
            pools.close()


def _mount_id(fd: int) -> int | None:
    """proc(5), /proc/PID/fdinfo; None without /proc."""
    with suppress(OSError), open(f"/proc/self/fdinfo/{fd}") as file:
        for line in file:
            if line.startswith(_MOUNT_ID):
                return int(line.removeprefix(_MOUNT_ID))
    return None
