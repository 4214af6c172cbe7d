"""Each system call of each operation fails in turn: what is left is the old state or the new one, whole.

Every write operation runs once for each of its system calls and each way that call can fail: with an errno, by doing
only a part, or by the process ending there and then. Afterwards a fresh store on the same tree must show what was
before or what the operation makes, contents with their own properties; an operation that failed has said so; and no
descriptor and no staged file is left.
"""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import pytest

from dataplane.store import mount
from dataplane.store.errors import StoreError
from dataplane.store.mount import RecordsOption
from dataplane.store.store import Store
from dataplane.store.trash import STAGING_SECONDS_MAX
from tests.store import kernel
from tests.store.scenarios import SCENARIOS, Scenario, View, is_new_with_blocks_left, slots_are_small, view

ERRNOS: Final = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EROFS)
_PARTIAL: Final = frozenset({"write", "pwrite", "copy_file_range"})
_POINTS_MIN: Final = 1500


class Killed(BaseException):
    """The process ended here."""


@dataclass
class Fault:
    """Let `skip` calls pass, then let one fail: with an errno, in part ("short"), for good ("dead": every change from
    there on), or end the process ("kill")."""

    skip: int
    how: int | str
    seen: list[str] = field(default_factory=list)
    struck: str = ""

    def __call__(self, name: str, proceed: Callable[[], Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.seen.append(name)
        if self.struck and self.how == "kill":
            raise Killed
        dead = bool(self.struck) and self.how == "dead" and name in kernel.CHANGES
        if len(self.seen) <= self.skip or (self.struck and not dead):
            return proceed()
        return self._strike(name, proceed, args)

    def _strike(self, name: str, proceed: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if self.how == "short":
            if name in _PARTIAL and (count := _half(name, args)):
                self.struck = name
                return count
            return proceed()
        self.struck = name
        if self.how == "kill":
            raise Killed
        code = errno.EIO if self.how == "dead" else int(self.how)
        if name == "openat2":
            return -code
        if name == "clone_file":
            return False
        raise OSError(code, os.strerror(code))


def _half(name: str, args: tuple[Any, ...]) -> int:
    """Do half of a write; 0 when it is too small for that."""
    if name == "copy_file_range":
        source, target, count, *offsets = args
        return os.copy_file_range(source, target, count // 2, *offsets) if count > 1 else 0
    fd, data, *offset = args
    data = memoryview(data)
    some = data[: len(data) // 2]
    if not some:
        return 0
    return os.pwrite(fd, some, *offset) if name == "pwrite" else os.write(fd, some)


def points(calls: list[str]) -> Iterator[tuple[int, int | str]]:
    """Every way that an operation of these calls can fail."""
    codes = cycle(ERRNOS)
    for i, name in enumerate(calls):
        yield i, next(codes)
        if name in kernel.CHANGES:
            yield i, "kill"
            yield i, "dead"
            yield i, next(codes)
        if name in _PARTIAL:
            yield i, "short"


@pytest.fixture(autouse=True)
def few_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of stores are opened here."""
    monkeypatch.setattr(mount, "_LANES", 2)


@pytest.fixture
def fast_directory() -> Iterator[Path]:
    """Where thousands of small trees are made quickly: memory, where there is a tmpfs with attributes."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(dir=memory, prefix="blobedge-test-"))
    yield path
    shutil.rmtree(path)


def run_at(root: Path, records: RecordsOption, scenario: Scenario, fault: Fault) -> BaseException | None:
    """The operation, ready and then struck. Returns what it raised."""
    root.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    store = Store(str(root), records=records)
    scenario.ready(store)
    raised: BaseException | None = None
    with kernel.watched(fault):
        try:
            scenario.operate(store)
        except (Exception, Killed) as error:
            raised = error
    store.close()
    del store
    if fault.how != "kill":
        assert len(os.listdir("/proc/self/fd")) == before, "descriptors are left open"
    return raised


def seen_afterwards(root: Path, records: RecordsOption) -> View:
    """What a fresh store shows; also that it can sweep what is left."""
    store = Store(str(root), records=records)
    try:
        seen = view(store)
        store._main.trash.sweep(time.time() + 2 * STAGING_SECONDS_MAX)  # type: ignore[union-attr]
    finally:
        store.close()
    staging = root / ".blobedge/staging"
    left = [p for p in staging.rglob("*") if not (p.is_dir() and p.parent == staging and len(p.name) == 2)]
    left += (root / ".blobedge/swaps").iterdir()
    assert not left, f"staged files are never swept: {left}"
    return seen


def states(directory: Path, records: RecordsOption, scenario: Scenario) -> tuple[View, View, list[View], list[str]]:
    """What is seen before and after, legally between, and the calls that the operation makes."""
    nothing = Fault(1 << 30, 0)
    run_at(directory / "old", records, Scenario("", scenario.ready, lambda _: None), Fault(1 << 30, 0))
    old = seen_afterwards(directory / "old", records)
    assert run_at(directory / "new", records, scenario, nothing) is None
    new = seen_afterwards(directory / "new", records)
    between = []
    for i, operation in enumerate(scenario.between):
        other = Scenario("", scenario.ready, operation)
        assert run_at(directory / f"between{i}", records, other, Fault(1 << 30, 0)) is None
        between.append(seen_afterwards(directory / f"between{i}", records))
    return old, new, between, nothing.seen


_counted: dict[str, int] = {}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name.replace(" ", "-"))
def test_any_failing_call_leaves_the_old_state_or_the_new(
    records: RecordsOption, scenario: Scenario, fast_directory: Path
) -> None:
    with slots_are_small():
        old, new, between, calls = states(fast_directory, records, scenario)
        assert old != new
        problems = []
        for number, (skip, how) in enumerate(points(calls)):
            root = fast_directory / f"{number}"
            fault = Fault(skip, how)
            where = f"{scenario.name}: call {skip} ({calls[skip]}) {how if isinstance(how, str) else os.strerror(how)}"
            try:
                raised = run_at(root, records, scenario, fault)
                seen = seen_afterwards(root, records)
                if raised is None and seen != new:
                    problems.append(f"{where}: success, but it is not there")
                stays = scenario.blocks_may_stay and is_new_with_blocks_left(seen, old, new)
                if seen not in (old, new, *between) and not stays:
                    problems.append(f"{where}: {raised!r} left {seen}")
                if raised is not None and not isinstance(raised, (StoreError, Killed)):
                    problems.append(f"{where}: {raised!r}")
                if fault.struck in ("fsync", "fdatasync") and raised is None:
                    problems.append(f"{where}: a failed fsync was followed by success")
            except AssertionError as error:
                problems.append(f"{where}: {error}")
            shutil.rmtree(root)
        _counted[f"{records} {scenario.name}"] = number + 1
    assert not problems, f"{len(problems)} of {number + 1}:\nold {old}\nnew {new}\n" + "\n".join(problems[:30])


def test_the_points_are_many() -> None:
    if len(_counted) < 2 * len(SCENARIOS):
        pytest.skip("only some of the scenarios ran")
    assert sum(_counted.values()) >= _POINTS_MIN
