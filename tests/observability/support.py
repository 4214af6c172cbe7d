"""A small service for the admin endpoint to tell about, and a raw caller."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import trio

from agent.config import Config
from agent.observability import admin
from agent.supervision.snapshot import MountSnapshot, ProcessSnapshot, ServiceSnapshot

KEY: Final = "c2l4dGVlbiBieXRlcyBvciBtb3Jl"
SECONDS_MAX: Final = 20.0

WORKER: Final = ProcessSnapshot("worker", 0, 0, "running", False, 1, "", 0.1, 60.0)


def config(root: Path, **tables: Any) -> Config:
    """A configuration of one account."""
    account = {"name": "acct", "root": str(root), "key1": KEY}
    return Config.model_validate({"accounts": [account], **tables})


class FakeService:
    """A service whose state a test sets."""

    def __init__(self, the_config: Config, slot_fds: tuple[int, ...] = ()) -> None:
        self.config = the_config
        self.state = ServiceSnapshot(
            version="1.2.3",
            pid=4711,
            state="ready",
            started_at=1000.0,
            config_file="/etc/blobedge/blobedge.toml",
            urls=("http://127.0.0.1:10000/acct",),
            processes=(WORKER,),
            mounts=(MountSnapshot("acct", "", the_config.accounts[0].root, False, {"records": "[xattr]"}),),
            reports=(),
            last_reload=None,
        )
        self._slot_fds = slot_fds

    def snapshot(self) -> ServiceSnapshot:
        return self.state

    def slot_fds(self) -> tuple[int, ...]:
        return self._slot_fds

    def retired_slot_fds(self) -> tuple[int, ...]:
        return ()

    def change(self, **fields: Any) -> None:
        self.state = replace(self.state, **fields)


@asynccontextmanager
async def running(service: FakeService) -> AsyncIterator[tuple[str, ...]]:
    """The admin endpoint of a service, and its URLs."""
    async with trio.open_nursery() as nursery:
        urls: tuple[str, ...] = await nursery.start(admin.serve, service, {})
        yield urls
        nursery.cancel_scope.cancel()


async def exchange(url: str, data: bytes) -> bytes:
    """Send bytes, and return all that comes back."""
    return await trio.to_thread.run_sync(exchange_now, url, data)


def connect(url: str) -> socket.socket:
    """A blocking connection to an admin URL."""
    if url.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(SECONDS_MAX)
        sock.connect(url.removeprefix("unix:"))
        return sock
    host, _, port = url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), SECONDS_MAX)


def exchange_now(url: str, data: bytes) -> bytes:
    """Send bytes, and return all that comes back; blocks."""
    with connect(url) as sock:
        sock.sendall(data)
        answer = b""
        while chunk := sock.recv(65_536):
            answer += chunk
        return answer
