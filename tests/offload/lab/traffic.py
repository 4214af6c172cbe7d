"""What went through the proxy: every request as the edge sent it, the cloud took it and the edge was answered.

The record is the witness of what the edge cannot know of itself: bytes that were on the link, and commits that the
cloud made although the edge never saw an answer.
"""

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from .faults import Act, Request

COMMITS: Final = frozenset({"PutBlob", "PutBlockList"})
#: What makes a version of bytes that are there already.
DESCRIPTION: Final = "SetBlobMetadata"
#: What reads enough of a blob to compare it with what was sent.
VERIFICATIONS: Final = frozenset({"GetBlob", "GetBlobProperties"})

#: After these the edge has every reason to send a version again.
LIES: Final = frozenset({Act.SPOIL, Act.WRONG_MD5, Act.WRONG_ETAG})

Blob = tuple[str, str]  # container and name, in the cloud


@dataclass(slots=True)
class Exchange:
    """One request. `cloud_status` is None when the cloud never heard of it (or not to the end), `answered` when the
    edge got no whole answer. `source_etag` is the version that the edge says it sends, `etag` the cloud's. Bytes are
    of content, without heads. `when` in seconds of time.monotonic()."""

    number: int
    when: float
    request: Request
    act: str = ""
    source_etag: str = ""
    bytes_up: int = 0
    bytes_down: int = 0
    cloud_status: int | None = None
    answered: int | None = None
    etag: str = ""

    @property
    def blob(self) -> Blob:
        """The blob that it is about."""
        return self.request.container, self.request.blob

    @property
    def committed(self) -> bool:
        """Whether it made a version of a blob in the cloud."""
        return self.request.operation in COMMITS and self._succeeded

    @property
    def described(self) -> bool:
        """Whether it gave a version's properties to bytes that were there already."""
        return self.request.operation == DESCRIPTION and self._succeeded

    @property
    def _succeeded(self) -> bool:
        return self.cloud_status is not None and self.cloud_status < 300


class Traffic:
    """All exchanges so far; threads add to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._exchanges: list[Exchange] = []
        self._attempts: Counter[tuple[str, str, str, str]] = Counter()

    def begin(self, when: float, operation: str, container: str, blob: str, part: str) -> Exchange:
        """Record a request whose head was read."""
        with self._lock:
            key = (operation, container, blob, part)
            request = Request(*key, self._attempts[key])
            self._attempts[key] += 1
            self._exchanges.append(Exchange(len(self._exchanges), when, request))
            return self._exchanges[-1]

    def all(self, since: int = 0) -> list[Exchange]:
        """Return the exchanges in the order of their heads, from a number on."""
        with self._lock:
            return self._exchanges[since:]

    def by_blob(self) -> dict[Blob, list[Exchange]]:
        """Return the exchanges per blob, in order."""
        found: dict[Blob, list[Exchange]] = defaultdict(list)
        for exchange in self.all():
            found[exchange.blob].append(exchange)
        return dict(found)

    def commits(self) -> dict[Blob, list[Exchange]]:
        """Return the commits that the cloud made, per blob, in order."""
        return {blob: [each for each in exchanges if each.committed] for blob, exchanges in self.by_blob().items()}

    def bytes_up(self) -> Counter[Blob]:
        """Return the bytes of content that left the edge, per blob, whatever became of them."""
        sums: Counter[Blob] = Counter()
        for exchange in self.all():
            sums[exchange.blob] += exchange.bytes_up
        return sums

    def bytes_down(self) -> Counter[Blob]:
        """Return the bytes of content that were sent to the edge, per blob."""
        sums: Counter[Blob] = Counter()
        for exchange in self.all():
            if exchange.request.operation == "GetBlob":
                sums[exchange.blob] += exchange.bytes_down
        return sums

    def write(self, path: Path) -> None:
        """Write one JSON object a line, for people who look for what went wrong."""
        path.write_text("".join(json.dumps(asdict(exchange)) + "\n" for exchange in self.all()))


def duplicates(exchanges: Iterable[Exchange]) -> list[Exchange]:
    """Return the commits among one blob's exchanges that made a version which the cloud had already: the same source
    ETag twice.

    Two are no fault of the edge: a commit after one whose content was spoiled on its way, and one after the cloud, when
    it was asked, named an MD5 or an ETag that is not the version's.
    """
    have: set[str] = set()
    found = []
    for exchange in exchanges:
        if exchange.act in LIES:
            have.clear()
        elif exchange.committed and exchange.source_etag and exchange.source_etag in have:
            found.append(exchange)
        if exchange.committed and exchange.act not in LIES:
            have.add(exchange.source_etag)
    return found
