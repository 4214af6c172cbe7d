"""What the tests of uploads share: the cloud behind the proxy, files as sources, and small answers to put into
exchanges."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from azure.storage.blob import BlobServiceClient, ContainerClient

from agent.offload.cloud import Cloud
from agent.offload.credentials import CloudSettings
from agent.offload.source import Source
from agent.offload.transport import Errand
from agent.offload.upload import Guard, Outcome, Policy, upload
from dataplane.blobapi.model import BlobProperties
from dataplane.store.records import seal_of
from tests.offload.azurite import ACCOUNT, KEY, Proxy

NODE = "edge-7"
MIB = 1 << 20
DEADLINE_SECONDS = 60.0


class To(NamedTuple):
    """A target."""

    container: str
    name: str
    tier: str = ""


@dataclass(slots=True)
class World:
    """The cloud as seen by us (through the proxy) and as it is (`service`), and a container in it."""

    cloud: Cloud
    proxy: Proxy
    service: BlobServiceClient
    container: ContainerClient
    scratch: Path

    @property
    def name(self) -> str:
        return str(self.container.container_name)

    def send(self, source: Source, name: str = "b", **options: Any) -> Outcome:
        """Upload to a name in the container."""
        guard = Guard(options.pop("etag", ""), options.pop("policy", Policy.EDGE_WINS))
        errand = options.pop("errand", None) or Errand(deadline=time.monotonic() + DEADLINE_SECONDS)
        target = To(self.name, name, options.pop("tier", ""))
        return upload(self.cloud, source, target, guard, errand, node=options.pop("node", NODE), **options)

    def bytes_of(self, name: str = "b") -> bytes:
        """What the cloud has."""
        return self.container.download_blob(name).readall()

    def etag_of(self, name: str = "b") -> str:
        return str(self.container.get_blob_client(name).get_blob_properties().etag).strip('"')


def key_file(directory: Path) -> Path:
    path = directory / "key"
    path.write_text(KEY + "\n")
    return path


def settings(port: int, directory: Path) -> CloudSettings:
    return CloudSettings(f"http://127.0.0.1:{port}/{ACCOUNT}", "key_file", key_file(directory))


@contextmanager
def source(path: Path, data: bytes | None = None, **properties: Any) -> Iterator[Source]:
    """A file, written with `data` unless it is None, as a version. Its MD5 is recorded unless `content_md5` says
    else."""
    if data is not None:
        path.write_bytes(data)
    if "content_md5" not in properties:
        with path.open("rb") as file:
            properties["content_md5"] = hashlib.file_digest(file, "md5").digest()
    etag = properties.pop("etag", "0x8DC0000000000A1")
    described = BlobProperties(etag, 1_760_000_000, 1_760_000_000, **properties)
    fd = os.open(path, os.O_RDONLY)
    try:
        seal = seal_of(os.fstat(fd))
        yield Source(fd, seal.size, described, seal, lambda: etag)
    finally:
        os.close(fd)


def answered(status: str, code: str = "", **headers: str) -> bytes:
    """An answer of a service, in one piece, that ends the connection."""
    lines = [f"HTTP/1.1 {status}", "Content-Length: 0", "Connection: close"]
    lines += [f"x-ms-error-code: {code}"] if code else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
