"""Copies to which no blob here leads: whose they are, which blob each was made of, what is there now. Restores them.

A copy is planted where nothing is, and over a stub that says nothing any more; never over anything else (the store
refuses that under the blob's lock). What is deleted here and waits to be deleted in the cloud is not brought back, nor
what its rule deletes here once the cloud has it: the same rule would delete the stub in its next pass.

The listing may be hours old by the time it gets here. So the cloud is asked for each copy that is to be planted, just
before, a batch at a time (`confirm`): a stub names the version that was there seconds ago, or is not planted. Rejected:
planting each page of the listing as it is read, as what is on the mount is known only after all of it was.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from agent.offload.amounts import NANOSECONDS, time_ns
from agent.offload.cloud import Cloud
from agent.offload.database import Queue
from agent.offload.evict.space import Mode
from agent.offload.evict.verdict import Heat, Way, verdict
from agent.offload.reconcile.course import Wish
from agent.offload.reconcile.ledger import LocalName
from agent.offload.reconcile.listed import Entry
from agent.offload.reconcile.origin import Origins
from agent.offload.reconcile.planting import modified_of, plant, properties_of
from agent.offload.reconcile.verdict import Kind, of_absent, of_copy
from agent.offload.rows import Adopted, Copy, Row, Seen
from agent.offload.rules import Rules, Subject, decide
from agent.offload.states import Residency
from agent.offload.transport import Errand
from dataplane.blobapi.errors import BlobError
from dataplane.blobapi.model import LOST, BlobProperties
from dataplane.store.errors import NameNotStorable, NotEvictable
from dataplane.store.store import BlobRef, Store

PAGE_BLOBS: Final = 500
PLANTED_TOGETHER: Final = 64  # of which the cloud is asked before the first is planted: a second or two
ASKS_COUNT_MAX: Final = 16  # at one time


@dataclass(slots=True)
class Left:
    """A copy that no blob led to. `local`: whose copy it is; None where that cannot be told."""

    entry: Entry
    local: LocalName | None
    kind: Kind | None
    row: Row | None = None
    planted: BlobProperties | None = None
    problem: str = ""

    @property
    def shown(self) -> str:
        """Its name for people, with why it was not restored, if it was to be."""
        name = "/".join(self.local) if self.local is not None else f"{self.entry.container}/{self.entry.name}"
        return f"{name} ({self.problem})" if self.problem else name

    @property
    def still_lost(self) -> bool:
        """A stub here that says nothing, and was not planted again: told at the end, with those without a copy."""
        return self.kind is Kind.LOST_STUB and self.planted is None


def sort_out(entries: Sequence[Entry], origins: Origins, nodes: str) -> list[Left]:
    """Whose they are. Pure."""
    found: list[Left] = []
    for entry in entries:
        kind = of_copy(entry, nodes)
        local = origins.origin(entry.container, entry.name) if kind is None else None
        found.append(Left(entry, local, Kind.UNPLACED if kind is None and local is None else kind))
    return found


def in_scope(left: Left, wish: Wish) -> bool:
    """Whether the wish is about it."""
    if left.local is None:
        return not wish.container
    account, container, _ = left.local
    return wish.account in ("", account) and wish.container in ("", container)


def settle(store: Store, copies: Sequence[Left], rules: Rules, now: int) -> None:
    """Look what is here in place of each of an account's copies. Blocks. Raises StoreError, OSError for a mount that
    fails; what one name is to blame for stays with that copy."""
    for left in copies:
        assert left.local is not None
        _, container, name = left.local
        try:
            state = store.stat_blob(BlobRef(container, name))
        except (NameNotStorable, BlobError) as error:
            left.kind, left.problem = Kind.UNPLACED, str(error)
            continue
        if state is None:
            left.kind = of_absent(left.row, deleted=_is_deleted_here(left.local, left.entry, rules, now))
        elif state.properties.remote == LOST:
            left.kind = Kind.LOST_STUB
        else:
            left.kind = Kind.OLDER_COPY
            _take_up(left, state.properties)


def _is_deleted_here(local: LocalName, entry: Entry, rules: Rules, now: int) -> bool:
    """Whether its rule would delete the blob here at once: after its upload, or as its time to live is over."""
    modified_ns = modified_of(entry) * NANOSECONDS
    leaving = decide(rules, Subject(*local, entry.facts.size, modified_ns, now), now).leaving
    return verdict(leaving, Heat(modified_ns, 0, now), now, Mode.NORMAL, pinned=False).way is Way.DELETE


def _take_up(left: Left, properties: BlobProperties) -> None:
    """A stub of this very version was planted, and the process died before it could say so."""
    remote, entry = properties.remote, left.entry
    if remote is not None and (remote.container, remote.name, remote.etag) == (entry.container, entry.name, entry.etag):
        left.kind, left.planted = Kind.COPY_WITHOUT_BLOB, properties


def to_plant(copies: Sequence[Left], wish: Wish) -> list[Left]:
    """Those of them that the wish is to plant. Pure."""
    return [
        left
        for left in copies
        if left.planted is None
        and ((left.kind is Kind.COPY_WITHOUT_BLOB and wish.restore) or (left.kind is Kind.LOST_STUB and wish.mends))
    ]


def confirm(copies: Sequence[Left], cloud: Cloud, errand: Errand) -> list[Left]:
    """Those that are in the cloud now as they were listed. Blocks. Raises CloudFailed."""
    with ThreadPoolExecutor(ASKS_COUNT_MAX) as pool:
        seen = list(pool.map(lambda left: cloud.head(left.entry.container, left.entry.name, errand), copies))
    for left, there in zip(copies, seen, strict=True):
        if there is None and left.kind is Kind.COPY_WITHOUT_BLOB:
            left.kind = None  # there is nothing to tell of it any more
        elif there is None or there.etag != left.entry.etag:
            left.problem = "its copy has changed since it was listed: run this again"
    return [left for left, there in zip(copies, seen, strict=True) if there and there.etag == left.entry.etag]


def plant_all(store: Store, copies: Sequence[Left]) -> None:
    """Make their stubs. Blocks. Raises StoreError, OSError, as `settle`."""
    for left in copies:
        assert left.local is not None
        _plant(store, left, *left.local[1:])


def _plant(store: Store, left: Left, container: str, name: str) -> None:
    properties = properties_of(left.entry)
    if properties is None:
        left.problem = "without an MD5, or no block blob: copy it by other means"
        return
    try:
        plant(store, container, name, properties)
        left.planted = properties
    except (NameNotStorable, BlobError, ValueError) as error:
        left.problem = f"it cannot be here: {error}"
    except NotEvictable as error:
        left.problem = error.reason


def read_rows(copies: Sequence[Left], queue: Queue) -> None:
    """What the queue has of them: before the mount is looked at, so that a change after it wins."""
    for left in copies:
        assert left.local is not None
        left.row = queue.find(*left.local)


def adopt(planted: Sequence[Left], queue: Queue) -> dict[Kind, int]:
    """The rows of what was planted; how many there are of each word."""
    done: dict[Kind, int] = {}
    for left in planted:
        assert left.kind is not None
        done[left.kind] = done.get(left.kind, 0) + 1
    now = time.time_ns()
    queue.adopt([_adopted(left, now) for left in planted])
    return done


def _adopted(left: Left, now: int) -> Adopted:
    assert left.local is not None
    assert left.planted is not None
    properties, entry = left.planted, left.entry
    seen = Seen(properties.etag, entry.facts.size, time_ns(properties.last_modified))
    copy = Copy(properties.etag, entry.etag, entry.container, entry.name, now)
    return Adopted(*left.local, Residency.REMOTE, seen, copy, 0 if left.row is None else left.row.revision)
