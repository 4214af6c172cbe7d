"""Opening without openat2 answers as openat2 does, whatever lies on the path."""

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataplane.store import syscalls, walk
from dataplane.store.mount import DIRECTORY, READ

PATHS = [
    "file", "dir", "dir/", "dir/.", "dir/file", "dir//file", "./dir/file", "dir/deep/er/file", "dir/none", "none/file",
    "file/below", "file/", "", ".", "/etc/passwd", "..", "../outside", "dir/../../outside",
    "link", "link/", "out", "out/file", "dir/up", "dir/up/outside", "dangling", "loop", "fifo",
    "x" * 256, "dir/" + "x" * 256,
]  # fmt: skip
FLAGS = [READ, DIRECTORY, os.O_RDWR, os.O_WRONLY | os.O_NONBLOCK]


@pytest.fixture
def root_fd(tmp_path: Path) -> Iterator[int]:
    """A tree with a file of every kind, and what it must not lead to beside it."""
    (tmp_path / "outside").write_text("secret")
    root = tmp_path / "root"
    (root / "dir/deep/er").mkdir(parents=True)
    for name in ("file", "dir/file", "dir/deep/er/file"):
        (root / name).write_text(name)
    for name, target in {"link": "file", "out": "..", "dir/up": "../..", "dangling": "nowhere", "loop": "loop"}.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "fifo")
    fd = os.open(root, DIRECTORY)
    yield fd
    os.close(fd)


def found(fd: int) -> tuple[int, int] | int:
    """What was opened, or minus the errno."""
    if fd < 0:
        return fd
    status = os.fstat(fd)
    assert not os.get_inheritable(fd)
    os.close(fd)
    return status.st_ino, stat.S_IFMT(status.st_mode)


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("path", PATHS)
def test_the_answer_is_that_of_openat2(root_fd: int, path: str, flags: int) -> None:
    raw = path.encode()
    expected = found(syscalls.openat2(root_fd, raw, flags))
    for quick in (False, True):
        assert found(walk.open_beneath(root_fd, raw, flags, quick=quick)) == expected


def test_no_descriptor_stays_open(root_fd: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in PATHS:
        found(walk.open_beneath(root_fd, path.encode(), READ))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_is_made_with_its_mode(root_fd: int) -> None:
    fd = walk.open_beneath(root_fd, b"dir/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
    os.close(fd)


SECCOMP_MODE_FILTER = 2
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
RET_ALLOW, RET_ERRNO = 0x7FFF0000, 0x00050000


def forbid_openat2(code: int) -> None:
    """As systemd's RestrictSUIDSGID= (ENOSYS) or an old container runtime does, for this process and for good."""
    # Classic BPF, (code, jump if true, jump if false, operand): load the call's number; openat2 fails.
    steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 437), (0x06, 0, 0, RET_ERRNO | code), (0x06, 0, 0, RET_ALLOW)]
    libc = ctypes.CDLL(None, use_errno=True)
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in steps))
    what = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(program)))
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, what) == 0


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_a_process_without_openat2_opens_all_the_same(root_fd: int, code: int) -> None:
    expected = [found(syscalls.openat2(root_fd, path.encode(), READ)) for path in PATHS]
    child = os.fork()
    if child == 0:
        try:
            forbid_openat2(code)
            same = [found(syscalls.openat2(root_fd, path.encode(), READ)) for path in PATHS] == expected
            os._exit(0 if same and syscalls._ABSENT else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
