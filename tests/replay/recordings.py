"""Which recordings are in the scope of this release, told from their own requests.

A recording is out of scope when one of its requests needs what the endpoint refuses: append or page blobs, soft delete,
customer-provided keys. A list of names was rejected: it would have to be believed, and a second set of recordings
exists that nobody here has seen.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import yaml


class Need(Enum):
    """What a recording needs that is out of scope."""

    OTHER_BLOB_TYPES = "append or page blobs"
    SOFT_DELETE = "soft delete"
    CUSTOMER_KEYS = "customer-provided keys"


_OTHER_TYPES: Final = frozenset({"appendblob", "pageblob"})
_OTHER_COMPS: Final = frozenset({"appendblock", "seal", "page", "pagelist", "incrementalcopy"})
#: Set Blob Service Properties that turns soft delete on.
_RETENTION_ON: Final = re.compile(rb"<DeleteRetentionPolicy>\s*<Enabled>\s*true", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One recorded request; header names are lower-case, `query` has the first value of each name."""

    method: str
    path: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes

    @classmethod
    def from_yaml(cls, node: Mapping[str, Any]) -> "RecordedRequest":
        """Read the `request` node of VCR's format, where a header's value is a string or a list."""
        headers = {
            name.lower(): value if isinstance(value, str) else value[0] for name, value in node["headers"].items()
        }
        target = urlsplit(node["uri"])
        query = parse_qs(target.query, keep_blank_values=True)
        body = node.get("body") or b""
        return cls(
            node["method"],
            target.path,
            headers,
            {name: values[0] for name, values in query.items()},
            body if isinstance(body, bytes) else str(body).encode(),
        )

    def needs(self) -> set[Need]:
        """What this request alone needs."""
        found = set()
        comp = self.query.get("comp", "").lower()
        if self.headers.get("x-ms-blob-type", "").lower() in _OTHER_TYPES or comp in _OTHER_COMPS:
            found.add(Need.OTHER_BLOB_TYPES)
        if comp == "undelete" or "deleted" in self.query.get("include", "").split(","):
            found.add(Need.SOFT_DELETE)
        if "x-ms-encryption-key" in self.headers:
            found.add(Need.CUSTOMER_KEYS)
        return found

    def turns_retention_on(self) -> bool:
        """Whether it sets the property that makes deletes soft. The property itself can be set and read here."""
        return self.query.get("comp") == "properties" and _RETENTION_ON.search(self.body) is not None

    def deletes_a_blob(self) -> bool:
        """Whether it deletes a blob or snapshot, which has a container before it."""
        return self.method == "DELETE" and self.path.count("/") > 1


def needs_of(requests: Iterable[RecordedRequest]) -> frozenset[Need]:
    """What a recording needs; empty when it is in scope."""
    found: set[Need] = set()
    soft = False
    for request in requests:
        found |= request.needs()
        soft = soft or request.turns_retention_on()
        if soft and request.deletes_a_blob():
            found.add(Need.SOFT_DELETE)
    return frozenset(found)


def read(folder: Path) -> dict[str, frozenset[Need]]:
    """The needs of every recording of a folder, by its name (the file's, without `.yaml`)."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        document = yaml.load(path.read_bytes(), Loader=loader)
        requests = (RecordedRequest.from_yaml(node["request"]) for node in document["interactions"])
        found[path.stem] = needs_of(requests)
    return found
