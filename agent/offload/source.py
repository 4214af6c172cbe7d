"""The version of a blob that is sent: one open file, its properties, and the proof that it was read whole.

A blob that we write is replaced by rename, so an open descriptor is one version. Another program may write into the
file in place; then its seal (inode, size, mtime) changes. So the seal is compared before and after reading, and the MD5
of what was read must be the recorded one when there is one. Bytes that pass neither are never sent as good:
SourceChanged when the blob has another ETag by now, else SourceDamaged (bit rot, or a write that hid its mtime).
The MD5 of a blob that was made of blocks proves nothing: Put Block List stores what the client says, unseen.

A stub has no bytes to send: whoever asks for some gets BytesAway, whatever he believed to have.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from agent.offload.failures import Request, found
from dataplane.blobapi.model import BlobProperties
from dataplane.store.blobstate import BlobRef, OpenBlob
from dataplane.store.records import Seal, seal_of
from dataplane.store.store import Store

HASH_BYTES: Final = 1 << 20  # read at a time for a hash


class Updated(Protocol):
    """What is shown each piece of a file as it is read: another hash, or somebody who watches."""

    def update(self, data: bytes, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Source:
    """An open version. `etag_now` tells which version the blob has at the moment, None when it is gone."""

    fd: int
    size: int
    properties: BlobProperties
    seal: Seal
    etag_now: Callable[[], str | None]

    def check_version(self, request: Request) -> None:
        """Raises CloudFailed SourceChanged when the blob is not the version any more that its properties are of: what
        was written in place between their reading and ours has the seal that we know, and other bytes."""
        if self.etag_now() != self.properties.etag:
            raise found("SourceChanged", request)

    def check(self, request: Request) -> None:
        """Raises CloudFailed SourceChanged when the file was written in place since it was opened."""
        if seal_of(os.fstat(self.fd)) != self.seal:
            raise found("SourceChanged", request)

    def check_md5(self, md5: bytes, request: Request) -> None:
        """`md5`: of all that was read. Raises CloudFailed when it is not of the version that was opened."""
        self.check(request)
        recorded = self.properties.content_md5
        if recorded is None or recorded == md5:
            return
        if self.etag_now() != self.properties.etag:
            raise found("SourceChanged", request)
        if not self.properties.block_list:
            raise found("SourceDamaged", request)

    def check_here(self, request: Request) -> None:
        """Raises CloudFailed BytesAway for a stub."""
        if self.properties.remote is not None:
            raise found("BytesAway", request)

    def read(self, offset: int, size: int, request: Request) -> bytes:
        """Exactly these bytes. Raises CloudFailed ReadFailed, SourceChanged when the file has become shorter, and
        BytesAway for a stub."""
        self.check_here(request)
        pieces = []
        while size:
            try:
                piece = os.pread(self.fd, size, offset)
            except OSError:
                raise found("ReadFailed", request) from None
            if not piece:
                raise found("SourceChanged", request)
            pieces.append(piece)
            offset += len(piece)
            size -= len(piece)
        return b"".join(pieces)

    def hash(self, offset: int, size: int, request: Request, *also: Updated) -> bytes:
        """The MD5 of a part; what was read is shown to others that run along. Raises as read does, and as they do."""
        md5 = hashlib.md5(usedforsecurity=False)
        together: tuple[Updated, ...] = (md5, *also)
        for at in range(offset, offset + size, HASH_BYTES):
            piece = self.read(at, min(HASH_BYTES, offset + size - at), request)
            for each in together:
                each.update(piece)
        return md5.digest()


def source_of(store: Store, ref: BlobRef, blob: OpenBlob) -> Source:
    """The Source of an open blob; who opened it closes it. Its state was read from the file that is open."""

    def etag_now() -> str | None:
        state = store.stat_blob(ref)
        return None if state is None else state.properties.etag

    return Source(blob.fd, blob.state.size, blob.state.properties, seal_of(os.fstat(blob.fd)), etag_now)
