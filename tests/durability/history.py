"""What clients did to each blob, and which states of it are allowed after a crash. Pure.

The rule is linearizability of a register with a final read. A write takes effect at one moment between
being sent and being acknowledged; one that was not acknowledged takes effect at any moment after it was
sent, or never. So the state found at the end must be the result of a write that no acknowledged write
follows entirely. From that alone: an acknowledged write is never lost, a deleted blob stays deleted, and
nothing is found that nobody sent (torn content, or content of one write with metadata of another).

Rejected: "the last acknowledged write must be there", which is wrong as soon as two clients write the
same blob, and blind to a write that was in flight at the crash.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

LONG_AGO = float("-inf")


@dataclass(frozen=True, slots=True)
class Version:
    """Everything of a blob that a client set: two versions are one only if all of it is equal."""

    sha256: str
    length: int
    content_type: str
    metadata: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.length} bytes {self.sha256[:8]} {self.content_type} {dict(self.metadata).get('op', '-')}"


@dataclass(slots=True)
class Write:
    """One change of one blob; `result` is the state it leaves, None for a deletion.

    Times are of one monotonic clock, in seconds. `acknowledged_at` stays None when no success was heard.
    """

    blob: str
    kind: str
    result: Version | None
    sent_at: float
    acknowledged_at: float | None = None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Crash:
    """When the crash began and when it was over: a success heard later than `began_at` does not count as
    acknowledged (an fsync under way may return success although its log was dropped), a request sent
    later than `over_at` cannot have taken effect."""

    began_at: float
    over_at: float


@dataclass(frozen=True, slots=True)
class Found:
    """The state of a blob after recovery, with its ETag."""

    version: Version
    etag: str


@dataclass(slots=True)
class StagedBlocks:
    """Blocks put and never committed: those acknowledged before the crash must still be there."""

    blob: str
    blocks: list[tuple[str, bytes, float]] = field(default_factory=list)  # id, content, acknowledged_at

    def owed(self, crash: Crash) -> list[tuple[str, bytes]]:
        """Return id and content of each block that must have survived, in the order they were put."""
        return [(block_id, content) for block_id, content, at in self.blocks if at < crash.began_at]


def standing(blob: str, found: Found | None) -> Write:
    """Return the write that stands for a state known from an earlier observation."""
    version = found.version if found else None
    return Write(blob, "before", version, LONG_AGO, LONG_AGO, found.etag if found else None)


def is_acknowledged(write: Write, crash: Crash) -> bool:
    """Tell whether a success was heard before the crash began."""
    return write.acknowledged_at is not None and write.acknowledged_at < crash.began_at


def candidates(writes: Sequence[Write], crash: Crash) -> list[Write]:
    """Return the writes whose result may be the final state of their blob."""
    possible = [write for write in writes if write.sent_at < crash.over_at]
    acknowledged = [write for write in possible if is_acknowledged(write, crash)]
    latest_start = max((write.sent_at for write in acknowledged), default=LONG_AGO)

    def superseded(write: Write) -> bool:
        ended_at = write.acknowledged_at
        return is_acknowledged(write, crash) and ended_at is not None and ended_at < latest_start

    return [write for write in possible if not superseded(write)]


def fault(blob: str, writes: Sequence[Write], crash: Crash, found: Found | None) -> str | None:
    """Return what is wrong with the state found of one blob, or None.

    `writes` are all of this blob since the last observation, the standing state among them.
    """
    allowed = candidates(writes, crash)
    version = found.version if found else None
    matching = [write for write in allowed if write.result == version]
    if not matching:
        expected = " or ".join(sorted({f"[{write.kind}: {write.result}]" for write in allowed}))
        return f"{blob}: {diagnosis(writes, version)}: found [{version}], allowed {expected}"
    if found is None or not all(is_acknowledged(write, crash) and write.etag for write in matching):
        return None
    if found.etag not in {write.etag for write in matching}:
        return f"{blob}: ETag {found.etag} is none that was answered for this version"
    return None


def diagnosis(writes: Iterable[Write], version: Version | None) -> str:
    """Name the kind of damage."""
    if version is None:
        return "an acknowledged write is lost"
    if any(write.result == version for write in writes):
        return "an older version is back (lost update or resurrected blob)"
    if any(write.result and write.result.sha256 == version.sha256 for write in writes):
        return "properties or metadata belong to another version"
    return "torn: content that nobody sent"


def faults(writes: Iterable[Write], crash: Crash, found: dict[str, Found]) -> list[str]:
    """Check every blob that was written or is there; return all faults."""
    by_blob: dict[str, list[Write]] = {}
    for write in writes:
        by_blob.setdefault(write.blob, []).append(write)
    for blob in found.keys() - by_blob.keys():
        by_blob[blob] = [standing(blob, None)]
    checked = (fault(blob, by_blob[blob], crash, found.get(blob)) for blob in sorted(by_blob))
    return [text for text in checked if text is not None]
