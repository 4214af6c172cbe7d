"""Which file systems are of another machine, by their names in mountinfo (proc(5)).

Neither journals nor the queue are kept there: a network that is away would hold up what has to go on without it, and
locks and syncs do not mean there what they mean here. Rejected: the numbers of statfs(2), which are alike for several.
"""

from typing import Final

from dataplane.store.probe import file_system

_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "afs"}
)


def why_network(device: int) -> str | None:
    """Why a mount with this device number is of another machine; None when it is not. Raises OSError."""
    return why_network_kind(file_system(device))


def why_network_kind(kind: str) -> str | None:
    """The same for the type of a file system."""
    return f"{kind} is a network file system" if kind in _NETWORK else None
