"""A FUSE file system that shows a directory, and whose calls hang while a file called HANG_FILE exists.

    python hanging_file_system.py DIRECTORY MOUNT_POINT HANG_FILE

Nothing is cached, so every look at a file comes here, as on a network mount whose server may be away. Killing this
process ends all calls that hang in it with an error.
"""

import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import mfusepy

POLL_SECONDS: Final = 0.05
_STAT: Final = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino", "st_blocks")
_TIMES: Final = ("st_atime", "st_mtime", "st_ctime")


def _hangs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have a call wait until nobody wants it to hang any more."""

    @functools.wraps(function)
    def waiting(self: "HangingFileSystem", *args: Any) -> Any:
        while os.path.exists(self.hang_file):
            time.sleep(POLL_SECONDS)
        return function(self, *args)

    return waiting


class HangingFileSystem(mfusepy.Operations):  # type: ignore[misc]
    """libfuse's calls, by its names, on the directory."""

    use_ns = True

    def __init__(self, directory: str, hang_file: str) -> None:
        self.hang_file = hang_file
        self._directory = directory

    def _at(self, path: str) -> str:
        return self._directory + path

    @_hangs
    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        status = os.lstat(self._at(path)) if fh is None else os.fstat(fh)
        found = {name: int(getattr(status, name)) for name in _STAT}
        return found | {name: int(getattr(status, f"{name}_ns")) for name in _TIMES}

    @_hangs
    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        with os.scandir(self._at(path)) as entries:
            known = ((each.name, each.stat(follow_symlinks=False)) for each in entries)
            return [(name, {"st_mode": status.st_mode, "st_ino": status.st_ino}, 0) for name, status in known]

    @_hangs
    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._at(path), mode)

    @_hangs
    def rmdir(self, path: str) -> None:
        os.rmdir(self._at(path))

    @_hangs
    def create(self, path: str, mode: int, fi: object = None) -> int:
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT, mode)

    @_hangs
    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), flags)

    @_hangs
    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    @_hangs
    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    @_hangs
    def fsync(self, path: str, datasync: int, fh: int) -> None:
        os.fsync(fh)

    def release(self, path: str, fh: int) -> None:
        os.close(fh)

    @_hangs
    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(self._at(path), length)

    @_hangs
    def unlink(self, path: str) -> None:
        os.unlink(self._at(path))

    @_hangs
    def rename(self, old: str, new: str) -> None:
        os.rename(self._at(old), self._at(new))

    @_hangs
    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._at(path), mode)

    @_hangs
    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        os.utime(self._at(path), ns=times)  # type: ignore[arg-type]  # None is now

    @_hangs
    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        return os.getxattr(self._at(path), name)

    @_hangs
    def setxattr(self, path: str, name: str, value: bytes, flags: int, position: int = 0) -> None:
        os.setxattr(self._at(path), name, value, flags)

    @_hangs
    def listxattr(self, path: str) -> list[str]:
        return os.listxattr(self._at(path))

    @_hangs
    def removexattr(self, path: str, name: str) -> None:
        os.removexattr(self._at(path), name)

    @_hangs
    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._at(path))
        return {name: getattr(found, name) for name in dir(found) if name.startswith("f_")}


if __name__ == "__main__":
    root, mount_point, hang = sys.argv[1:]
    mfusepy.FUSE(
        HangingFileSystem(root, hang), mount_point, foreground=True, nothreads=False, attr_timeout=0, entry_timeout=0,
        negative_timeout=0, use_ino=True, hard_remove=True,
    )  # fmt: skip
