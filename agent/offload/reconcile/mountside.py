"""One page of a mount: each blob with its row and its copy, judged, and mended where that is asked for.

Nothing is called missing by a listing alone. The cloud is asked for each blob that the listing lacks: it may have been
sent since, or have its copy where today's rules would not put it. Before a row that was there already is changed, its
blob is looked at once more, after the row was read: a change that came in between has another revision, and wins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from agent.offload import keep
from agent.offload.amounts import time_ns
from agent.offload.cloud import Cloud
from agent.offload.database import Queue
from agent.offload.look import storable
from agent.offload.reconcile.ledger import LocalName, Name
from agent.offload.reconcile.listed import Entry
from agent.offload.reconcile.verdict import Here, Kind, of_blob
from agent.offload.rows import Adopted, Change, Copy, Failure, Row, Seen, Wandered
from agent.offload.rules import Decision, Rules, Subject, decide
from agent.offload.states import COPY_LOST, Hold, Residency
from agent.offload.transport import Errand
from dataplane.blobapi.model import LOST, BlobState
from dataplane.store.store import BlobRef, Store

PAGE_BLOBS: Final = 1_000
ROWS_COUNT_MAX: Final = 2 * PAGE_BLOBS  # of a page: rows whose blobs are gone are between its names
_NO_COPY: Final = (
    "the cloud does not have {container}/{name} any more, or has other bytes there: bring it back there (soft delete, "
    "a version, a backup), then `blobedge reconcile --repair`; or delete the blob here"
)


class MountPage(NamedTuple):
    """Blobs in the order of their names, and the name that the page after them begins with, None at the end."""

    states: list[BlobState]
    following: str | None

    def until(self, name: str) -> "MountPage":
        """The blobs before a name; the next page begins with that."""
        return MountPage([each for each in self.states if each.name < name], name)


def read_page(store: Store, container: str, start: str) -> MountPage:
    """A page of a container. Blocks. Raises StoreError, OSError."""
    page = store.list_blobs(container, prefix="", delimiter="", start=start, limit=PAGE_BLOBS)
    states = [item.state for item in page.items if item.state is not None and storable(item.state)]
    return MountPage(states, page.next_start or None)


@dataclass(slots=True)
class Blob:
    """One blob of the page, with what there is of it."""

    name: str
    here: Here | None
    decision: Decision | None
    row: Row | None
    place: Name | None = None  # in the cloud
    entry: Entry | None = None
    kind: Kind = Kind.IN_STEP

    @property
    def moved(self) -> bool:
        """Whether it may be a stub that was moved: its bytes are not where its rule puts those of its name."""
        target = self.decision.target if self.decision is not None else None
        stub = self.here is not None and self.here.state.properties.remote is not None
        return stub and target is not None and self.place != target[:2]


@dataclass(slots=True)
class Side:
    """One container of the mount. `since`: when the cloud's listing began, ns since 1970."""

    account: str
    container: str
    rules: Rules
    since: int
    blobs: list[Blob] = field(default_factory=list)

    def read(self, states: Sequence[BlobState], rows: dict[str, Row], now: int) -> None:
        """Take the page, and what the queue has of its names. A row that is left has no blob."""
        rest = dict(rows)
        for state in states:
            row = rest.pop(state.name, None)
            remote = state.properties.remote
            decision = decide(self.rules, self._subject(state), now)
            blob = Blob(state.name, Here(state, decision.upload, _tier(decision)), decision, row)
            if remote is not None and remote != LOST:
                blob.place = remote.container, remote.name
            elif remote is None and row is not None and row.copied_at and row.copied_etag == state.properties.etag:
                blob.place = row.cloud_container, row.cloud_name
            elif remote is None and decision.target is not None:
                blob.place = decision.target.container, decision.target.name
            self.blobs.append(blob)
        for name, row in rest.items():
            active = row.residency in (Residency.GOING, Residency.QUEUED)
            kind = Kind.WAITING if active else Kind.ROW_WITHOUT_BLOB
            self.blobs.append(Blob(name, None, None, row, kind=kind))

    def places(self) -> list[Name]:
        """Where in the cloud the copies are."""
        return [each.place for each in self.blobs if each.place is not None]

    def judge(self, entries: dict[Name, Entry], now: int) -> None:
        """Find the word for each blob."""
        for blob in self.blobs:
            if blob.here is not None:
                blob.entry = entries.get(blob.place) if blob.place is not None else None
                blob.kind = of_blob(blob.here, blob.row, blob.entry, self.since, now)

    def doubtful(self) -> list[Blob]:
        """Those of which the cloud is to be asked."""
        return [each for each in self.blobs if each.kind in (Kind.MISSING, Kind.STUB_WITHOUT_COPY)]

    def lost(self) -> list[LocalName]:
        """Stubs that say nothing."""
        return [(self.account, self.container, each.name) for each in self.blobs if each.kind is Kind.LOST_STUB]

    def found(self) -> list[tuple[Kind, str]]:
        """A word and a name for each blob."""
        at = f"{self.account}/{self.container}/"
        return [(each.kind, at + each.name) for each in self.blobs if each.kind is not Kind.LOST_STUB]

    def _subject(self, state: BlobState) -> Subject:
        modified = time_ns(state.properties.last_modified)
        return Subject(self.account, self.container, state.name, state.size, modified, modified)


def _tier(decision: Decision) -> str:
    return decision.target.tier if decision.target is not None else ""


def ask_cloud(blobs: Sequence[Blob], cloud: Cloud, errand: Errand) -> None:
    """Ask the cloud for what the listing lacks, and take back what was said of it too early. Blocks. Raises
    CloudFailed."""
    for blob in blobs:
        assert blob.place is not None
        assert blob.here is not None
        container, name = blob.place
        seen = cloud.look(
            cloud.blob(container, name), cloud.request("Get Blob Properties", "r", container, name), errand
        )
        remote = blob.here.state.properties.remote
        if remote is not None:
            if seen is not None and keep.is_of(remote, seen):
                blob.kind = Kind.IN_STEP
            elif keep.kept(cloud, remote, errand) is not None:  # where a recall finds it; who sends looks at the stub
                known = blob.row is not None and blob.row.copied_etag == remote.version
                blob.kind = Kind.IN_STEP if known else Kind.TO_SEND
        elif seen is not None and blob.row is not None:
            blob.kind = Kind.IN_STEP if seen.etag == blob.row.cloud_etag else Kind.OTHER_CONTENT


def still(blobs: Sequence[Blob], store: Store, container: str) -> list[Blob]:
    """Those that are here as they were when the page was read. Blocks. Raises StoreError."""
    same: list[Blob] = []
    for blob in blobs:
        state = store.stat_blob(BlobRef(container, blob.name))
        if blob.here is not None and state is not None and state.properties == blob.here.state.properties:
            same.append(blob)
    return same


def mender(side: Side, unchanged: Sequence[Blob], now: int) -> Callable[[Queue], dict[Kind, int]]:
    """What mends the rows of a page, as the queue's thread takes it. `unchanged`: as `still` found them."""
    same = {blob.name for blob in unchanged}

    def mend(queue: Queue) -> dict[Kind, int]:
        done: dict[Kind, int] = {}
        adopted, noted = [], []
        for blob in side.blobs:
            if blob.kind is Kind.UNRECORDED and blob.moved:
                queue.wandered(_wandered(side, blob))
                noted.append(_change(side, blob, now))  # it gets a copy of its own
            elif blob.kind is Kind.UNRECORDED and (blob.row is None or blob.name in same):
                adopted.append(_adopted(side, blob, now))
            elif blob.kind in (Kind.TO_SEND, Kind.ROW_WITHOUT_BLOB):
                noted.append(_change(side, blob, now))
            elif blob.kind in (Kind.MISSING, Kind.OTHER_CONTENT) and blob.row is not None:
                done[blob.kind] = done.get(blob.kind, 0) + queue.lost(blob.row)
                continue
            elif blob.kind is Kind.STUB_WITHOUT_COPY:
                _alarm(queue, side, blob, now)
                continue
            else:
                continue
            done[blob.kind] = done.get(blob.kind, 0) + 1
        queue.adopt(adopted)
        queue.note(noted)
        return done

    return mend


def _adopted(side: Side, blob: Blob, now: int) -> Adopted:
    """The row as the mount and the cloud say it."""
    assert blob.here is not None
    assert blob.entry is not None
    state, entry = blob.here.state, blob.entry
    remote = state.properties.remote
    residency = Residency.COPIED if remote is None else Residency.REMOTE
    version = state.properties.etag if remote is None else remote.version
    copy = Copy(version, entry.etag, entry.container, entry.name, now)
    revision = 0 if blob.row is None else blob.row.revision
    return Adopted(side.account, side.container, blob.name, residency, _seen(state), copy, revision)


def _wandered(side: Side, blob: Blob) -> list[Wandered]:
    """The blobs that it may have been made of, if it is a stub that was moved."""
    assert blob.here is not None
    remote = blob.here.state.properties.remote
    assert remote is not None
    others = side.rules.others((side.account, side.container, blob.name), remote.container, remote.name)
    return [Wandered(*each, remote.version) for each in others]


def _change(side: Side, blob: Blob, now: int) -> Change:
    turn = blob.decision.turn if blob.decision is not None and blob.decision.upload else (now, 0, 0)
    return Change(side.account, side.container, blob.name, now, *turn)


def _alarm(queue: Queue, side: Side, blob: Blob, now: int) -> None:
    """Have the row say that a person is needed; make it where there is none."""
    assert blob.here is not None
    remote = blob.here.state.properties.remote
    assert remote is not None
    row = queue.find(side.account, side.container, blob.name)
    if row is None:
        copy = Copy(remote.version, remote.etag, remote.container, remote.name, now)
        seen = _seen(blob.here.state)
        queue.adopt([Adopted(side.account, side.container, blob.name, Residency.REMOTE, seen, copy)])
        row = queue.find(side.account, side.container, blob.name)
    if row is not None and (blob.row is None or row.revision == blob.row.revision):
        text = _NO_COPY.format(container=remote.container, name=remote.name)
        queue.failed(row, Failure(COPY_LOST, text, Hold.OPERATOR))


def _seen(state: BlobState) -> Seen:
    return Seen(state.properties.etag, state.size, time_ns(state.properties.last_modified))


def rows_of(
    account: str, container: str, start: str, before: str | None, queue: Queue
) -> tuple[dict[str, Row], str | None]:
    """The first rows of a range of names, each in whole, and the name of the first that was left out; None: that is all
    of them. A container that lost its blobs may have a million."""
    known = queue.known(account, container, start, before, ROWS_COUNT_MAX + 1)
    rows = (queue.find(account, container, each.name) for each in known[:ROWS_COUNT_MAX])
    left = known[ROWS_COUNT_MAX].name if len(known) > ROWS_COUNT_MAX else None
    return {row.name: row for row in rows if row is not None}, left
