"""Look at everything after a crash: through the endpoint, in its listing, and as plain files."""

import hashlib
from pathlib import Path

from .history import Crash, Found, StagedBlocks
from .transport import Content, Target, Transport


def observe(target: Target, container: str, names: set[str], *, listed: bool) -> dict[str, Found]:
    """Get every blob of `names`, and of the listing if the server has one; return what is there.

    Raises AssertionError if listing and Get Blob disagree about what exists.
    """
    with Transport(target, container) as transport:
        listing = transport.list_names() if listed else set()
        found = {name: it for name in names | listing if (it := transport.get(name)) is not None}
    if listed:
        assert listing == found.keys(), f"listed or got, not both: {listing ^ found.keys()}"
    return found


def file_faults(directory: Path, found: dict[str, Found]) -> list[str]:
    """Compare each blob with the plain file of its name; return the differences."""
    wrong = []
    for name, it in found.items():
        try:
            content = (directory / name).read_bytes()
        except OSError as error:
            wrong.append(f"{name}: no plain file: {error.strerror}")
            continue
        if hashlib.sha256(content).hexdigest() != it.version.sha256:
            wrong.append(f"{name}: the file's bytes are not the blob's")
    return wrong


def staged_faults(target: Target, container: str, staged: StagedBlocks, crash: Crash) -> list[str]:
    """Check that each acknowledged uncommitted block is there, by committing them and reading the blob."""
    owed = staged.owed(crash)
    if not owed:
        return []
    with Transport(target, container) as transport:
        there = transport.uncommitted_blocks(staged.blob)
        lost = [block_id for block_id, content in owed if there.get(block_id) != len(content)]
        if lost:
            return [f"{staged.blob}: {len(lost)} of {len(owed)} acknowledged blocks lost or cut: {lost[:3]}"]
        content = Content(b"".join(body for _, body in owed), "application/x-staged")
        transport.put_block_list(staged.blob, [block_id for block_id, _ in owed], content)
        found = transport.get(staged.blob)
        if found is None or found.version != content.version():
            return [f"{staged.blob}: committed blocks do not have the content that was put"]
        transport.delete(staged.blob)
        return []
