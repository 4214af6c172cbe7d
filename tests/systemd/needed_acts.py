"""What the service does all day: the sandbox must let it, and one call that it forbids, which the store knows of."""

import ctypes
import mmap
import os
import platform
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.systemd.acts import DATA, NETWORK_SECONDS_MAX, Act, entering, libc

STATE: Final = "/var/lib/blobedge"
SYS_IO_SETUP: Final = {"x86_64": 206, "aarch64": 0}[platform.machine()]
SYS_IO_DESTROY: Final = {"x86_64": 207, "aarch64": 1}[platform.machine()]
SYS_OPENAT2: Final = 437
AT_FDCWD: Final = -100

ACTS: Final[dict[str, Act]] = {}
act = entering(ACTS)


@contextmanager
def temporary(directory: str = DATA) -> Iterator[int]:
    """A file with a page in it, below `directory`."""
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        file.write(bytes(mmap.PAGESIZE))
        file.flush()
        yield file.fileno()


@act("done")
def write_data() -> None:
    with temporary() as fd:
        os.fsync(fd)
        os.fchmod(fd, 0o644)


@act("done")
def write_state() -> None:
    with temporary(STATE):
        pass


@act("done", outside="ENOENT")
def read_a_secret() -> None:
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "/run/credentials/of-nobody")
    assert len(Path(directory, "secrets_plant7.key1").read_bytes()) > 0


@act("ENOSYS", outside="EINVAL")
def open_with_openat2() -> None:
    libc("syscall", SYS_OPENAT2, AT_FDCWD, b".", None, 0)


@act("done")
def set_up_linux_aio() -> None:
    context = ctypes.c_ulong()
    libc("syscall", SYS_IO_SETUP, 1, ctypes.byref(context))
    libc("syscall", SYS_IO_DESTROY, context)


@act("done EOPNOTSUPP", outside="done EOPNOTSUPP")
def keep_an_extended_attribute() -> None:
    with temporary() as fd:
        os.setxattr(fd, "user.blobedge", b"x")


@act("done")
def send_a_file() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, temporary() as fd:
        assert os.sendfile(ours.fileno(), fd, 0, 16) == 16


@act("done")
def copy_inside_the_kernel() -> None:
    with temporary() as source, temporary() as target:
        assert os.copy_file_range(source, target, 16, 0, 0) == 16


@act("done")
def begin_writing_back() -> None:
    with temporary() as fd:
        libc("sync_file_range", fd, ctypes.c_int64(0), ctypes.c_int64(0), 2)


@act("done")
def share_memory() -> None:
    fd = os.memfd_create("probe")
    os.ftruncate(fd, mmap.PAGESIZE)
    mmap.mmap(fd, mmap.PAGESIZE).close()


@act("done")
def wait_for_a_process_by_descriptor() -> None:
    os.close(os.pidfd_open(os.getpid()))


@act("done")
def block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


@act("done")
def listen_and_connect_on_the_loopback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), NETWORK_SECONDS_MAX).close()


@act("done")
def listen_on_a_unix_socket() -> None:
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{directory}/socket")
        server.listen()
