"""A small model of Azure Blob Storage: what each request has to answer, and what it leaves behind.

Written from the REST reference ("Put Blob", "Lease Blob", "Specifying conditional headers for Blob service operations"
and the other pages of the operations below, "Blob service error codes"), and from recorded answers where those pages
are silent. It shares no code with the product, so the product's mistakes are not repeated here.

What only the service can choose is a number here: ETags and snapshots are counted, and the test learns which real one
each number stands for. There is no clock: leases are infinite or longer than a test, so the end of one is not modelled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .rules import Blob, Conditions, Lease, New, Refused, absent, check_no_lease

OCTETS = "application/octet-stream"


@dataclass(slots=True)
class Name:
    """All that is stored under one name."""

    base: Blob | None = None
    snapshots: dict[int, Blob] = field(default_factory=dict)
    uncommitted: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listed:
    """One result of a listing: a blob or snapshot, a blob of uncommitted blocks only, or else a group of names."""

    name: str
    blob: Blob | None = None
    snapshot: int = 0
    uncommitted: bool = False

    @property
    def kind(self) -> str:
        """The XML element that shows it."""
        return "Blob" if self.blob is not None or self.uncommitted else "BlobPrefix"


class Model:
    """An account. Names are created by use; every method raises Refused."""

    def __init__(self) -> None:
        self.containers: dict[str, dict[str, Name]] = {}
        self.last_etag = self.last_snapshot = 0

    # --- containers ---

    def create_container(self, container: str) -> None:
        if container in self.containers:
            raise Refused((409, "ContainerAlreadyExists"))
        self.containers[container] = {}

    def delete_container(self, container: str) -> None:
        self._container(container)
        del self.containers[container]

    # --- whole blobs ---

    def put_blob(self, at: tuple[str, str], content: bytes, new: New, cond: Conditions, lease_id: str) -> Blob:
        name = self._to_write(at, cond)
        self._check_overwrite(name, cond, lease_id)
        return self._replace(name, content, [], hashlib.md5(content).digest(), new)

    def copy(
        self, at: tuple[str, str], source: tuple[str, str], snapshot: int, new: New, cond: Conditions, lease_id: str,
        source_cond: Conditions,
    ) -> Blob:  # fmt: skip
        """Copy Blob within the account: the content, blocks and properties go along, metadata unless some is given."""
        name = self._to_write(at, cond)
        self._check_overwrite(name, cond, lease_id)
        found = self._find(source, snapshot) if source[0] in self.containers else None
        if found is None:
            raise Refused((404, "BlobNotFound"))
        try:
            source_cond.check_read(found)
        except Refused as error:
            if error.allowed[0][0] == 400:
                raise
            raise Refused((412, "SourceConditionNotMet")) from None
        new = replace(new, content_type=found.content_type, metadata=new.metadata or found.metadata)
        return self._replace(name, found.content, list(found.blocks), found.md5, new)

    def read(self, at: tuple[str, str], snapshot: int, cond: Conditions, lease_id: str) -> Blob:
        """Get Blob, Get Blob Properties, Get Blob Tags."""
        blob = self._find(at, snapshot)
        if blob is None:
            raise absent(cond)
        blob.check_lease(lease_id, write=False)
        cond.check_read(blob)
        return blob

    def delete(self, at: tuple[str, str], snapshot: int, scope: str, cond: Conditions, lease_id: str) -> None:
        """`scope` is x-ms-delete-snapshots: "", "include" or "only"."""
        if snapshot and scope:
            raise Refused((400, "InvalidOperation"), (400, "MultipleConditionHeadersNotSupported"))
        name, blob = self._to_write(at, cond), self._find(at, snapshot)
        if blob is None and name.uncommitted and not snapshot and not cond.cannot_hold():
            name.uncommitted.clear()  # clients cancel an upload in this way (azure-storage-node, issue 350)
            return
        self._check_existing(blob, cond, lease_id if not snapshot else "", write=not snapshot)
        if snapshot:
            del name.snapshots[snapshot]
            return
        if name.snapshots and not scope:
            raise Refused((409, "SnapshotsPresent"))
        name.snapshots.clear()
        if scope != "only":
            name.base = None
            name.uncommitted.clear()

    # --- parts of a blob ---

    def set_metadata(self, at: tuple[str, str], metadata: dict[str, str], cond: Conditions, lease_id: str) -> Blob:
        blob = self._changed(at, cond, lease_id)
        blob.etag, blob.metadata = self._new_etag(), metadata
        return blob

    def set_properties(self, at: tuple[str, str], content_type: str, cond: Conditions, lease_id: str) -> Blob:
        """One property is set, so the others are cleared."""
        blob = self._changed(at, cond, lease_id)
        blob.etag, blob.content_type, blob.md5 = self._new_etag(), content_type, None
        return blob

    def set_tier(self, at: tuple[str, str], tier: str, cond: Conditions, lease_id: str) -> None:
        self._changed(at, cond, lease_id, ends_lease=False).tier = tier

    def set_tags(self, at: tuple[str, str], tags: dict[str, str], cond: Conditions, lease_id: str) -> None:
        self._changed(at, cond, lease_id, ends_lease=False).tags = tags

    def snapshot(self, at: tuple[str, str], metadata: dict[str, str], cond: Conditions, lease_id: str) -> int:
        """The snapshot has the blob's ETag, unless it gets metadata of its own."""
        name = self._to_write(at, cond)
        blob = self._check_existing(name.base, cond, lease_id, write=False)
        self.last_snapshot += 1
        copied = replace(blob, blocks=list(blob.blocks), lease=None)
        if metadata:
            copied.metadata, copied.etag = metadata, self._new_etag()
        name.snapshots[self.last_snapshot] = copied
        return self.last_snapshot

    # --- blocks ---

    def put_block(self, at: tuple[str, str], block_id: str, content: bytes, lease_id: str) -> None:
        name = self._name(at)
        if name.base is not None:
            name.base.check_lease(lease_id, write=True)
        else:
            check_no_lease(lease_id)
        if any(len(each) != len(block_id) for each in name.uncommitted):
            raise Refused((400, "InvalidBlobOrBlock"))
        name.uncommitted[block_id] = content

    def put_block_list(
        self, at: tuple[str, str], entries: Sequence[tuple[str, str]], new: New, cond: Conditions, lease_id: str
    ) -> Blob:
        """`entries` are (Committed | Uncommitted | Latest, id)."""
        name = self._to_write(at, cond)
        self._check_overwrite(name, cond, lease_id)
        committed = dict(name.base.blocks) if name.base is not None else {}
        places = {
            "Committed": committed, "Uncommitted": name.uncommitted, "Latest": {**committed, **name.uncommitted},
        }  # fmt: skip
        blocks = []
        for place, block_id in entries:
            if block_id not in places[place]:
                raise Refused((400, "InvalidBlockList"))
            blocks.append((block_id, places[place][block_id]))
        return self._replace(name, b"".join(data for _, data in blocks), blocks, None, new)

    def block_list(
        self, at: tuple[str, str], snapshot: int, lease_id: str
    ) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        """(committed, uncommitted): (id, size) each. Blocks that are uncommitted belong to no snapshot."""
        name, blob = self._name(at), self._find(at, snapshot)
        if blob is not None:
            blob.check_lease(lease_id, write=False)
        else:
            check_no_lease(lease_id)
            if not name.uncommitted or snapshot:
                raise Refused((404, "BlobNotFound"))
        committed = blob.blocks if blob is not None else []
        uncommitted = {} if snapshot else name.uncommitted
        return [(i, len(d)) for i, d in committed], sorted((i, len(d)) for i, d in uncommitted.items())

    # --- leases: page "Lease Blob", table of outcomes ---

    def acquire(self, at: tuple[str, str], proposed: str, fixed: bool, cond: Conditions) -> str:
        """Acquire, Renew, Change and Release return the id that holds the lease now, "" for none."""
        blob = self._leasable(at, cond)
        if blob.lease is not None and blob.lease.state == "breaking":
            same = blob.lease.id == proposed
            raise Refused((409, "LeaseIsBreakingAndCannotBeAcquired" if same else "LeaseAlreadyPresent"))
        if blob.lease is not None and blob.lease.state == "leased" and blob.lease.id != proposed:
            raise Refused((409, "LeaseAlreadyPresent"))
        blob.lease = Lease(proposed, fixed)
        return proposed

    def renew(self, at: tuple[str, str], lease_id: str, cond: Conditions) -> str:
        lease = self._leasable(at, cond).lease
        if lease is None or lease.id != lease_id:
            raise Refused((409, "LeaseIdMismatchWithLeaseOperation"))
        if lease.state != "leased":
            raise Refused((409, "LeaseIsBrokenAndCannotBeRenewed"))
        return lease_id

    def change(self, at: tuple[str, str], lease_id: str, proposed: str, cond: Conditions) -> str:
        lease = self._leasable(at, cond).lease
        if lease is None or lease.state == "broken":
            raise Refused((409, "LeaseNotPresentWithLeaseOperation"))
        if lease.id not in (lease_id, proposed):
            raise Refused((409, "LeaseIdMismatchWithLeaseOperation"))
        if lease.state == "breaking":
            raise Refused((409, "LeaseIsBreakingAndCannotBeChanged"))
        lease.id = proposed
        return proposed

    def release(self, at: tuple[str, str], lease_id: str, cond: Conditions) -> str:
        blob = self._leasable(at, cond)
        if blob.lease is None or blob.lease.id != lease_id:
            raise Refused((409, "LeaseIdMismatchWithLeaseOperation"))
        blob.lease = None
        return ""

    def break_lease(self, at: tuple[str, str], period: int | None, cond: Conditions) -> str:
        """Returns the state. Without a period an infinite lease ends at once, a fixed one at its end."""
        lease = self._leasable(at, cond).lease
        if lease is None:
            raise Refused((409, "LeaseNotPresentWithLeaseOperation"))
        at_once = period == 0 or (period is None and not lease.fixed and lease.state == "leased")
        lease.state = "broken" if at_once or lease.state == "broken" else "breaking"
        return lease.state

    # --- listing ---

    def listing(
        self, container: str, prefix: str, delimiter: str, *, snapshots: bool = False, uncommitted: bool = False
    ) -> list[Listed]:
        """Everything in order of names; snapshots before their blob, oldest first."""
        names, found = self._container(container), []
        for name in sorted(n for n in names if n.startswith(prefix)):
            entry = names[name]
            wanted = [Listed(name, blob, number) for number, blob in entry.snapshots.items() if snapshots]
            if entry.base is not None:
                wanted.append(Listed(name, entry.base))
            elif entry.uncommitted and uncommitted:
                wanted.append(Listed(name, uncommitted=True))
            end = name.find(delimiter, len(prefix)) if delimiter else -1
            if wanted and end >= 0:
                wanted = [Listed(name[: end + len(delimiter)])]
            found += [each for each in wanted if each not in found]
        return found

    # --- inside ---

    def _new_etag(self) -> int:
        self.last_etag += 1
        return self.last_etag

    def _container(self, container: str) -> dict[str, Name]:
        if container not in self.containers:
            raise Refused((404, "ContainerNotFound"))
        return self.containers[container]

    def _name(self, at: tuple[str, str]) -> Name:
        return self._container(at[0]).setdefault(at[1], Name())

    def _to_write(self, at: tuple[str, str], cond: Conditions) -> Name:
        cond.check_combination()
        return self._name(at)

    def _find(self, at: tuple[str, str], snapshot: int) -> Blob | None:
        name = self._name(at)
        return name.snapshots.get(snapshot) if snapshot else name.base

    def _check_overwrite(self, name: Name, cond: Conditions, lease_id: str) -> None:
        if name.base is None:
            check_no_lease(lease_id)
            if cond.cannot_hold():
                raise Refused((412, "ConditionNotMet"))
            return
        name.base.check_lease(lease_id, write=True)
        cond.check_write(name.base, creates=True, leased=name.base.holds_lease(lease_id))

    def _check_existing(self, blob: Blob | None, cond: Conditions, lease_id: str, *, write: bool) -> Blob:
        if blob is None:
            raise absent(cond)
        blob.check_lease(lease_id, write=write)
        cond.check_write(blob)
        return blob

    def _changed(self, at: tuple[str, str], cond: Conditions, lease_id: str, *, ends_lease: bool = True) -> Blob:
        blob = self._check_existing(self._to_write(at, cond).base, cond, lease_id, write=True)
        if ends_lease:
            blob.written()
        return blob

    def _leasable(self, at: tuple[str, str], cond: Conditions) -> Blob:
        blob = self._to_write(at, cond).base
        if blob is None:
            raise absent(cond)
        cond.check_write(blob)
        return blob

    def _replace(
        self, name: Name, content: bytes, blocks: list[tuple[str, bytes]], md5: bytes | None, new: New
    ) -> Blob:
        """A new blob over an old one: its snapshots and its lease stay, its uncommitted blocks go."""
        lease = name.base.lease if name.base is not None else None
        name.base = Blob(
            content, self._new_etag(), new.content_type or OCTETS, md5, new.metadata, new.tags, new.tier, blocks, lease
        )
        name.base.written()
        name.uncommitted.clear()
        return name.base
