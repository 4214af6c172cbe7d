"""Any interleaving of what may happen to the queue, against a model of plain dicts (Hypothesis finds the interleaving).

The model knows the table of states and these rules, and no SQL: a change makes a new revision of a blob and keeps only
an operator's hold; reports count for their revision only; what is said of the cloud is kept all the same.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from agent.offload.acts import Act
from agent.offload.cold import place_of
from agent.offload.database import Queue
from agent.offload.ingest import HEAT_GAP_NS
from agent.offload.queries import Filter
from agent.offload.rows import Adopted, Change, Copy, Failure, Read, Row, Seen, Turn
from agent.offload.states import Event, Hold, Residency, after

from .database_support import everything

Blob = tuple[str, str]  # container and name
BLOBS: list[Blob] = [(container, name) for container in ("c1", "c2", "\U0001f600") for name in ("a", "a/b", "\uffff")]
ACTIVE = {Residency.QUEUED, Residency.GOING}

blobs = st.sampled_from(BLOBS)
small = st.integers(0, 5)


@dataclass
class Known:
    """What the model knows of a blob."""

    revision: int
    modified: int
    changed: int
    due: int
    priority: int
    order: int
    residency: Residency = Residency.LOCAL
    hold: Hold = Hold.NONE
    etag: str = ""
    attempts: int = 0
    failure: str = ""
    copied_etag: str = ""
    cloud_etag: str = ""
    copied_at: int = 0
    read_at: int = 0
    pinned: bool = False
    read_before: int = 0

    def move(self, event: Event) -> bool:
        then = after(self.residency, event)
        if then is not None:
            self.residency = then
        return then is not None

    def stop(self, hold: Hold) -> None:
        if self.hold is not Hold.OPERATOR:
            self.hold = hold

    def bytes_again(self) -> None:
        """What was said of a stub does not hold what is written over it."""
        if self.residency is Residency.REMOTE:
            self.hold, self.failure = Hold.NONE, ""

    def forgive(self) -> None:
        self.hold, self.attempts, self.failure = Hold.NONE, 0, ""

    def forget_cloud(self) -> None:
        self.copied_etag, self.cloud_etag, self.copied_at = "", "", 0


def known_of(row: Row) -> Known:
    """What the queue says of a blob, in the model's words."""
    return Known(
        row.revision,
        row.modified_ns,
        row.changed_at,
        row.due_at,
        row.priority,
        row.order_key,
        row.residency,
        row.hold,
        row.etag,
        row.attempts,
        row.failure,
        row.copied_etag,
        row.cloud_etag,
        row.copied_at,
        row.read_at,
        row.pinned,
        row.read_before_at,
    )


class QueueMachine(RuleBasedStateMachine):
    """The queue beside the model. A bundle holds rows as they were taken, which may be old when they are reported."""

    taken = Bundle("taken")
    copies = Bundle("copies")  # those that were uploaded in time

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="queue-model."))
        self.queue = Queue(self.directory / "queue.db")
        self.model: dict[Blob, Known] = {}
        self.now = 100
        self.revision = 0
        self.offset = 0

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            self.queue.close()
            shutil.rmtree(self.directory)

    # What is told.

    @rule(changes=st.lists(st.tuples(blobs, small, small, small), max_size=6), reads=st.lists(blobs, max_size=2))
    def ingest(self, changes: list[tuple[Blob, int, int, int]], reads: list[Blob]) -> None:
        self.now += 1
        self.offset += len(changes)
        told = [
            Change("acct", *blob, self.now, self.now + later, priority, order)
            for blob, later, priority, order in changes
        ]
        self.queue.ingest("s", self.offset, told, [Read("acct", *blob, self.now) for blob in reads])
        self.revision += bool(told)
        for change in told:
            self.note(change)
        for blob in reads:
            if blob in self.model:
                self.read(self.model[blob])

    def read(self, known: Known) -> None:
        if self.now - known.read_at >= HEAT_GAP_NS:
            known.read_before = known.read_at
        known.read_at = max(known.read_at, self.now)

    def note(self, change: Change) -> None:
        blob = (change.container, change.name)
        known = self.model.setdefault(blob, Known(0, 0, 0, 0, 0, 0))
        if known.residency is not Residency.QUEUED:
            known.changed = change.when_ns
        known.bytes_again()
        known.move(Event.CHANGED)
        known.revision, known.modified, known.due = self.revision, change.when_ns, change.due_at
        known.priority, known.order = change.priority, change.order_key
        if known.hold is not Hold.OPERATOR:
            known.forgive()
            known.hold = Hold.WAITING if change.due_at > change.when_ns else Hold.NONE

    @rule(by=st.one_of(small, st.just(HEAT_GAP_NS)))
    def time_passes(self, by: int) -> None:
        self.now += by

    # Work.

    @rule(target=taken, limit=st.integers(1, 6), running=st.sets(blobs, max_size=3))
    def take(self, limit: int, running: set[Blob]) -> object:
        for known in self.model.values():
            if known.residency in ACTIVE and known.hold is Hold.WAITING and known.due <= self.now:
                known.hold = Hold.NONE
        ids = {self.row(blob).id for blob in running if blob in self.model}
        rows = self.queue.take(self.now, limit, ids)
        ready = {
            blob: known
            for blob, known in self.model.items()
            if known.residency in ACTIVE and known.hold is Hold.NONE and blob not in running
        }
        assert len(rows) == min(limit, len(ready))
        assert len({row.id for row in rows}) == len(rows)
        assert all(known_of(row) == ready[row.container, row.name] for row in rows)
        order = [row.priority for row in rows]
        assert order == sorted(known.priority for known in ready.values())[:limit]
        for container in {row.container for row in rows}:
            own = [(row.priority, row.order_key) for row in rows if row.container == container]
            every = sorted((known.priority, known.order) for blob, known in ready.items() if blob[0] == container)
            assert own == every[: len(own)]
        waits = [k.due for k in self.model.values() if k.residency in ACTIVE and k.hold is Hold.WAITING]
        assert self.queue.next_due() == min(waits, default=None)
        return multiple(*rows)

    def row(self, blob: Blob) -> Row:
        found = self.queue.find("acct", *blob)
        assert found is not None
        return found

    def of(self, row: Row) -> Known | None:
        """The model's blob, if it is still the revision of the row."""
        known = self.model.get((row.container, row.name))
        return known if known is not None and known.revision == row.revision else None

    def report(self, row: Row, done: bool, does: Callable[[Known], bool]) -> None:
        """The queue's answer to a report is the model's."""
        known = self.of(row)
        if known is None:
            assert not done
            return
        draft = replace(known)
        assert done == does(draft)
        if done:
            self.model[row.container, row.name] = draft

    @rule(row=taken, etag=st.sampled_from(["e1", "e2"]), later=small, priority=small)
    def changed(self, row: Row, etag: str, later: int, priority: int) -> None:
        turn = Turn(self.now + later, priority, 3)

        def does(known: Known) -> bool:
            if known.residency is not Residency.QUEUED:
                known.changed = self.now
            known.etag, known.modified, known.due = etag, self.now, turn.due_at
            known.priority, known.order = priority, 3
            known.bytes_again()
            known.stop(Hold.WAITING if later else Hold.NONE)
            return known.move(Event.CHANGED)

        self.report(row, self.queue.changed(row, Seen(etag, 5, self.now), turn, self.now), does)

    @rule(row=taken)
    def kept(self, row: Row) -> None:
        def does(known: Known) -> bool:
            known.etag, known.modified = "kept", self.now
            known.forgive()
            return known.move(Event.KEPT)

        self.report(row, self.queue.kept(row, Seen("kept", 5, self.now)), does)

    @rule(row=taken)
    def deleted(self, row: Row) -> None:
        def does(known: Known) -> bool:
            known.due, known.priority, known.order, known.changed = self.now, 1, 1, self.now
            known.attempts = 0
            known.stop(Hold.NONE)
            return known.move(Event.DELETED)

        self.report(row, self.queue.deleted(row, Turn(self.now, 1, 1), self.now), does)

    def in_cloud(self, row: Row, etag: str) -> None:
        """The cloud has a version, whichever one is here."""
        known = self.model.get((row.container, row.name))
        if known is not None:
            known.copied_etag, known.cloud_etag, known.copied_at = etag, f"cloud {etag}", self.now
            if known.revision != row.revision and known.residency is Residency.QUEUED and known.revision > row.revision:
                known.changed = max(known.changed, known.modified)

    @rule(target=copies, row=taken, etag=st.sampled_from(["e1", "e2"]))
    def copied(self, row: Row, etag: str) -> object:
        self.in_cloud(row, etag)

        def does(known: Known) -> bool:
            known.etag = etag
            known.forgive()
            return known.move(Event.COPIED)

        done = self.queue.copied(row, Copy(etag, f"cloud {etag}", "cc", "cn", self.now))
        self.report(row, done, does)
        return multiple(*[row] * done)

    @rule(row=st.one_of(copies, taken))
    def evicted(self, row: Row) -> None:
        self.report(row, self.queue.evicted(row), lambda known: known.move(Event.EVICTED))

    @rule(row=st.one_of(copies, taken))
    def lost(self, row: Row) -> None:
        def does(known: Known) -> bool:
            if not known.move(Event.LOST):
                return False
            known.changed = known.copied_at
            known.forget_cloud()
            known.forgive()
            return True

        self.report(row, self.queue.lost(row), does)

    @rule(blob=blobs, etag=st.sampled_from(["e1", "e2"]))
    def arrived(self, blob: Blob, etag: str) -> None:
        known = self.model.get(blob)
        self.revision += 1
        comes = known is not None and known.etag == etag and known.move(Event.ARRIVED)
        if known is not None and comes:
            known.forgive()
            known.revision = self.revision
        assert self.queue.arrived("acct", *blob, etag) == comes

    @rule(row=taken, etag=st.sampled_from(["e1", "e2"]))
    def stubbed(self, row: Row, etag: str) -> None:
        self.in_cloud(row, etag)

        def does(known: Known) -> bool:
            known.etag, known.modified = etag, self.now
            known.forgive()
            return known.move(Event.STUBBED)

        copy = Copy(etag, f"cloud {etag}", "cc", "cn", self.now)
        self.report(row, self.queue.stubbed(row, Seen(etag, 5, self.now), copy), does)

    @rule(
        row=st.one_of(taken, copies), residency=st.sampled_from([Residency.COPIED, Residency.REMOTE, Residency.LOCAL])
    )
    def adopt(self, row: Row, residency: Residency) -> None:
        blob, known = (row.container, row.name), self.of(row)
        copy = None if residency is Residency.LOCAL else Copy("e1", "cloud e1", "cc", "cn", self.now)
        self.revision += 1
        told = Adopted("acct", *blob, residency, Seen("e1", 5, self.now), copy, row.revision)
        done = self.queue.adopt([told])
        assert done == (known is not None or blob not in self.model)
        if not done:
            return
        if known is None:
            known = self.model[blob] = Known(0, 0, 0, 0, 0, 0)
        known.residency, known.revision, known.etag = residency, self.revision, "e1"
        known.modified = known.changed = self.now
        known.forget_cloud()
        if copy is not None:
            known.copied_etag, known.cloud_etag, known.copied_at = "e1", "cloud e1", self.now
        known.forgive()

    @rule(row=taken, hold=st.sampled_from(Hold), later=small)
    def failed(self, row: Row, hold: Hold, later: int) -> None:
        def does(known: Known) -> bool:
            known.attempts += 1
            known.failure = "class"
            known.stop(hold)
            if hold is Hold.WAITING:
                known.due = self.now + later
            return True

        self.report(row, self.queue.failed(row, Failure("class", "text", hold, self.now + later)), does)

    @rule(row=consumes(taken))
    def gone(self, row: Row) -> None:
        known = self.of(row)
        assert self.queue.gone(row) == (known is not None)
        if known is not None:
            del self.model[row.container, row.name]
        elif (row.container, row.name) in self.model:
            self.model[row.container, row.name].forget_cloud()

    # The operator, and the end of a process.

    @rule(act=st.sampled_from(Act), container=st.sampled_from(["c1", "c2", None]), prefix=st.sampled_from(["", "a"]))
    def act(self, act: Act, container: str | None, prefix: str) -> None:
        done = self.queue.act(act, Filter(container=container, prefix=prefix))
        assert done.after is None
        chosen = [blob for blob in self.model if container in (None, blob[0]) and blob[1].startswith(prefix)]
        assert done.rows == sum(self.acted(act, blob) for blob in chosen)

    def acted(self, act: Act, blob: Blob) -> bool:
        known = self.model[blob]
        match act:
            case Act.RETRY if known.hold is not Hold.NONE:
                known.forgive()
            case Act.RELEASE if known.hold is Hold.OPERATOR:
                known.forgive()
            case Act.HOLD if known.residency in ACTIVE and known.hold is not Hold.OPERATOR:
                known.hold, known.failure = Hold.OPERATOR, "held"
            case Act.DROP if known.residency in ACTIVE | {Residency.LOCAL}:
                del self.model[blob]
            case Act.PIN | Act.UNPIN if known.pinned is not (act is Act.PIN):
                known.pinned = act is Act.PIN
            case _:
                return False
        return True

    @rule()
    def restart(self) -> None:
        self.queue.close()
        self.queue = Queue(self.directory / "queue.db")
        assert not self.queue.fresh

    @invariant()
    def the_queue_is_the_model(self) -> None:
        if not hasattr(self, "queue"):
            return
        rows = everything(self.queue)
        assert [(row.container, row.name) for row in rows] == sorted(self.model, key=lambda b: (b[0], b[1].encode()))
        assert [known_of(row) for row in rows] == [self.model[row.container, row.name] for row in rows]
        assert self.queue.offsets() == ({"s": self.offset} if self.queue.offsets() else {})
        cold = sorted(
            (known.read_before, max(known.read_at, known.modified), blob)
            for blob, known in self.model.items()
            if (known.residency, known.hold, known.pinned) == (Residency.COPIED, Hold.NONE, False)
        )
        found = [((row.container, row.name), place_of(row)) for row in self.queue.candidates(len(BLOBS))]
        assert sorted((place.read_before_at, place.used_at, blob) for blob, place in found) == cold
        assert [place for _, place in found] == sorted(place for _, place in found)
        counted = {(total.container, total.residency, total.hold): total.blobs for total in self.queue.counts()}
        states = [(container, known.residency, known.hold) for (container, _), known in self.model.items()]
        assert counted == {state: states.count(state) for state in states}


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=60)  # 50 steps each
