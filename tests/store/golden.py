"""A tree in version 1 of the on-disk format, written from docs/on-disk-format.md alone, without the store's code.

It pins the format: what a release wrote must be read by every later one. Records are tied to inode numbers, so the tree
is built where it is read, and the lines get the seals that its files happen to have.
"""

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any, Final

MTIME_NS: Final = 1_700_000_000_123_456_789
TICKS: Final = 0x3A5B1C2D3E4F50
LEASE: Final = {
    "id": "11111111-2222-3333-4444-555555555555", "duration": -1, "expires": None, "breaks": None,
    "released": False, "modified_since": False,
}  # fmt: skip
LONG_LIST: Final = [(f"QUFBQUFBQUFBQUFB{i:04d}", 3) for i in range(100)]


def key(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=20).hexdigest()


def line(magic: str, document: dict[str, Any]) -> bytes:
    body = json.dumps(document, separators=(",", ":")).encode()
    return f"{magic} {zlib.crc32(body):08x} ".encode() + body + b"\n"


class Golden:
    """The tree. `attributes`: records are extended attributes, else files."""

    def __init__(self, root: Path, attributes: bool) -> None:
        self.private = root / ".blobedge"
        self.box = root / "box"
        self.attributes = attributes
        self.of_box = self.private / "containers/box"
        self.of_box.mkdir(parents=True)
        self.box.mkdir()
        (self.private / "format").write_text('{"version": 1, "id": "0123", "program": "blobedge"}\n')
        (self.private / "service").write_bytes(b"<service/>")
        document = {
            "etag": "0x8DC", "modified": 5, "meta": {"a": "b"}, "public": "container",
            "policies": [["p", "2026-01-01", None, "r"]], "lease": LEASE,
        }  # fmt: skip
        (self.of_box / "properties").write_bytes(line("blobedge-container1", document))
        self._blobs()
        self._blocks()

    def _blobs(self) -> None:
        self._blob(self.box / "dir/plain", "dir/plain", b"plain", type="text/plain", md5="AAAAAAAAAAAAAAAAAAAAAA==")
        self._blob(self.box / "dir%~f", "dir", b"beside", meta={"hdi_isfolder": "true"}, tags={"k": "v"}, tier="Cool")
        self._blob(self.box / "made", "made", b"onetwo", blocks="QQ==:3,Qg==:3")
        self._blob(self.box / "long", "long", b"abc" * 100, blocks="@" + "ab" * 12)
        text = ",".join(f"{block_id}:{size}" for block_id, size in LONG_LIST).encode()
        self._write("blocklists/" + "ab" * 12, f"blobedge-blocklist1 {zlib.crc32(text):08x} ".encode() + text)
        self._write(f"leases/{key('dir/plain')}", line("blobedge-lease1", LEASE))
        self._write(f"tagged/{key('dir')}", b"dir")
        self._blob(self.of_box / f"snapshots/{key('made')}/{TICKS:016x}", "made", b"before", etag="0x8D5")

    def _blocks(self) -> None:
        upload = f"blocks/{key('coming')}"
        meta = {"name": "coming", "id_chars": 4, "slot_bytes": 4, "by_id": False}
        self._write(f"{upload}/meta", json.dumps(meta).encode())
        self._write(f"{upload}/data", b"slot")
        for name in ("iQQ==", "c0", "sQQ==.0.4"):
            self._write(f"{upload}/{name}", b"")
        self._write(f"{upload}/bQ_-=", b"own file")

    def _write(self, path: str, data: bytes) -> None:
        (self.of_box / path).parent.mkdir(parents=True, exist_ok=True)
        (self.of_box / path).write_bytes(data)

    def _blob(self, path: Path, name: str, data: bytes, etag: str = "0x8D1", **fields: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, ns=(MTIME_NS, MTIME_NS))
        inode = path.stat().st_ino
        owner = hashlib.blake2b(f"box/{name}".encode(), digest_size=6).hexdigest()
        seal = [inode, len(data), MTIME_NS]
        record = {"seal": seal, "name": owner, "etag": etag, "modified": 1000, "created": 900, **fields}
        value = line("blobedge1", record)
        if self.attributes:
            os.setxattr(path, "user.blobedge", value)
            return
        target = self.private / f"records/{inode & 0xFFF:03x}/{inode:x}-{len(data):x}-{MTIME_NS:x}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(value)
