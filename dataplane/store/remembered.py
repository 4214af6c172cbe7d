"""What a mount can do, when it is too full to try: `.blobedge/probe` keeps what it could the last time.

Guarantees: a full disk or quota stops no start, and changes neither where records are written nor under which names
blobs are looked for. A probe that could be made always wins, as a mount may have been given other options; it is
written down whenever it says something new, and that it could not be is no error.

Where nothing was kept, a local file system is taken to refuse no name and to have attributes: a record store that
expects them reads what is in files too, so that is right for either. A remote mount may refuse characters, which
decides how names are spelled on it: there the error stands. Rejected: the file `format` (whoever rewrites that with an
old version in hand would lower it, see Mount.allow_stubs); guessing a tree's mode from a few of its files.
"""

import json
import os
import secrets
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Final

from dataplane.store.probe import NO_ROOM, Capabilities, granularity, probe, unprobed

FILE: Final = "probe"
_BYTES_MAX: Final = 4096


def probed(private_fd: int, staging_fd: int) -> Capabilities:
    """What the mount of a tree can do: tried, or remembered when it is too full for that. Raises OSError as `probe`
    does, and when it is too full and nothing is known of a remote mount."""
    try:
        found = probe(staging_fd)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        expected = unprobed(staging_fd)
        known = _read(private_fd)
        if known is not None and known.file_system == expected.file_system:  # else the tree was copied elsewhere
            return known
        if not expected.local:
            raise
        return replace(expected, mtime_granularity_ns=granularity(staging_fd))
    if found != _read(private_fd):
        with suppress(OSError):
            _write(private_fd, staging_fd, found)
    return found


def _read(private_fd: int) -> Capabilities | None:
    """What was kept; None when nothing was, or it does not read."""
    try:
        fd = os.open(FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=private_fd)
    except OSError:
        return None
    try:
        kept = Capabilities(**json.loads(os.read(fd, _BYTES_MAX)))
    except (OSError, ValueError, TypeError):
        return None
    finally:
        os.close(fd)
    return kept if isinstance(kept.mtime_granularity_ns, int) and kept.mtime_granularity_ns > 0 else None


def _write(private_fd: int, staging_fd: int, found: Capabilities) -> None:
    """Keep it; staged, so that a crash leaves what is swept. Raises OSError."""
    temporary = f"{FILE}-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=staging_fd), "wb") as file:
            file.write(json.dumps(asdict(found)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, FILE, src_dir_fd=staging_fd, dst_dir_fd=private_fd)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=staging_fd)
        raise
