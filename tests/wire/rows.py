"""One row, one exchange: what is asked, after what, and what has to come back. Rows are data, player.py plays them.

`ask` is `METHOD TARGET`: `b` is a blob of the row's own container, `?comp=list` the container itself, and what starts
with a slash is below the account. `{names}` in asks, headers, bodies and expectations stand for values of the run:
those of player.Scene.values, and what the answers of the scenes brought (`{etag}`, `{lease}`, `{snapshot}`, ...).
"""

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from azure.storage.extensions.checksums import crc64

from dataplane.blobapi.errors import ErrorCode


def encoded_crc64(data: bytes) -> str:
    """The CRC-64/NVME of data as headers have it."""
    return base64.b64encode(_crc64(data)).decode()


def _crc64(data: bytes) -> bytes:
    return int(crc64.compute(data, 0)).to_bytes(8, "little")


def structured(data: bytes) -> bytes:
    """A structured message of one segment with checksums (the layout is that of the Python SDK's streams.py)."""
    body = struct.pack("<HQ", 1, len(data)) + data + _crc64(data) + _crc64(data)
    return struct.pack("<BQHH", 1, 13 + len(body), 1, 1) + body


VERSION: Final = "2023-11-03"
OLD_VERSION: Final = "2018-11-09"
GUID: Final = "5f2d7a0e-8a7b-4b57-9c1f-0d6ad0b3b6f1"
OTHER_GUID: Final = "0a1b2c3d-1111-4222-8333-444455556666"
CONTENT: Final = b"hello world"
CONTENT_MD5: Final = "XrY7u+Ae7tCTyyK7j1rNww=="
WRONG_MD5: Final = "AAAAAAAAAAAAAAAAAAAAAA=="
WRONG_CRC64: Final = "AAAAAAAAAAA="
CONTENT_CRC64: Final = encoded_crc64(CONTENT)
PAST: Final = "Thu, 01 Jan 2015 00:00:00 GMT"
PUT: Final[Mapping[str, str]] = {"x-ms-blob-type": "BlockBlob"}

#: Who sends the request: `key` signs; `nobody`; `wrong key`; `raw TEXT` sends that Authorization; `account FIELDS` and
#: `service FIELDS` are SAS tokens with these fields over good defaults.
KEY: Final = "key"
NOBODY: Final = "nobody"


@dataclass(frozen=True, slots=True)
class Row:
    """`want` is the status of a success or the code of a refusal. `shows` are the headers that the answer must have, as
    names or name=value with `~` for a space; `hides` those that it must not have; `text` pieces of its body; `given`
    the scenes before it."""

    ask: str
    want: int | ErrorCode
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    given: str = ""
    shows: str = ""
    hides: str = ""
    text: tuple[str, ...] = ()
    who: str = KEY
    version: str | None = VERSION
    why: str = ""

    @property
    def status(self) -> int:
        """The status that the answer must have."""
        return self.want if isinstance(self.want, int) else self.want.status

    @property
    def succeeds(self) -> bool:
        """Whether it is answered as asked."""
        return isinstance(self.want, int)

    def name(self) -> str:
        """What identifies the row among those of its operation, for people."""
        wanted = str(self.want) if isinstance(self.want, int) else self.want.name
        told = self.why or " ".join(f"{name}={value}" for name, value in self.headers.items())
        parts = (self.ask, wanted, self.given, told, "" if self.who == KEY else self.who)
        return " | ".join(part for part in parts if part)[:160]


#: What the service answers every request with, whatever it is (REST page "Common response headers", recordings).
COMMON: Final = ("x-ms-request-id", "x-ms-version", "date", "server", "x-ms-client-request-id")
