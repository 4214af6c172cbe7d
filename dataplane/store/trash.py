"""Deleting what is large: moved aside at once by a rename, removed by a thread of its own afterwards.

What a crash leaves in `.blobedge/trash` is removed at the next start. Staged files and blocks of uploads that nobody
finished go the same way once they are old enough (`sweep`, at the start and then once an hour).
"""

import os
import queue
import secrets
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from dataplane.store.errors import StoreError, translated
from dataplane.store.mount import DIRECTORY, LANE_CHARS, Mount
from dataplane.store.records import seal_of

STAGING_SECONDS_MAX: Final = 24 * 3600  # no upload of one request takes longer
_SWEEP_SECONDS: Final = 3600


class Trash:
    """The trash of one mount.

    Records in files of their own go with the blobs and snapshots that they are of: an inode number is used again, and a
    later file with it must not be given old metadata."""

    def __init__(self, mount: Mount, sweep_more: "Callable[[Mount, Trash, float], None] | None" = None) -> None:
        """`sweep_more` is called with each sweep: what only its owner knows to be abandoned."""
        self._mount = mount
        self._sweep_more = sweep_more
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="trash", daemon=True)
        self._thread.start()

    def take(self, directory_fd: int, path: str) -> bool:
        """Move a file or directory into the trash. False when it was not there. Raises StoreError."""
        name = secrets.token_hex(12)
        with translated("delete"):
            try:
                os.rename(path, name, src_dir_fd=directory_fd, dst_dir_fd=self._mount.trash_fd)
            except (FileNotFoundError, NotADirectoryError):
                return False
        self._queue.put(name)
        return True

    def stop(self) -> None:
        """End the thread; what is left is removed at the next start."""
        self._queue.put(None)
        self._thread.join()

    def sweep(self, now: float) -> None:
        """Queue what an earlier run left in the trash, and remove abandoned staged files. `now` in seconds."""
        for name in os.listdir(self._mount.trash_fd):
            self._queue.put(name)
        for lane in (".", *list_names(self._mount.staging_fd, ".")):
            modified = self._sweep_lane(lane, now)
            if len(lane) > LANE_CHARS and now - modified > STAGING_SECONDS_MAX:
                with suppress(OSError):  # not a lane, but what became of an upload's first block
                    os.rmdir(lane, dir_fd=self._mount.staging_fd)
        if self._sweep_more is not None:
            self._sweep_more(self._mount, self, now)

    def _sweep_lane(self, lane: str, now: float) -> float:
        """Remove abandoned files of a directory. Returns when it was changed before that, in seconds."""
        modified = now
        with suppress(OSError):
            fd = os.open(lane, DIRECTORY, dir_fd=self._mount.staging_fd)
            try:
                modified = os.fstat(fd).st_mtime
                with os.scandir(fd) as entries:
                    old = [e.name for e in entries if e.is_file() and now - _modified(e) > STAGING_SECONDS_MAX]
                for name in old:
                    with suppress(OSError):
                        os.unlink(name, dir_fd=fd)
            finally:
                os.close(fd)
        return modified

    def _run(self) -> None:
        with suppress(OSError, StoreError):
            self.sweep(time.time())
        while True:
            try:
                name = self._queue.get(timeout=_SWEEP_SECONDS)
            except queue.Empty:
                with suppress(OSError, StoreError):
                    self.sweep(time.time())
                continue
            if name is None:
                return
            self._remove(name)

    def _remove(self, name: str) -> None:
        """Remove an entry of the trash with all that is in it. A directory within comes up into the trash first, so
        that neither the depth of a tree nor the length of a path matters, whoever made it."""
        waiting = [name]
        while waiting:
            name = waiting.pop()
            with suppress(OSError):
                if stat.S_ISDIR(os.stat(name, dir_fd=self._mount.trash_fd, follow_symlinks=False).st_mode):
                    waiting += self._empty(name)
                    os.rmdir(name, dir_fd=self._mount.trash_fd)
                else:
                    os.unlink(name, dir_fd=self._mount.trash_fd)

    def _empty(self, name: str) -> list[str]:
        """Remove the files of a directory; the new names of the directories that were in it."""
        raised = []
        fd = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=self._mount.trash_fd)
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    with suppress(OSError):
                        if entry.is_dir(follow_symlinks=False):
                            raised.append(secrets.token_hex(12))
                            os.rename(entry.name, raised[-1], src_dir_fd=fd, dst_dir_fd=self._mount.trash_fd)
                        else:
                            self._mount.records.clear(seal_of(entry.stat(follow_symlinks=False)))
                            os.unlink(entry.name, dir_fd=fd)
        finally:
            os.close(fd)
        return raised


def _modified(entry: "os.DirEntry[str]") -> float:
    try:
        return entry.stat(follow_symlinks=False).st_mtime
    except OSError:
        return time.time()


def list_names(directory_fd: int, path: str) -> list[str]:
    """The entries of a private directory, none when it does not exist."""
    try:
        fd = os.open(path, DIRECTORY, dir_fd=directory_fd)
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)
