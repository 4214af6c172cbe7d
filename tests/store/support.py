"""Short forms for tests of the store."""

import itertools
import os
from collections.abc import Callable

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import BlobProperties, BlobState, ContainerProperties
from dataplane.store.store import BlobRef, DeleteScope, Store

_counter = itertools.count(1)


def properties(**fields: object) -> BlobProperties:
    """Properties with an ETag of their own."""
    return BlobProperties(etag=f"0x8D{next(_counter):013X}", last_modified=1000, created=900, **fields)  # type: ignore[arg-type]


def make(store: Store, container: str = "box") -> None:
    assert store.run(store.create_container(container, ContainerProperties("0x8D1", 1000)))


def put(store: Store, name: str, data: bytes = b"data", container: str = "box", **fields: object) -> BlobState:
    new = properties(**fields)
    return store.run(store.put(BlobRef(container, name), data, lambda _: new))


def read(store: Store, name: str, container: str = "box", snapshot: str = "") -> tuple[bytes, BlobState] | None:
    opened = store.open_blob(BlobRef(container, name, snapshot))
    if opened is None:
        return None
    with os.fdopen(opened.fd, "rb") as file:
        return file.read(), opened.state


def delete(store: Store, name: str, container: str = "box", scope: DeleteScope = DeleteScope.BLOB) -> None:
    def decide(state: BlobState | None) -> DeleteScope:
        if state is None:
            raise BlobError(ErrorCode.BLOB_NOT_FOUND)
        return scope

    store.run(store.delete(BlobRef(container, name), decide))


def names(store: Store, container: str = "box", **options: object) -> list[str]:
    """All names of a listing, page by page; groups are shown as they are."""
    found: list[str] = []
    start = ""
    arguments: dict[str, object] = {"prefix": "", "delimiter": "", "limit": 5000, **options}
    while True:
        page = store.list_blobs(container, start=start, **arguments)  # type: ignore[arg-type]
        found += [item.prefix or (item.state.name if item.state else "") for item in page.items]
        start = page.next_start
        if not start:
            return found


def changed(**fields: object) -> Callable[[BlobState | None], BlobProperties]:
    """A decision that changes some properties and the ETag."""
    from dataclasses import replace

    etag = f"0x8D{next(_counter):013X}"

    def decide(state: BlobState | None) -> BlobProperties:
        if state is None:
            raise BlobError(ErrorCode.BLOB_NOT_FOUND)
        return replace(state.properties, etag=etag, **fields)  # type: ignore[arg-type]

    return decide
