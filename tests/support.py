"""What the server's tests share: a raw client that signs for itself, and a server in a thread of this process.

The client is written against the REST page "Authorize with Shared Key" and uses nothing of the product, so a mistake in
the product's signing cannot hide behind the same mistake here. The server is the product's own, from settings to
socket, in a thread: a test can look at its node and its log.
"""

import asyncio
import base64
import hashlib
import hmac
import http.client
import json
import os
import socket
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import uvloop

from dataplane.ipc.settings import AccountSettings, ListenerSettings, MappedContainer, Settings
from dataplane.server.access import AccessLog
from dataplane.server.build import build_node, close_node, pool_limits
from dataplane.server.listening import open_server
from dataplane.server.mountpools import MountPools
from dataplane.server.node import Node

ACCOUNT: Final = "testaccount"
KEY: Final = base64.b64encode(hashlib.sha256(b"key one of the tests").digest()).decode()
SECOND_KEY: Final = base64.b64encode(hashlib.sha256(b"key two of the tests").digest()).decode()
VERSION: Final = "2023-11-03"
ANSWER_SECONDS_MAX: Final = 30.0

_SIGNED_HEADERS: Final = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
    "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; header names are lower-case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """x-ms-error-code, "" without one."""
        return self.headers.get("x-ms-error-code", "")

    def xml(self) -> ET.Element:
        """The body, which has to be an XML document with a byte order mark, as Azure's are."""
        assert self.body.startswith(b"\xef\xbb\xbf<?xml")
        return ET.fromstring(self.body.decode("utf-8-sig"))


class WireClient:
    """Sends requests over one connection, path style, signed with the account's key unless told otherwise."""

    def __init__(self, port: int, account: str = ACCOUNT, key: str = KEY, host: str = "127.0.0.1") -> None:
        self.account, self.key, self.port = account, key, port
        self._host = host
        self._connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS_MAX)

    def close(self) -> None:
        self._connection.close()

    def request(
        self,
        method: str,
        path: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        sign: bool = True,
        version: str | None = VERSION,
        secondary: bool = False,
        host: str | None = None,
    ) -> Answer:
        """Send one request and read its answer. `path` is what follows the account, as it goes on the wire; `host`
        makes the request host style."""
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        sent.setdefault("host", host or f"{self._host}:{self.port}")
        if body or method in ("PUT", "POST"):
            sent.setdefault("content-length", str(len(body)))
        if version is not None:
            sent.setdefault("x-ms-version", version)
        prefix = "" if host else f"/{self.account}"
        if sign:
            sent.setdefault("x-ms-date", formatdate(time.time(), usegmt=True))
            sent["authorization"] = self._authorization(method, prefix + path, query or {}, sent)
        target = prefix + ("-secondary" if secondary else "") + path
        if query:
            target += "?" + "&".join(f"{quote(n, safe='')}={quote(v, safe='')}" for n, v in query.items())
        return self.send(method, target or "/", sent, body)

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """Send exactly this."""
        link = self._connection
        link.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            link.putheader(name, value.encode("utf-8"))
        link.endheaders(body or None)
        reply = link.getresponse()
        data = reply.read()
        found = {name.lower(): value for name, value in reply.getheaders()}
        return Answer(reply.status, reply.reason, found, data)

    def _authorization(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
        values = dict(headers)
        if values.get("content-length") == "0":
            values["content-length"] = ""
        if "x-ms-date" in values:
            values["date"] = ""
        lines = [method, *(values.get(name, "") for name in _SIGNED_HEADERS)]
        lines += [f"{name}:{values[name]}" for name in sorted(values) if name.startswith("x-ms-")]
        lines.append(f"/{self.account}{path or '/'}")
        lines += [f"{name.lower()}:{query[name]}" for name in sorted(query)]
        digest = hmac.new(base64.b64decode(self.key), "\n".join(lines).encode(), hashlib.sha256).digest()
        return f"SharedKey {self.account}:{base64.b64encode(digest).decode()}"


class InProcessServer:
    """One worker's server in a thread, on an ephemeral port of 127.0.0.1. Durability is relaxed unless asked for, as
    these tests are about answers."""

    def __init__(
        self, root: Path, containers: tuple[MappedContainer, ...] = (), *, strict: bool = False, **settings: Any
    ) -> None:
        root.mkdir(exist_ok=True)
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self.log_lines: list[bytes] = []
        account = AccountSettings(
            ACCOUNT,
            str(root),
            (KEY, SECOND_KEY),
            durability="strict" if strict else "relaxed",
            containers=containers,
        )
        # A copy, as a worker gets one; the server closes it when it stops accepting.
        listener = ListenerSettings(os.dup(self._socket.fileno()), "http", "127.0.0.1", self.port)
        self._settings = Settings(0, 1, -1, (listener,), (account,), **settings)
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self.node: Node
        self._thread = threading.Thread(target=self._run, name="server-under-test", daemon=True)
        self._thread.start()
        self._ready.wait(ANSWER_SECONDS_MAX)
        if self._error is not None:
            raise self._error

    def client(self, **options: Any) -> WireClient:
        return WireClient(self.port, **options)

    def log(self) -> list[dict[str, Any]]:
        """The access log so far, after what waits was written."""
        assert self.node.access_log is not None
        self.node.access_log.flush()
        return [json.loads(line) for line in b"".join(self.log_lines).splitlines()]

    def close(self) -> None:
        """Drain and stop; raises what the thread raised."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(ANSWER_SECONDS_MAX)
        assert not self._thread.is_alive()
        self._socket.close()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        pools, log = MountPools(pool_limits(self._settings.limits)), AccessLog(self.log_lines.append)
        self.node = build_node(self._settings, self._loop, pools, access_log=log)
        server = await open_server(self.node)
        self._ready.set()
        await self._stop.wait()
        await server.drain()
        server.abort()
        await self.node.copies.stop()
        assert await self._loop.run_in_executor(None, close_node, self.node, ANSWER_SECONDS_MAX)
        log.close(ANSWER_SECONDS_MAX)
        pools.close()
