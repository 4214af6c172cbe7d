"""ETags: opaque, strong, never made from a time, so that two writes in one tick cannot look alike.

The form is Azure's: 0x8D and thirteen hexadecimal digits. Here they are random bits, or for a file that another writer
put there a hash of its seal.
"""

from hashlib import blake2b
from typing import Final

RANDOM_BITS: Final = 52


def new_etag(random_bits: int) -> str:
    """An ETag without quotes from 52 random bits."""
    return f"0x8D{random_bits & ((1 << RANDOM_BITS) - 1):013X}"


def foreign_etag(inode: int, size: int, mtime_ns: int) -> str:
    """The ETag of a file without a record: it changes when the file does, and is the same from every node."""
    digest = blake2b(b"%d-%d-%d" % (inode, size, mtime_ns), digest_size=8).digest()
    return new_etag(int.from_bytes(digest, "big"))


def quoted(etag: str) -> str:
    """As in headers (RFC 9110 section 8.8.3); listings have it without quotes."""
    return f'"{etag}"'


def unquoted(text: str) -> str:
    """The ETag of a condition header: Azure takes it with and without quotes."""
    text = text.strip()
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] == '"' else text
