"""The only module that changes a machine: apply, apply again at boot, verify, roll back.

Order of an apply: record old values on disk, then change, then look. What fails on the way undoes this apply and leaves
the record as it was. A process killed in the middle leaves a record that names every value it may have changed, so a
rollback is exact from any point. One at a time, by a lock beside the record.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.problems import OperatorError, Problem
from agent.tuning import combine, knobs, record
from agent.tuning.knobs import Roots
from agent.tuning.planner import Plan
from agent.tuning.record import Entry, Record
from agent.tuning.settings import order_of

NO_PRIVILEGE: Final = "changing kernel settings needs root: sudo blobedge tune ..."


@dataclass(frozen=True, slots=True)
class Drift:
    """A value of ours that is not what was applied; `found` None: it is not there any more."""

    key: str
    expected: str
    found: str | None


def apply(roots: Roots, plan: Plan) -> None:
    """Make the plan true, or leave everything as it was. Raises OperatorError, in one line."""
    with _alone(roots):
        before = record.load(roots)
        with _refusals():
            record.check_drop_in(roots)
            merged = _merged(roots, before, plan)
            if not merged.entries:
                return
            done: list[tuple[str, str]] = []
            try:
                record.save(roots, merged)
                for change in plan.changes:
                    done.append((change.key, change.old))
                    _set(roots, change.key, change.new)
            except BaseException:
                stuck = _undo(roots, done)
                if stuck:  # the record stays, as the only one who knows their old values
                    raise OperatorError(f"cannot undo {', '.join(stuck)}: blobedge tune rollback") from None
                record.save(roots, before)
                raise


def apply_recorded(roots: Roots) -> list[str]:
    """At boot: set what was applied before; what is better by then, or somebody's choice, stays.

    Writes no file, as its unit may not. Returns keys whose device is not there (yet). What the kernel refuses keeps
    nothing else from being set. Raises OperatorError with every refusal.
    """
    with _alone(roots), _refusals():
        recorded = record.load(roots)
        if recorded is None:
            return []
        found = {key: knobs.read(roots, key) for key in recorded.entries}
        wanted = {
            key: combine.at_boot(key, value, recorded.entries[key].new)
            for key, value in found.items()
            if value is not None
        }
        _set_all(roots, {key: value for key, value in wanted.items() if value != found[key]})
        return [key for key, value in found.items() if value is None]


def verify(roots: Roots) -> list[Drift]:
    """What is not as it was applied; empty too if nothing is applied. As any user; what is hidden is no drift."""
    recorded = record.load(roots)
    if recorded is None:
        return []
    visible = {key: entry for key, entry in recorded.entries.items() if not knobs.hidden(key)}
    found = {key: knobs.read(roots, key) for key in visible}
    drift = [Drift(key, entry.new, found[key]) for key, entry in visible.items() if found[key] != entry.new]
    return drift + _drop_in_drift(roots, recorded)


def rollback(roots: Roots) -> list[str]:
    """Restore every value from before the first apply, and forget the record.

    Returns the keys that are left: not there any more, or somebody else's qdisc by now. Does nothing without a record.
    What the kernel refuses does not keep the rest from being restored. Raises OperatorError with every refusal; the
    record is then kept, so that it can be tried again.
    """
    with _alone(roots), _refusals():
        recorded = record.load(roots)
        if recorded is None:
            return []
        record.check_drop_in(roots)
        left: list[str] = []
        restored: dict[str, str] = {}
        for key, entry in reversed(list(recorded.entries.items())):
            found = knobs.read(roots, key)
            if found is None or knobs.is_foreign(key, found):
                left.append(key)
            elif found != entry.old:
                restored[key] = entry.old
        _set_all(roots, restored)
        record.save(roots, None)
        return left


def _merged(roots: Roots, before: Record | None, plan: Plan) -> Record:
    """The record after this plan: first old values are kept, and so is what is better by now than what we had set."""
    known = dict(before.entries) if before is not None else {}
    changed = {change.key: change for change in plan.changes}
    entries: dict[str, Entry] = {}
    for key, entry in known.items():
        found = knobs.read(roots, key)
        if found is None or knobs.is_foreign(key, found):
            entries[key] = entry
        else:
            entries[key] = Entry(entry.old, found, entry.reason)
    for key, change in changed.items():
        old = known[key].old if key in known else change.old
        entries[key] = Entry(old, change.new, change.reason)
    return Record(plan.profile, dict(sorted(entries.items(), key=lambda item: order_of(item[0]))))


def _drop_in_drift(roots: Roots, recorded: Record) -> list[Drift]:
    """The drop-in itself: without it the next boot would start without these values."""
    try:
        found = roots.drop_in.read_text()
    except FileNotFoundError:
        return [Drift(str(roots.drop_in), "as written", None)]
    return [] if found == record.drop_in_text(recorded) else [Drift(str(roots.drop_in), "as written", "changed")]


def _set_all(roots: Roots, values: Mapping[str, str]) -> None:
    """Set all that can be set. Raises OperatorError with every refusal of the kernel."""
    problems: list[Problem] = []
    for key, value in values.items():
        try:
            _set(roots, key, value)
        except OperatorError as error:
            problems += error.problems
    if problems:
        raise OperatorError(problems)


def _set(roots: Roots, key: str, value: str) -> None:
    """Write and look. Raises OSError, or OperatorError if the kernel took it and made something else of it."""
    try:
        knobs.write(roots, key, value)
    except OSError as error:
        if isinstance(error, PermissionError) and os.geteuid() != 0:
            raise
        raise OperatorError(f"the kernel refuses {key} = {value}: {error.strerror}") from None
    found = knobs.read(roots, key)
    if not knobs.holds(key, found, value):
        raise OperatorError(f"{key} is {found} after it was set to {value}: something else manages it")


def _undo(roots: Roots, done: Iterable[tuple[str, str]]) -> list[str]:
    """Set the old values again; returns the keys where that failed."""
    stuck = []
    for key, old in reversed(list(done)):
        try:
            if knobs.read(roots, key) != old:
                knobs.write(roots, key, old)
        except OSError:
            stuck.append(key)
    return stuck


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise OperatorError(NO_PRIVILEGE) from None
    except OSError as error:
        raise OperatorError(f"{error.filename or 'the kernel'}: {error.strerror}") from None


@contextmanager
def _alone(roots: Roots) -> Iterator[None]:
    """Hold the lock, and leave no trace of it."""
    path = roots.state / "lock"
    with _refusals():
        roots.state.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = _locked(path)
    try:
        yield
    finally:
        path.unlink()  # before it is let go: who waits for it sees that, and takes a new one
        os.close(descriptor)


def _locked(path: Path) -> int:
    """A file that only root can open: the directory itself could be locked for ever by anybody who can read it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)
