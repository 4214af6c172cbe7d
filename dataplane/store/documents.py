"""A private document of the account, replaced whole."""

import os
import secrets
from contextlib import suppress
from typing import Final

from dataplane.store.commit import Job
from dataplane.store.errors import translated
from dataplane.store.fileio import write_all
from dataplane.store.mount import Mount


class DocumentJob(Job[None]):
    """Write a document below `.blobedge` by staging it and renaming it into place."""

    def __init__(self, mount: Mount, name: str, data: bytes, durable: bool) -> None:
        super().__init__()
        self.mount: Mount = mount
        self._name: Final = name
        self._data: Final = data
        self.durable = durable
        self._temporary: Final = secrets.token_hex(12)

    def stage(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with translated("write document"):
            fd = self.own(os.open(self._temporary, flags, 0o600, dir_fd=self.mount.staging_fd))
            write_all(fd, self._data)
        self.staged_fds.append(fd)

    def publish(self) -> None:
        mount = self.mount
        with translated("rename"):
            os.rename(self._temporary, self._name, src_dir_fd=mount.staging_fd, dst_dir_fd=mount.private_fd)
        self.directory_fds[f"{id(mount)}:private"] = self.own(os.dup(mount.private_fd))

    def discard(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._temporary, dir_fd=self.mount.staging_fd)
