"""What the requests of one worker share: the accounts with their stores, the thread pools, the clock, chance.

Clock and chance are members, so that a test can put its own there; nothing below reads the system's.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Protocol, TypeVar

from dataplane.blobapi.authorization import AccountKeys, SasCache
from dataplane.server.backgroundcopies import BackgroundCopies
from dataplane.server.recalls import Recalls

if TYPE_CHECKING:
    from dataplane.ipc.series import Observe
    from dataplane.ipc.settings import AccountSettings, Settings
    from dataplane.journal.writer import Journal
    from dataplane.server.access import AccessLog
    from dataplane.server.application import Application
    from dataplane.server.diskpool import DiskPools
    from dataplane.server.heat import HeatFlusher
    from dataplane.server.lowspace import LowSpace
    from dataplane.server.mountpools import MountPools
    from dataplane.store.commit import Job
    from dataplane.store.store import Store

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Committer(Protocol):
    """Executes jobs in groups that are synced together."""

    async def submit(self, job: "Job[T]") -> T: ...

    def in_flight(self, pools: "DiskPools") -> int: ...

    def stop(self, seconds_max: float) -> bool: ...


@dataclass(slots=True)
class Account:
    """One storage account as this worker serves it. `mapped` and `read_only` are names of containers."""

    settings: "AccountSettings"
    keys: AccountKeys
    store: "Store"
    committer: Committer
    all_pools: "DiskPools"  # for what looks at every container, or at the account itself
    pools_of: "Mapping[str, DiskPools]"  # of mapped containers by name; "" is the account's root
    mapped: frozenset[str] = frozenset()
    read_only: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.settings.name

    def pools(self, container: str) -> "DiskPools":
        """The threads for a container's file system; for "", those for the whole account."""
        if not container:
            return self.all_pools
        return self.pools_of.get(container) or self.pools_of[""]


@dataclass(slots=True)
class Node:
    """One worker's world. `clock` counts nanoseconds since the epoch. `app` is set once the application exists."""

    settings: "Settings"
    accounts: Mapping[str, Account]
    pools: "MountPools"
    committer: Committer
    clock: Callable[[], int] = time.time_ns
    random: Random = field(default_factory=lambda: Random(SystemRandom().getrandbits(256)))  # ids, never secrets
    sas_cache: SasCache = field(default_factory=SasCache)
    copies: BackgroundCopies = field(default_factory=BackgroundCopies)
    observe: "Observe | None" = None  # counts a request in the slot
    access_log: "AccessLog | None" = None
    journal: "Journal | None" = None  # where changes are noted, when somebody reads that
    heat: "HeatFlusher | None" = None  # writes what was read to the journal
    low_space: "LowSpace | None" = None  # refuses writes on a full mount
    app: "Application" = field(init=False, repr=False)
    keys: Mapping[str, AccountKeys] = field(init=False)
    recalls: Recalls = field(init=False, repr=False)  # of bytes that are in the cloud
    _last_tick: int = 0
    _behind: set["asyncio.Future[None]"] = field(default_factory=set, repr=False)
    _request_prefix: str = field(init=False, repr=False)
    _request_count: int = 0

    def __post_init__(self) -> None:
        self.keys = {name: account.keys for name, account in self.accounts.items()}
        self.recalls = Recalls(self.settings.journal_directory)
        self._request_prefix = self.new_guid()[:24]

    def now(self) -> int:
        """Whole seconds since the epoch."""
        return self.clock() // 1_000_000_000

    def ticks(self) -> int:
        """100 ns since the epoch, larger on every call even when the clock stands still or steps back a little."""
        self._last_tick = max(self.clock() // 100, self._last_tick + 1)
        return self._last_tick

    def behind(self, pools: "DiskPools", function: Callable[[], None]) -> None:
        """Tidy up on a thread, with nobody waiting: what must not be lost does not belong here."""
        task = asyncio.ensure_future(pools.data_pool.run_admitted(function))
        self._behind.add(task)
        task.add_done_callback(self._tidied)

    def _tidied(self, task: "asyncio.Future[None]") -> None:
        self._behind.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.warning("tidying up failed; the sweeper will find it: %r", task.exception())

    def new_guid(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def new_request_id(self) -> str:
        """x-ms-request-id: in the form of a GUID, unique, not secret; counted, as chance costs a system call."""
        self._request_count += 1
        return f"{self._request_prefix}{self._request_count & 0xFFFFFFFFFFFF:012x}"
