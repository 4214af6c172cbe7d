"""Whether a blob that the cloud has may leave the node now, and if not, why. Pure.

A blob's last use is the later of its last read and its last change. A time in the future is not believed (a camera
whose clock is wrong, a clock that was set back): such a blob was used when its copy was made, for all we know.
"""

from enum import StrEnum
from typing import NamedTuple

from agent.offload.evict.space import Mode
from agent.offload.rules import Leaving


class Way(StrEnum):
    """What happens to a blob's bytes here."""

    STAY = "stay"
    EVICT = "evict"  # a stub takes their place
    DELETE = "delete"  # the blob goes, the copy in the cloud stays


class Heat(NamedTuple):
    """When a blob was used, in ns since 1970; `read_at` 0 for never."""

    modified_ns: int
    read_at: int
    copied_at: int

    def used_at(self, now: int) -> int:
        """Its last use."""
        return max(self.copied_at if each > now else each for each in (self.modified_ns, self.read_at))


class Verdict(NamedTuple):
    """`why` says why a blob stays, in few words that many blobs share. `at`: when it may leave by its age alone; None
    for never."""

    way: Way
    why: str = ""
    at: int | None = None


def verdict(leaving: Leaving, heat: Heat, now: int, mode: Mode, *, pinned: bool, asked: bool = False) -> Verdict:
    """What happens to a blob whose present version the cloud has. `pinned`: by an operator; `asked`: an operator wants
    it evicted now."""
    if pinned or leaving.pinned:
        return Verdict(Way.STAY, "pinned")
    if leaving.delete_after_upload:
        return Verdict(Way.DELETE, at=heat.copied_at)
    if (expires := expires_at(leaving, heat.modified_ns, heat.copied_at, now)) is not None and expires <= now:
        return Verdict(Way.DELETE, at=expires)
    if asked:
        return Verdict(Way.EVICT, at=now)
    if leaving.evict == "never":
        return Verdict(Way.STAY, "no rule evicts it")
    at = heat.used_at(now) + leaving.evict_after_ns if leaving.evict == "age" else None
    if mode is not Mode.NORMAL or (at is not None and at <= now):
        return Verdict(Way.EVICT, at=at)
    return Verdict(Way.STAY, "used lately" if leaving.evict == "age" else "the disk has room", at)


def expires_at(leaving: Leaving, modified_ns: int, known_ns: int, now: int) -> int | None:
    """When its time to live ends, None for never. `known_ns`: since when the blob is known here, for a Last-Modified in
    the future."""
    if leaving.ttl_ns is None:
        return None
    return (known_ns if modified_ns > now else modified_ns) + leaving.ttl_ns
