"""Where a container is: its mount, the path of its blobs, and the private directory of what belongs to it besides."""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from dataplane.store.mount import Mount


@dataclass(frozen=True, slots=True)
class Place:
    """A container's place. `prefix` is "" for a container that is itself the root of its mount (a mapped directory)."""

    container: str
    mount: Mount
    prefix: str
    durable: bool
    read_only: bool

    @property
    def directory(self) -> str:
        """The container's directory, relative to the mount."""
        return self.prefix.rstrip("/") or "."

    def private(self, *parts: str) -> str:
        """A path below the container's private directory, relative to the mount's `containers`."""
        return "/".join((self.container, *parts))

    def lock_key(self, name: str) -> str:
        """What is locked while a blob changes."""
        return f"{self.container}/{name}"

    def container_lock_key(self) -> str:
        """What is locked while the container itself changes; no blob's key looks like it."""
        return self.container


@lru_cache(maxsize=16384)
def blob_key(name: str) -> str:
    """A blob's name as one path component of fixed length, for what is kept by name besides the file."""
    return blake2b(name.encode("utf-8", "surrogateescape"), digest_size=20).hexdigest()
