"""Blobs of a container in the order of their names, a page at a time, straight from the directories.

The walk keeps a heap of open ends: a file waits under its name, a directory under the first name that can be in it. The
smallest comes out first; a directory is then opened and its sorted entries (index.py) take its place. So the order is
right also where names interleave (`a`, `a-b`, `a/x`), and only directories that a page touches are read. A delimiter
skips all that begins with a prefix as soon as one blob below it was seen: an empty directory is no prefix.
"""

import heapq
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final

from dataplane.blobapi.dates import iso_ticks
from dataplane.blobapi.model import LOST, BlobProperties, BlobState, Lease
from dataplane.store import blobstate, blocks, files, leasefiles, names
from dataplane.store.index import DirectoryIndex, Entry, Sorted
from dataplane.store.place import Place, blob_key
from dataplane.store.records import seal_of
from dataplane.store.trash import list_names

_LAST: Final = "\U0010ffff"
_SHORT_CHARS: Final = 60  # such a segment is one component, whatever its characters


@dataclass(frozen=True, slots=True)
class ListItem:
    """One result: a blob (or snapshot), a blob of uncommitted blocks only, or a group of blobs with one prefix."""

    state: BlobState | None = None
    prefix: str = ""
    uncommitted: bool = False


@dataclass(slots=True)
class ListPage:
    """Results in order, and the first name of the next page ("" at the end)."""

    items: list[ListItem] = field(default_factory=list)
    next_start: str = ""


@dataclass(frozen=True, slots=True)
class _Directory:
    """A directory that may hold names from `text` on. `escaped`: its path has escapes, so names need the long check."""

    path: str  # relative to the container, "" for the container itself
    text: str
    escaped: bool


class _Cursor:
    """A place in the sorted entries of one directory. It only moves forward."""

    def __init__(self, directory: _Directory, entries: Sorted, start: str) -> None:
        self.directory: Final = directory
        self._entries = entries
        self._passed: Entry = ("", "")
        self._seek(start)

    def next(self, start: str) -> Entry | None:
        """The next entry that is, or leads to, a name not less than `start`; None at the end."""
        if start != self._sought:
            self._seek(start)
        for entry in self._iterator:
            if entry > self._passed:
                self._passed = entry
                return entry
        return None

    def _seek(self, start: str) -> None:
        self._sought = start
        text = self.directory.text
        if start <= text:
            self._iterator = self._entries.at_or_after("")
        elif not start.startswith(text):
            self._iterator = iter(())
        else:
            self._iterator = self._from(start[len(text) :])

    def _from(self, local: str) -> Iterator[Entry]:
        """Entries at or after a key, and before them the directory that names after the key are in."""
        head = local.partition("/")[0]
        if len(head) > _SHORT_CHARS:  # the directory may be the first part of a long segment: start earlier
            return self._entries.at_or_after(head[:_SHORT_CHARS])
        rest = self._entries.at_or_after(local)
        key = head + "/"
        first = next(self._entries.at_or_after(key), None) if key < local else None
        return chain([first], rest) if first is not None and first[0] == key else rest


class Walker:
    """Names and paths of a container's blobs, in order, from `start` on and within `prefix`."""

    def __init__(self, place: Place, index: DirectoryIndex, prefix: str, start: str) -> None:
        self._place = place
        self._index = index
        self._prefix = prefix
        self._start = max(start, prefix)
        self._heap: list[tuple[str, int, str, _Cursor]] = []
        self._serial = 0
        self._open(_Directory("", "", False))

    def skip_to(self, name: str) -> None:
        """Go on at the first name that is not less than `name`."""
        self._start = max(self._start, name)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        previous = None
        while self._heap:
            key, _, component, cursor = heapq.heappop(self._heap)
            self._advance(cursor)
            within = cursor.directory
            path = f"{within.path}/{component}" if within.path else component
            escaped = within.escaped or "%~" in component
            if component.endswith("/"):
                self._enter(_Directory(path[:-1], key, escaped))
            elif key < self._start:
                continue
            elif not key.startswith(self._prefix):
                return  # all that is left is greater than every name with the prefix
            elif key != previous and (not escaped or self._is_own(key, path)):
                previous = key  # a blob that is just moving beside its directory has two links
                yield key, path

    def _enter(self, directory: _Directory) -> None:
        text = directory.text
        wanted = text.startswith(self._prefix) or self._prefix.startswith(text)
        if wanted and after_prefix(text) > self._start:
            self._open(directory)

    def _open(self, directory: _Directory) -> None:
        path = self._place.prefix + directory.path if directory.path else self._place.directory
        try:
            fd = files.open_directory(self._place.mount, path)
        except PermissionError:
            if not directory.path:
                raise
            return  # another user's own (`lost+found`): it hides what is in it, and nothing else
        if fd is None:
            return
        try:
            entries = self._index.sorted(fd)
        finally:
            os.close(fd)
        self._advance(_Cursor(directory, entries, self._start))

    def _advance(self, cursor: _Cursor) -> None:
        entry = cursor.next(self._start)
        if entry is not None:
            self._serial += 1
            heapq.heappush(self._heap, (cursor.directory.text + entry[0], self._serial, entry[1], cursor))

    def _is_own(self, name: str, path: str) -> bool:
        return names.path_matches(name, path, self._place.mount.capabilities.refused_characters)


def after_prefix(text: str) -> str:
    """The least string that is greater than every string that begins with `text`."""
    text = text.rstrip(_LAST)
    return text[:-1] + chr(ord(text[-1]) + 1) if text else _LAST * 2


def list_blobs(
    place: Place, index: DirectoryIndex, *, prefix: str, delimiter: str, start: str, limit: int,
    snapshots: bool = False, uncommitted: bool = False,
) -> ListPage:  # fmt: skip
    """One page of at most `limit` results (a prefix group counts as one). See Store.list_blobs."""
    page = ListPage()
    reader = _StateReader(place, snapshots)
    walker = Walker(place, index, prefix, start)
    source = _merged(walker, place, prefix, start) if uncommitted else ((n, p, False) for n, p in walker)
    group = ""
    for name, path, is_uncommitted in source:
        if group and name.startswith(group):
            continue
        if len(page.items) >= limit:
            page.next_start = name
            return page
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        if cut >= 0:
            group = name[: cut + len(delimiter)]
            page.items.append(ListItem(prefix=group))
            walker.skip_to(after_prefix(group))
        elif is_uncommitted:
            page.items.append(ListItem(reader.uncommitted(name), uncommitted=True))
        else:
            page.items += reader.states(name, path)
    return page


def _merged(walker: Walker, place: Place, prefix: str, start: str) -> Iterator[tuple[str, str, bool]]:
    """The walk, and between its names those of blobs that have uncommitted blocks only."""
    waiting = [n for n in blocks.uncommitted_names(place) if n >= start and n.startswith(prefix)]
    committed = ((n, p, False) for n, p in walker)
    previous = ""
    for name, path, flag in heapq.merge(
        committed, ((n, "", True) for n in waiting), key=lambda item: (item[0], item[2])
    ):
        if name != previous or not flag:
            yield name, path, flag
        previous = name


class _StateReader:
    """States of listed blobs; what can be asked once for a page is."""

    def __init__(self, place: Place, snapshots: bool) -> None:
        self._place = place
        self._leased = frozenset() if place.mount.read_only else leasefiles.leased_keys(place)
        self._with_snapshots: frozenset[str] = frozenset()
        if snapshots and not place.mount.read_only:
            self._with_snapshots = frozenset(list_names(place.mount.containers_fd, place.private("snapshots")))

    def states(self, name: str, path: str) -> list[ListItem]:
        """The blob's snapshots, oldest first, then the blob; nothing when it went meanwhile."""
        items = []
        if self._with_snapshots and blob_key(name) in self._with_snapshots:
            for ticks in blobstate.snapshot_ticks(self._place, name):
                opened = blobstate.open_blob(self._place, name, iso_ticks(ticks))
                if opened is not None:
                    os.close(opened[0].fd)
                    items.append(ListItem(opened[1]))
        try:
            state = self._state(name, path)
        except PermissionError:
            state = self._unreadable(name, path)
        if state is not None:
            items.append(ListItem(state))
        return items

    def _state(self, name: str, path: str) -> BlobState | None:
        mount = self._place.mount
        remembered = self._remembered(name, path)
        if remembered is not None:
            return remembered
        opened = files.open_regular(mount, self._place.prefix + path)
        if isinstance(opened, int):
            return self._state_again(name)
        fd, seal = opened
        found = files.Found(fd, self._place.prefix + path, seal)
        try:
            properties = mount.records.cached(seal)
            if properties is None:
                properties = files.properties(self._place, name, found)
        finally:
            os.close(fd)
        if properties.foreign and not files.is_in_place(mount, found):
            return self._state_again(name)
        return BlobState(name, files.logical_size(seal, properties), properties, self._lease(name, properties.etag))

    def _unreadable(self, name: str, path: str) -> BlobState | None:
        """A file that another user keeps to himself is a blob that cannot be read: it hides no other from a listing."""
        fd = self._place.mount.open(self._place.prefix + path, os.O_PATH)
        if fd < 0:
            return None
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        properties = files.foreign_properties(name, seal_of(status))
        if files.is_marked(status):
            properties = replace(properties, remote=LOST)
        return BlobState(name, status.st_size, properties)

    def _remembered(self, name: str, path: str) -> BlobState | None:
        """The state of a file whose record is at hand, without opening it: a seal that is known is that blob's."""
        mount = self._place.mount
        try:
            status = os.stat(self._place.prefix + path, dir_fd=mount.root_fd, follow_symlinks=False)
        except OSError:
            return None
        seal = seal_of(status)
        properties = mount.records.cached(seal)
        if properties is None:
            return None
        return BlobState(name, files.logical_size(seal, properties), properties, self._lease(name, properties.etag))

    def _lease(self, name: str, etag: str) -> Lease | None:
        leased = self._leased and blob_key(name) in self._leased
        return leasefiles.read_with(self._place, name, etag) if leased else None

    def _state_again(self, name: str) -> BlobState | None:
        """The blob moved, changed or went since the walk came by."""
        again = blobstate.open_blob(self._place, name)
        if again is None:
            return None
        os.close(again[0].fd)
        return again[1]

    def uncommitted(self, name: str) -> BlobState:
        """A blob that so far is blocks only: a name with no content (REST page "List Blobs", uncommittedblobs)."""
        return BlobState(name, 0, BlobProperties(etag="", last_modified=0, created=0))
