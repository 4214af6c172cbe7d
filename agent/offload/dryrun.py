"""What the rules would do with the blobs that are there: read, counted, nothing changed.

The mounts are opened as trees of somebody else, so that nothing is made in them, whoever asks. A listing is read page
by page, and a page is all that is held, besides the names of one directory. A blob that changes meanwhile is counted as
it was when the listing came by.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from agent.config import Account
from agent.offload.amounts import time_ns
from agent.offload.evict.space import Mode
from agent.offload.evict.verdict import Heat, Way, verdict
from agent.offload.rules import Decision, Rules, Subject, decide
from dataplane.blobapi.errors import BlobError
from dataplane.blobapi.model import BlobState
from dataplane.blobapi.uri import check_container_name
from dataplane.store import blobstate, listing
from dataplane.store.index import DirectoryIndex
from dataplane.store.mount import Mount
from dataplane.store.place import Place

PAGE_BLOBS: Final = 1_000
NAMES_COUNT_MAX: Final = 3  # shown of each rule's blobs


@dataclass(slots=True)
class Tally:
    """The blobs of one rule. Sizes are bytes.

    Leaving is said as if the cloud had them and nobody had read them since their last change: `leave` what would go
    now by its age, `evictable` what might whenever the disk fills up.
    """

    blobs: int = 0
    bytes: int = 0
    due_blobs: int = 0  # now; the others later, or never
    due_bytes: int = 0
    leave_blobs: int = 0
    leave_bytes: int = 0
    evictable_blobs: int = 0
    evictable_bytes: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, path: str, size: int, *, due: bool, leaves: bool, evictable: bool) -> None:
        """Count a blob."""
        self.blobs += 1
        self.bytes += size
        self.due_blobs += due
        self.due_bytes += size * due
        self.leave_blobs += leaves
        self.leave_bytes += size * leaves
        self.evictable_blobs += evictable
        self.evictable_bytes += size * evictable
        if len(self.names) < NAMES_COUNT_MAX:
            self.names.append(path)


def tally(
    rules: Rules, subjects: Iterable[Subject], now: int, counted: Callable[[int], None]
) -> tuple[list[Tally], Tally]:
    """One for each rule, and one for the blobs that no rule matches. `counted` is told how many were counted, from time
    to time and at the end."""
    of_rules, unmatched = [Tally() for _ in range(len(rules))], Tally()
    count = 0
    for count, subject in enumerate(subjects, 1):
        decision = decide(rules, subject, now)
        into = unmatched if decision.rule is None else of_rules[decision.rule]
        path = f"{subject.account}/{subject.container}/{subject.name}"
        leaves, evictable = (_leaves(decision, subject, now, mode) for mode in (Mode.NORMAL, Mode.EVICT))
        into.add(path, subject.size or 0, due=is_due(decision, now), leaves=leaves, evictable=evictable)
        if count % PAGE_BLOBS == 0:
            counted(count)
    counted(count)
    return of_rules, unmatched


def is_due(decision: Decision, now: int) -> bool:
    """Whether the blob would be sent now."""
    return decision.upload and decision.due_at <= now


def _leaves(decision: Decision, subject: Subject, now: int, mode: Mode) -> bool:
    """Whether its bytes would leave at once, in a mode of the mount."""
    heat = Heat(subject.modified_ns, 0, subject.noticed_ns)
    return verdict(decision.leaving, heat, now, mode, pinned=False).way is not Way.STAY


def subject_of(account: str, container: str, state: BlobState, now: int) -> Subject:
    """What the rules are asked of a blob on the mount. Nobody knows when it was noticed: taken for when it changed."""
    modified = time_ns(state.properties.last_modified)
    whole = not state.properties.foreign
    return Subject(account, container, state.name, state.size, modified, min(modified, now), whole)


def find(account: Account, container: str, name: str) -> BlobState | None:
    """A blob on the mount, None if there is none. Raises OSError, StoreError."""
    with _opened(account, container) as place:
        opened = blobstate.open_blob(place, name)
        if opened is None:
            return None
        os.close(opened[0].fd)
        return opened[1]


def blobs(account: Account, container: str, prefix: str) -> Iterator[BlobState]:
    """The blobs of a container in order of their names. Raises OSError, StoreError."""
    with _opened(account, container) as place, closing(DirectoryIndex(place.mount)) as index:
        start = ""
        while True:
            page = listing.list_blobs(place, index, prefix=prefix, delimiter="", start=start, limit=PAGE_BLOBS)
            yield from (item.state for item in page.items if item.state is not None)
            start = page.next_start
            if not start:
                return


def containers(account: Account) -> list[str]:
    """The containers of an account, in order. Raises OSError."""
    with os.scandir(account.root) as entries:
        found = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and _is_container(entry.name)}
    return sorted(found | {each.name for each in account.containers if each.path is not None})


def _is_container(name: str) -> bool:
    with suppress(BlobError):
        check_container_name(name)
        return True
    return False


@contextmanager
def _opened(account: Account, container: str) -> Iterator[Place]:
    """A container's place on a mount that is opened for reading only, and closed at the end."""
    elsewhere = next((each.path for each in account.containers if each.name == container and each.path), None)
    mount = Mount(elsewhere or account.root, account.records, read_only=True)
    with closing(mount):
        yield Place(container, mount, "" if elsewhere else f"{container}/", durable=False, read_only=True)
