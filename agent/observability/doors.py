"""The open listeners of the admin endpoint, and how a reload exchanges them.

New addresses are bound before the workers are replaced, so that one that cannot be had refuses the reload while nothing
has changed yet; old ones are closed when the new configuration is in force. An address that stays is not bound again,
also when its token changes. Requests that are under way on an old address are still answered.
"""

import logging
from collections.abc import Mapping
from functools import partial

import trio

from agent.config import Config
from agent.observability.http import Server
from agent.observability.listeners import Address, Opened, close_fresh, open_all
from agent.problems import OperatorError
from agent.supervision.service import Change

log = logging.getLogger("blobedge.admin")


class Doors:
    """Serves `opened`, and what follows it, in `nursery`."""

    def __init__(self, server: Server, nursery: trio.Nursery, opened: Mapping[Address, Opened]) -> None:
        self._server = server
        self._nursery = nursery
        self._open: dict[Address, Opened] = {}
        self._scopes: dict[Address, trio.CancelScope] = {}
        self._exchange(opened)

    def urls(self) -> tuple[str, ...]:
        return tuple(each.url for each in self._open.values())

    def prepare(self, config: Config, port: int) -> Change:
        """Bind what a new configuration adds; `port` is that of the first listener of the service.

        Raises OperatorError when an address cannot be had. A node that had no admin endpoint so far is not refused its
        reload for that: the log tells it again.
        """
        try:
            opened = open_all(config.admin, port, self._open)
        except OperatorError as error:
            if self._open:
                raise
            log.error("there is no admin endpoint: %s", error)
            opened = {}
        return Change(partial(self._exchange, opened), partial(close_fresh, opened, self._open.values()))

    def _exchange(self, opened: Mapping[Address, Opened]) -> None:
        old = self._open
        self._open = dict(opened)
        for address, each in old.items():
            if opened.get(address) is not each:
                self._scopes.pop(address).cancel()
        for address, each in opened.items():
            if old.get(address) is not each:
                self._scopes[address] = scope = trio.CancelScope()
                self._nursery.start_soon(self._serve, each, scope)

    async def _serve(self, opened: Opened, scope: trio.CancelScope) -> None:
        try:
            with scope:
                listener = trio.SocketListener(trio.socket.from_stdlib_socket(opened.sock))
                await self._server.serve(listener, opened.guard, self._nursery)
        finally:
            opened.close()
