"""A process that evicts and recalls blobs at random: `python -m tests.durability.mover ROOT RECORDS SEED`.

Before each move it prints `begin NAME`, after it `end NAME`, so whoever ends it knows what was acknowledged.
"""

import hashlib
import random
import sys

from dataplane.blobapi.model import BlobProperties, BlobState, ContainerProperties, Remote
from dataplane.store.mount import RecordsOption
from dataplane.store.store import BlobRef, Store

CONTAINER = "box"
NAMES = tuple(f"{directory}blob-{i}" for i in range(6) for directory in ("", "deep/er/"))
_BYTES = 100_000


def content_of(name: str) -> bytes:
    """The bytes of a blob, which never change."""
    return name.encode() * (_BYTES // len(name))


def properties_of(name: str) -> BlobProperties:
    """The properties of a blob, which never change."""
    return BlobProperties("0x8D" + name.encode().hex(), 1000, 900, metadata={"name": name})


def remote_of(name: str) -> Remote:
    content = content_of(name)
    md5 = hashlib.md5(content).digest()
    return Remote(len(content), md5, "0x8DC", "cloud", name, properties_of(name).etag, 0, 0)


def fill(store: Store) -> None:
    """All blobs, as files."""
    store.run(store.create_container(CONTAINER, ContainerProperties("0x8D1", 1000)))
    for name in NAMES:
        new = properties_of(name)
        store.run(store.put(BlobRef(CONTAINER, name), content_of(name), lambda _, new=new: new))  # type: ignore[misc]


def is_stub(state: BlobState | None) -> bool:
    assert state is not None
    return state.properties.remote is not None


def move(store: Store, name: str) -> None:
    """Evict a file, recall a stub."""
    ref, etag = BlobRef(CONTAINER, name), properties_of(name).etag
    if not is_stub(store.stat_blob(ref)):
        store.run(store.evict(ref, etag, remote_of(name)))
        return
    staged = store.stage(CONTAINER)
    staged.write(content_of(name))
    store.run(store.recall(ref, staged, etag))


def main(root: str, records: RecordsOption, seed: str) -> None:
    """Move until somebody ends it."""
    store, chance = Store(root, records=records), random.Random(seed)
    while True:
        name = chance.choice(NAMES)
        print("begin", name, flush=True)
        move(store, name)
        print("end", name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], "xattr" if sys.argv[2] == "xattr" else "sidecar", sys.argv[3])
