"""A worker that speaks the control protocol and answers every connection with its pid: what the supervisor sees of the
real one, without a store. Modes (first argument) let it misbehave.

ok        serve
crash     end with a status of its own before Ready
mute      never say Ready
refuse    say Failed and exit with the boot failure code
silent    exit with the boot failure code and say nothing
hang      get ready, beat once, then never again; SIGABRT is ignored too
stubborn  serve, but ignore Stop
leak      serve, and hold LEAK_MIB more at each turn, up to LEAK_MIB_MAX

An account with the name "refuse" is the mode refuse too, so that a reload can ask for it. A file MODE_FILE in the
account's root has the mode of those that start from then on.
"""

import contextlib
import faulthandler
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

from dataplane.ipc.control import EXIT_BOOT_FAILED, Channel, Failed, LogLevel, Ready, Start, Stop
from dataplane.ipc.settings import Settings, from_json
from dataplane.ipc.slots import Counter, Slot

LEAK_MIB = 16
LEAK_MIB_MAX = 160  # a test that fails does not take the machine with it
MODE_FILE = "mode-of-the-next"


def main() -> int:
    mode, flag, number = sys.argv[1:]
    assert flag == "--control-fd"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR2)
    channel = Channel.from_fd(int(number))
    start = channel.receive()
    assert isinstance(start, Start)
    settings = from_json(start.settings)
    override = Path(settings.accounts[0].root, MODE_FILE)
    if override.exists():
        mode = override.read_text()
    if mode == "crash":
        return 17
    if mode == "mute":
        time.sleep(3600)
    if settings.accounts[0].name == "refuse":
        mode = "refuse"
    if mode == "refuse":
        channel.send(Failed("the moon is in the wrong phase"))
    if mode in ("refuse", "silent"):
        return EXIT_BOOT_FAILED
    slot = Slot(settings.slot_fd)
    slot.begin(os.getpid())
    slot.beat(time.monotonic_ns())
    channel.send(Ready(os.getpid()))
    if mode == "hang":
        signal.signal(signal.SIGABRT, signal.SIG_IGN)
        time.sleep(3600)
    serve(settings, channel, slot, obey=mode != "stubborn", leak=mode == "leak")
    return 0


def serve(settings: Settings, channel: Channel, slot: Slot, *, obey: bool, leak: bool) -> None:
    """Answer connections until Stop or the supervisor's end."""
    listeners = [socket.socket(fileno=listener.fd) for listener in settings.listeners]
    watched: list[socket.socket | int] = [*listeners, channel.fileno()]
    held: list[bytes] = []
    while True:
        readable, _, _ = select.select(watched, [], [], 0.1)
        slot.beat(time.monotonic_ns())
        if leak and len(held) * LEAK_MIB < LEAK_MIB_MAX:
            held.append(b"x" * (LEAK_MIB << 20))
        if channel.fileno() in readable:
            message = channel.receive()
            if isinstance(message, LogLevel):
                print(f"worker {settings.worker} logs {message.level}", flush=True)
            if message is None or (obey and isinstance(message, Stop)):
                return
        for listener in listeners:
            if listener in readable:
                answer(listener, slot)


def answer(listener: socket.socket, slot: Slot) -> None:
    with contextlib.suppress(OSError):
        connection, _ = listener.accept()
        with connection:
            connection.sendall(f"{os.getpid()}\n".encode())
        slot.add(Counter.COMMITTED_WRITES)


if __name__ == "__main__":
    sys.exit(main())
