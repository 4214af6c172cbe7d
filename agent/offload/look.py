"""What a blob is now, and what its rule says: the files on the mount are the truth, a row is only a reason to look.

The sidecar opens the accounts' stores itself. A store is made for several processes and several nodes at once, so one
more changes nothing: whatever a worker may do (sweep the trash, sort a large directory), any of them may. Each account
has LOOKS_COUNT_MAX threads of its own, and a call that takes too long is left behind in its thread: so a mount that
hangs holds up no other account. Its blobs stay queued, and are asked for again when it answers.

Rejected: asking a worker over its socket (the offload would have to hold account keys, and would wait for serving).
"""

import os
import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

import trio

from agent.config import Account
from agent.offload.amounts import kept_ns, time_ns
from agent.offload.rows import Row, Seen
from agent.offload.rules import Decision, Rules, Subject, decide
from dataplane.blobapi.model import BlobState
from dataplane.store.errors import StorageUnavailable
from dataplane.store.store import BlobRef, MappedDirectory, OpenBlob, Store

LOOKS_COUNT_MAX: Final = 4  # threads for each account
REMEMBERED_COUNT: Final = 1_024  # records of each mount: a look reads each once, and the sidecar has little memory
LOOK_SECONDS_MAX: Final = 10.0  # for one blob; a mount that takes longer hangs

T = TypeVar("T")


class Looked(NamedTuple):
    """A blob as it was found, and what its rule says. Who has it closes `blob`."""

    blob: OpenBlob
    seen: Seen
    decision: Decision


class Stores:
    """The stores of all accounts, each opened when it is first asked for."""

    def __init__(self, accounts: Sequence[Account]) -> None:
        self._accounts: Final = {each.name: each for each in accounts}
        self._limiters: Final = {name: trio.CapacityLimiter(LOOKS_COUNT_MAX) for name in self._accounts}
        self._locks: Final = {name: threading.Lock() for name in self._accounts}
        self._stores: dict[str, Store] = {}
        self._hung: set[str] = set()  # accounts of which a call was given up since one ended

    def names(self) -> list[str]:
        """The accounts."""
        return list(self._accounts)

    async def call(self, account: str, function: Callable[[Store], T], seconds_max: float = LOOK_SECONDS_MAX) -> T:
        """Call a function with an account's store, in a thread. Raises KeyError for an account that is not configured
        (any more), what opening a store raises (OSError, StoreError, FormatTooNew), what the function raises, and
        StorageUnavailable after `seconds_max`: at once while all threads of the account hang."""
        limiter = self._limiters[account]
        if account in self._hung and not limiter.available_tokens:
            raise StorageUnavailable("look")
        with trio.move_on_after(seconds_max):
            found = await trio.to_thread.run_sync(
                lambda: function(self._store(account)), limiter=limiter, abandon_on_cancel=True
            )
            self._hung.discard(account)
            return found
        self._hung.add(account)
        raise StorageUnavailable("look")

    async def look(self, rules: Rules, row: Row, now: int) -> tuple[Store, "Looked | None"]:
        """`look` at a row's blob, with the store that it is in. A blob that is found too late is closed again."""
        waiting = True

        def looked(store: Store) -> "tuple[Store, Looked | None]":
            found = look(store, rules, row, now)
            if found is not None and not waiting:
                found.blob.close()
            return store, found

        try:
            return await self.call(row.account, looked)
        finally:
            waiting = False

    def _store(self, account: str) -> Store:
        with self._locks[account]:
            if account not in self._stores:
                self._stores[account] = open_store(self._accounts[account])
            return self._stores[account]


def open_store(account: Account) -> Store:
    """The store of an account as it is configured. Raises OSError, StoreError, FormatTooNew."""
    strict = {each.name: (each.durability or account.durability) == "strict" for each in account.containers}
    return Store(
        account.root,
        records=account.records,
        durable=account.durability == "strict",
        mapped=[
            MappedDirectory(each.name, each.path, each.read_only, strict[each.name])
            for each in account.containers
            if each.path
        ],
        durable_containers={each.name: strict[each.name] for each in account.containers if not each.path},
        remembered_count=REMEMBERED_COUNT,
    )


def look(store: Store, rules: Rules, row: Row, now: int) -> Looked | None:
    """Open a row's blob, describe it, and ask the rules. None: there is no such blob. Raises StoreError, OSError."""
    blob = store.open_blob(BlobRef(row.container, row.name))
    if blob is None:
        return None
    try:
        seen = seen_of(blob)
        whole = not blob.state.properties.foreign
        subject = Subject(row.account, row.container, row.name, seen.size, seen.modified_ns, row.modified_ns, whole)
        return Looked(blob, seen, decide(rules, subject, now))
    except BaseException:
        blob.close()
        raise


def seen_of(blob: OpenBlob) -> Seen:
    """The version that is open. A file of another program has its mtime; else Last-Modified, in whole seconds."""
    properties = blob.state.properties
    modified = kept_ns(os.fstat(blob.fd).st_mtime_ns) if properties.foreign else time_ns(properties.last_modified)
    return Seen(properties.etag, blob.state.size, modified)


def storable(state: BlobState) -> bool:
    """Whether the queue can hold the name: a file whose name is not UTF-8 has no name in Azure either."""
    return is_text(state.name)


def is_text(name: str) -> bool:
    """Whether a name is valid Unicode."""
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)
