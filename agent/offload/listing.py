"""What is on a mount, a page at a time, and of each blob where its bytes are: for `blobedge ls`.

The mount is the truth, and the queue's row says what the mount cannot: a row that is of another version than the file
counts for its pin and its last read only. A blob that the queue has not heard of yet is QUEUED when a rule sends it.

Rejected: listing the queue (it lacks what no rule sends, and what another program has just copied onto the mount).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, NamedTuple

from agent.offload.amounts import NANOSECONDS, time_ns
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.database import Queue
from agent.offload.look import Stores, storable
from agent.offload.queries import Total
from agent.offload.rows import Row
from agent.offload.rules import Rules, Subject, decide
from agent.offload.states import Residency
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import LOST as LOST_STUB
from dataplane.blobapi.model import BlobState
from dataplane.store.listing import ListPage
from dataplane.store.store import Store

LOST: Final = "lost"  # a stub that does not say any more what it stands for: the reconciliation mends it
CONTAINERS_MAX: Final = 100_000  # of one account, in one answer


class Page(NamedTuple):
    """Entries in order, and the name that the next page begins with; None at the end."""

    entries: list[dict[str, Any]]
    after: str | None


@dataclass(frozen=True, slots=True)
class Listed:
    """A blob. `modified` is Last-Modified in seconds since 1970; `unprotected_since` and `read_at` are ns, 0 for never;
    `cloud` is container/name of the copy, "" without one."""

    name: str
    size: int
    modified: int
    residency: str
    hold: str = ""
    unprotected_since: int = 0
    cloud: str = ""
    pinned: bool = False
    read_at: int = 0


async def containers(stores: Stores, queue: AsyncQueue, account: str) -> list[dict[str, Any]]:
    """The containers of an account, with what the queue has of each in sum. Raises as Stores.call, and QueueError."""
    found, _ = await stores.call(account, lambda store: store.list_containers("", "", CONTAINERS_MAX))
    totals = await queue(lambda q: q.counts())
    mine: dict[str, list[Total]] = {}
    for each in totals:
        if each.account == account:
            mine.setdefault(each.container, []).append(each)
    return [{"container": each.name, **_sums(mine.get(each.name, []))} for each in found]


def _sums(totals: Sequence[Total]) -> dict[str, Any]:
    blobs, size = dict.fromkeys(Residency, 0), dict.fromkeys(Residency, 0)
    for each in totals:
        blobs[each.residency] += each.blobs
        size[each.residency] += each.bytes
    queued = [each.oldest for each in totals if each.residency is Residency.QUEUED]
    return {"blobs": blobs, "bytes": size, "unprotected_since": min(queued, default=0)}


@dataclass(frozen=True, slots=True)
class Place:
    """What is listed: names that begin with `prefix`; up to the next `/` unless `recursive`."""

    account: str
    container: str
    prefix: str = ""
    recursive: bool = False


async def blobs(
    stores: Stores, rules: Rules, queue: AsyncQueue, place: Place, start: str, limit: int, now: int
) -> Page:
    """One page from the name `start` on. `now`: ns since 1970. Raises as Stores.call, QueueError, and BlobError
    for a container that is not there."""

    def read(store: Store) -> ListPage:
        if store.container(place.container) is None:
            raise BlobError(ErrorCode.CONTAINER_NOT_FOUND)
        delimiter = "" if place.recursive else "/"
        return store.list_blobs(place.container, prefix=place.prefix, delimiter=delimiter, start=start, limit=limit)

    page = await stores.call(place.account, read)
    names = [item.state.name for item in page.items if item.state is not None and storable(item.state)]

    def rows(q: Queue) -> dict[str, Row]:
        found = (q.find(place.account, place.container, name) for name in names)
        return {row.name: row for row in found if row is not None}

    known = await queue(rows)
    entries: list[dict[str, Any]] = []
    for item in page.items:
        if item.state is None:
            entries.append({"prefix": item.prefix})
        else:
            row = known.get(item.state.name)
            entries.append(asdict(_listed(rules, place, item.state, row, now)))
    return Page(entries, page.next_start or None)


def _listed(rules: Rules, place: Place, state: BlobState, row: Row | None, now: int) -> Listed:
    """A blob with what its rule says: whether it is sent at all, and whether it is pinned."""
    modified = time_ns(state.properties.last_modified)
    noticed = row.modified_ns if row is not None else modified
    subject = Subject(place.account, place.container, state.name, state.size, modified, noticed)
    said = decide(rules, subject, now)
    listed = describe(state, row, storable(state) and said.upload)
    return replace(listed, pinned=listed.pinned or said.leaving.pinned)


def describe(state: BlobState, row: Row | None, sent: bool) -> Listed:
    """A blob as it is there, with what its row knows. `sent`: whether a rule sends it. Pure."""
    modified, remote = state.properties.last_modified, state.properties.remote
    residency = _residency(state, row, sent)
    queued = row is not None and row.residency is Residency.QUEUED
    listed = Listed(
        state.name,
        state.size,
        modified,
        residency,
        unprotected_since=modified * NANOSECONDS if residency == Residency.QUEUED else 0,
        cloud=f"{remote.container}/{remote.name}" if remote is not None and remote.container else "",
    )
    if row is None:
        return listed
    copy = f"{row.cloud_container}/{row.cloud_name}" if row.copied_at and row.cloud_name else ""
    since = row.changed_at if queued and listed.unprotected_since else listed.unprotected_since
    return replace(
        listed,
        hold=row.hold,
        unprotected_since=since,
        cloud=listed.cloud or copy,
        pinned=row.pinned,
        read_at=row.read_at,
    )


def _residency(state: BlobState, row: Row | None, sent: bool) -> str:
    """Where the bytes of the version that is there are. Pure."""
    remote = state.properties.remote
    if remote is not None:
        return LOST if remote == LOST_STUB else Residency.REMOTE
    if row is not None and row.copied_at and row.copied_etag == state.properties.etag:
        return Residency.COPIED
    if row is not None and row.residency is Residency.LOCAL and row.etag == state.properties.etag:
        return Residency.LOCAL
    if row is not None and row.residency is Residency.QUEUED:
        return Residency.QUEUED
    return Residency.QUEUED if sent else Residency.LOCAL
