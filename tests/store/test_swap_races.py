"""Another program writes to a blob's file while the blob is evicted or recalled: at whichever system call it comes, not
a byte of it is lost.

The other program acts right before each call that the eviction makes, in turn. One that opens the file for writing
while a lease keeps it waiting does so in a thread of its own, as it would in a process of its own.
"""

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from dataplane.blobapi.errors import BlobError
from dataplane.blobapi.model import BlobState, Remote
from dataplane.store import syscalls
from dataplane.store.errors import NotAStub, NotEvictable, StoreError
from dataplane.store.store import BlobRef, DeleteScope, Store
from dataplane.store.swap import SWAP_SECONDS_MAX, sweep
from tests.store import kernel
from tests.store.support import make, put

DATA: Final = b"the bytes that were there"
MORE: Final = b", and more"
REF: Final = BlobRef("box", "a")
_CALLS_MAX: Final = 500
_THREAD_SECONDS_MAX: Final = 60.0


class Writer:
    """Another program. `path` is the blob's file; `act` is called once, in the middle of the job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.thread: threading.Thread | None = None

    def act(self) -> None:
        raise NotImplementedError

    def check(self, content: bytes) -> bool:
        """Whether what it wrote is what the file holds."""
        raise NotImplementedError

    def end(self) -> None:
        if self.thread is not None:
            self.thread.join(_THREAD_SECONDS_MAX)
            assert not self.thread.is_alive()


class Appender(Writer):
    """Has the file open from before, and writes to its end."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND)

    def act(self) -> None:
        os.write(self.fd, MORE)

    def check(self, content: bytes) -> bool:
        return content == DATA + MORE

    def end(self) -> None:
        os.close(self.fd)


class LateAppender(Writer):
    """Opens the file, waiting if it has to, and writes to its end. A stub has none of the bytes before."""

    def act(self) -> None:
        try:
            self._append(os.O_NONBLOCK)
        except BlockingIOError:
            self.thread = threading.Thread(target=self._append, args=(0,))
            self.thread.start()

    def _append(self, flags: int) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | flags, 0o644)
        os.write(fd, MORE)
        os.close(fd)

    def check(self, content: bytes) -> bool:
        return content in (DATA + MORE, MORE)


class Replacer(Writer):
    """Renames a file of its own into the place, as rsync does."""

    def act(self) -> None:
        theirs = self.path.with_name("theirs")
        theirs.write_bytes(MORE)
        os.rename(theirs, self.path)

    def check(self, content: bytes) -> bool:
        return content == MORE


def seal_is_whole(store: Store, content: bytes) -> bool:
    """The store serves what is there."""
    state = store.stat_blob(REF)
    return state is not None and state.properties.remote is None and state.size == len(content)


def interrupted(at: int, writer: Writer, job: Callable[[], object]) -> bool:
    """Run a job with the writer acting before its call number `at`; False when it has fewer. It may be refused."""
    count = 0

    def on_call(name: str, proceed: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == at + 1:
            writer.act()
        return proceed()

    with kernel.watched(on_call), suppress(NotEvictable, NotAStub):
        job()
    writer.end()
    return count > at


def at_every_call(
    store: Store, path: Path, kind: type[Writer], job: Callable[[BlobState], Callable[[], object]]
) -> int:
    """Run the job, of a fresh blob, with the writer at each of its calls; how many there are."""
    for at in range(_CALLS_MAX):
        state = put(store, REF.name, DATA)
        prepared = job(state)
        writer = kind(path)
        if not interrupted(at, writer, prepared):
            return at
        content = path.read_bytes()
        assert writer.check(content), f"before call {at}: {content!r}"
        assert seal_is_whole(store, content), f"before call {at}"
        swaps = path.parent.parent / ".blobedge/swaps"
        kept = os.listdir(swaps)  # the file that was to go, when they have made another one in its place meanwhile
        assert len(kept) <= (content == MORE), f"before call {at}"
        for each in kept:
            (swaps / each).unlink()
    raise AssertionError("the job makes calls without end")


def eviction(store: Store, state: BlobState) -> Callable[[], object]:
    remote = Remote(len(DATA), hashlib.md5(DATA).digest(), "0x8DC", "cloud", "a", state.properties.etag, 0, 0)
    return lambda: store.run(store.evict(REF, state.properties.etag, remote))


@pytest.mark.parametrize("kind", [Appender, LateAppender, Replacer])
def test_an_eviction_loses_nothing_of_others(store: Store, root: Path, kind: type[Writer]) -> None:
    make(store)
    assert at_every_call(store, root / "box/a", kind, lambda state: eviction(store, state)) > 0


@pytest.mark.parametrize("kind", [Replacer, LateAppender])
def test_a_recall_loses_nothing_of_others(store: Store, root: Path, kind: type[Writer]) -> None:
    make(store)

    def recall(state: BlobState) -> Callable[[], object]:
        eviction(store, state)()
        staged = store.stage("box")
        staged.write(DATA)
        return lambda: store.run(store.recall(REF, staged, state.properties.etag))

    assert at_every_call(store, root / "box/a", kind, recall) > 0


class Rewriter(LateAppender):
    """The same, and makes the file where there is none any more."""

    def _append(self, flags: int) -> None:
        super()._append(flags | os.O_CREAT)


@pytest.mark.parametrize("kind", [Appender, Rewriter, Replacer])
def test_a_delete_that_no_client_asked_for_loses_nothing_of_others(
    store: Store, root: Path, kind: type[Writer]
) -> None:
    make(store)

    def deletion(state: BlobState) -> Callable[[], object]:
        def decide(now: BlobState | None) -> DeleteScope:
            if now is None or now.properties.etag != state.properties.etag:
                raise NotEvictable("it has changed")
            return DeleteScope.BLOB

        return lambda: store.run(store.delete(REF, decide, yields=True))

    assert at_every_call(store, root / "box/a", kind, deletion) > 0


def test_without_leases_what_is_written_until_the_last_look_is_noticed(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS. What comes after that look is lost, as docs/on-disk-format.md says."""
    monkeypatch.setattr(syscalls, "take_lease", lambda _: False)
    make(store)
    path = root / "box/a"
    calls: list[str] = []

    def note(name: str, proceed: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        calls.append(name)
        return proceed()

    runs = []
    for _ in range(3):  # a record whose shard is new makes more calls: the shortest run has none of these
        calls = []
        state = put(store, REF.name, DATA)
        with kernel.watched(note):
            eviction(store, state)()
        runs.append(calls)
    calls = min(runs, key=len)
    last_look = max(i for i, name in enumerate(calls[: calls.index("unlink")]) if name == "fstat")
    for at in range(last_look + 1):
        state = put(store, REF.name, DATA)
        writer = Appender(path)
        assert interrupted(at, writer, eviction(store, state))
        assert path.read_bytes() == DATA + MORE, f"before call {at} ({calls[at]})"


def test_what_two_programs_write_to_both_files_is_kept(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One writes to the file that it had open, another to the stub that was there for a moment: the first stays."""
    monkeypatch.setattr(syscalls, "take_lease", lambda _: False)
    make(store)
    path, swaps = root / "box/a", root / ".blobedge/swaps"
    state = put(store, REF.name, DATA)
    first = Appender(path)

    def write_to_both(name: str, proceed: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        if name == "fsync" and not path.stat().st_size:
            first.act()
            path.chmod(0o600)
            path.write_bytes(b"to the stub")
        return proceed()

    with kernel.watched(write_to_both):
        eviction(store, state)()
    first.end()
    assert path.read_bytes() == DATA + MORE
    sweep(store.mount, time.time() + SWAP_SECONDS_MAX + 1)
    assert [kept.read_bytes() for kept in swaps.iterdir()] == [b"to the stub"]


def delete_while(store: Store, ref: BlobRef, on_call: Callable[[str, Callable[[], Any]], Any]) -> None:
    """A delete that no client asked for, whose calls go through `on_call`, and the sweep that comes long after."""

    def watch(name: str, proceed: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        return on_call("take out" if (name, args[:1]) == ("rename", (ref.name.rpartition("/")[2],)) else name, proceed)

    try:
        with kernel.watched(watch):
            store.run(store.delete(ref, lambda _: DeleteScope.BLOB, yields=True))
    finally:
        sweep(store.mount, time.time() + SWAP_SECONDS_MAX + 1)


def test_what_was_taken_out_comes_back_though_its_directory_was_removed(store: Store, root: Path) -> None:
    make(store)
    put(store, "d/a", DATA)
    path = root / "box/d/a"

    def replace_and_remove(name: str, proceed: Callable[[], Any]) -> Any:
        if name == "take out":
            Replacer(path).act()
            proceed()
            return path.parent.rmdir()
        return proceed()

    with pytest.raises(NotEvictable):
        delete_while(store, BlobRef("box", "d/a"), replace_and_remove)
    assert path.read_bytes() == MORE
    assert os.listdir(root / ".blobedge/swaps") == []


def test_what_was_taken_out_is_kept_when_its_container_went(store: Store, root: Path) -> None:
    make(store)
    put(store, "a", DATA)

    def replace_and_remove(name: str, proceed: Callable[[], Any]) -> Any:
        if name == "take out":
            Replacer(root / "box/a").act()
            proceed()
            return (root / "box").rmdir()
        return proceed()

    with pytest.raises(BlobError):
        delete_while(store, REF, replace_and_remove)
    assert kept_in(root) == [MORE]


def test_what_was_taken_out_is_kept_when_another_file_is_made_in_its_place(store: Store, root: Path) -> None:
    make(store)
    put(store, "a", DATA)
    path = root / "box/a"

    def replace_and_append(name: str, proceed: Callable[[], Any]) -> Any:
        if name == "take out":
            Replacer(path).act()
            proceed()
            return path.write_bytes(b"a line")
        return proceed()

    with pytest.raises(NotEvictable):
        delete_while(store, REF, replace_and_append)
    assert path.read_bytes() == b"a line"
    assert kept_in(root) == [MORE]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_way_back_that_fails_overwrites_nobody(store: Store, root: Path, code: int) -> None:
    make(store)
    put(store, "a", DATA)
    path = root / "box/a"

    def append_and_fail(name: str, proceed: Callable[[], Any]) -> Any:
        if name == "take out":
            Replacer(path).act()
        elif name == "link":
            path.write_bytes(b"by another program")
            raise OSError(code, os.strerror(code))
        return proceed()

    with pytest.raises(StoreError):
        delete_while(store, REF, append_and_fail)
    assert path.read_bytes() == b"by another program"
    assert kept_in(root) == [MORE]


def kept_in(root: Path) -> list[bytes]:
    """What is in the directory of swaps, and stays there."""
    return [kept.read_bytes() for kept in (root / ".blobedge/swaps").iterdir()]
