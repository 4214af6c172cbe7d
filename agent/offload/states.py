"""Where a blob is, and what happens to it next: one table, pure.

A row of the queue has a Residency and, while something keeps it from going on, a Hold:

    residency   meaning                                              bytes here   bytes in the cloud
    LOCAL       no rule sends it to the cloud                        yes          no
    QUEUED      this version is to be sent                           yes          not this version
    COPIED      sent, and verified there by length and MD5           yes          yes
    REMOTE      a stub here                                          no           yes
    GOING       deleted here, to be deleted in the cloud             no           yes

    residency   event        next       what it was
    any         CHANGED      QUEUED     written here, or by another program on the mount; a rule sends it
    any         KEPT         LOCAL      the same, and no rule sends it
    any         DELETED      GOING      deleted here, and a rule deletes it in the cloud; else the row goes
    QUEUED      COPIED       COPIED     the upload was verified, and the blob is still the version that was sent
    any         STUBBED      REMOTE     what is here is a stub of a version that the cloud has
    COPIED      EVICTED      REMOTE     its bytes were replaced by a stub, under the lock
    REMOTE      ARRIVED      COPIED     its bytes are here again, verified
    COPIED      ARRIVED      COPIED     they were, before it was noted that they had gone
    COPIED      LOST         QUEUED     the cloud does not have it any more (a reconciliation found out)

Bytes go away here only out of COPIED. A change always wins: an upload that ends after the blob changed leaves QUEUED.
A Hold is orthogonal: WAITING for its next try, OPERATOR for what a person has to mend (credentials, permission,
container), POISON for what will never go.

Rejected: holds as residencies, which makes a table of every pair; a residency for a blob on its way back: until its
bytes are here whole and verified, a stub is what is here, and a process that ends in a recall leaves nothing to mend.
"""

from enum import StrEnum
from typing import Final

#: The failure of a REMOTE row whose copy is not in the cloud: its bytes are nowhere. Only a comparison that finds the
#: copy, or the bytes themselves, take it back.
COPY_LOST: Final = "copy-lost"


class Residency(StrEnum):
    """Where the bytes of a blob's present version are."""

    LOCAL = "local"
    QUEUED = "queued"
    COPIED = "copied"
    REMOTE = "remote"
    GOING = "going"


class Hold(StrEnum):
    """Why a row is not worked on now."""

    NONE = ""
    WAITING = "waiting"
    OPERATOR = "operator"
    POISON = "poison"


class Event(StrEnum):
    """What happens to a blob."""

    CHANGED = "changed"
    KEPT = "kept"
    DELETED = "deleted"
    COPIED = "copied"
    EVICTED = "evicted"
    ARRIVED = "arrived"
    STUBBED = "stubbed"
    LOST = "lost"


_ANY: Final = tuple(Residency)

TABLE: Final[dict[tuple[Residency, Event], Residency]] = {
    **{(residency, Event.CHANGED): Residency.QUEUED for residency in _ANY},
    **{(residency, Event.KEPT): Residency.LOCAL for residency in _ANY},
    **{(residency, Event.DELETED): Residency.GOING for residency in _ANY},
    **{(residency, Event.STUBBED): Residency.REMOTE for residency in _ANY},
    (Residency.QUEUED, Event.COPIED): Residency.COPIED,
    (Residency.COPIED, Event.EVICTED): Residency.REMOTE,
    (Residency.REMOTE, Event.ARRIVED): Residency.COPIED,
    (Residency.COPIED, Event.ARRIVED): Residency.COPIED,
    (Residency.COPIED, Event.LOST): Residency.QUEUED,
}


def after(residency: Residency, event: Event) -> Residency | None:
    """Where a blob is after an event; None when the event says nothing of a blob that is there (it came too late)."""
    return TABLE.get((residency, event))
