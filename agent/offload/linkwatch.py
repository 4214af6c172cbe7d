"""The link as the engine keeps it: fed by every result, probed while it is down, and suspected when nothing moves.

A request that sends into a black hole fails after a minute, and one that was under way when a link broke wakes up long
after it healed (TCP doubles its pauses). So when something is under way and nothing has moved for SUSPECT_SECONDS, one
probe asks; finds it no way, the link is down, and what is under way is stopped, to begin again where it was.
"""

import logging
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from agent.offload import link
from agent.offload.link import Link, LinkState, Result

log = logging.getLogger("blobedge.offload")

SUSPECT_SECONDS: Final = 4.0  # a Put Block List of 50,000 blocks may take longer; then the probe gets through
TURN_SECONDS: Final = 0.25
ADDRESSES_SECONDS: Final = 300.0  # how long addresses are good for, while the link is not down


class LinkWatch:
    """One cloud's link. When it goes down `on_down` is called, to end what is under way, and `on_up` when work may go
    on."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._host: Final = host
        self._port: Final = port
        self._tls: Final = tls
        self.on_down: Callable[[], None] = lambda: None
        self.on_up: Callable[[], None] = lambda: None
        self.downs: list[Callable[[], None]] = []  # called after on_down, by whom else it ends
        self._addresses: list[str] = []
        self._resolved_at = float("-inf")
        self._moved_at = time.monotonic()
        self.busy = 0  # requests under way
        self.reading = False  # whether bytes are on their way here
        self.state = LinkState(since=time.monotonic())

    def moved(self) -> None:
        """Bytes went out, or an answer came. From any thread."""
        self._moved_at = time.monotonic()

    def answered(self) -> None:
        """The service answered, whatever it said."""
        self.moved()
        self._take(link.after_result(self.state, Result.ANSWERED, time.monotonic()))

    def no_way(self) -> None:
        """A request found no way to the service."""
        self._take(link.after_result(self.state, Result.NO_WAY, time.monotonic()))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(TURN_SECONDS)
            now = time.monotonic()
            if self.state.link is Link.OFFLINE:
                if self.state.probe_due(now):
                    passed = await self._probe()
                    self._take(link.after_probe(self.state, passed, now, time.monotonic()))
            elif (self.busy or self.reading) and now - self._moved_at > SUSPECT_SECONDS:
                await self._suspect()
            elif now - self._resolved_at > ADDRESSES_SECONDS:
                self._resolved_at = now
                await self._resolve()

    async def _suspect(self) -> None:
        if await self._probe():
            self.moved()  # the service is slow, the link is not down
            return
        while self.state.link is not Link.OFFLINE:
            self.no_way()

    async def _probe(self) -> bool:
        return await trio.to_thread.run_sync(
            link.probe, tuple(self._addresses), self._host, self._port, self._tls, abandon_on_cancel=True
        )

    async def _resolve(self) -> None:
        """Remember where the host is: while the link is down, a resolver may not answer either."""
        with suppress(OSError):
            found = await trio.to_thread.run_sync(
                lambda: socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM), abandon_on_cancel=True
            )
            self._addresses = list(dict.fromkeys(str(each[4][0]) for each in found))

    def _take(self, state: LinkState) -> None:
        before, self.state = self.state, state
        if state.link is before.link:
            return
        log.log(
            logging.WARNING if state.link is Link.OFFLINE else logging.INFO,
            "the link to %s is %s, after %.1f s %s",
            self._host,
            state.link,
            state.since - before.since,
            before.link,
        )
        if state.link is Link.OFFLINE:
            self.on_down()
            for also in self.downs:
                also()
        else:
            self.moved()
            self.on_up()
