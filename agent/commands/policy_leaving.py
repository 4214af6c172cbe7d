"""What the rules say of how a blob's bytes leave the node: for scripts, and in a sentence.

The command knows the file and the rules, not the queue: when a blob was last read, and whether the cloud has it, are
not known here. So the times are the earliest ones.
"""

from collections.abc import Callable
from typing import Any

from agent.config_offload import Offload
from agent.offload.amounts import NANOSECONDS, span_text
from agent.offload.evict.space import Mode
from agent.offload.evict.verdict import Heat, Way, expires_at, verdict
from agent.offload.rules import Decision, Subject

ShowTime = Callable[[int], str]


def document(offload: Offload, subject: Subject, decision: Decision, now: int, shown: ShowTime) -> dict[str, Any]:
    """For the blob, as if it was not read since it was changed and the cloud had it. `at` is the earliest time, null
    where only the disk's use decides, or nothing does."""
    leaving = decision.leaving
    heat = Heat(subject.modified_ns, 0, subject.noticed_ns)
    normal = verdict(leaving, heat, now, Mode.NORMAL, pinned=False)
    expires = expires_at(leaving, subject.modified_ns, subject.noticed_ns, now)
    return {
        "evict": leaving.evict,
        "evict_at": None if normal.at is None or leaving.evict != "age" else shown(normal.at),
        "evict_days": leaving.evict_after_ns / NANOSECONDS / 86_400 if leaving.evict == "age" else None,
        "high_percent": offload.space_high_percent,
        "low_percent": offload.space_low_percent,
        "pinned": leaving.pinned,
        "delete_after_upload": leaving.delete_after_upload,
        "deleted_at": None if expires is None else shown(expires),
        "now": normal.way if normal.way is not Way.STAY else "",
        "why_not_now": normal.why,
    }


def sentence(said: dict[str, Any], *, uploaded: bool) -> str:
    """The same for a person, without the first word."""
    if said["pinned"]:
        return "never, it is pinned"
    if said["delete_after_upload"]:
        return "deleted here as soon as the cloud has it"
    parts = []
    if said["evict"] == "age":
        after = span_text(said["evict_days"] * 86_400)
        parts.append(f"evicted {after} after its last read or change, not before {said['evict_at']}")
        parts.append(f"sooner when the disk is {said['high_percent']:g} % full")
    elif said["evict"] == "space":
        parts.append(f"evicted when the disk is {said['high_percent']:g} % full, coldest first")
        parts.append(f"down to {said['low_percent']:g} %")
    if said["deleted_at"] is not None:
        parts.append(f"deleted here at {said['deleted_at']}" + (" if the cloud has it then" if uploaded else ""))
    return ", ".join(parts) or ("only by blobedge evict" if uploaded else "never")
