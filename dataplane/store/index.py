"""Sorted names of a directory, so that a page of a listing costs the page and not the directory.

A small directory is read and sorted, and remembered while its stat says that it has not changed. A large one is sorted
once in bounded memory (runs on disk, merged) into a file below `.blobedge/index`, which every worker reads: finding the
start of a page is a binary search, and a page touches only its own part of the file.
A directory that changed within the last moments is never remembered: its time stamp may not show the next change yet.

File: the names (UTF-8, directories with a slash at their end) each followed by NUL, in order of the names they decode
to; then their offsets, 8 bytes each, little-endian; then the count, 8 bytes, and the magic.
"""

import bisect
import heapq
import os
import secrets
import struct
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Final, Protocol

from dataplane.store import names
from dataplane.store.errors import StorageUnavailable
from dataplane.store.mount import Mount
from dataplane.store.names import Kind

LARGE_ENTRIES_MIN: Final = 20_000
_RUN_ENTRIES: Final = 65_536
_REMEMBERED_ENTRIES_MAX: Final = 400_000
_SETTLED_NS: Final = 50_000_000  # directory time stamps advance in steps of a jiffy, 4 ms or so
_INDEX_SECONDS_MAX: Final = 3600
_MAGIC: Final = b"bedgidx1"
_TAIL: Final = struct.Struct("<Q8s")
_PIECE_ENTRIES: Final = 512
_COMPONENT_BYTES_MAX: Final = names.COMPONENT_BYTES_MAX + 2  # with the slash of a directory and the NUL

#: (sort key, component): the key is the decoded text, with a slash for a directory that ends a segment. Components of
#: directories have a slash at their end.
Entry = tuple[str, str]


class Sorted(Protocol):
    """Sorted entries of one directory."""

    def at_or_after(self, key: str) -> Iterator[Entry]: ...


class _Small:
    """Entries in memory."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries

    def at_or_after(self, key: str) -> Iterator[Entry]:
        start = bisect.bisect_left(self.entries, (key, "")) if key else 0
        return (self.entries[i] for i in range(start, len(self.entries)))


class _Large:
    """An index file, read in pieces. Not mapped: a page fault on a file that another node removed or cut short ends the
    process (SIGBUS), a read fails. `broken` tells that one did: the index is then made again."""

    def __init__(self, fd: int) -> None:
        """Takes a duplicate of the descriptor. Raises ValueError for a file that is no index."""
        self.broken = False
        size = os.fstat(fd).st_size
        tail = os.pread(fd, _TAIL.size, max(0, size - _TAIL.size))
        self._count, magic = _TAIL.unpack(tail) if len(tail) == _TAIL.size else (0, b"")
        self._offsets = size - _TAIL.size - 8 * self._count
        if magic != _MAGIC or self._offsets < 0:
            raise ValueError("not an index")
        self._fd = os.dup(fd)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if hasattr(self, "_fd"):
            close(self._fd)

    def at_or_after(self, key: str) -> Iterator[Entry]:
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            if _key(self._components(middle, 1)[0]) < key:
                low = middle + 1
            else:
                high = middle
        for i in range(low, self._count, _PIECE_ENTRIES):
            for component in self._components(i, min(_PIECE_ENTRIES, self._count - i)):
                yield _key(component), component

    def _components(self, first: int, count: int) -> list[str]:
        """Consecutive names. Raises StorageUnavailable when the file does not hold them any more."""
        try:
            wanted = 8 * (count + 1)  # the offset after the last name is the next one's, or where the offsets begin
            raw = os.pread(self._fd, wanted, self._offsets + 8 * first)
            bounds = [*array("Q", raw[: 8 * min(count + 1, self._count - first)]), self._offsets]
            start, end = bounds[0], bounds[count]
            if not start < end <= start + count * _COMPONENT_BYTES_MAX:
                raise ValueError("offsets out of order")
            found = os.pread(self._fd, end - start, start).decode("utf-8").split("\0")[:-1]
            if len(found) != count:
                raise ValueError("names are missing")
        except (OSError, ValueError, IndexError) as error:
            self.broken = True
            raise StorageUnavailable("read index") from error
        return found


def _key(component: str) -> str:
    """The sort key of a stored component; directories were stored with a slash."""
    if "%~" not in component:
        return component
    directory = component.endswith("/")
    decoded = names.decode_component(component.removesuffix("/"))
    assert decoded is not None  # only decodable ones are stored
    text, kind = decoded
    return text + "/" if directory and kind is Kind.WHOLE else text


def _order(component: str) -> Entry:
    return _key(component), component


def _scan(fd: int) -> Iterator[str]:
    """Components of a directory that can be blobs, or lead to some; directories get a slash at their end."""
    with os.scandir(fd) as entries:
        for entry in entries:
            name = entry.name
            if names.is_hidden(name) or ("%~" in name and names.decode_component(name) is None):
                continue
            if entry.is_file(follow_symlinks=False):
                yield name
            elif entry.is_dir(follow_symlinks=False):
                yield name + "/"


class DirectoryIndex:
    """Sorted directories of one mount, remembered within a budget."""

    def __init__(self, mount: Mount) -> None:
        self._mount = mount
        self._remembered: OrderedDict[tuple[int, int, int], Sorted] = OrderedDict()
        self._entries = 0

    def sorted(self, fd: int) -> Sorted:
        """The entries of an open directory, in order. Raises OSError."""
        status = os.fstat(fd)
        stamp = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        found = self._remembered.get(stamp)
        file_name = "-".join(f"{part:x}" for part in stamp)
        if found is not None and not (isinstance(found, _Large) and found.broken):
            self._remembered.move_to_end(stamp)
            return found
        if found is not None:
            self._forget(stamp, file_name)
        settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS
        if settled and (large := self._open_large(file_name)) is not None:
            return self._remember(stamp, large, 1)
        scan = _scan(fd)
        first = list(islice(scan, LARGE_ENTRIES_MIN))
        if len(first) < LARGE_ENTRIES_MIN or self._mount.read_only:
            first += scan
            small = _Small(sorted(_order(c) for c in first))
            return self._remember(stamp, small, len(first)) if settled else small
        try:
            large = self._build_large(first, scan, file_name if settled else None)
        except OSError:  # a full or failing mount still lists what it has, from memory
            return _Small(sorted(_order(c) for c in _scan(fd)))
        return self._remember(stamp, large, 1) if settled else large

    def close(self) -> None:
        """Let go of the open files."""
        self._remembered.clear()
        self._entries = 0

    def _remember(self, stamp: tuple[int, int, int], found: Sorted, entries: int) -> Sorted:
        self._remembered[stamp] = found
        self._entries += entries
        while self._entries > _REMEMBERED_ENTRIES_MAX and len(self._remembered) > 1:
            _, old = self._remembered.popitem(last=False)
            self._entries -= len(old.entries) if isinstance(old, _Small) else 1
        return found

    def _forget(self, stamp: tuple[int, int, int], file_name: str) -> None:
        """A broken index: the next one to ask makes it again."""
        del self._remembered[stamp]
        self._entries -= 1
        with suppress(OSError):
            os.unlink(file_name, dir_fd=self._mount.index_fd)

    def _open_large(self, name: str) -> _Large | None:
        if self._mount.read_only:
            return None
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._mount.index_fd)
        except FileNotFoundError:
            return None
        try:
            return _Large(fd)
        except (ValueError, OSError):
            return None
        finally:
            os.close(fd)

    def _build_large(self, first: list[str], scan: Iterator[str], name: str | None) -> _Large:
        """Sort runs of bounded length into temporary files and merge them. `name` None: used once, not kept."""
        index_fd = self._mount.index_fd
        runs: list[str] = []
        temporary = secrets.token_hex(12)
        try:
            run = first
            while run:
                run += islice(scan, _RUN_ENTRIES - len(run))
                runs.append(self._write_run(sorted(run, key=_order)))
                run = list(islice(scan, _RUN_ENTRIES))
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=index_fd)
            try:
                with os.fdopen(os.dup(fd), "wb", buffering=1 << 20) as out:
                    offsets = array("Q")
                    position = 0
                    for component in heapq.merge(*(self._read_run(r) for r in runs), key=_order):
                        data = component.encode("utf-8") + b"\0"
                        out.write(data)
                        offsets.append(position)
                        position += len(data)
                    out.write(offsets.tobytes())
                    out.write(_TAIL.pack(len(offsets), _MAGIC))
                large = _Large(fd)
            finally:
                os.close(fd)
            if name is not None:
                self._drop_older(name)
                os.rename(temporary, name, src_dir_fd=index_fd, dst_dir_fd=index_fd)
            return large
        finally:
            for each in (temporary, *runs):
                with suppress(OSError):
                    os.unlink(each, dir_fd=index_fd)

    def _drop_older(self, name: str) -> None:
        """Indexes of the same directory at an earlier moment, and ones that nobody used for long."""
        inode = name.partition("-")[0] + "-"
        now = time.time()
        with os.scandir(self._mount.index_fd) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.name.startswith(inode) or now - entry.stat().st_mtime > _INDEX_SECONDS_MAX:
                        os.unlink(entry.name, dir_fd=self._mount.index_fd)

    def _write_run(self, components: list[str]) -> str:
        name = secrets.token_hex(12)
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._mount.index_fd)
        with os.fdopen(fd, "wb", buffering=1 << 20) as file:
            for component in components:
                file.write(component.encode("utf-8") + b"\0")
        return name

    def _read_run(self, name: str) -> Iterator[str]:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._mount.index_fd)
        rest = b""
        with os.fdopen(fd, "rb") as file:
            while chunk := file.read(1 << 16):
                *whole, rest = (rest + chunk).split(b"\0")
                for component in whole:
                    yield component.decode("utf-8")
