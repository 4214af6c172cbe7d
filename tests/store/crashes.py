"""What a disk may hold after a crash, worked out from the system calls that were made up to then.

A Recorder notes each change with its effect: a version of a file (bytes, attributes, mtime), entries of directories, a
sync. From these, `journalled` and `strict` say what may be on the disk after the first so many of them:

- journalled, as ext4 and XFS behave: changes of metadata persist in their order, at least up to the last sync of
  anything; bytes persist when their file is synced, and may or may not before.
- strict, as POSIX allows: a file is what it was at its own last sync, a directory has the entries of its own last sync.

`restore` puts such a state onto the tree. Records are tied to inode numbers, so every file that ever was is kept alive
by a second link and gets its place, its bytes and its times back, under the number that it had. That needs a file
system that never uses a number twice (tmpfs).
"""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dataplane.store.recordstore import XATTR


class Version(NamedTuple):
    """A file at a moment."""

    data: bytes
    attribute: bytes | None
    mtime_ns: int
    mode: int


_UNBORN = Version(b"", None, 0, 0o600)


@dataclass(slots=True)
class Disk:
    """Directories (entries: name to inode number) and files, by inode number."""

    root: int
    directories: dict[int, dict[str, int]] = field(default_factory=dict)
    files: dict[int, Version] = field(default_factory=dict)

    def copy(self) -> "Disk":
        return Disk(self.root, {i: dict(d) for i, d in self.directories.items()}, dict(self.files))

    def signature(self) -> Any:
        """What can be reached, for telling states apart."""

        def below(inode: int) -> Any:
            if inode in self.directories:
                return tuple((name, below(each)) for name, each in sorted(self.directories[inode].items()))
            return inode, self.files[inode]

        return below(self.root)


@dataclass(frozen=True, slots=True)
class Change:
    """One system call: entries that came (name, inode) or went (None), the file or directory that came to be, the
    version of a file that it made, or the inode that it synced."""

    call: str
    entries: tuple[tuple[int, str, int | None], ...] = ()
    made_directory: int | None = None
    file: tuple[int, Version] | None = None
    synced: int | None = None


class Recorder:
    """The `on_call` of kernel.watched. `graveyard` is a directory on the same file system."""

    def __init__(self, root: Path, graveyard: Path) -> None:
        self.root = root
        self.graveyard = graveyard
        self.changes: list[Change] = []
        self.before = Disk(root.stat().st_ino)
        for path, _, names in os.walk(root):
            inode = os.stat(path).st_ino
            self.before.directories[inode] = {e.name: e.inode() for e in os.scandir(path)}
            for name in names:
                file = Path(path, name)
                self._keep(file.stat().st_ino, str(file))
                self.before.files[file.stat().st_ino] = self._version(file.stat().st_ino)

    def __call__(self, name: str, proceed: Callable[[], Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        note = getattr(self, f"_{name}", None)
        if note is None:
            return proceed()
        return note(proceed, args, kwargs)

    # --- calls ------------------------------------------------------------------------------------------------------

    def _open(self, proceed: Any, args: Any, kwargs: Any) -> Any:
        path, flags, dir_fd = args[0], args[1], kwargs.get("dir_fd")
        if not flags & os.O_CREAT:
            return proceed()
        old = _inode(path, dir_fd)
        fd = proceed()
        inode = os.fstat(fd).st_ino
        if old is None:
            self._keep(inode, path, dir_fd)
            self.changes.append(Change("open", ((*_place(path, dir_fd), inode),), file=(inode, self._version(inode))))
        elif flags & os.O_TRUNC:
            self._changed("truncate", inode)
        return fd

    def _write(self, proceed: Any, args: Any, kwargs: Any) -> Any:
        result = proceed()
        self._changed("write", os.fstat(args[0]).st_ino)
        return result

    _pwrite = _utime = _setxattr = _fchmod = _write

    def _copy_file_range(self, proceed: Any, args: Any, kwargs: Any) -> Any:
        result = proceed()
        self._changed("copy_file_range", os.fstat(args[1]).st_ino)
        return result

    def _fsync(self, proceed: Any, args: Any, kwargs: Any) -> Any:
        result = proceed()
        self.changes.append(Change("fsync", synced=os.fstat(args[0]).st_ino))
        return result

    _fdatasync = _fsync

    def _rename(self, proceed: Any, args: Any, kwargs: Any) -> Any:
        source, target = _place(args[0], kwargs["src_dir_fd"]), _place(args[1], kwargs["dst_dir_fd"])
        inode, there = _inode(args[0], kwargs["src_dir_fd"]), _inode(args[1], kwargs["dst_dir_fd"])
        result = proceed()
        if inode != there:
            self.changes.append(Change("rename", ((*source, None), (*target, inode))))
        return result

    _replace = _rename

    def _link(self, proceed: Any, args: Any, kwargs: Any) -> Any:
        result = proceed()
        inode = _inode(args[1], kwargs["dst_dir_fd"])
        self.changes.append(Change("link", ((*_place(args[1], kwargs["dst_dir_fd"]), inode),)))
        return result

    def _fstat(self, proceed: Any, args: Any, kwargs: Any) -> Any:
        return _Unkept(proceed())

    def _exchange(self, proceed: Any, args: Any, kwargs: Any) -> Any:
        first, second = _place(args[1], args[0]), _place(args[3], args[2])
        result = proceed()
        if result:
            entries = ((*first, _inode(args[1], args[0])), (*second, _inode(args[3], args[2])))
            self.changes.append(Change("exchange", entries))
        return result

    def _unlink(self, proceed: Any, args: Any, kwargs: Any) -> Any:
        place = _place(args[0], kwargs.get("dir_fd"))
        result = proceed()
        self.changes.append(Change("unlink", ((*place, None),)))
        return result

    _rmdir = _unlink

    def _mkdir(self, proceed: Any, args: Any, kwargs: Any) -> Any:
        result = proceed()
        inode = _inode(args[0], kwargs["dir_fd"])
        entry = (*_place(args[0], kwargs["dir_fd"]), inode)
        self.changes.append(Change("mkdir", (entry,), made_directory=inode))
        return result

    # --- inodes -----------------------------------------------------------------------------------------------------

    def _changed(self, call: str, inode: int) -> None:
        self.changes.append(Change(call, file=(inode, self._version(inode))))

    def _keep(self, inode: int, path: str, dir_fd: int | None = None) -> None:
        os.link(path, self.graveyard / str(inode), src_dir_fd=dir_fd)

    def _version(self, inode: int) -> Version:
        path = self.graveyard / str(inode)
        try:
            attribute = os.getxattr(path, XATTR)
        except OSError:
            attribute = None
        status = path.stat()
        return Version(path.read_bytes(), attribute, status.st_mtime_ns, stat.S_IMODE(status.st_mode))

    def restore(self, disk: Disk) -> None:
        """Make the tree what `disk` says."""
        for entry in os.scandir(self.root):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        for inode in self._restored(disk, disk.root, self.root):
            path = self.graveyard / str(inode)
            version = disk.files[inode]
            path.chmod(0o600)
            path.write_bytes(version.data)
            if version.attribute is not None:
                os.setxattr(path, XATTR, version.attribute)
            elif XATTR in os.listxattr(path):
                os.removexattr(path, XATTR)
            path.chmod(version.mode)
            os.utime(path, ns=(version.mtime_ns, version.mtime_ns))

    def _restored(self, disk: Disk, directory: int, path: Path) -> Iterator[int]:
        for name, inode in disk.directories[directory].items():
            if inode in disk.directories:
                (path / name).mkdir()
                yield from self._restored(disk, inode, path / name)
            else:
                os.link(self.graveyard / str(inode), path / name)
                yield inode


class _Unkept:
    """What fstat(2) would say without our second link."""

    def __init__(self, status: os.stat_result) -> None:
        self._status = status
        self.st_nlink = status.st_nlink - 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._status, name)


def _inode(path: str, dir_fd: int | None) -> int | None:
    try:
        return os.stat(path, dir_fd=dir_fd, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return None


def _place(path: str, dir_fd: int | None) -> tuple[int, str]:
    parent, _, name = path.rpartition("/")
    inode = _inode(parent or ".", dir_fd)
    assert inode is not None
    return inode, name


# --- what may be left -----------------------------------------------------------------------------------------------


def _apply(disk: Disk, change: Change) -> None:
    if change.made_directory is not None:
        disk.directories[change.made_directory] = {}
    for directory, name, inode in change.entries:
        if inode is None:
            disk.directories[directory].pop(name, None)
        else:
            disk.directories[directory][name] = inode
    if change.file is not None:
        disk.files[change.file[0]] = change.file[1]


def journalled(recorder: Recorder, count: int) -> Iterator[Disk]:
    """States after a crash that follows the first `count` changes, on a file system with an ordered journal."""
    changes = recorder.changes[:count]
    committed = max((i + 1 for i, change in enumerate(changes) if change.synced is not None), default=0)
    for end in sorted({committed, (committed + count + 1) // 2, count}):
        disk = recorder.before.copy()
        durable = dict(recorder.before.files)
        for i, change in enumerate(changes):
            if i < end:
                _apply(disk, change)
            if change.synced in disk.files:
                durable[change.synced] = disk.files[change.synced]
        yield disk.copy()
        for inode, version in disk.files.items():
            disk.files[inode] = version._replace(data=durable.get(inode, _UNBORN).data)
        yield disk


def strict(recorder: Recorder, count: int) -> Iterator[Disk]:
    """The state after such a crash where nothing persists but what was itself synced."""
    now, disk = recorder.before.copy(), recorder.before.copy()
    for change in recorder.changes[:count]:
        _apply(now, change)
        if change.made_directory is not None:
            disk.directories[change.made_directory] = {}
        if change.synced in now.directories:
            disk.directories[change.synced] = dict(now.directories[change.synced])
        elif change.synced is not None:
            disk.files[change.synced] = now.files[change.synced]
    for entries in disk.directories.values():
        for inode in entries.values():
            if inode not in disk.directories:
                disk.files.setdefault(inode, _UNBORN)
    yield disk
