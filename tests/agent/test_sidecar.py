"""The sidecar as a real process, and its patience with reporters that fail or hang."""

import os
import select
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from agent.config import Account, Config
from agent.sidecar.life import report_once, settings
from agent.sidecar.reporters import REPORTERS, Reporter
from dataplane.ipc import control, slots

CHECKOUT = Path(__file__).resolve().parents[2]
KEY = "c2l4dGVlbiBieXRlcyBvciBtb3Jl"
CONFIG = Config(accounts=[Account(name="acct", root="/", key1=KEY)])
SECONDS_MAX = 20.0


def test_it_gets_ready_reports_and_goes_at_stop() -> None:
    slot_fd = slots.create("test-sidecar")
    ours, theirs = control.pair()
    ours.send(control.Start(settings(CONFIG, slot_fd)))
    command = [sys.executable, "-m", "agent.sidecar", "--control-fd", str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno(), slot_fd], cwd=CHECKOUT) as process:
        theirs.close()
        try:
            assert _said(ours) == control.Ready(process.pid)
            topics = {*(each.topic for each in REPORTERS), "offload"}
            reports = [_said(ours) for _ in topics]
            assert {each.topic for each in reports if isinstance(each, control.Report)} == topics
            ours.send(control.Stop(1.0))
            assert process.wait(SECONDS_MAX) == control.EXIT_OK
        finally:
            process.kill()
    slot = slots.Slot(slot_fd)
    assert slot.heartbeat_ns > 0
    slot.close()
    os.close(slot_fd)
    ours.close()


def _said(channel: control.Channel) -> control.Message | None:
    assert select.select([channel.fileno()], [], [], SECONDS_MAX)[0], "it says nothing"
    return channel.receive()


def test_it_gets_no_account_key() -> None:
    assert KEY not in repr(settings(CONFIG, 3))


def test_a_reporter_that_fails_or_hangs_says_so() -> None:
    end = threading.Event()

    def fails(_: Config) -> Mapping[str, Any]:
        raise ValueError("no such thing")

    def hangs(_: Config) -> Mapping[str, Any]:
        end.wait()
        return {}

    async def ask() -> list[dict[str, Any]]:
        found = [await report_once(Reporter("x", 1.0, each), CONFIG, 0.1) for each in (fails, hangs)]
        end.set()
        return found

    assert trio.run(ask) == [{"error": "ValueError: no such thing"}, {"error": "no answer within 0.1 s"}]
