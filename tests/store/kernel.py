"""Stand in the store's way to the kernel: see each system call it makes, let it pass, fail it, or stop everything.

The modules of the store call `os.name(...)`; while a Kernel is installed their `os` is a proxy that asks it first. The
few calls beyond `os` (syscalls.py) are replaced too, and syncs go one by one. Only the thread that installed it is
watched, so that the store's own threads live on undisturbed.
"""

import importlib
import os
import pkgutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import dataplane.store
from dataplane.store import syncs, syscalls

#: Calls that change the disk, or may.
CHANGES: Final = frozenset(
    {"open", "write", "pwrite", "copy_file_range", "clone_file", "fsync", "fdatasync", "setxattr", "utime", "rename",
     "replace", "link", "unlink", "mkdir", "rmdir", "ftruncate", "fchmod", "exchange"}
)  # fmt: skip
#: Calls that only look, or take what a process has little of.
LOOKS: Final = frozenset(
    {"openat2", "lock_byte", "stat", "fstat", "listdir", "scandir", "read", "pread", "getxattr", "dup"}
)
_BEYOND_OS: Final = ("openat2", "clone_file", "lock_byte", "exchange")
Call = Callable[[str, Callable[[], Any], tuple[Any, ...], dict[str, Any]], Any]


class _Os:
    """What the store's modules see as `os`."""

    def __init__(self, on_call: Call, thread: int) -> None:
        self._on_call = on_call
        self._thread = thread

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return _watched(name, real, self._on_call, self._thread) if name in CHANGES | LOOKS else real


def _watched(name: str, real: Any, on_call: Call, thread: int) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread:
            return real(*args, **kwargs)
        return on_call(name, lambda: real(*args, **kwargs), args, kwargs)

    return call


def _modules() -> list[Any]:
    found = pkgutil.iter_modules(dataplane.store.__path__, "dataplane.store.")
    return [module for each in found if getattr(module := importlib.import_module(each.name), "os", None) is not None]


def _in_turn(self: syncs._Context, fds: Sequence[int]) -> list[int]:
    return [syncs._fsync(fd) for fd in fds]


@contextmanager
def watched(on_call: Call) -> Iterator[None]:
    """Have `on_call(name, proceed, args, kwargs)` answer every call of the store by this thread."""
    thread = threading.get_ident()
    proxy: Any = _Os(on_call, thread)
    modules = _modules()
    kept = {name: getattr(syscalls, name) for name in _BEYOND_OS}
    kept_sync = syncs._Context.sync
    for module in modules:
        module.os = proxy
    for name, real in kept.items():
        setattr(syscalls, name, _watched(name, real, on_call, thread))
    syncs._Context.sync = _in_turn  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in modules:
            module.os = os
        for name, real in kept.items():
            setattr(syscalls, name, real)
        syncs._Context.sync = kept_sync  # type: ignore[method-assign]
