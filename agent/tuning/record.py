"""The record of what was changed: the state file that a rollback needs, and the drop-in that a boot reads.

Both are replaced atomically and synced with their directories, so a power cut leaves the old or the new one. The state
file is written before the first change and has every value as it was before blobedge ever touched it: a second apply
keeps the first old values. Its directory is root's alone, as what is written there is later written
into the kernel by root.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.problems import OperatorError
from agent.tuning import knobs
from agent.tuning.knobs import Roots
from agent.tuning.settings import setting_of

VERSION: Final = 1
HEADER: Final = "# Written by `blobedge tune apply`; `blobedge tune rollback` removes it. Changes made here are lost."


@dataclass(frozen=True, slots=True)
class Entry:
    """A value of ours: what it was before the first apply, what it is to be, and why."""

    old: str
    new: str
    reason: str


@dataclass(frozen=True, slots=True)
class Record:
    """Entries by key, in the order of application."""

    profile: str
    entries: Mapping[str, Entry]


def state_file(roots: Roots) -> Path:
    """Where the record is kept."""
    return roots.state / "state.json"


def load(roots: Roots) -> Record | None:
    """The record; None if nothing is applied. Raises OperatorError for a file that is not ours to trust."""
    path = state_file(roots)
    try:
        document = json.loads(path.read_text())
        if document["version"] != VERSION:
            raise OperatorError(f"{path} is of another version of blobedge: roll back with the one that applied it")
        entries = {key: Entry(item["old"], item["new"], item["reason"]) for key, item in document["entries"].items()}
    except FileNotFoundError:
        return None
    except PermissionError:
        raise OperatorError(f"{path} cannot be read by this user: run it as root") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OperatorError(f"{path} is damaged: restore it from a backup, or remove it and reboot") from None
    strange = [key for key in entries if setting_of(key) is None]
    if strange:
        raise OperatorError(f"{path} names {strange[0]}, which blobedge never sets: restore the file from a backup")
    return Record(str(document["profile"]), entries)


def save(roots: Roots, record: Record | None) -> None:
    """Make both files say `record`; None removes them. The state file goes first, and away last. Raises OSError."""
    if record is None:
        _remove(roots.drop_in)
        _remove(state_file(roots))
        return
    check_drop_in(roots)
    entries = {key: {"old": item.old, "new": item.new, "reason": item.reason} for key, item in record.entries.items()}
    document = {"version": VERSION, "profile": record.profile, "entries": entries}
    roots.state.mkdir(mode=0o755, parents=True, exist_ok=True)
    _replace(state_file(roots), json.dumps(document, indent=1) + "\n")
    roots.drop_in.parent.mkdir(parents=True, exist_ok=True)
    _replace(roots.drop_in, drop_in_text(record))


def check_drop_in(roots: Roots) -> None:
    """Raises OperatorError if a file of somebody else has the drop-in's name."""
    try:
        first = roots.drop_in.read_text().partition("\n")[0]
    except FileNotFoundError:
        return
    if first != HEADER:
        raise OperatorError(f"{roots.drop_in} was not written by blobedge: rename it, then apply again")


def drop_in_text(record: Record) -> str:
    """What the drop-in of a record says."""
    lines = [HEADER]
    for key, entry in record.entries.items():
        if knobs.is_sysctl(key):
            lines += ["", f"# {entry.reason}; was: {entry.old or 'empty'}", f"{key} = {entry.new}"]
    return "\n".join(lines) + "\n"


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    os.replace(temporary, path)
    _sync_directory(path.parent)


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        return
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
