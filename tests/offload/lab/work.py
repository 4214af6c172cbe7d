"""What the applications of a site do to their blobs, one after the other, in the order of a seed.

Each act is done when the node has acknowledged it, and is then in the ledger. A `cp` onto the mount is known to the
node only once it looks; `unseen` says for which blobs that may be so.
"""

import os
import random
from pathlib import Path
from typing import Final

from azure.storage.blob import BlobServiceClient, ContentSettings

from .oracle import Ledger
from .traffic import Blob

NAMES_COUNT: Final = 24
SIZES: Final = (0, 1, 4096, 300_000, 1_000_000)
LARGE_BYTES: Final = 9_000_000  # more than goes in one Put Blob
LARGE_SHARE: Final = 0.04
TYPES: Final = ("text/csv", "application/octet-stream", "image/png")


class Work:
    """Writes to one container of a node. `root` is the account's directory, for the programs that use plain files."""

    def __init__(self, chance: random.Random, container: str, root: Path) -> None:
        self.ledger = Ledger()
        self.unseen: set[Blob] = set()
        self._chance = chance
        self._container = container
        self._root = root
        self._acts = (self._put, self._put, self._put, self._describe, self._tag, self._delete)

    def some(self, service: BlobServiceClient, count: int) -> None:
        """Do a number of acts through the endpoint. Each has to succeed: raises the client's errors."""
        for _ in range(count):
            self._chance.choice(self._acts)(service, f"dir/{self._chance.randrange(NAMES_COUNT)}")

    def copy_file(self, name: str) -> None:
        """What `cp` and `sync` do: a file is written in its place, a piece at a time, and then made to last."""
        content = self._chance.randbytes(50_000)
        path = self._root / self._container / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as target:
            target.write(content[:10_000])
            target.flush()
            target.write(content[10_000:])
        os.sync()
        self.ledger.wrote(self._container, name, content)
        self.unseen.add((self._container, name))

    def _put(self, service: BlobServiceClient, name: str) -> None:
        size = LARGE_BYTES if self._chance.random() < LARGE_SHARE else self._chance.choice(SIZES)
        content = self._chance.randbytes(size)
        service.get_blob_client(self._container, name).upload_blob(
            content,
            overwrite=True,
            metadata={"Serial": f"{self._chance.randrange(10**6)}"},
            tags={"line": f"{self._chance.randrange(4)}"},
            content_settings=ContentSettings(content_type=self._chance.choice(TYPES), cache_control="no-cache"),
        )
        self.ledger.wrote(self._container, name, content)

    def _describe(self, service: BlobServiceClient, name: str) -> None:
        if self._has(name):
            blob = service.get_blob_client(self._container, name)
            blob.set_blob_metadata({"Serial": f"{self._chance.randrange(10**6)}", "Note": "seen"})

    def _tag(self, service: BlobServiceClient, name: str) -> None:
        if self._has(name):
            tags = {"line": f"{self._chance.randrange(4)}", "checked": "yes"}
            service.get_blob_client(self._container, name).set_blob_tags(tags)

    def _delete(self, service: BlobServiceClient, name: str) -> None:
        if self._has(name):
            service.get_blob_client(self._container, name).delete_blob()
            self.ledger.deleted(self._container, name)

    def _has(self, name: str) -> bool:
        return self.ledger.digests.get((self._container, name)) is not None
