"""Open the stores of all accounts side by side, each on a thread of its own, and go on without those that hang.

Guarantees: a worker is ready when every store is open or OPEN_SECONDS have passed, so a mount that hangs while a node
starts, or a worker is replaced, holds up no other account. Until its store is open an account is answered 503
ServerBusy; it is served from the moment it is. What can never succeed is a BootError if it is known in time, and else a
line of the log, after which the account waits for a reload. Rejected: no such worker at all (a restart during an outage
of one mount would be one of all).
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, cast

from dataplane.ipc.settings import AccountSettings
from dataplane.server.mountpools import MountPlace, place_of
from dataplane.store.errors import FormatTooNew, StorageUnavailable, StoreError
from dataplane.store.mount import Mount
from dataplane.store.store import MappedDirectory, Store

OPEN_SECONDS: Final = 5.0  # probing takes milliseconds on a mount that answers

_log = logging.getLogger(__name__)


class BootError(Exception):
    """This worker cannot serve with these settings; the text is one line for the operator, without secrets."""


@dataclass(frozen=True, slots=True)
class OpenStore:
    """A store and its mounts by container ("" is the root), with where each is."""

    store: Store
    mounts: Sequence[tuple[str, Mount, MountPlace]]


class _AbsentStore:
    """In place of a store that is not open yet: whatever is asked of it, the storage does not answer."""

    def local(self) -> bool:
        return False

    def mounts(self) -> tuple[()]:
        return ()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def unavailable(*args: object, **kwargs: object) -> Any:
            raise StorageUnavailable("open store")

        return unavailable


ABSENT: Final = cast(Store, _AbsentStore())


class Opening:
    """The stores of a worker while they are opened, by their accounts' names."""

    def __init__(self, accounts: Sequence[AccountSettings], loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._until = time.monotonic() + OPEN_SECONDS
        self._futures: dict[str, Future[OpenStore]] = {each.name: Future() for each in accounts}
        for each in accounts:
            threading.Thread(
                target=_open, args=(each, self._futures[each.name]), name=f"open-{each.name}", daemon=True
            ).start()

    def then(self, account: str, adopt: Callable[[OpenStore], None]) -> None:
        """Have a store adopted: now, after a wait that all stores share, or later on the loop. Raises BootError."""
        future = self._futures[account]
        try:
            adopt(future.result(max(0.0, self._until - time.monotonic())))
        except TimeoutError:
            _log.warning("account %s: its storage does not answer; it is served when it does", account)
            future.add_done_callback(lambda done: self._later(account, done, adopt))

    def _later(self, account: str, done: "Future[OpenStore]", adopt: Callable[[OpenStore], None]) -> None:
        """On the opening thread."""

        def on_loop() -> None:
            error = done.exception()
            if error is not None:
                # No retry: after an unmount it would open the bare mount point, and take writes onto the root disk.
                _log.error("account %s stays without storage until a reload: %s", account, error)
                return
            adopt(done.result())
            _log.warning("account %s: its storage answers", account)

        try:
            self._loop.call_soon_threadsafe(on_loop)
        except RuntimeError:
            return  # the loop is closed: the process ends


def _open(settings: AccountSettings, future: "Future[OpenStore]") -> None:
    try:
        future.set_result(_opened(settings))
    except BaseException as error:
        future.set_exception(error)


def _opened(settings: AccountSettings) -> OpenStore:
    mapped = tuple(
        MappedDirectory(each.name, each.path, each.read_only, each.durability == "strict")
        for each in settings.containers
        if each.path
    )
    durable = {each.name: each.durability == "strict" for each in settings.containers if not each.path}
    try:
        store = Store(
            settings.root,
            records=settings.records,
            durable=settings.durability == "strict",
            mapped=mapped,
            durable_containers=durable,
        )
        return OpenStore(store, [(name, mount, place_of(mount.root_fd)) for name, mount in store.mounts()])
    except FormatTooNew as error:
        raise BootError(f"account {settings.name}: {settings.root} was written by a newer program: {error}") from None
    except (OSError, StoreError) as error:
        raise BootError(f"account {settings.name}: cannot open {settings.root}: {error}") from None
