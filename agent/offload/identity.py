"""Who this node is for the cloud: its name, and an instance that was made once, in the state directory.

Two nodes of one name, as clones of an image or a typing error make them, would take each other's versions for their
own, and replace them unseen. With the instance they are somebody else to each other, and meet the conflict policy. It
is a file and not in the queue's database: a node that loses only its database is still itself. A node that is built
again with an empty state directory is another instance; a version that it has itself is recognised all the same
(verify.py, `difference`). A clone of the state directory itself is not found out: give it a name of its own.
"""

import secrets
from pathlib import Path
from typing import Final

from agent.offload.wholefile import write_whole

FILE: Final = "instance"
_BYTES: Final = 6  # 48 bits tell all nodes of a site apart; each entry costs metadata
_TEXT_BYTES_MAX: Final = 64


def identity(directory: Path, name: str) -> str:
    """NAME/INSTANCE, the instance made and made to last when there is none. Raises OSError. Blocks on the disk."""
    path = directory / FILE
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            instance = file.read(_TEXT_BYTES_MAX).strip()
    except FileNotFoundError:
        instance = ""
    if not instance.isalnum():
        instance = secrets.token_hex(_BYTES)
        write_whole(path, instance + "\n")
    return f"{name}/{instance}"
