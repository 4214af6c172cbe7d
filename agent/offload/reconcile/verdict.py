"""How a blob, its row and its copy are to each other: one word for each blob. Pure.

    here            the cloud, at its place        the row says            word
    the bytes       this version                   so                      in-step
    the bytes       this version                   nothing, or else        unrecorded      the row is made so
    the bytes       what somebody else wrote       it is the copy          in-step         a recall brought it here
    the bytes       nothing, or another version    it waits to be sent     waiting
    the bytes       nothing, or another version    nothing, or else        to-send         it is queued
    the bytes       what we sent, other tags       so                      to-send         it is queued; no ETag tells
    the bytes       nothing                        the cloud has it        missing         it is queued again
    the bytes       another version                the cloud has this one  other-content   the conflict policy decides
    the bytes       (no rule sends it)             anything                stays
    a stub          its bytes                      so                      in-step
    a stub          its bytes                      nothing, or else        unrecorded
    a stub          its bytes, other tags          so                      to-send
    a stub          nothing, or other bytes        anything                stub-without-copy    an alarm
    a stub          the same, but its bytes are    of another version      to-send         it was moved: who sends looks
                    kept beside (keep.py)          so                      in-step
    a stub that     -                              -                       lost-stub       planted again from the copy
     says nothing
    nothing         -                              it is here              row-without-blob     the uploader looks
    nothing         ours                           it is deleted here      waiting
    nothing         ours                           nothing                 copy-without-blob    `--restore` plants it
    nothing (its    ours                           nothing                 deleted-by-rule
     rule deletes it)
    another one     ours                           anything                older-copy
    -               somebody else's                -                       stranger
    -               ours, of no rule of today      -                       unplaced

A copy is this version when it has our ETag of it and everything else that an upload verifies (verify.difference): by
the same function, so that nobody finds something in step that the uploader would send. A copy that we did not write has
nothing of ours to compare: cloud-wins took it over, or a person put it back. Where the row names that very version of
the cloud as the copy of what is here, it is: a recall verified the bytes against it. What was sent after the cloud was
listed is not judged by that listing.
"""

from enum import StrEnum
from typing import Final, NamedTuple

from agent.offload.reconcile.listed import Entry
from agent.offload.rows import Row
from agent.offload.states import COPY_LOST, Hold, Residency
from agent.offload.verify import ETAG, NODE, difference, wanted
from dataplane.blobapi.model import LOST, BlobState, Remote

ANY_NODE: Final = "*"


class Kind(StrEnum):
    """One word for each blob."""

    IN_STEP = "in-step"
    STAYS = "stays"
    WAITING = "waiting"
    TO_SEND = "to-send"
    UNRECORDED = "unrecorded"
    MISSING = "missing"
    OTHER_CONTENT = "other-content"
    ROW_WITHOUT_BLOB = "row-without-blob"
    STUB_WITHOUT_COPY = "stub-without-copy"
    LOST_STUB = "lost-stub"
    COPY_WITHOUT_BLOB = "copy-without-blob"
    DELETED_BY_RULE = "deleted-by-rule"
    OLDER_COPY = "older-copy"
    STRANGER = "stranger"
    UNPLACED = "unplaced"


#: What a repair mends, or what a person has to. The others are as they should be, or nobody's business here.
DIFFERENCES: Final = frozenset({
    Kind.TO_SEND, Kind.UNRECORDED, Kind.MISSING, Kind.OTHER_CONTENT, Kind.ROW_WITHOUT_BLOB, Kind.STUB_WITHOUT_COPY,
    Kind.LOST_STUB,
})  # fmt: skip


class Here(NamedTuple):
    """A blob of the mount. `sent`: a rule sends it, with this tier ("": its own)."""

    state: BlobState
    sent: bool
    tier: str


def of_blob(here: Here, row: Row | None, entry: Entry | None, listed_since: int, now: int) -> Kind:
    """How a blob of the mount is. `entry`: what the cloud has at its place; `listed_since`: when the listing of the
    cloud began, ns since 1970."""
    recent = row is not None and listed_since <= row.copied_at <= now  # in the future: the clock was set back since
    remote = here.state.properties.remote
    if remote == LOST:
        return Kind.LOST_STUB
    if remote is not None:
        return _of_stub(here, remote, row, entry, recent)
    if not here.sent:
        return Kind.STAYS
    etag = here.state.properties.etag
    if entry is not None and is_version(here, entry):
        return Kind.IN_STEP if _says(row, Residency.COPIED, etag, etag, entry) else Kind.UNRECORDED
    if row is None:
        return Kind.TO_SEND
    if row.residency is Residency.COPIED and row.etag == etag == row.copied_etag:
        if recent or (entry is not None and _is_taken_over(here, row, entry)):
            return Kind.IN_STEP
        if entry is not None and _is_extra(here, row, entry):
            return Kind.TO_SEND
        return Kind.MISSING if entry is None else Kind.OTHER_CONTENT
    return Kind.WAITING if row.residency is Residency.QUEUED else Kind.TO_SEND


def _of_stub(here: Here, remote: Remote, row: Row | None, entry: Entry | None, recent: bool) -> Kind:
    if entry is None or not has_bytes(entry, remote):
        return Kind.IN_STEP if recent else Kind.STUB_WITHOUT_COPY
    etag = here.state.properties.etag
    changed = etag not in (remote.version, entry.seen.ours(ETAG))  # its properties were
    if here.sent and (changed or (row is not None and not recent and _is_extra(here, row, entry))):
        return Kind.WAITING if row is not None and row.residency is Residency.QUEUED else Kind.TO_SEND
    return Kind.IN_STEP if _says(row, Residency.REMOTE, etag, remote.version, entry) else Kind.UNRECORDED


def of_copy(entry: Entry, nodes: str) -> Kind | None:
    """A copy to which no blob here leads: whether it is none of ours. `nodes`: whose are, ANY_NODE for all. None: it
    is for the mount to say."""
    if nodes != ANY_NODE and entry.seen.ours(NODE).partition("/")[0] != nodes:
        return Kind.STRANGER
    return None


def of_absent(row: Row | None, *, deleted: bool) -> Kind:
    """A copy of ours whose blob is not here. One that the queue still knows was deleted just now, for all we know: what
    a client deletes is not brought back before that is through. `deleted`: its rule would delete it here at once."""
    if row is not None:
        return Kind.WAITING
    return Kind.DELETED_BY_RULE if deleted else Kind.COPY_WITHOUT_BLOB


def is_version(here: Here, entry: Entry) -> bool:
    """Whether the copy is the version that is here, with all that belongs to it."""
    state, seen = here.state, entry.seen
    if seen.ours(ETAG) != state.properties.etag or seen.md5 is None:
        return False
    want = wanted(state.size, seen.md5, state.properties, here.tier, seen.ours(NODE))
    return not difference(want, seen)


def _is_extra(here: Here, row: Row, entry: Entry) -> bool:
    """Whether tags or tier were changed here and nobody told of it: nobody touched the copy since we sent it, it is of
    this ETag, and is another all the same."""
    etag = here.state.properties.etag
    return entry.etag == row.cloud_etag and entry.seen.ours(ETAG) == etag and not is_version(here, entry)


def _is_taken_over(here: Here, row: Row, entry: Entry) -> bool:
    """Whether the copy that the row names was written by somebody else, and is as it was then."""
    theirs = entry.seen.ours(ETAG) != here.state.properties.etag
    return theirs and entry.etag == row.cloud_etag and entry.facts.size == here.state.size


def has_bytes(entry: Entry, remote: Remote) -> bool:
    """Whether the copy has the bytes that a stub stands for."""
    return (entry.facts.size, entry.seen.md5) == (remote.size, remote.md5)


def _says(row: Row | None, residency: Residency, etag: str, copied: str, entry: Entry) -> bool:
    """Whether the row says all of it."""
    return (
        row is not None
        and row.residency is residency
        and not (row.hold is Hold.OPERATOR and row.failure == COPY_LOST)
        and (row.etag, row.copied_etag, row.cloud_etag) == (etag, copied, entry.etag)
        and (row.cloud_container, row.cloud_name) == (entry.container, entry.name)
    )
