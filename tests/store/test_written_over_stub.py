"""Another program writes into the file of a stub, as `cp` does: the file keeps the mark, and is a blob as any other."""

import hashlib
import os
import stat
from pathlib import Path

from dataplane.blobapi.model import Remote
from dataplane.store.store import BlobRef, Store
from tests.store.support import make, put, read

REF = BlobRef("box", "copied")
OLD, NEW = b"what the camera wrote", b"what cp wrote"


def evict(store: Store, data: bytes) -> str:
    state = store.stat_blob(REF)
    assert state is not None
    etag = state.properties.etag
    store.run(store.evict(REF, etag, Remote(len(data), hashlib.md5(data).digest(), "0x8D", "c", "n", etag, 0, 0)))
    return etag


def test_it_is_served_and_leaves_again_and_comes_back_without_the_mark(store: Store, root: Path) -> None:
    make(store)
    put(store, REF.name, OLD)
    evict(store, OLD)
    path = root / "box" / REF.name
    with path.open("r+b") as file:
        file.write(NEW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o1400
    found = read(store, REF.name)
    assert found is not None
    assert (found[0], found[1].properties.remote) == (NEW, None)

    etag = evict(store, NEW)
    assert path.stat().st_size == 0
    staged = store.stage("box")
    os.pwrite(staged.fd, NEW, 0)
    staged.size = len(NEW)
    store.run(store.recall(REF, staged, etag))
    assert path.read_bytes() == NEW
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
