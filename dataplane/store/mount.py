"""One directory tree that holds blobs, and our private part of it, `.blobedge/`.

    .blobedge/format             what wrote this tree, with the version of the layout
    .blobedge/staging/NN/        files that are not visible yet
    .blobedge/records/           records that an attribute cannot hold
    .blobedge/containers/NAME/   what is kept of a container besides its blobs (containers.py)
    .blobedge/trash/             what is being deleted
    .blobedge/index/             sorted names of large directories, a cache (index.py)
    .blobedge/swaps/             files that are about to change places with a visible one (swap.py)
    .blobedge/probe              what the mount could do when it was last tried (remembered.py)
    .blobedge/lock               one byte of it is locked for each blob that is being changed

Every open below the tree goes through `open`: openat2 that can neither leave the tree nor follow a symbolic link.
"""

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import Final, Literal

from dataplane.store import names, syscalls
from dataplane.store.blockcounts import BlockCounts
from dataplane.store.errors import FormatTooNew, StorageUnavailable, translated
from dataplane.store.probe import unprobed
from dataplane.store.recordstore import REMEMBERED_COUNT, RecordStore
from dataplane.store.remembered import probed

PRIVATE: Final = ".blobedge"
FORMAT_VERSION: Final = 2  # the latest that is known
_PLAIN: Final = 1  # of a tree that has had no stub yet: older programs may have it
_DIRS: Final = ("staging", "records", "containers", "trash", "index", "swaps")
_PATH_BYTES_MAX: Final = 4000  # PATH_MAX is 4096 with the NUL; longer names are walked in steps
_LOCK_BITS: Final = 62
_LANES: Final = 32
_LANE_FILES: Final = 16
LANE_CHARS: Final = 2  # the length of their names

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
RecordsOption = Literal["auto", "xattr", "sidecar"]


class Mount:
    """A tree, opened once. Thread-safe: it holds descriptors that are only used with *at calls."""

    def __init__(
        self,
        path: str,
        records: RecordsOption = "auto",
        read_only: bool = False,
        remembered_count: int = REMEMBERED_COUNT,
    ) -> None:
        """Open a tree and make its private directories. Raises OSError as the system calls do, FormatTooNew."""
        self.root_fd: Final = os.open(path, DIRECTORY)
        self.read_only: Final = read_only
        self._remembered_count: Final = remembered_count
        self.block_counts: Final = BlockCounts()
        self._local = threading.local()
        self._fds = [self.root_fd]
        try:
            self._open(records)
        except BaseException:
            self.close()
            raise

    def _open(self, records: RecordsOption) -> None:
        if self.read_only:
            self.capabilities = unprobed(self.root_fd)
            records_fd = self.open(f"{PRIVATE}/records", DIRECTORY)  # another node may write this tree
            self.records = RecordStore(max(records_fd, -1), "xattr", cacheable=False)
            if records_fd >= 0:
                self._own(records_fd)
            return
        _make_private(self.root_fd, [PRIVATE])
        self.private_fd = self._own(os.open(PRIVATE, DIRECTORY | os.O_NOFOLLOW, dir_fd=self.root_fd))
        self._version = _check_format(self.private_fd)  # before anything is made in a tree of another layout
        _make_private(self.root_fd, [f"{PRIVATE}/{each}" for each in _DIRS])
        self.staging_fd, records_fd, self.containers_fd, self.trash_fd, self.index_fd, self.swaps_fd = (
            self._own(os.open(name, DIRECTORY, dir_fd=self.private_fd)) for name in _DIRS
        )
        self._lanes = [self._own(fd) for fd in _open_lanes(self.staging_fd)]
        self._next_lane = 0
        self.capabilities = probed(self.private_fd, self.staging_fd)
        backend = self.capabilities.backend if records == "auto" else records
        self.records = RecordStore(
            records_fd, backend, self.capabilities.mtime_granularity_ns == 1, self._remembered_count
        )

    def _own(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def staging_lane(self) -> int:
        """The directory that the next staged file is made in. Consecutive ones share it, so that a group's files lie
        close together; it changes soon (see `_open_lanes`)."""
        self._next_lane += 1
        return self._lanes[(self._next_lane // _LANE_FILES) % len(self._lanes)]

    def close(self) -> None:
        """Close every descriptor. No call may be under way or come after."""
        while self._fds:
            os.close(self._fds.pop())

    def open(self, path: str, flags: int = READ) -> int:
        """Open below the tree. The descriptor, or minus the errno (ENOENT, ENOTDIR, ELOOP, EXDEV, EISDIR, ...)."""
        raw = path.encode("utf-8", "surrogateescape")
        if len(raw) <= _PATH_BYTES_MAX:
            return syscalls.openat2(self.root_fd, raw, flags, quick=self.capabilities.local)
        *parents, last = raw.split(b"/")
        at = os.dup(self.root_fd)
        while parents:
            step, parents = b"/".join(parents[:8]), parents[8:]
            deeper = syscalls.openat2(at, step, DIRECTORY)
            os.close(at)
            if deeper < 0:
                return deeper
            at = deeper
        fd = syscalls.openat2(at, last, flags)
        os.close(at)
        return fd

    def encode(self, name: str) -> str:
        """A blob's path relative to its container, on this mount."""
        return names.encode(name, self.capabilities.refused_characters)

    def encode_beside(self, name: str) -> str:
        """Where a blob is kept whose own path is a directory."""
        return names.encode_beside(name, self.capabilities.refused_characters)

    def new_mtime_ns(self) -> int:
        """A fresh mtime, such that a seal is practically never used twice: the clock to the nanosecond (the kernel's
        own stamps advance by milliseconds), cut to what the mount keeps."""
        now = time.time_ns()
        return now - now % self.capabilities.mtime_granularity_ns

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Exclusive between all processes and nodes that have this mount. Not reentrant; never held over network
        I/O."""
        offset = int.from_bytes(blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()) >> (
            64 - _LOCK_BITS
        )
        fd = self._lock_fd()
        with translated("lock"):
            syscalls.lock_byte(fd, offset)
        try:
            yield
        finally:
            syscalls.unlock_byte(fd, offset)

    def _lock_fd(self) -> int:
        """A descriptor of this thread's own: such locks hold between descriptors, not between their users."""
        fd: int | None = getattr(self._local, "fd", None)
        if fd is None:
            fd = self._own(os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self.private_fd))
            self._local.fd = fd
        return fd

    def allow_stubs(self) -> None:
        """Before the first stub is made: a program that knows none would serve empty blobs, so from now on it has to
        refuse this tree. Raises StoreError."""
        if self._version < FORMAT_VERSION:
            with translated("write format"):
                self._version = _check_format(self.private_fd)  # another process may have been here
                if self._version < FORMAT_VERSION:
                    _raise_format(self.private_fd)
                    self._version = FORMAT_VERSION

    def require_writable(self) -> None:
        """Raises StorageUnavailable for a tree that was opened read-only: a caller should have refused before."""
        if self.read_only:
            raise StorageUnavailable("write to a read-only container")


def _make_private(root_fd: int, paths: list[str]) -> None:
    """Make `.blobedge`, or directories in it, durably, once. Two processes may do it at the same time."""
    with translated("initialise"):
        created = False
        for name in paths:
            try:
                os.mkdir(name, 0o700, dir_fd=root_fd)
                created = True
            except FileExistsError:
                continue
        if created:
            private_fd = os.open(PRIVATE, DIRECTORY, dir_fd=root_fd)
            os.fsync(private_fd)
            os.close(private_fd)
            os.fsync(root_fd)


def _open_lanes(staging_fd: int) -> list[int]:
    """The directories of staged files. ext4 makes a file near its directory and, looking for a free inode, passes over
    every one freed in the last seconds: with one directory, creating costs 0.3 to 0.9 ms while blobs are overwritten
    at a high rate, with these 0.03 to 0.1 ms. The flag has ext4 put each into a block group of its own (chattr(1),
    T)."""
    with suppress(OSError):
        syscalls.set_top_directory(staging_fd)
    fds = []
    for i in range(_LANES):
        with suppress(FileExistsError):
            os.mkdir(f"{i:02x}", 0o700, dir_fd=staging_fd)
        fds.append(os.open(f"{i:02x}", DIRECTORY, dir_fd=staging_fd))
    return fds


def _check_format(private_fd: int) -> int:
    """The version of a tree. Writes the format file of a new one; refuses one of a version that we do not know."""
    data = _read_format(private_fd)
    if not data:  # or a crash before the first byte: nothing else can have been written under another version
        _write_format(private_fd, {"version": _PLAIN, "id": secrets.token_hex(16), "program": "blobedge"})
        return _PLAIN
    try:
        version = int(json.loads(data)["version"])
    except (ValueError, KeyError, TypeError):
        raise FormatTooNew("the file `format` of the layout does not read") from None
    if not 1 <= version <= FORMAT_VERSION:
        raise FormatTooNew(f"layout version {version}, this program knows {FORMAT_VERSION}")
    return version


def _read_format(private_fd: int) -> bytes:
    try:
        fd = os.open("format", os.O_RDONLY | os.O_CLOEXEC, dir_fd=private_fd)
    except FileNotFoundError:
        return b""
    with os.fdopen(fd, "rb") as file:
        return file.read()


def _raise_format(private_fd: int) -> None:
    """The same tree, of the latest version."""
    _write_format(private_fd, {**json.loads(_read_format(private_fd)), "version": FORMAT_VERSION})


def _write_format(private_fd: int, document: dict[str, object]) -> None:
    temporary = f"format.{secrets.token_hex(8)}"
    with os.fdopen(
        os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=private_fd), "wb"
    ) as file:
        file.write(json.dumps(document).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, "format", src_dir_fd=private_fd, dst_dir_fd=private_fd)
    os.fsync(private_fd)
