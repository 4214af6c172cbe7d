"""A worker's node from its settings: stores opened, keys decoded, threads ready; nothing listens yet.

What can fail here can never succeed with these settings, and is told as a BootError whose text is for the operator.
"""

import asyncio
import base64
import binascii
import threading
import time

from dataplane.blobapi.authorization import AccountKeys
from dataplane.ipc.gauges import GroupSizes
from dataplane.ipc.series import RequestSeries
from dataplane.ipc.settings import AccountSettings, LimitSettings, Settings
from dataplane.ipc.slots import Slot
from dataplane.server.access import AccessLog
from dataplane.server.application import Application
from dataplane.server.commits import LoopCommitter
from dataplane.server.diskpool import DiskPools, PoolLimits
from dataplane.server.handlers import HANDLERS, SYNC_HANDLERS
from dataplane.server.mountpools import MountPools
from dataplane.server.node import Account, Node
from dataplane.store.errors import FormatTooNew, StoreError
from dataplane.store.store import MappedDirectory, Store


class BootError(Exception):
    """This worker cannot serve with these settings; the text is one line for the operator, without secrets."""


def build_node(
    settings: Settings,
    loop: asyncio.AbstractEventLoop,
    pools: MountPools,
    slot: Slot | None = None,
    access_log: AccessLog | None = None,
) -> Node:
    """Open everything and join it. Raises BootError."""
    pools_of_mounts: dict[object, DiskPools] = {}
    committer = LoopCommitter(loop, pools_of_mounts.__getitem__, GroupSizes(slot).observe if slot else None)
    accounts = {each.name: _account(each, pools, pools_of_mounts, committer) for each in settings.accounts}
    observe = RequestSeries(slot).observe if slot is not None else None
    node = Node(settings, accounts, pools, committer, observe=observe, access_log=access_log)
    Application(node, HANDLERS, SYNC_HANDLERS)
    return node


def close_node(node: Node, seconds_max: float) -> bool:
    """Finish the writes that were handed over, then stop the stores' threads. Blocks until then, but no longer than so
    many seconds: False when a mount did not answer by then, and what is left can only be ended with the process."""
    until = time.monotonic() + seconds_max
    if not node.committer.stop(seconds_max):
        return False  # its stores' descriptors are in use
    closing = [
        threading.Thread(target=account.store.close, name="close", daemon=True) for account in node.accounts.values()
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
    pools: MountPools,
    pools_of_mounts: dict[object, DiskPools],
    committer: LoopCommitter,
) -> Account:
    try:
        keys = tuple(base64.b64decode(key, validate=True) for key in settings.keys)
    except binascii.Error:
        raise BootError(f"account {settings.name}: a key is not base64") from None
    if not keys or not all(keys):
        raise BootError(f"account {settings.name}: no key")
    store = _store(settings)
    pools_of = {}
    for container, mount in store.mounts():
        pools_of[container] = pools_of_mounts[mount] = pools.add(mount.root_fd, mount.capabilities.local)
    return Account(
        settings=settings,
        keys=AccountKeys(settings.name, keys),
        store=store,
        committer=committer,
        all_pools=pools.across(pools_of.values()),
        pools_of=pools_of,
        mapped=frozenset(each.name for each in settings.containers if each.path),
        read_only=frozenset(each.name for each in settings.containers if each.read_only),
    )


def _store(settings: AccountSettings) -> Store:
    mapped = tuple(
        MappedDirectory(each.name, each.path, each.read_only, each.durability == "strict")
        for each in settings.containers
        if each.path
    )
    durable = {each.name: each.durability == "strict" for each in settings.containers if not each.path}
    try:
        return Store(
            settings.root,
            records=settings.records,
            durable=settings.durability == "strict",
            mapped=mapped,
            durable_containers=durable,
        )
    except FormatTooNew as error:
        raise BootError(f"account {settings.name}: {settings.root} was written by a newer program: {error}") from None
    except (OSError, StoreError) as error:
        raise BootError(f"account {settings.name}: cannot open {settings.root}: {error}") from None
