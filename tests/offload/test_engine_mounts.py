"""Looking at blobs while a mount hangs: that account waits, the others do not, and nothing stays open."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from agent.config import Account
from agent.offload.look import LOOKS_COUNT_MAX, Stores
from dataplane.store.errors import StorageUnavailable
from dataplane.store.store import Store

pytestmark = pytest.mark.trio


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    for name in ("hung", "well"):
        (tmp_path / name).mkdir()
    return Stores([Account(name=name, root=str(tmp_path / name)) for name in ("hung", "well")])


@pytest.fixture
def healed() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


async def test_an_account_whose_mount_hangs_is_given_up_and_comes_back(stores: Stores, healed: threading.Event) -> None:
    def hang(_: Store) -> bool:
        return healed.wait(60.0)

    async def given_up() -> None:
        with pytest.raises(StorageUnavailable):
            await stores.call("hung", hang, 0.05)

    async with trio.open_nursery() as nursery:
        for _ in range(LOOKS_COUNT_MAX):
            nursery.start_soon(given_up)
    with trio.fail_after(20.0):
        with pytest.raises(StorageUnavailable):  # at once: no thread of the account is free
            await stores.call("hung", hang, 3600.0)
        assert await stores.call("well", lambda store: store.local()) in (True, False)
        healed.set()
        while True:
            try:
                assert await stores.call("hung", hang)
                break
            except StorageUnavailable:  # its threads are on their way back
                await trio.sleep(0.01)


async def test_an_account_that_is_not_configured_is_a_key_error(stores: Stores) -> None:
    with pytest.raises(KeyError):
        await stores.call("gone", lambda store: store.local())
