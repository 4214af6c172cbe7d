"""What the product answered, compared with the model's blobs.

The model counts ETags and snapshots; the observer learns which real one each number stands for, and holds the product
to it: the same number is the same ETag with the same Last-Modified everywhere, another number another ETag, and a newer
one is not older.
"""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ET
from email.utils import parsedate_to_datetime

from tests.support import Answer

from .model import Listed
from .rules import ANY, Blob


class Observer:
    """What was learnt from answers so far."""

    def __init__(self) -> None:
        self.etags: dict[int, str] = {0: "0x8D0000000000000"}  # 0 is an ETag that no blob has
        self.written: dict[int, str] = {}  # ETag -> Last-Modified
        self.snapshots: dict[int, str] = {0: ""}
        self._seen: set[str] = set()
        self._latest = parsedate_to_datetime("Thu, 01 Jan 1970 00:00:00 GMT")

    def quoted(self, etag: int) -> str:
        """An ETag as conditions have it."""
        return "*" if etag == ANY else f'"{self.etags[etag]}"'

    def entity(self, answer: Answer, etag: int) -> None:
        """An answer has the ETag and its Last-Modified."""
        text = answer.headers["etag"]
        assert text == f'"{text[1:-1]}"'
        self._etag(text[1:-1], etag)
        modified = answer.headers["last-modified"]
        if etag not in self.written:
            assert parsedate_to_datetime(modified) >= self._latest
            self._latest = parsedate_to_datetime(modified)
        assert self.written.setdefault(etag, modified) == modified

    def _etag(self, text: str, etag: int) -> None:
        if etag not in self.etags:
            assert text not in self._seen
        assert self.etags.setdefault(etag, text) == text
        self._seen.add(text)

    def taken(self, answer: Answer, number: int, older: list[int]) -> None:
        """An answer has a new snapshot's instant, later than those of the others."""
        self.snapshots[number] = answer.headers["x-ms-snapshot"]
        assert all(self.snapshots[each] < self.snapshots[number] for each in older)

    def headers(self, answer: Answer, blob: Blob, snapshot: int) -> None:
        """An answer to GET or HEAD has the blob's headers."""
        self.entity(answer, blob.etag)
        headers = answer.headers
        assert headers["content-type"] == blob.content_type
        shown = {n.removeprefix("x-ms-meta-"): v for n, v in headers.items() if n.startswith("x-ms-meta-")}
        assert shown == blob.metadata
        assert headers.get("x-ms-tag-count", "0") == str(len(blob.tags))
        assert headers.get("x-ms-snapshot", "") == self.snapshots[snapshot]
        lease = tuple(headers.get(f"x-ms-lease-{name}") for name in ("state", "status", "duration"))
        assert lease == ((None, None, None) if snapshot else lease_shown(blob))
        whole = "content-range" not in headers
        md5 = headers.get("content-md5" if whole else "x-ms-blob-content-md5", "")
        assert md5 == (base64.b64encode(blob.md5).decode() if blob.md5 else "")

    def tier(self, head: Answer, blob: Blob) -> None:
        """An answer to HEAD has the blob's tier."""
        shown = head.headers["x-ms-access-tier"], "x-ms-access-tier-inferred" in head.headers
        assert shown == (blob.tier or "Hot", not blob.tier)

    def listed(self, found: list[ET.Element], wanted: list[Listed]) -> None:
        """The elements of a listing with metadata and tags are these."""
        assert [(each.tag, each.findtext("Name")) for each in found] == [(each.kind, each.name) for each in wanted]
        for node, each in zip(found, wanted, strict=True):
            if each.blob is not None:
                self._listed_blob(node, each.blob, each.snapshot)

    def _listed_blob(self, node: ET.Element, blob: Blob, snapshot: int) -> None:
        assert node.findtext("Snapshot", "") == self.snapshots[snapshot]
        properties = node.find("Properties")
        assert properties is not None
        self._etag(properties.findtext("Etag", ""), blob.etag)
        assert properties.findtext("Last-Modified") == self.written[blob.etag]
        assert properties.findtext("Content-Length") == str(len(blob.content))
        assert properties.findtext("Content-Type") == blob.content_type
        assert properties.findtext("AccessTier") == (blob.tier or "Hot")
        assert {each.tag: each.text for each in node.iterfind("Metadata/*")} == blob.metadata
        assert tags_in(node) == blob.tags
        if not snapshot:
            lease = tuple(properties.findtext(f"Lease{name}") for name in ("State", "Status", "Duration"))
            assert lease == lease_shown(blob)


def lease_shown(blob: Blob) -> tuple[str, str, str | None]:
    """State, status and duration of a blob's lease, as its properties show them."""
    if blob.lease is None:
        return "available", "unlocked", None
    duration = ("fixed" if blob.lease.fixed else "infinite") if blob.lease.state == "leased" else None
    return blob.lease.state, "unlocked" if blob.lease.state == "broken" else "locked", duration


def tags_in(node: ET.Element) -> dict[str, str]:
    """The tags in a document or in a listing's element."""
    return {each.findtext("Key", ""): each.findtext("Value", "") for each in node.iter("Tag")}


def blocks_in(document: ET.Element, which: str) -> list[tuple[str, int]]:
    """(id, size) of the Committed or Uncommitted blocks of a block list."""
    blocks = document.findall(f"{which}Blocks/Block")
    return [(base64.b64decode(b.findtext("Name", "")).decode(), int(b.findtext("Size", ""))) for b in blocks]
