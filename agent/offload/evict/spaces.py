"""The file systems that the accounts are on: how full each is, in which mode, and whose blobs share it.

A container that is mapped onto a directory elsewhere counts where that directory is, and several accounts on one file
system share one use: what one of them frees is room for all. Each look asks every account by itself and not for long,
so that a mount that hangs keeps no other from being looked at; its last use stands meanwhile.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import trio

from agent.offload.delivery import MOUNT_ERRORS
from agent.offload.evict.space import Marks, Mode, Use, bytes_to_free, next_mode, use_of
from agent.offload.look import Stores
from dataplane.store.store import Store

log = logging.getLogger("blobedge.offload")

_UNKNOWN: Final = Use(0, 0)
USE_SECONDS_MAX: Final = 2.0  # for the uses of an account's mounts; one that takes longer hangs
ROOT: Final = ""  # stands for all containers of an account that are not mapped


class Part(NamedTuple):
    """Some blobs of an account: those of one mapped container, or those of all that are not mapped (ROOT)."""

    account: str
    mapped: str


@dataclass(slots=True)
class Disk:
    """A file system."""

    parts: set[Part] = field(default_factory=set)
    use: Use = _UNKNOWN
    mode: Mode = Mode.NORMAL
    since: float = field(default_factory=time.time)  # Unix time, of the mode
    stays: Counter[str] = field(default_factory=Counter)  # blobs of the last pass that could not go, by reason
    stuck: bool = False  # the last pass freed nothing, although something has to go and need not wait for the link


class Found(NamedTuple):
    """What a look at an account's mounts saw of one."""

    mapped: str
    device: int
    use: Use


class Spaces:
    """All of them."""

    def __init__(self, stores: Stores, marks: Marks, uses: Callable[[Store], list[Found]]) -> None:
        """`uses`: what a look at an account's mounts finds; blocking."""
        self._stores: Final = stores
        self._uses: Final = uses
        self._marks: Final = marks
        self._disks: dict[int, Disk] = {}
        self._of_part: dict[Part, Disk] = {}

    async def look(self) -> None:
        """Look at every mount."""
        seen: dict[int, Use] = {}

        async def of(account: str) -> None:
            try:
                found = await self._stores.call(account, self._uses, USE_SECONDS_MAX)
            except MOUNT_ERRORS as error:  # it hangs or is away: what was known stands
                log.debug("the use of account %s is not known: %s", account, error)
                return
            for each in found:
                seen[each.device] = each.use
                self._put(Part(account, each.mapped), each.device)

        async with trio.open_nursery() as nursery:
            for account in self._stores.names():
                nursery.start_soon(of, account)
        for device, use in seen.items():
            self._take(self._disks[device], use)

    def mode(self, account: str, container: str) -> Mode:
        """Of the file system that a container is on; NORMAL before the first look."""
        disk = self.disk(account, container)
        return Mode.NORMAL if disk is None else disk.mode

    def low(self, account: str, container: str) -> bool:
        """Whether it is in low space."""
        return self.mode(account, container) is Mode.LOW_SPACE

    def disk(self, account: str, container: str) -> Disk | None:
        """The file system that a container is on, None before the first look."""
        return self._of_part.get(Part(account, container)) or self._of_part.get(Part(account, ROOT))

    def part(self, account: str, container: str) -> Part:
        """Which part a container belongs to."""
        mapped = Part(account, container)
        return mapped if mapped in self._of_part else Part(account, ROOT)

    def __iter__(self) -> Iterator[Disk]:
        return iter(list(self._disks.values()))

    def to_free(self, disk: Disk) -> int:
        """Bytes that have to go, as of the last look."""
        return bytes_to_free(disk.mode, disk.use, self._marks)

    def document(self) -> list[dict[str, Any]]:
        """Each of them, for status; `since` is Unix time, `stays` says why blobs could not go, and how many."""
        return [
            {
                "of": sorted("/".join(filter(None, part)) for part in disk.parts),
                "mode": disk.mode.value,
                "since": disk.since,
                "bytes_percent": round(disk.use.bytes_percent, 2),
                "inodes_percent": round(disk.use.inodes_percent, 2),
                "to_free_bytes": self.to_free(disk),
                "stuck": disk.stuck,
                "stays": dict(disk.stays.most_common()),
            }
            for disk in self
        ]

    def _put(self, part: Part, device: int) -> None:
        """The part is on that file system now: at first, or since something else was mounted there."""
        before, now = self._of_part.get(part), self._disks.setdefault(device, Disk())
        if before is now:
            return
        now.parts.add(part)
        self._of_part[part] = now
        if before is not None:
            before.parts.discard(part)
            self._disks = {number: disk for number, disk in self._disks.items() if disk.parts}

    def _take(self, disk: Disk, use: Use) -> None:
        disk.use = use
        mode = next_mode(disk.mode, use, self._marks)
        if mode is disk.mode:
            return
        disk.mode, disk.since = mode, time.time()
        if mode is Mode.NORMAL:
            disk.stays.clear()
            disk.stuck = False
        level = logging.WARNING if mode is Mode.LOW_SPACE else logging.INFO
        whose = ", ".join(sorted("/".join(filter(None, part)) for part in disk.parts))
        log.log(level, "the disk of %s is %.1f %% full (inodes %.1f %%): %s", whose, *_percents(use), mode)


def _percents(use: Use) -> tuple[float, float]:
    return use.bytes_percent, use.inodes_percent


def uses(store: Store) -> list[Found]:
    """Of the mounts that we may change. Raises OSError."""
    return [
        Found(mapped, os.fstat(mount.root_fd).st_dev, use_of(os.fstatvfs(mount.root_fd)))
        for mapped, mount in store.mounts()
        if not mount.read_only
    ]
