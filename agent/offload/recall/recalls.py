"""Everybody who reads bytes that are in the cloud, over all workers: one recall for each version that is read.

A recall is kept where there is room for the whole blob and `keep` says so (it does not in low-space mode): what was
read stays, for others and for the next time, and once all of it arrived and has its MD5 it takes the place of the
stub. Else bytes come in windows, each a file of its own that goes when its readers went on: disk is bounded by what is
being read, and nothing stays. Readers of one window share it all the same.

A recall without readers stays for IDLE_SECONDS where it may, so that a client that comes back after a broken
connection, or reads range after range, goes on where it was. While the link is down nothing waits for time-outs.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

import trio

from agent.offload.cloud import Cloud
from agent.offload.failures import CloudFailed, Kind
from agent.offload.link import Link
from agent.offload.linkwatch import LinkWatch
from agent.offload.recall.fetch import CloudCopy, Fetcher
from agent.offload.recall.news import News
from agent.offload.recall.reasons import MOUNT_ERRORS, NotComing, not_coming, of_mount
from agent.offload.recall.recall import Reader, Recall, Works
from agent.offload.recall.shelf import Key, Space
from agent.offload.setbacks import answered
from dataplane.blobapi.model import Remote
from dataplane.ipc.recalls import LAST_BYTES, WINDOW_BYTES_MAX, RecallError, Want
from dataplane.store.staging import StagedFile

log = logging.getLogger("blobedge.offload")

DOWNLOADS_COUNT_MAX: Final = 16  # at a time; each costs a thread and a piece of memory
RECALLS_COUNT_MAX: Final = 256  # files that are open
SPARE_BYTES: Final = 64 << 20  # stay free on a mount,
SPARE_SHARE: Final = 64  # or this part of a small one
IDLE_SECONDS: Final = 300.0
REFUSED_SECONDS: Final = 5.0  # what was missing or archived is not asked for again
REFUSED_COUNT_MAX: Final = 1000
SWAPS_COUNT_MAX: Final = 2  # at a time: each syncs a file, on a thread of its account
ROOM_SECONDS: Final = 10.0  # as long as a write waits (dataplane.server.lowspace)
ROOM_LOOK_SECONDS: Final = 0.5  # between two looks for room
SWEEP_SECONDS: Final = 1.0
STEP_BYTES_MAX: Final = 1 << 20  # a reader hears of progress by so much at least, but for the first bytes
STEP_SECONDS: Final = 0.05  # or after so long
STOP_SECONDS_MAX: Final = 0.4  # for dropping files when the sidecar ends

#: Told up to where bytes can be read; with the descriptor when it is another one than before, else -1.
Tell = Callable[[int, int], Awaitable[None]]


class ShelfLike(Protocol):
    """What is needed of shelf.Shelf."""

    async def find(self, account: str, container: str, name: str) -> tuple[Key, Remote]: ...
    async def make(self, key: Key) -> Space: ...
    async def clear(self) -> None: ...
    async def swap(self, key: Key, remote: Remote, staged: StagedFile) -> str | None: ...


@dataclass(slots=True)
class Counters:
    """Since the start."""

    recalls: int = 0  # files that were begun
    windows: int = 0  # of these, windows that are not kept
    downloads: int = 0  # requests for a range of a blob
    bytes: int = 0  # that came from the cloud
    arrived: int = 0  # blobs that are here again
    failures: dict[str, int] = field(default_factory=dict)  # by why


class Recalls:
    """All recalls of a node."""

    def __init__(
        self,
        cloud: Cloud,
        shelf: ShelfLike,
        watch: LinkWatch,
        news: News,
        *,
        keep: Callable[[str, str], bool] = lambda account, container: True,
        fetcher: Fetcher | None = None,
        spare_bytes: int = SPARE_BYTES,
        idle_seconds: float = IDLE_SECONDS,
        room_seconds: float = ROOM_SECONDS,
    ) -> None:
        """`keep`: whether what is recalled of an account's container may stay, as its disk is now. `room_seconds`: how
        long what has no room waits for eviction to make some."""
        self.counters: Final = Counters()
        self._shelf: Final = shelf
        self._watch: Final = watch
        self._news: Final = news
        self._keep: Final = keep
        self._fetcher: Final = fetcher or Fetcher(cloud)
        self._spare_bytes: Final = spare_bytes
        self._idle_seconds: Final = idle_seconds
        self._room_seconds: Final = room_seconds
        self._no_room_until: dict[int, float] = {}  # of a device that somebody waited for in vain, monotonic
        self._kept: dict[Key, Recall] = {}
        self._windows: dict[tuple[Key, int, int], Recall] = {}
        self._done: list[Recall] = []  # to be closed when their readers have gone
        self._opening: dict[Key, trio.Event] = {}
        self._refused: dict[Key, tuple[NotComing, float]] = {}  # until when, monotonic
        self._swaps: Final = trio.Semaphore(SWAPS_COUNT_MAX)
        self._ready: Final = trio.Event()
        self._works: Works | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        watch.downs.append(self._link_down)

    async def run(self) -> None:
        """Until cancelled."""
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            self._works = Works(
                nursery,
                trio.CapacityLimiter(DOWNLOADS_COUNT_MAX),
                self._offline,
                self._began,
                self._moved,
                self._watch.answered,
                self._failed,
                self._finished,
            )
            self._ready.set()
            nursery.start_soon(self._shelf.clear)
            try:
                while True:
                    await trio.sleep(SWEEP_SECONDS)
                    self._watch.reading = any(recall.active for recall in self._all())
                    self._drop_idle()
            finally:
                nursery.cancel_scope.cancel()
                self._fetcher.close()
                await self._drop_all()

    # --- for readers -------------------------------------------------------------------------------------------

    async def read(self, reader: Reader, want: Want, tell: Tell) -> None:
        """Tell of the bytes of a Want as they come, until all were told. Raises NotComing, and RecallError for a Want
        that makes no sense."""
        _check(want)
        try:
            await self._read(reader, want, tell)
        except NotComing:
            self.leave(reader)
            raise

    async def _read(self, reader: Reader, want: Want, tell: Tell) -> None:
        before = reader.recall
        with _mount_judged():
            recall = await self._attached(reader, want)
        fd = recall.space.reading_fd if recall is not before else -1
        told, end = want.offset, want.offset + want.length
        proving = reader.whole and not recall.kept
        last = max(want.offset, end - LAST_BYTES) if proving else end  # the worker may go on once it has been told all
        while told < last:
            told = await self._told(recall, reader, told, last, tell, fd)
            fd = -1
        if proving:
            await _all(recall, reader, last, end)
            with _mount_judged():
                await recall.prove(reader, want.offset, end)
        if told < end or not want.length:
            await tell(end, fd)

    def leave(self, reader: Reader) -> None:
        """The reader wants nothing any more."""
        if reader.recall is not None:
            self._detach(reader.recall, reader)

    async def bring(
        self,
        account: str,
        container: str,
        name: str,
        progress: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Have the whole blob here as a file. `progress` is told how many bytes came since it was last told. Returns at
        once for one that is here, or gone. Raises NotComing."""
        reader = Reader(whole=True)
        try:
            with _mount_judged():
                key, remote = await self._shelf.find(account, container, name)
                want = Want(*key, 0, min(remote.size, WINDOW_BYTES_MAX), remote.size)
                recall = await self._attached(reader, want, must_keep=True)
            told = 0
            while not recall.ended.is_set() and told < remote.size:
                before, told = told, await recall.more(reader, told, remote.size)
                progress(told - before)
            await recall.ended.wait()
            if not recall.arrived:
                raise recall.failure or not_coming("changed")
        except NotComing as failure:
            if failure.message.why != "changed":  # else it is here, or gone: to be looked at again
                raise
        finally:
            self.leave(reader)

    def document(self) -> dict[str, Any]:
        """For status and metrics."""
        alive = list(self._all())
        return {
            **asdict(self.counters),
            "open": len(alive),
            "readers": sum(len(recall.readers) for recall in alive),
            "outstanding_bytes": sum(recall.outstanding for recall in alive if recall.readers),
        }

    async def _told(self, recall: Recall, reader: Reader, told: int, last: int, tell: Tell, fd: int) -> int:
        """Tell of what came, in steps that grow: the first byte at once, many bytes in few messages."""
        assert reader.want is not None
        step = min(STEP_BYTES_MAX, told - reader.want.offset)
        end = await recall.more(reader, told, last)
        with trio.move_on_after(STEP_SECONDS):
            while end < min(last, told + step):
                end = await recall.more(reader, end, last)
        await tell(end, fd)
        return end

    # --- which recall ------------------------------------------------------------------------------------------

    async def _attached(self, reader: Reader, want: Want, *, must_keep: bool = False) -> Recall:
        """The recall that has, or gets, what is wanted, with the reader attached to it."""
        await self._ready.wait()
        key = Key(want.account, want.container, want.name, want.etag)
        before = reader.recall
        recall = before if before is not None and before.key == key and before.kept and not before.dead else None
        if recall is None:
            recall = await self._recall_for(key, want, must_keep)
        if want.offset + want.length > recall.remote.size or want.until > recall.remote.size:
            raise RecallError("a Want beyond the blob's end")
        last = reader.want
        if before is None or before.key != key or last is None or want.offset != last.offset + last.length:
            reader.whole = want.offset == 0 and want.until == recall.remote.size
            reader.md5, reader.hashed = Reader().md5, 0
        if before is not None and before is not recall:
            self._detach(before, reader)
        recall.attach(reader, want)
        return recall

    async def _recall_for(self, key: Key, want: Want, must_keep: bool) -> Recall:
        """One that is there, or a new one; whoever comes meanwhile waits for it."""
        refused, until = self._refused.get(key, (None, 0.0))
        if refused is not None and until > time.monotonic():
            raise self._counted(refused)
        window = (key, want.offset, want.length)
        while True:
            found = self._kept.get(key) or (None if must_keep else self._windows.get(window))
            if found is not None and not found.dead:
                return found
            if key not in self._opening:
                break
            await self._opening[key].wait()
        opened = self._opening[key] = trio.Event()
        try:
            return await self._open(key, want, must_keep)
        finally:
            del self._opening[key]
            opened.set()

    async def _open(self, key: Key, want: Want, must_keep: bool) -> Recall:
        if self._offline():
            raise self._counted(not_coming("offline"))
        if len(self._kept) + len(self._windows) >= RECALLS_COUNT_MAX:
            self._drop_idle(now=True)
            if len(self._kept) + len(self._windows) >= RECALLS_COUNT_MAX:
                raise self._counted(not_coming("failed", "too many recalls at once", 5))
        found, remote = await self._shelf.find(key.account, key.container, key.name)
        if found != key:
            raise not_coming("changed")
        if want.offset + want.length > remote.size:
            raise RecallError("a Want beyond the blob's end")
        space, kept = await self._placed(key, want, remote.size, must_keep)
        low, high = (0, remote.size) if kept else (want.offset, want.offset + want.length)
        assert self._works is not None
        copy = CloudCopy(self._fetcher, remote, self._offline, self._try_failed)
        recall = Recall(key, copy, space, low, high, self._works, kept=kept)
        self.counters.recalls += 1
        if kept:
            self._kept[key] = recall
        else:
            self.counters.windows += 1
            self._windows[key, want.offset, want.length] = recall
        return recall

    async def _placed(self, key: Key, want: Want, size: int, must_keep: bool) -> tuple[Space, bool]:
        """A file that there is room for, and whether all of the blob may stay in it. Waits for what is evicted."""
        until = time.monotonic() + self._room_seconds
        while True:
            space = await self._shelf.make(key)
            spare = min(self._spare_bytes, space.total_bytes // SPARE_SHARE)
            room = space.free_bytes - spare - self._promised(space.device)
            kept = size <= room and (must_keep or self._keep(key.account, key.container))
            if kept or (not must_keep and want.length <= room):
                return space, kept
            self._later(space.discard)
            hopeless = self._no_room_until.get(space.device, 0.0) > time.monotonic()
            if hopeless or time.monotonic() >= until:
                self._no_room_until[space.device] = time.monotonic() + REFUSED_SECONDS
                raise self._counted(not_coming("space"))
            await trio.sleep(ROOM_LOOK_SECONDS)

    def _detach(self, recall: Recall, reader: Reader) -> None:
        recall.detach(reader)
        if not recall.kept and not recall.readers:
            self._forget(recall)
            self._close_done()

    def _forget(self, recall: Recall) -> None:
        """No new reader gets it."""
        self._kept = {key: each for key, each in self._kept.items() if each is not recall}
        self._windows = {key: each for key, each in self._windows.items() if each is not recall}
        if recall not in self._done:
            self._done.append(recall)

    def _drop_idle(self, *, now: bool = False) -> None:
        """Drop what nobody has read for long, or `now` reads; in low space nothing stays."""
        before = time.monotonic() - self._idle_seconds
        for recall in self._all():
            old = now or recall.idle_since <= before or not self._keep(recall.key.account, recall.key.container)
            if old and not recall.readers and not recall.active:
                self._forget(recall)
        self._close_done()

    def _close_done(self) -> None:
        closing = [recall for recall in self._done if not recall.readers and not recall.active]
        self._done = [recall for recall in self._done if recall not in closing]
        for recall in closing:
            self._later(recall.close)

    def _later(self, function: Callable[[], None]) -> None:
        """Have something done on a mount that nobody waits for, and that ends with no reader."""

        async def on_thread() -> None:
            with suppress(OSError):  # what stays is found by leftovers.py
                await trio.to_thread.run_sync(function, abandon_on_cancel=True)

        assert self._works is not None
        self._works.nursery.start_soon(on_thread)

    async def _drop_all(self) -> None:
        """As the sidecar ends; what hangs is left behind, and found by leftovers.py."""
        recalls = [*self._all(), *self._done]
        with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_SECONDS_MAX):
            await trio.to_thread.run_sync(_close_all, recalls, abandon_on_cancel=True)

    def _promised(self, device: int) -> int:
        """Bytes that files which are open on the mount will still take. What nobody reads grows no further."""
        using = [recall for recall in self._all() if recall.readers and recall.space.device == device]
        return sum(recall.outstanding for recall in using)

    def _all(self) -> list[Recall]:
        return [*self._kept.values(), *self._windows.values()]

    # --- what happens to them ----------------------------------------------------------------------------------

    def _offline(self) -> bool:
        return self._watch.state.link is Link.OFFLINE

    def _link_down(self) -> None:
        for recall in self._all():
            recall.link_down()

    def _began(self) -> None:
        self.counters.downloads += 1
        self._watch.moved()
        self._watch.reading = True

    def _moved(self, count: int) -> None:
        """On a downloading thread; a lost update of the count would only make a figure a little wrong."""
        self.counters.bytes += count
        self._watch.moved()

    def _try_failed(self, failure: CloudFailed, came: bool) -> None:
        """On a downloading thread: what one try says of the link. An answer that broke off (`came`) is one."""
        assert self._token is not None
        if came or answered(failure.fault):
            self._token.run_sync_soon(self._watch.answered)
        elif failure.fault.kind is Kind.LINK:
            self._token.run_sync_soon(self._watch.no_way)

    def _counted(self, failure: NotComing) -> NotComing:
        why = failure.message.why
        self.counters.failures[why] = self.counters.failures.get(why, 0) + 1
        return failure

    def _failed(self, recall: Recall, failure: NotComing) -> None:
        self._counted(failure)
        if recall.dead:
            self._forget(recall)
        if failure.message.why != "offline":
            log.warning("recall of %s/%s/%a: %s", *recall.key[:3], failure)
        if failure.message.why in ("missing", "archived"):
            now = time.monotonic()
            kept = {key: each for key, each in self._refused.items() if each[1] > now}
            self._refused = kept if len(kept) < REFUSED_COUNT_MAX else {}
            self._refused[recall.key] = failure, now + REFUSED_SECONDS
        if failure.message.why == "missing":
            assert self._works is not None
            self._works.nursery.start_soon(self._news.missing, recall.key, str(failure))

    async def _finished(self, recall: Recall) -> None:
        """All bytes are there and right: in the stub's place with them."""
        etag = recall.failure = None  # what failed before is past
        try:
            async with self._swaps:
                etag = await self._shelf.swap(recall.key, recall.remote, recall.space.staged)
        except MOUNT_ERRORS as error:
            recall.failure = self._counted(of_mount(error))
            log.warning("recall of %s/%s/%a: %s", *recall.key[:3], error)
        self._forget(recall)
        if etag is not None:
            recall.arrived = True
            self.counters.arrived += 1
            await self._news.arrived(recall.key._replace(etag=etag))


@contextmanager
def _mount_judged() -> Iterator[None]:
    """What a mount does, or a configuration that was changed, as NotComing."""
    try:
        yield
    except MOUNT_ERRORS as error:
        raise of_mount(error) from error


async def _all(recall: Recall, reader: Reader, start: int, end: int) -> None:
    """Until these bytes have arrived. Raises NotComing."""
    while start < end:
        start = await recall.more(reader, start, end)


def _check(want: Want) -> None:
    """Raises RecallError for a Want that makes no sense, whatever the blob is."""
    if want.length > WINDOW_BYTES_MAX or want.until < want.offset + want.length:
        raise RecallError("a Want that is too long, or goes on beyond its own end")


def _close_all(recalls: Sequence[Recall]) -> None:
    for recall in recalls:
        recall.close()
