"""A worker's node from its settings: stores opened, keys decoded, threads ready; nothing listens yet.

What can fail here can never succeed with these settings, and is told as a BootError whose text is for the operator. A
mount that does not answer is no failure: its account is served as soon as it does (opening.py).
"""

import asyncio
import base64
import binascii
import threading
import time
from pathlib import Path

from dataplane.blobapi.authorization import AccountKeys
from dataplane.ipc.gauges import GroupSizes
from dataplane.ipc.series import RequestSeries
from dataplane.ipc.settings import AccountSettings, LimitSettings, Settings
from dataplane.ipc.slots import Slot
from dataplane.journal.writer import Journal
from dataplane.server.access import AccessLog
from dataplane.server.application import Application
from dataplane.server.commits import LoopCommitter
from dataplane.server.diskpool import DiskPools, PoolLimits
from dataplane.server.handlers import HANDLERS, SYNC_HANDLERS
from dataplane.server.heat import HeatFlusher
from dataplane.server.journaling import CommitJournal
from dataplane.server.lowspace import LowSpace
from dataplane.server.mountpools import MountPools
from dataplane.server.node import Account, Node
from dataplane.server.opening import ABSENT, BootError, Opening, OpenStore


def build_node(
    settings: Settings,
    loop: asyncio.AbstractEventLoop,
    pools: MountPools,
    slot: Slot | None = None,
    access_log: AccessLog | None = None,
) -> Node:
    """Open everything and join it. Raises BootError."""
    pools_of_mounts: dict[object, DiskPools] = {}
    accounts_of_mounts: dict[object, str] = {}
    journal = Journal(Path(settings.journal_directory), settings.worker) if settings.journal_directory else None
    committer = LoopCommitter(
        loop,
        pools_of_mounts.__getitem__,
        GroupSizes(slot).observe if slot else None,
        CommitJournal(journal, accounts_of_mounts) if journal is not None else None,
    )
    opening = Opening(settings.accounts, loop)
    accounts = {
        each.name: _account(each, opening, pools, pools_of_mounts, accounts_of_mounts, committer)
        for each in settings.accounts
    }
    observe = RequestSeries(slot).observe if slot is not None else None
    node = Node(settings, accounts, pools, committer, observe=observe, access_log=access_log, journal=journal)
    node.heat = HeatFlusher(journal) if journal is not None else None
    node.low_space = LowSpace(settings.reserve_percent, loop.time) if settings.reserve_percent else None
    Application(node, HANDLERS, SYNC_HANDLERS)
    return node


def close_node(node: Node, seconds_max: float) -> bool:
    """Finish the writes that were handed over, then stop the stores' threads. Blocks until then, but no longer than so
    many seconds: False when a mount did not answer by then, and what is left can only be ended with the process."""
    until = time.monotonic() + seconds_max
    if node.heat is not None:
        node.heat.stop(seconds_max)
    if not node.committer.stop(max(0.0, until - time.monotonic())):
        return False  # its stores' descriptors are in use
    closing = [
        threading.Thread(target=account.store.close, name="close", daemon=True)
        for account in node.accounts.values()
        if account.store is not ABSENT
    ]
    for thread in closing:
        thread.start()
    for thread in closing:
        thread.join(max(0.0, until - time.monotonic()))
    return not any(thread.is_alive() for thread in closing)


def pool_limits(settings: LimitSettings) -> PoolLimits:
    """The bounds of each file system's pools as the operator set them."""
    return PoolLimits(
        settings.metadata_threads_count,
        settings.data_threads_count,
        settings.pool_queue_count_max,
        settings.storage_seconds_max,
    )


def _account(
    settings: AccountSettings,
    opening: Opening,
    pools: MountPools,
    pools_of_mounts: dict[object, DiskPools],
    accounts_of_mounts: dict[object, str],
    committer: LoopCommitter,
) -> Account:
    try:
        keys = tuple(base64.b64decode(key, validate=True) for key in settings.keys)
    except binascii.Error:
        raise BootError(f"account {settings.name}: a key is not base64") from None
    if not keys or not all(keys):
        raise BootError(f"account {settings.name}: no key")
    account = Account(
        settings=settings,
        keys=AccountKeys(settings.name, keys),
        store=ABSENT,
        committer=committer,
        all_pools=pools.other,
        pools_of={"": pools.other},
        mapped=frozenset(each.name for each in settings.containers if each.path),
        read_only=frozenset(each.name for each in settings.containers if each.read_only),
    )

    def adopt(opened: OpenStore) -> None:
        pools_of = {}
        for container, mount, place in opened.mounts:
            pools_of[container] = pools_of_mounts[mount] = pools.add(place, mount.capabilities.local)
            accounts_of_mounts[mount] = settings.name
        account.all_pools, account.pools_of = pools.across(pools_of.values()), pools_of
        account.store = opened.store

    opening.then(settings.name, adopt)
    return account


__all__ = ["BootError", "build_node", "close_node", "pool_limits"]
