"""Listings of containers with very many blobs cost what a page shows, not what the container holds."""

import errno
import os
import shutil
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dataplane.store import index
from dataplane.store.store import Store
from tests.store import kernel
from tests.store.support import delete, make, names, put

LARGE, SMALL, PAGE = 200_000, 5_000, 500
_PEAK_BYTES_MAX = 48 * 1024 * 1024


@pytest.fixture
def fast_root() -> Iterator[Path]:
    """Where 200,000 files are made in a second."""
    path = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None, prefix="blobedge-test-"))
    yield path
    shutil.rmtree(path)


def flat(i: int) -> str:
    return f"file-{i:07d}"


def in_a_tree(i: int) -> str:
    return f"{i // 1000:04d}/file-{i % 1000:04d}"


def filled(root: Path, count: int, name: Callable[[int], str]) -> Store:
    store = Store(str(root), durable=False)
    make(store)
    box = root / "box"
    for i in range(count):
        path = box / name(i)
        if i % 1000 == 0:
            path.parent.mkdir(exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    for directory, _, _ in os.walk(box):
        os.utime(directory, ns=(10**18, 10**18))
    return store


class Work:
    """Counts what a listing does: system calls, and names that it looks at."""

    def __init__(self) -> None:
        self.calls = 0
        self.names = 0

    def __call__(self, name: str, proceed: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        self.calls += 1
        return proceed()


def work_of_a_page(store: Store, start: str, monkeypatch: pytest.MonkeyPatch) -> Work:
    work = Work()
    order = index._key

    def counted(component: str) -> str:
        work.names += 1
        return order(component)

    with monkeypatch.context() as patched, kernel.watched(work):
        patched.setattr(index, "_key", counted)
        page = store.list_blobs("box", prefix="", delimiter="", start=start, limit=PAGE)
    assert len(page.items) == PAGE
    return work


@pytest.mark.parametrize("name", [flat, in_a_tree])
def test_a_page_costs_the_same_in_a_large_container(
    fast_root: Path, name: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_SETTLED_NS", -(1 << 62))  # ctime cannot be set back
    works = []
    for label, count in (("small", SMALL), ("large", LARGE)):
        (fast_root / label).mkdir()
        store = filled(fast_root / label, count, name)
        work_of_a_page(store, name(count // 2), monkeypatch)
        works.append(work_of_a_page(store, name(count // 2), monkeypatch))
        store.close()
    small, large = works
    assert large.calls <= small.calls * 1.1 + 50
    assert large.names <= PAGE + 100


def test_a_large_directory_is_sorted_in_bounded_memory(fast_root: Path) -> None:
    store = filled(fast_root, LARGE, flat)
    tracemalloc.start()
    try:
        page = store.list_blobs("box", prefix="", delimiter="", start=flat(LARGE // 2), limit=PAGE)
        assert tracemalloc.get_traced_memory()[1] < _PEAK_BYTES_MAX
    finally:
        tracemalloc.stop()
    assert page.next_start == flat(LARGE // 2 + PAGE)
    store.close()


def test_pages_show_every_blob_that_stays_while_others_come_and_go(
    fast_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "LARGE_ENTRIES_MIN", 1000)
    store = filled(fast_root, SMALL, flat)
    other = Store(str(fast_root), durable=False)
    seen: list[str] = []
    start, turn = "", 0
    while True:
        page = store.list_blobs("box", prefix="", delimiter="", start=start, limit=PAGE)
        seen += [item.state.name for item in page.items if item.state is not None]
        start = page.next_start
        if not start:
            break
        turn += 1
        for writer in (store, other):
            put(writer, f"file-{turn * 400:07d}-{id(writer)}")
            put(writer, f"a-{turn}-{id(writer)}")
        delete(other, flat(turn * 450))
        assert f"a-{turn}-{id(other)}" in names(store, prefix="a-")
    gone = {flat(t * 450) for t in range(1, turn + 1)}
    stayed = [n for n in map(flat, range(SMALL)) if n not in gone]
    assert [n for n in seen if n in set(stayed)] == stayed
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen)
    store.close()
    other.close()


@pytest.mark.parametrize("call", ["open", "rename"])
def test_a_full_mount_still_lists(fast_root: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setattr(index, "LARGE_ENTRIES_MIN", 100)
    monkeypatch.setattr(index, "_SETTLED_NS", -(1 << 62))
    store = filled(fast_root, 1000, flat)

    def full(name: str, proceed: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        if name == call and (call == "rename" or args[1] & os.O_CREAT):
            raise OSError(errno.ENOSPC, "full")
        return proceed()

    with kernel.watched(full):
        assert names(store) == [flat(i) for i in range(1000)]
    assert not list((fast_root / ".blobedge/index").iterdir())
    store.close()
