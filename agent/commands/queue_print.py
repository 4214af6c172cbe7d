"""What `blobedge queue` prints for people: rows, one blob, the whole. All of it fits 80 columns but names and reasons.

A reason gets a line of its own, so that it can be read and copied; as a column it would be a few characters wide.
Rejected: the fields of the database as they are. They are for programs, which have --json.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from agent.commands.terminal import counted, shown
from agent.offload.amounts import NANOSECONDS, size_text, span_text

RUNNING: Final = "running"  # the state of a queue that sends
HELD: Final = ("operator", "poison")  # until a person mends something
_ROW: Final = "{:9}  {:8}  {:>10}  {:20}  {:>5}  {}"
_FIELD: Final = "{:13} {}"
_WHERE: Final = {
    "local": "only here: no rule sends it",
    "queued": "this version is not in the cloud yet",
    "copied": "here and in the cloud, verified",
    "remote": "a stub here, the bytes are in the cloud: a read brings them back",
    "going": "deleted here, to be deleted in the cloud",
}


def blobs(count: int, one: str, more: str) -> str:
    """`1 blob is forgotten`, `2 blobs are forgotten`."""
    return f"{counted(count, 'blob')} {one if count == 1 else more}"


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """A line for each row, and below it why it is not sent, if something is known."""
    if not rows:
        print("no such blobs")
        return
    print(_ROW.format("residency", "hold", "size", "changed", "tries", "blob"))
    for row in rows:
        size = size_text(row["size"]) if row["etag"] else "-"  # not looked at yet
        cells = row["residency"], row["hold"], size, when(row["changed_at"]), row["attempts"]
        print(_ROW.format(*cells, _name(row)))
        if why := _why(row):
            print(f"    {why}")


def print_blob(row: dict[str, Any]) -> None:
    """Everything about one blob that a person can do something with."""
    said = {
        "blob": _name(row),
        "residency": f"{row['residency']}: {_WHERE.get(row['residency'], 'in the cloud')}",
        "hold": row["hold"],
        "why": _why(row),
        "tries": row["attempts"] or "",
        "size": size_text(row["size"]) if row["etag"] else "not looked at yet",
        "changed": when(row["changed_at"]),
        "ETag": shown(row["etag"]),
        "cloud": _copy(row),
        "cloud ETag": shown(row["cloud_etag"]),
        "last read": when(row["read_at"]) if row["read_at"] else "",
        "pinned": "stays here whatever the rules say" if row["pinned"] else "",
    }
    for field, text in said.items():
        if text:
            print(_FIELD.format(field, text))


def print_summary(status: dict[str, Any]) -> None:
    """How the whole queue is."""
    link, uploads = status["link"], status["uploads"]
    print(f"state        {_state_text(status)}")
    print(f"link         {link['state']} for {span_text(link['seconds'])}")
    print(f"uploads      {uploads['under_way']} under way, {uploads['width']} of {uploads['most']} allowed now")
    unprotected = counted(status["unprotected_blobs"], "blob")
    if not status["unprotected_blobs"]:
        print(f"unprotected  {unprotected}")
    else:  # the bytes of those that were not looked at yet are not known
        print(f"unprotected  {unprotected}, at least {size_text(status['unprotected_bytes'])}")
        print(f"oldest       changed {span_text(status['oldest_unprotected_seconds'])} ago")
        if status["drain_seconds"] is not None:
            print(f"forecast     all that is due is sent in about {span_text(status['drain_seconds'])}")
    speed = size_text(int(status["bytes_per_second"]))
    print(f"sent         {size_text(status['sent_bytes'])} since the sidecar's start, {speed}/s")
    for each in status["totals"]:
        size = size_text(each["bytes"])
        print(f"{each['residency']:12} {each['hold'] or '-':10} {counted(each['blobs'], 'blob'):>18} {size:>12}")
    for line in residency_lines(status):
        print(line)
    for name, text in status["blocked"].items():
        print(f"blocked      {shown(name)}: {shown(text)}")
    if status["last_failure"]:
        at = when(int(status["last_failure"]["at"] * NANOSECONDS))
        print(f"last failure {at}: {shown(status['last_failure']['text'])}")
    print(f"scan         {_scan_text(status['scan'])}")
    if status["scan"]["problem"]:
        print(f"scan         {shown(status['scan']['problem'])}")


def _state_text(status: dict[str, Any]) -> str:
    """The state, and whether all that is to be sent waits for a person."""
    due = {each["hold"] for each in status["totals"] if each["residency"] in ("queued", "going") and each["blobs"]}
    held = status["state"] == RUNNING and due and due <= set(HELD)
    return f"{status['state']}, but all that is to go is held for you" if held else shown(status["state"])


def residency_lines(report: dict[str, Any]) -> list[str]:
    """What came back, what left, and the disks that are filling up with what keeps blobs on them."""
    lines = []
    recalls, eviction = report.get("recalls", {}), report.get("eviction", {})
    if recalls.get("recalls"):
        failed = sum(recalls["failures"].values())
        lines.append(
            f"recalls: {counted(recalls['arrived'], 'blob')} back, {size_text(recalls['bytes'])},"
            f" {counted(recalls['readers'], 'reader')} now, {failed:,} failed"
        )
    if eviction.get("evicted_blobs"):
        lines.append(f"evicted: {counted(eviction['evicted_blobs'], 'blob')}, {size_text(eviction['evicted_bytes'])}")
    if eviction.get("expired_blobs"):
        lines.append(f"deleted here by rules: {counted(eviction['expired_blobs'], 'blob')}")
    for disk in eviction.get("disks", []):
        if disk["mode"] == "normal":
            continue
        use = f"{disk['bytes_percent']:.1f} % of its space, {disk['inodes_percent']:.1f} % of its inodes"
        stays = "; ".join(
            f"{count:,} {'stays' if count == 1 else 'stay'}: {reason}" for reason, count in disk["stays"].items()
        )
        stuck = ", nothing may leave it" if disk["stuck"] else ""
        lines.append(f"disk of {', '.join(disk['of'])}: {disk['mode']}, {use}{stuck}" + (f"; {stays}" if stays else ""))
    return lines


def when(at: int) -> str:
    """A time, ns since 1970 UTC; 0: never."""
    return datetime.fromtimestamp(at / NANOSECONDS, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if at else "-"


def _name(row: dict[str, Any]) -> str:
    return shown(f"{row['account']}/{row['container']}/{row['name']}")


def _why(row: dict[str, Any]) -> str:
    """The last failure, and the time of the next try or turn where one is known."""
    failure = shown(f"{row['failure']}: {row['error']}".removesuffix(": ")) if row["failure"] else ""
    if row["hold"] != "waiting":
        return failure
    return f"{failure}; again {when(row['due_at'])}" if failure else f"due {when(row['due_at'])}"


def _copy(row: dict[str, Any]) -> str:
    """Where the copy in the cloud is, and of which version."""
    if not row["copied_at"]:
        return ""
    version = "this version" if row["copied_etag"] == row["etag"] else "an older version"
    at = shown(f"{row['cloud_container']}/{row['cloud_name']}")
    return f"{at}: {version}, since {when(row['copied_at'])}"


def _scan_text(scan: dict[str, Any]) -> str:
    """What is said of the look at everything that is on the mounts."""
    if place := scan["running"]:
        at = shown(f"{place['account']}/{place['container']}")
        return f"looks at everything: {counted(place['blobs'], 'blob')} so far, now at {at}"
    if not scan["at"]:
        return "not looked at everything yet"
    return f"looked at everything, begun {when(int(scan['at'] * NANOSECONDS))}"
