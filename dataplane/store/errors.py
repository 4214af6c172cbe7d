"""What can go wrong below the protocol, and the one place where an errno becomes one of these.

A StoreError is the storage's fault, never the client's: the server answers 503 with Retry-After. An operating error
that is not in the table stays an OSError, and with it a bug of ours (500).
"""

import errno
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dataplane.store.blobstate import BlobRef


class StoreError(Exception):
    """The storage cannot serve this now; repeating may help. `operation` says what was tried, never a path."""

    def __init__(self, operation: str, cause: OSError | None = None) -> None:
        name = errno.errorcode.get(cause.errno or 0, "?") if cause is not None else "?"
        super().__init__(f"{operation}: {name}")
        self.operation = operation


class NoSpace(StoreError):
    """The mount or its quota is full (ENOSPC, EDQUOT)."""


class StorageUnavailable(StoreError):
    """The mount does not answer, is read-only, or fails (EIO, ESTALE, EROFS, ETIMEDOUT, ...)."""


class NameNotStorable(Exception):
    """The mount refuses this name (EILSEQ, ENAMETOOLONG); the client gets InvalidResourceName."""


class FormatTooNew(Exception):
    """The mount was written by a newer version of this program."""


class BytesAway(Exception):
    """A job needs the bytes of a blob of which only a stub is here (stubs.py): have them brought, then try again."""

    def __init__(self, ref: "BlobRef", etag: str) -> None:
        super().__init__(f"{ref.container}/{ref.name}")
        self.ref = ref
        self.etag = etag


class NotEvictable(Exception):
    """The bytes of this blob have to stay here; `reason` is a short clause for an operator, without the name."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotAStub(Exception):
    """There is no stub of this version any more: the blob was overwritten, deleted, changed, or came back."""


_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_DOWN: Final = frozenset(
    {errno.EIO, errno.ESTALE, errno.EROFS, errno.ETIMEDOUT, errno.ENXIO, errno.ENODEV, errno.EHOSTDOWN,
     errno.ENOTCONN, errno.EREMOTEIO, errno.EUCLEAN, errno.EMFILE, errno.ENFILE, errno.ENOLCK}
)  # fmt: skip
_NAME: Final = frozenset({errno.EILSEQ, errno.ENAMETOOLONG})


class translated:
    """Turn the OSError of a file-system call into a StoreError (see open(2), write(2), fsync(2), rename(2)).

    A class of its own: contextlib's generators cost a microsecond each, and a small write passes a dozen of these.
    """

    __slots__ = ("_operation",)

    def __init__(self, operation: str) -> None:
        self._operation = operation

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in _FULL:
            raise NoSpace(self._operation, error) from error
        if error.errno in _DOWN:
            raise StorageUnavailable(self._operation, error) from error
        if error.errno in _NAME:
            raise NameNotStorable(self._operation) from error
