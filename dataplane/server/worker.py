"""One worker process: told its settings, opens its stores, serves its sockets, drains, exits.

The protocol with the supervisor is that of dataplane.ipc.control. The heartbeat comes from the event loop itself, so a
loop that hangs is seen; SIGABRT then prints every thread's stack (faulthandler) and ends the process. What the start
allocated is frozen out of the garbage collector's sight, and its young generation made large: a request makes few
cycles, and a full collection would be a pause of milliseconds for all connections.
"""

import asyncio
import faulthandler
import gc
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

import uvloop

from dataplane.ipc import control, logs
from dataplane.ipc.settings import Settings, SettingsError, from_json
from dataplane.ipc.slots import Slot, SlotError
from dataplane.server.access import AccessLog
from dataplane.server.build import BootError, build_node, close_node, pool_limits
from dataplane.server.gauges import WorkerGauges
from dataplane.server.listener import Server
from dataplane.server.listening import open_server
from dataplane.server.mountpools import MountPools
from dataplane.server.node import Node

HEARTBEAT_SECONDS: Final = 0.5  # the supervisor looks for one every ten seconds
CLOSE_SECONDS_MAX: Final = 1.5  # to end what is left after the drain; the supervisor kills two seconds after it
CLOSE_POLL_SECONDS: Final = 0.02
GC_YOUNG_COUNT: Final = 20_000

_log = logging.getLogger(__name__)


def run(control_fd: int) -> int:
    """Serve until told to stop. Returns the process's exit code."""
    faulthandler.enable(all_threads=True)
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = control.Channel.from_fd(control_fd)
    try:
        settings = _settings(channel)
        if settings is None:
            return control.EXIT_OK  # the supervisor died before it said anything
        logs.configure(settings.log_format, settings.log_level, "worker", settings.worker, sys.stderr)
        _raise_descriptor_limit()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_Worker(settings, channel).run())
    except (BootError, SettingsError, SlotError, control.ControlError) as error:
        _fail(channel, str(error))
        return control.EXIT_BOOT_FAILED
    return control.EXIT_OK


def _settings(channel: control.Channel) -> Settings | None:
    message = channel.receive()  # before anything else: what is unread when we exit costs the other end our last words
    if message is None:
        return None
    if not __debug__:
        raise BootError("assertions are switched off (python -O, PYTHONOPTIMIZE); they guard data and have to stay on")
    if not isinstance(message, control.Start):
        raise control.ControlError(f"expected Start, got {type(message).__name__}")
    return from_json(message.settings)


def _fail(channel: control.Channel, reason: str) -> None:
    print(f"worker cannot start: {reason}", file=sys.stderr)
    try:
        channel.send(control.Failed(reason))
    except OSError:
        return  # the supervisor is gone too; the exit code is all that is left


def _raise_descriptor_limit() -> None:
    """As many descriptors as we may have: a connection, a file and a staged file for each client."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Worker:
    """The life of one worker on its event loop."""

    def __init__(self, settings: Settings, channel: control.Channel) -> None:
        self._settings = settings
        self._channel = channel
        self._stop = asyncio.Event()
        self._deadline = 0.0  # on the loop's clock

    async def run(self) -> None:
        """Serve until stopped, then drain. Raises BootError."""
        settings, loop = self._settings, asyncio.get_running_loop()
        slot = Slot(settings.slot_fd)
        slot.begin(os.getpid())
        access_log = AccessLog(_stdout_write) if settings.access_log else None
        pools = MountPools(pool_limits(settings.limits))
        node = build_node(settings, loop, pools, slot, access_log)
        server = await open_server(node)
        loop.add_signal_handler(signal.SIGTERM, self._stop_within, settings.drain_seconds)
        loop.add_reader(self._channel.fileno(), self._told)
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_YOUNG_COUNT, 50, 1000)
        heartbeat = asyncio.create_task(_beat(slot, WorkerGauges(server, node, slot)))
        self._channel.send(control.ready(os.getpid(), _mounts(node)))
        await self._stop.wait()
        await self._drain(server, node)
        closed = await self._close(node)
        if access_log is not None:
            access_log.close(CLOSE_SECONDS_MAX)
        if not closed:
            _log.warning("a mount does not answer: what waits for it ends with this process")
            os._exit(control.EXIT_OK)  # the loop and the interpreter would wait for its threads
        heartbeat.cancel()
        pools.close()

    async def _drain(self, server: Server, node: Node) -> None:
        """Finish what runs, pending copies too, within a deadline that a later Stop may move."""
        loop = asyncio.get_running_loop()
        if node.low_space is not None:
            node.low_space.stop_waiting()
        pending = {asyncio.ensure_future(server.drain()), asyncio.ensure_future(node.copies.wait())}
        while pending and (left := self._deadline - loop.time()) > 0:
            _, pending = await asyncio.wait(pending, timeout=min(left, HEARTBEAT_SECONDS))
        if pending:
            _log.warning("stopping with requests under way: the time to drain is over")
        for each in pending:
            each.cancel()
        server.abort()

    async def _close(self, node: Node) -> bool:
        """End copies, calls on threads and commits. False when a mount kept them; then the process has to end."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CLOSE_SECONDS_MAX
        stopping = asyncio.ensure_future(node.copies.stop())
        await asyncio.wait([stopping], timeout=until - loop.time())
        while not node.pools.idle() and loop.time() < until:  # noqa: ASYNC110 - threads tell no event
            await asyncio.sleep(CLOSE_POLL_SECONDS)
        if not stopping.done() or not node.pools.idle():
            return False
        return await loop.run_in_executor(None, close_node, node, max(0.0, until - loop.time()))

    def _told(self) -> None:
        """The control channel is readable: take all messages. End of file means that the supervisor died."""
        try:
            while True:
                message = self._channel.receive_nowait()
                if message is None:
                    asyncio.get_running_loop().remove_reader(self._channel.fileno())
                    self._stop_within(self._settings.drain_seconds)
                    return
                if isinstance(message, control.Stop):
                    self._stop_within(message.seconds)
                elif isinstance(message, control.LogLevel):
                    logging.getLogger().setLevel(message.level.upper())
                else:
                    raise control.ControlError(f"unexpected {type(message).__name__}")
        except BlockingIOError:
            return
        except control.ControlError as error:
            _log.error("control channel: %s; stopping", error)
            self._stop_within(self._settings.drain_seconds)

    def _stop_within(self, seconds: float) -> None:
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._stop.set()


async def _beat(slot: Slot, counters: WorkerGauges) -> None:
    while True:
        counters.update()
        slot.beat(time.monotonic_ns())
        await asyncio.sleep(HEARTBEAT_SECONDS)


def _mounts(node: Node) -> Iterator[control.Mount]:
    """What the stores found their trees to be."""
    for account in node.accounts.values():
        given = account.settings
        paths = {each.name: each.path for each in given.containers}
        for container, mount in account.store.mounts():
            found = mount.capabilities
            device = os.fstat(mount.root_fd).st_dev
            capabilities = {
                **asdict(found), "records": mount.records.backend, "device": f"{os.major(device)}:{os.minor(device)}",
            }  # fmt: skip
            path = paths[container] if container else given.root
            yield control.Mount(given.name, container, path, mount.read_only, capabilities)


def _stdout_write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sys.stdout.fileno(), view) :]
