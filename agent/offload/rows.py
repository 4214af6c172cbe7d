"""What goes into the queue and comes out of it, as values.

All times are whole nanoseconds since 1970 UTC, all sizes bytes. Text is any valid Unicode; names order by their UTF-8
bytes, as in a listing of Azure. Nothing here, and so nothing in the database, is a secret.
"""

from typing import Final, NamedTuple

from agent.offload.states import Hold, Residency

ERROR_CHARACTERS_MAX: Final = 500  # of a failure's text: a row costs this at most, whatever a server answered


class Change(NamedTuple):
    """Somebody says that a blob may have changed: it is to be looked at, not before `due_at`.

    The rules that need only a name have given `priority` and `order_key`; a look at the blob may correct them.
    """

    account: str
    container: str
    name: str
    when_ns: int
    due_at: int
    priority: int
    order_key: int


class Read(NamedTuple):
    """A blob was read."""

    account: str
    container: str
    name: str
    when_ns: int


class Measured(NamedTuple):
    """How large a blob is that waits to be sent. `revision`: of its row, 0 for a row that is being made."""

    account: str
    container: str
    name: str
    size: int
    revision: int = 0


class Freed(NamedTuple):
    """The stub of a blob's `version` went, and is nowhere else: what the cloud has of it may go."""

    account: str
    container: str
    name: str
    version: str


class Wandered(NamedTuple):
    """A stub was found under another name: it was made of this blob's `version`."""

    account: str
    container: str
    name: str
    version: str


class Look(NamedTuple):
    """A container that is to be looked at as a whole, and the revision that it was noted with."""

    account: str
    container: str
    revision: int


class Seen(NamedTuple):
    """The version of a blob that a look at the store found."""

    etag: str
    size: int
    modified_ns: int


class Turn(NamedTuple):
    """When a row is worked on: not before `due_at`; then the lowest priority first, in it the lowest order_key."""

    due_at: int
    priority: int
    order_key: int


class Copy(NamedTuple):
    """A version that the cloud was verified to have: our ETag of it, the cloud's, and where it is."""

    etag: str
    cloud_etag: str
    cloud_container: str
    cloud_name: str
    copied_at: int


class Adopted(NamedTuple):
    """A blob as a look at the mount and the cloud found it: COPIED or REMOTE with its copy, or LOCAL.

    `revision` is that of the row that was there before the mount was looked at, 0 when there was none.
    """

    account: str
    container: str
    name: str
    residency: Residency
    seen: Seen
    copy: Copy | None = None
    revision: int = 0


class Failure(NamedTuple):
    """A try that failed: its class (agent/offload/failures.py), what was said, and what happens now.

    `next_try_at` is for Hold.WAITING; with Hold.NONE the row is due at once.
    """

    failure: str
    error: str
    hold: Hold
    next_try_at: int = 0


class Row(NamedTuple):
    """One blob, as the queue knew it when it was asked.

    `revision` stands for the version: it is higher after every change that was noted, and no two rows of a database's
    life share an (id, revision). What is reported of a row counts for that revision only.
    """

    id: int
    account: str
    container: str
    name: str
    residency: Residency
    hold: Hold
    revision: int
    etag: str
    size: int
    modified_ns: int
    changed_at: int
    due_at: int
    priority: int
    order_key: int
    attempts: int
    failure: str
    error: str
    copied_etag: str
    cloud_etag: str
    cloud_container: str
    cloud_name: str
    copied_at: int
    read_at: int
    pinned: bool
    read_before_at: int = 0  # the read before the last, at least HEAT_GAP_NS (ingest.py) earlier
    away: bool = False  # what the cloud has may be all there is of a stub, wherever that is by now: astray.py
