"""The control channel between the supervisor and one child: messages, and both ends' helpers.

One SOCK_SEQPACKET socketpair per child. The kernel keeps message borders and delivers all of a message or nothing, so
there is no framing and no partial read; a pipe or a stream would need both. The child gets its end's number in argv
(`python -m dataplane --control-fd N`) and nothing else: no settings in argv or the environment.

The start-up protocol, in order:

1. The supervisor creates the socketpair and the slot (slots.py), and spawns the child with the numbers of its control
   end, its slot and its listening sockets inherited at the same numbers (`pass_fds`).
2. supervisor -> child  Start(settings)   at once, before the child runs; the document is settings.to_json's, with the
                                          inherited numbers inside.
3. The child opens its stores, TLS contexts and listeners, and then says one of
   child -> supervisor  Ready(pid, mounts)  every listener accepts; the child updates its slot's heartbeat from now on.
                                          A worker says what it found its mounts to be able to do.
   child -> supervisor  Failed(reason)    it cannot serve with these settings, and why, in a line for the operator;
                                          the child exits with EXIT_BOOT_FAILED. The supervisor does not try again.
   Any other exit before Ready is a crash: the supervisor tries again, with a pause.
4. supervisor -> child  LogLevel(level)   at any time after Start.
   supervisor -> child  Stop(seconds)     stop accepting, finish what runs within so many seconds, exit with EXIT_OK.
   A second Stop replaces the deadline of the first.
   child -> supervisor  Report(topic, document)  what the sidecar found; the newest on a topic counts
5. End of file at the child: the supervisor died. The child drains within settings.drain_seconds and exits. (Not
   PR_SET_PDEATHSIG: it fires when the spawning thread ends, and the supervisor's threads come and go.)
   End of file at the supervisor: nothing by itself; the child's exit tells.

Signals belong to the supervisor. The child ignores SIGINT (a terminal's Ctrl-C goes to the whole process group) and
takes SIGTERM as Stop(settings.drain_seconds). SIGABRT is the first step of the ladder for a child that
hangs: faulthandler prints its stacks, and it dies. At SIGUSR2, from Ready on, it prints them and goes on.

A message is bounded, has a kind and the protocol's version; whatever a reader does not know is an error, not noise.
"""

import json
import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, Final

PROTOCOL_VERSION: Final = 2

# Linux delivers a seqpacket message only if it fits the send buffer, 208 KiB by default.
MESSAGE_BYTES_MAX: Final = 128 * 1024

EXIT_OK: Final = 0
EXIT_BOOT_FAILED: Final = 3  # a child that can never serve with these settings; as gunicorn's WORKER_BOOT_ERROR

LOG_LEVELS: Final = ("debug", "info", "warning", "error")


class ControlError(Exception):
    """The other end broke the protocol: too long, not JSON, another version, an unknown kind, wrong fields."""


@dataclass(frozen=True, slots=True)
class Start:
    """Serve with these settings: the document of settings.to_json."""

    settings: dict[str, Any]

    def __repr__(self) -> str:  # it holds keys
        return "Start(...)"


@dataclass(frozen=True, slots=True)
class Mount:
    """A tree that a worker opened. `container` is "" for an account's root; `capabilities` is what the store probed."""

    account: str
    container: str
    path: str
    read_only: bool
    capabilities: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ready:
    """Every listener of the child accepts. `mounts` has as many as fit a message (`ready`)."""

    pid: int
    mounts: tuple[Mount, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The child cannot serve; `reason` is one line for the operator."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Drain within `seconds`, then exit."""

    seconds: float


@dataclass(frozen=True, slots=True)
class LogLevel:
    """Log from this level on: one of LOG_LEVELS."""

    level: str


@dataclass(frozen=True, slots=True)
class Report:
    """What the sidecar found on one topic ("tuning", "cloud"), as JSON."""

    topic: str
    document: dict[str, Any]


Message = Start | Ready | Failed | Stop | LogLevel | Report

KINDS: Final = MappingProxyType(
    {"start": Start, "ready": Ready, "failed": Failed, "stop": Stop, "log-level": LogLevel, "report": Report},
)
_NAMES: Final = {kind: name for name, kind in KINDS.items()}


def encode(message: Message) -> bytes:
    """Return the datagram of a message. Raises ControlError beyond MESSAGE_BYTES_MAX."""
    document = {"protocol": PROTOCOL_VERSION, "kind": _NAMES[type(message)], **asdict(message)}
    data = json.dumps(document, separators=(",", ":")).encode()
    if len(data) > MESSAGE_BYTES_MAX:
        raise ControlError(f"{_NAMES[type(message)]}: {len(data)} bytes, at most {MESSAGE_BYTES_MAX} fit a message")
    return data


def decode(data: bytes) -> Message:
    """Read one datagram. Raises ControlError for anything that encode of this version cannot have made."""
    if len(data) > MESSAGE_BYTES_MAX:
        raise ControlError("message too long")
    try:
        document = json.loads(data)
    except ValueError as error:
        raise ControlError("not JSON") from error
    if not isinstance(document, dict) or document.pop("protocol", None) != PROTOCOL_VERSION:
        raise ControlError(f"not a message of protocol version {PROTOCOL_VERSION}")
    name = document.pop("kind", None)
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ControlError(f"unknown kind of message {name!r}")
    if document.keys() != {field.name for field in fields(kind)}:
        raise ControlError(f"{name}: unexpected fields")
    if kind is Ready:
        document["mounts"] = _mounts(document["mounts"])
    message: Message = kind(**document)
    return message


def ready(pid: int, mounts: Iterable[Mount]) -> Ready:
    """Make a Ready that fits a message: thousands of mapped containers do not, and those beyond are left out."""
    kept: list[Mount] = []
    room = MESSAGE_BYTES_MAX - len(encode(Ready(pid)))
    for mount in mounts:
        room -= len(json.dumps(asdict(mount), separators=(",", ":"))) + 1  # the comma
        if room < 0:
            break
        kept.append(mount)
    return Ready(pid, tuple(kept))


def _mounts(items: Any) -> tuple[Mount, ...]:
    try:
        return tuple(Mount(**item) for item in items)
    except TypeError:
        raise ControlError("ready: not a list of mounts") from None


class Channel:
    """One end of a control channel.

    Blocking, with `*_nowait` variants for event loops: an asyncio child calls `loop.add_reader(channel.fileno(), f)`
    and receives in f until BlockingIOError; the supervisor's trio side waits for the fd to become readable.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @classmethod
    def from_fd(cls, fd: int) -> "Channel":
        """Take ownership of an inherited descriptor. Raises OSError if it is no socket."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Send without ever blocking.

        Raises BlockingIOError when the other end has stopped reading (a few hundred small messages queue), OSError
        (EPIPE, ECONNRESET) when it is gone.
        """
        self._socket.send(encode(message), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def receive(self) -> Message | None:
        """Wait for one message; None at end of file. Raises ControlError, OSError."""
        return self._receive(0)

    def receive_nowait(self) -> Message | None:
        """Return one message, or None at end of file. Raises BlockingIOError when there is none yet, ControlError."""
        return self._receive(socket.MSG_DONTWAIT)

    def close(self) -> None:
        self._socket.close()

    def _receive(self, flags: int) -> Message | None:
        try:
            data = self._socket.recv(MESSAGE_BYTES_MAX + 1, flags)
        except ConnectionResetError:  # the other end died with messages of ours unread: the same end of file
            return None
        return decode(data) if data else None


def pair() -> tuple[Channel, Channel]:
    """Return the two ends of a new channel: (the supervisor's, the child's)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(ours), Channel(theirs)
