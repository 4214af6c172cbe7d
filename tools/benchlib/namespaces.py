"""Network namespaces without a name: they end with the last process that holds them, so nothing is left behind.

Rejected: names below /run/netns, which outlive a program that was killed.
"""

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWNET: Final = 0x4000_0000
_MS_REC: Final = 1 << 14
_MS_PRIVATE: Final = 1 << 18
_HERE: Final = "/proc/thread-self/ns/net"

_libc: Final = ctypes.CDLL(None, use_errno=True)


def new_namespace() -> int:
    """Return a descriptor of a new network namespace; it lives as long as that is open. Raises OSError."""
    home = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(CLONE_NEWNET))
        made = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
        _check(_libc.setns(home, CLONE_NEWNET))
        return made
    finally:
        os.close(home)


@contextmanager
def inside(namespace: int) -> Iterator[None]:
    """Be there, with this thread alone: sockets and devices made inside stay there. Raises OSError."""
    home = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(namespace, CLONE_NEWNET))
        try:
            yield
        finally:
            _check(_libc.setns(home, CLONE_NEWNET))
    finally:
        os.close(home)


def run_inside(namespace: int, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program there, with the namespace's own /sys; its standard output is kept. Raises CalledProcessError when
    it fails, OSError when it cannot start."""
    return subprocess.run(
        command, preexec_fn=_entering(namespace), check=True, stdout=subprocess.PIPE, text=True, timeout=60
    )


def _entering(namespace: int) -> Callable[[], None]:
    """sysfs shows the devices of the namespace that mounted it; private, so that nobody else sees the new mount."""

    def enter() -> None:
        _check(_libc.setns(namespace, CLONE_NEWNET))
        _check(_libc.unshare(CLONE_NEWNS))
        _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
        _check(_libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None))

    return enter


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
