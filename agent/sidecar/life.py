"""The life of the sidecar: told the configuration, reports at intervals, beats, goes when it is told to.

Reporters are blocking functions in threads, each with a deadline: one that hangs is left behind in its thread and said
to hang, and the others go on. The sidecar gets no account keys. Rejected: threads of the supervisor, which must never
wait for the network or a disk.
"""

import faulthandler
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

from agent.config import Config
from agent.sidecar.reporters import REPORTERS, Reporter
from agent.supervision.plan import journal_directory
from dataplane.ipc import control, logs
from dataplane.ipc.slots import Slot

log = logging.getLogger("blobedge.sidecar")

BEAT_SECONDS: Final = 0.5
GLANCE_SECONDS: Final = 0.75  # with the second that a glance may take, less than the two that health allows
REPORT_SECONDS_MAX: Final = 35.0  # the way to the cloud has six steps of at most 5 s


def settings(config: Config, slot_fd: int) -> dict[str, Any]:
    """The document of Start: the configuration without keys, and the descriptor of the slot."""
    document = config.model_dump(mode="json", exclude={"accounts": {"__all__": {"key1", "key2"}}})
    return {"config": document, "slot_fd": slot_fd}


def run(control_fd: int) -> int:
    """Report until told to stop, or until the supervisor is gone. Returns the exit code."""
    faulthandler.enable(all_threads=True)
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = control.Channel.from_fd(control_fd)
    start = channel.receive()
    if not isinstance(start, control.Start):
        return control.EXIT_OK if start is None else control.EXIT_BOOT_FAILED
    config = Config.model_validate_json(json.dumps(start.settings["config"]))
    logs.configure(config.log.format, config.log.level, "sidecar", None, sys.stderr)
    trio.run(_live, channel, Slot(start.settings["slot_fd"]), config)
    sys.stderr.flush()
    os._exit(control.EXIT_OK)  # a reporter that hangs in its thread must not hold us


async def _live(channel: control.Channel, slot: Slot, config: Config) -> None:
    slot.begin(os.getpid())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_beat, slot)
        channel.send(control.Ready(os.getpid()))
        for reporter in REPORTERS:
            nursery.start_soon(_Topic(reporter, config, channel).report_for_ever)
        nursery.start_soon(_offload, config, channel)
        await _obey(channel)
        nursery.cancel_scope.cancel()


async def _beat(slot: Slot) -> None:
    while True:
        slot.beat(time.monotonic_ns())
        await trio.sleep(BEAT_SECONDS)


async def _offload(config: Config, channel: control.Channel) -> None:
    """Run the offload, if there is one. A library that is broken ends it alone; it is imported only when needed, as
    the cloud's costs 40 MB."""

    def say(document: dict[str, Any]) -> None:
        _report(channel, "offload", document)

    if not journal_directory(config):
        say({"configured": False})
        return
    try:
        from agent.offload import service
    except ImportError as error:
        log.exception("offload cannot run")
        say({"configured": True, "state": f"does not run: {error}", "socket": ""})
        return
    await service.run(config, say)


def _report(channel: control.Channel, topic: str, document: Mapping[str, Any]) -> None:
    try:
        channel.send(control.Report(topic, dict(document)))
    except (OSError, control.ControlError) as error:
        log.warning("report %s is lost: %s", topic, error)


class _Topic:
    """One reporter: the whole look and the glances go on side by side, so that a look that hangs delays no glance."""

    def __init__(self, reporter: Reporter, config: Config, channel: control.Channel) -> None:
        self._reporter = reporter
        self._config = config
        self._channel = channel
        self._last: Mapping[str, Any] = {}

    async def report_for_ever(self) -> None:
        async with trio.open_nursery() as nursery:
            if self._reporter.glance is not None:
                nursery.start_soon(self._glance_for_ever, self._reporter.glance)
            while True:
                self._say(await report_once(self._reporter, self._config, REPORT_SECONDS_MAX))
                await trio.sleep(self._reporter.interval_seconds)

    async def _glance_for_ever(self, glance: Callable[[Config, Mapping[str, Any]], Mapping[str, Any] | None]) -> None:
        while True:
            await trio.sleep(GLANCE_SECONDS)
            last = self._last
            try:
                newer = await trio.to_thread.run_sync(glance, self._config, last, abandon_on_cancel=True)
            except Exception:  # the next whole look will say what is wrong
                log.warning("glance at %s failed", self._reporter.topic, exc_info=True)
                continue
            if newer is not None and last is self._last:  # else a whole look has come in between, and knows more
                self._say(newer)

    def _say(self, document: Mapping[str, Any]) -> None:
        self._last = document
        _report(self._channel, self._reporter.topic, document)


async def report_once(reporter: Reporter, config: Config, seconds: float) -> dict[str, Any]:
    """Call a reporter in a thread; `{"error": TEXT}` when it fails, or takes longer than `seconds`."""
    try:
        with trio.move_on_after(seconds):
            return dict(await trio.to_thread.run_sync(reporter.function, config, abandon_on_cancel=True))
    except Exception as error:  # whatever one reporter does wrong, the others go on
        log.warning("report %s failed", reporter.topic, exc_info=True)
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": f"no answer within {seconds:g} s"}


async def _obey(channel: control.Channel) -> None:
    """Take messages until Stop or the end of file."""
    while True:
        await trio.lowlevel.wait_readable(channel.fileno())
        match channel.receive_nowait():
            case None | control.Stop():
                return
            case control.LogLevel(level):
                logging.getLogger().setLevel(level.upper())
