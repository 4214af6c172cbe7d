"""Whether the cloud still has the copy on whose strength bytes are about to go. Blocking.

It must have the very version that was verified after the upload (its ETag), or one whose ETag moved although it is our
own upload of this version, untouched. Anything else is no copy: to be safe, a version is sent once more rather than
taken for what it may not be.
"""

import hashlib
import os
from typing import Final, NamedTuple

from agent.offload.cloud import Cloud
from agent.offload.rows import Row
from agent.offload.transport import Errand
from agent.offload.verify import ETAG

_HASH_BYTES: Final = 1 << 20


class Held(NamedTuple):
    """The cloud has it: the ETag there now, and the MD5 of the bytes; None when the cloud says none."""

    etag: str
    md5: bytes | None


def ask(cloud: Cloud, row: Row, size: int, errand: Errand) -> Held | None:
    """What the cloud holds of the version that a row says was copied, whose size here is `size`; None when that is no
    copy of it. Raises CloudFailed."""
    request = cloud.request("Get Blob Properties", "r", row.cloud_container, row.cloud_name)
    seen = cloud.look(cloud.blob(row.cloud_container, row.cloud_name), request, errand)
    if seen is None or seen.facts.size != size:
        return None
    if seen.etag != row.cloud_etag and not (seen.intact and seen.ours(ETAG) == row.copied_etag):
        return None
    return Held(seen.etag, seen.md5)


def md5_of(fd: int) -> bytes:
    """The MD5 of a whole file. Raises OSError."""
    md5 = hashlib.md5(usedforsecurity=False)
    offset = 0
    while piece := os.pread(fd, _HASH_BYTES, offset):
        md5.update(piece)
        offset += len(piece)
    return md5.digest()
