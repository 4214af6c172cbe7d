"""Trees of files with known contents, and what a container must hold after a client moved one.

Contents are derived from a name and a size, so that two runs agree and a wrong block, order or length shows
as a different digest. One generator serves every client, which is what makes their results comparable.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Mapping
from pathlib import Path

from azure.storage.blob import ContainerClient

KIB = 1024
MIB = 1024 * KIB
PIECE_BYTES = 4 * MIB

# Every name here is legal for Linux files and for blobs, and each has broken some server: percent escapes
# that must not be decoded twice, plus signs that are not spaces, characters outside Latin-1, and dots in
# odd places.
AWKWARD_NAMES = (
    "with space.txt",
    "two  spaces .bin",
    "plus+sign+.csv",
    "percent%20literal.txt",
    "percent%.txt",
    "100%25.txt",
    "grüße-日本語-🚀.txt",
    "combining-e\u0301.txt",
    "deep/er/and deeper/x+y%z.txt",
    "hash#and&amp;=.txt",
    "quote'and(paren)[bracket]{brace}.txt",
    "comma,semi;colon@at!~.txt",
    ".hidden",
    "trailing.dots..txt",
    "UPPER/Lower.TXT",
)


def content(label: str, size: int) -> bytes:
    """`size` bytes that depend on the label alone."""
    return random.Random(label).randbytes(size)


def write_file(path: Path, label: str, size: int) -> Path:
    """Write a file of that content piece by piece, so that a big one does not need its size in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = random.Random(label)
    with path.open("wb") as file:
        for offset in range(0, size, PIECE_BYTES):
            file.write(source.randbytes(min(PIECE_BYTES, size - offset)))
    return path


def write_tree(directory: Path, files: Mapping[str, int], *, mtime: float | None = None) -> dict[str, bytes]:
    """Write relative path -> size, and return path -> content; `mtime` in seconds since the epoch."""
    written: dict[str, bytes] = {}
    for name, size in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        written[name] = content(name, size)
        path.write_bytes(written[name])
        if mtime is not None:
            os.utime(path, (mtime, mtime))
    return written


def read_tree(directory: Path) -> dict[str, bytes]:
    """All regular files below a directory, by relative path."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def read_container(container: ContainerClient, prefix: str = "") -> dict[str, bytes]:
    """All blobs below a prefix, by the rest of their name."""
    return {
        name.removeprefix(prefix): container.download_blob(name).readall()
        for name in container.list_blob_names(name_starts_with=prefix)
    }


def md5(data: bytes) -> bytes:
    """The digest that Azure keeps as Content-MD5."""
    return hashlib.md5(data, usedforsecurity=False).digest()


def file_md5(path: Path) -> bytes:
    """The same of a file that is too big to hold."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()


def differences(actual: Mapping[str, bytes], expected: Mapping[str, bytes]) -> str:
    """What is wrong with a tree in a few words; empty when nothing is. Contents themselves are never
    printed.
    """
    faults = [f"missing {name!r}" for name in sorted(expected.keys() - actual.keys())]
    faults += [f"unexpected {name!r}" for name in sorted(actual.keys() - expected.keys())]
    faults += [
        f"{name!r}: {len(actual[name])} bytes, digest differs from the {len(expected[name])} bytes expected"
        for name in sorted(expected.keys() & actual.keys())
        if actual[name] != expected[name]
    ]
    return "; ".join(faults)
