"""A worker's node from its settings: stores opened, keys decoded, threads ready; nothing listens yet.

What can fail here can never succeed with these settings, and is told as a BootError whose text is for the operator.
"""

import asyncio
import base64
import binascii
from collections.abc import Callable

from dataplane.blobapi.authorization import AccountKeys
from dataplane.ipc.series import RequestSeries
from dataplane.ipc.settings import AccountSettings, Settings
from dataplane.ipc.slots import Counter, Slot
from dataplane.server.access import AccessLog
from dataplane.server.application import Application
from dataplane.server.commits import LoopCommitter
from dataplane.server.diskpool import DiskPools
from dataplane.server.handlers import HANDLERS, SYNC_HANDLERS
from dataplane.server.node import Account, Node
from dataplane.store.errors import FormatTooNew, StoreError
from dataplane.store.store import MappedDirectory, Store


class BootError(Exception):
    """This worker cannot serve with these settings; the text is one line for the operator, without secrets."""


def build_node(
    settings: Settings,
    loop: asyncio.AbstractEventLoop,
    pools: DiskPools,
    slot: Slot | None = None,
    access_log: AccessLog | None = None,
) -> Node:
    """Open everything and join it. Raises BootError."""

    def committed(jobs: int) -> None:
        if slot is not None:
            slot.add(Counter.COMMITS)
            slot.add(Counter.COMMITTED_WRITES, jobs)

    accounts = {each.name: _account(each, loop, pools, committed) for each in settings.accounts}
    observe = RequestSeries(slot).observe if slot is not None else None
    node = Node(settings, accounts, pools, observe=observe, access_log=access_log)
    Application(node, HANDLERS, SYNC_HANDLERS)
    return node


def close_node(node: Node) -> None:
    """Finish the writes that were handed over, then stop the stores' threads. Blocks."""
    for account in node.accounts.values():
        account.committer.stop()
        account.store.close()


def _account(
    settings: AccountSettings, loop: asyncio.AbstractEventLoop, pools: DiskPools, committed: Callable[[int], None]
) -> Account:
    try:
        keys = tuple(base64.b64decode(key, validate=True) for key in settings.keys)
    except binascii.Error:
        raise BootError(f"account {settings.name}: a key is not base64") from None
    if not keys or not all(keys):
        raise BootError(f"account {settings.name}: no key")
    return Account(
        settings=settings,
        keys=AccountKeys(settings.name, keys),
        store=_store(settings),
        committer=LoopCommitter(loop, pools, f"commit-{settings.name}", committed),
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
