"""What the tests of recalls share: a store with stubs, a cloud behind a streaming proxy, and workers' ends of the
socket."""

import array
import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio
from azure.storage.blob import ContentSettings

from agent.config import Account
from agent.offload.cloud import Cloud
from agent.offload.link import Link, LinkState
from agent.offload.linkwatch import LinkWatch
from agent.offload.look import Stores
from agent.offload.recall import server
from agent.offload.recall.fetch import Fetcher
from agent.offload.recall.recalls import Recalls
from agent.offload.recall.shelf import Key, Shelf
from dataplane.blobapi.model import Remote
from dataplane.ipc.recalls import (
    MESSAGE_BYTES_MAX,
    WINDOW_BYTES_MAX,
    Failed,
    Have,
    Message,
    Want,
    decode,
    encode,
)
from dataplane.store.store import BlobRef, Store
from tests.offload.azurite import Exchange
from tests.offload.lab.proxy import Proxy
from tests.offload.upload_support import World
from tests.store.support import make, put

SECONDS_MAX: Final = 30.0
ACCOUNT: Final = "edgeaccount"
CONTAINER: Final = "box"
MIB: Final = 1 << 20


@contextmanager
def streaming_proxy(cloud_port: int) -> Iterator[tuple[Proxy, int]]:
    """A proxy that passes bytes on as they come, and counts them; with its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    proxy = Proxy(listener, cloud_port, 1)
    proxy.start()
    try:
        yield proxy, port
    finally:
        proxy.stop()


@dataclass
class Heard:
    """News for the queue."""

    arrivals: list[Key] = field(default_factory=list)
    gone: list[Key] = field(default_factory=list)

    async def arrived(self, key: Key) -> None:
        self.arrivals.append(key)

    async def missing(self, key: Key, text: str) -> None:
        self.gone.append(key)


@dataclass
class Node:
    """A sidecar's recalls, running, with a store."""

    recalls: Recalls
    store: Store
    watch: LinkWatch
    news: Heard
    socket_path: Path

    def content(self, key: Key) -> bytes:
        """What is in the file itself."""
        blob = self.store.open_blob(key.ref())
        assert blob is not None
        with contextlib.closing(blob):
            return os.pread(blob.fd, max(blob.state.size, 1), 0)

    def is_stub(self, key: Key) -> bool:
        state = self.store.stat_blob(key.ref())
        return state is not None and state.properties.remote is not None

    def staged(self) -> list[os.stat_result]:
        """Files of recalls that are not a blob's."""
        found = []
        for each in Path(f"/proc/self/fd/{self.store.mount.staging_fd}").glob("*/*"):
            with contextlib.suppress(FileNotFoundError):  # gone since
                found.append(each.stat())
        return [each for each in found if each.st_mode & 0o1000]

    def link(self, link: Link) -> None:
        """Say how the link is."""
        self.watch._take(LinkState(link))


@asynccontextmanager
async def node(cloud: Cloud, root: Path, **options: Any) -> AsyncIterator[Node]:
    """Recalls on an account whose store is below `root`, and their socket."""
    stores = Stores([Account.model_validate({"name": ACCOUNT, "root": str(root)})])
    store = await stores.call(ACCOUNT, lambda store: store)
    watch, news = LinkWatch("127.0.0.1", 1, None), Heard()
    fetcher = Fetcher(cloud, answer_seconds=options.pop("answer_seconds", 10.0))
    shelf = options.pop("shelf", Shelf)(stores)
    recalls = Recalls(cloud, shelf, watch, news, fetcher=fetcher, **options)
    path = root.parent / "recall.sock"
    sock = server.bind(path)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(recalls.run)
            nursery.start_soon(server.serve, sock, recalls)
            yield Node(recalls, store, watch, news, path)
            nursery.cancel_scope.cancel()
    finally:
        fetcher.close()
        store.close()


class Worker:
    """A worker's end of a connection: asks for windows one after the other, and reads what it is told of."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._fd = -1
        self.haves = 0
        self.told_max = 0

    async def __aenter__(self) -> "Worker":
        await self._socket.connect(str(self._path))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._socket.close()
        if self._fd >= 0:
            os.close(self._fd)

    async def say(self, message: Message) -> None:
        await self._socket.send(encode(message))

    async def send_raw(self, packet: bytes) -> None:
        await self._socket.send(packet)

    async def hear(self) -> Message | None:
        """The next message, None when it was cut off."""
        packet, ancillary, _, _ = await self._socket.recvmsg(MESSAGE_BYTES_MAX, socket.CMSG_SPACE(4))
        for level, kind, data in ancillary:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            if self._fd >= 0:
                os.close(self._fd)
            (self._fd,) = array.array("i", data)
        return decode(packet) if packet else None

    async def read(self, key: Key, start: int, end: int, window: int = WINDOW_BYTES_MAX) -> bytes | Failed:
        """All of a range, window by window, each byte read when it was told of."""
        read, offset = bytearray(), start
        while True:
            length = min(window, end - offset)
            await self.say(Want(*key, offset, length, end))
            told = -1
            while told < offset + length:
                heard = await self.hear()
                if isinstance(heard, Failed):
                    return heard
                assert isinstance(heard, Have), heard
                assert heard.end > told
                told = heard.end
                self.haves += 1
                self.told_max = max(self.told_max, told)
                read += os.pread(self._fd, told - start - len(read), start + len(read))
                assert len(read) == told - start
            offset += length
            if offset >= end:
                return bytes(read)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < end
        await trio.sleep(0.01)


def stub(made: Node, world: World, name: str, data: bytes) -> Key:
    """A blob that is in the cloud, verified, and a stub here."""
    if made.store.container(CONTAINER) is None:
        make(made.store, CONTAINER)
    etag = put(made.store, name, data, container=CONTAINER).properties.etag
    md5 = hashlib.md5(data).digest()
    copy = world.container.get_blob_client(f"copy of {name}")
    sent = copy.upload_blob(data, content_settings=ContentSettings(content_md5=bytearray(md5)), overwrite=True)
    remote = Remote(len(data), md5, sent["etag"].strip('"'), world.name, copy.blob_name, etag, 0, 0)
    made.store.run(made.store.evict(BlobRef(CONTAINER, name), etag, remote))
    return Key(ACCOUNT, CONTAINER, name, etag)


@asynccontextmanager
async def running(cloud: Cloud, tmp_path: Path, **options: Any) -> AsyncIterator[Node]:
    """A node on a fresh mount."""
    root = tmp_path / "mount"
    root.mkdir()
    async with node(cloud, root, **options) as made:
        yield made


@contextmanager
def held(world: World, reached: Callable[[], object]) -> Iterator[None]:
    """The cloud answers nothing in the block; `reached` is called for each request."""
    go_on = threading.Event()

    def wait(_exchange: Exchange) -> None:
        reached()
        go_on.wait(SECONDS_MAX)

    world.proxy.fault = wait
    try:
        yield
    finally:
        world.proxy.fault = lambda exchange: None
        go_on.set()


def downloads(proxy: Proxy) -> list[int]:
    """Bytes of each Get Blob's answer so far."""
    return [each.bytes_down for each in proxy.traffic.all() if each.request.operation == "GetBlob"]
