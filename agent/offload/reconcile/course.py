"""What is asked of a reconciliation, how far it is, and what it found so far: values that are kept in the queue.

Three phases, each in pages, each page with its place in one transaction:

    list     the cloud's listing goes into the ledger
    mount    each blob of the mount, its row and its copy are judged (verdict.py)
    cloud    each copy to which no blob led is judged

A kill costs the page that was under way. A listing that is older than LISTING_SECONDS_MAX is made again, as so much has
changed by then that every difference would have to be asked about.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from agent.offload.reconcile.verdict import DIFFERENCES, Kind

EXAMPLES_MAX: Final = 20  # of each word
LISTING_SECONDS_MAX: Final = 6 * 3600.0


class Phase(StrEnum):
    """In this order."""

    LIST = "list"
    MOUNT = "mount"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for. `account` and `container` "": all. `nodes`: whose copies count as ours, "" for this node's,
    "*" for everybody's. `fast`: nobody is to wait for it, so it does not sleep (the database is new)."""

    repair: bool = False
    restore: bool = False
    account: str = ""
    container: str = ""
    nodes: str = ""
    fast: bool = False

    @property
    def mends(self) -> bool:
        """Whether anything may be changed."""
        return self.repair or self.restore

    @property
    def doubts_queue(self) -> bool:
        """Whether the queue's file is checked first: an operator has everything mended. One that is damaged is made
        anew then, which is no answer to a question, nor to a doubt about a single container."""
        return self.mends and not self.fast and not self.account


@dataclass(frozen=True, slots=True)
class Course:
    """How far it is. In the phase LIST `container` is one of the cloud and `start` a marker of it, in MOUNT they are of
    the mount, in CLOUD of the cloud. `began`: ns since 1970, and what tells one reconciliation from the next.

    `failed`: accounts whose mount did not answer, with why: nothing is said of their blobs."""

    wish: Wish = Wish()
    began: int = 0
    phase: Phase = Phase.LIST
    account: str = ""
    container: str = ""
    start: str = ""
    listed: int = 0  # blobs of the cloud
    blobs: int = 0  # of the mount
    found: Mapping[str, int] = field(default_factory=dict)  # by word
    mended: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, list[str]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what else the operator has to know

    def enter(self, phase: Phase) -> "Course":
        """At the beginning of a phase."""
        return replace(self, phase=phase, account="", container="", start="")

    def at(self, account: str, container: str, start: str) -> "Course":
        """Further on."""
        return replace(self, account=account, container=container, start=start)

    def with_found(self, found: Iterable[tuple[Kind, str]], mended: Mapping[Kind, int]) -> "Course":
        """With what a page gave: a word and a name for each blob, and how many of each word were mended."""
        counts, done = dict(self.found), dict(self.mended)
        examples = {word: list(names) for word, names in self.examples.items()}
        for kind, name in found:
            counts[kind] = counts.get(kind, 0) + 1
            some = examples.setdefault(kind, []) if kind in _TOLD else []
            if len(some) < EXAMPLES_MAX:
                some.append(name)
        for kind, count in mended.items():
            done[kind] = done.get(kind, 0) + count
        return replace(self, found=counts, mended=done, examples=examples)

    @property
    def whole(self) -> bool:
        """Whether nothing was left out, and what differed was mended."""
        return self.wish.mends and not self.wish.account and not self.wish.container and not self.failed

    @property
    def left(self) -> int:
        """Differences that nobody has mended."""
        return sum(self.found.get(kind, 0) - self.mended.get(kind, 0) for kind in DIFFERENCES)

    def to_json(self) -> str:
        """For the queue's settings."""
        return json.dumps(asdict(self))

    def document(self) -> dict[str, Any]:
        """For people and programs: no cursor."""
        whole = asdict(self)
        return {**{name: value for name, value in whole.items() if name not in ("start",)}, "left": self.left}


_TOLD: Final = DIFFERENCES | {Kind.COPY_WITHOUT_BLOB, Kind.UNPLACED, Kind.STRANGER}


def from_json(text: str | None) -> Course | None:
    """What was kept; None for nothing, and for what another version of this program has kept."""
    try:
        kept = json.loads(text or "")
        wish, phase, notes = Wish(**kept.pop("wish")), Phase(kept.pop("phase")), tuple(kept.pop("notes"))
        return Course(wish=wish, phase=phase, notes=notes, **kept)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
