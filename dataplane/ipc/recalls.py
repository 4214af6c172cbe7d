"""What a worker and the sidecar say to each other of bytes that are in the cloud: messages over a Unix socket.

One SOCK_SEQPACKET connection for each reader, at STATE/recall.sock (STATE holds the journal's directory too). The
kernel keeps the borders of messages, so there is no framing.

    worker -> sidecar   Want         bytes of a blob, the version that the worker opened; again for the next bytes
    sidecar -> worker   Have + fd    up to where they can be read in that file, at their own offsets; a descriptor comes
                                     with the first Have of a Want, and whenever the file is another one
                        Have         further ones
                        Failed       they do not come, and why; the reader then closes
    worker -> sidecar   Bring        the whole blob is needed here as a file (a copy, a snapshot, its blocks)
    sidecar -> worker   Have         now and then, while its bytes come; silence says that nothing goes on
                        Brought      it is: open it again
                        Failed

A Want ends with the Have that reaches its end. The next one comes when all bytes before it were read, so they are not
needed for this reader any more. A worker that closes its end wants nothing any more. The last
LAST_BYTES of a blob that is read whole are told only after the MD5 of all its bytes was verified, so no client ever
gets a whole answer with wrong bytes. Messages are bounded; what a reader does not know is an error.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

VERSION: Final = 1
SOCKET_NAME: Final = "recall.sock"
MESSAGE_BYTES_MAX: Final = 16 * 1024  # a name of 1,024 characters, each six bytes of JSON, twice
WINDOW_BYTES_MAX: Final = 16 << 20  # that a worker asks for at a time
LAST_BYTES: Final = 64 * 1024

#: Why bytes do not come: no way to the cloud; the copy there is in the archive; it is not there, or is another one; no
#: room for it here; the blob here is another version, look again; anything else (the sidecar's log says what).
Why = Literal["offline", "archived", "missing", "space", "changed", "failed"]


class RecallError(Exception):
    """The other end broke the protocol."""


@dataclass(frozen=True, slots=True)
class Want:
    """`length` bytes from `offset` on, at most WINDOW_BYTES_MAX. `etag` is the local one. `until` is where the client's
    reading ends, so that the rest may be fetched ahead; with offset 0 and until the size it is read whole."""

    account: str
    container: str
    name: str
    etag: str
    offset: int
    length: int
    until: int


@dataclass(frozen=True, slots=True)
class Bring:
    """The whole blob as a file here."""

    account: str
    container: str
    name: str
    etag: str


@dataclass(frozen=True, slots=True)
class Have:
    """Bytes up to `end` (exclusive) of the present Want can be read; or, of a Bring, so many have come."""

    end: int


@dataclass(frozen=True, slots=True)
class Brought:
    """The blob is here."""


@dataclass(frozen=True, slots=True)
class Failed:
    """They do not come. `text` is one sentence for the client, without secrets; `retry_seconds` a guess."""

    why: Why
    text: str
    retry_seconds: int = 30


Message = Want | Bring | Have | Brought | Failed
_KINDS: Final = MappingProxyType({"want": Want, "bring": Bring, "have": Have, "brought": Brought, "failed": Failed})
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


def socket_path(journal_directory: str) -> Path:
    """Where the sidecar listens."""
    return Path(journal_directory).parent / SOCKET_NAME


def encode(message: Message) -> bytes:
    """One packet."""
    document: dict[str, Any] = {"v": VERSION, "kind": _NAMES[type(message)], **asdict(message)}
    return json.dumps(document, separators=(",", ":")).encode()


def decode(packet: bytes) -> Message:
    """Raises RecallError for what is no message of this version."""
    try:
        document = json.loads(packet)
        if document.pop("v") != VERSION:
            raise RecallError("another version")
        kind = _KINDS[document.pop("kind")]
        message: Message = kind(**document)
        for name, wanted in kind.__annotations__.items():
            value = getattr(message, name)
            if wanted is int and (type(value) is not int or value < 0):
                raise RecallError(f"{name} is no number")
            if wanted is not int and type(value) is not str:
                raise RecallError(f"{name} is no text")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecallError(f"not a message: {type(error).__name__}") from None
    return message
