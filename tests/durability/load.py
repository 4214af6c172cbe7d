"""Concurrent clients that write blobs and remember exactly what they sent and what was acknowledged.

Each client has blobs of its own, on which it does everything, and all share a few, which they overwrite
and delete in competition. One more client stages blocks and never commits them. A seed fixes every choice
of every client, though not the interleaving.
"""

import base64
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from .history import Found, StagedBlocks, Version, Write
from .transport import ConnectionLost, ConnectionRefused, Content, Target, Transport, UnexpectedAnswer

T = TypeVar("T")

OWN_BLOBS = 12
SHARED_BLOBS = 4
SHARED_FOLDER = "shared/"
SHARED_SHARE = 0.25  # of all writes
# Blocks from 256 KiB on are written to their final place, smaller ones to a file each: both ways are wanted.
STAGED_BLOCK_BYTES = (50_000, 300_000)
BODY_SIZES = (0, 1, 100, 4_096, 4_097, 70_000, 800_000)
BLOCKS_OF_UPLOAD = 3
# 4,000 does not fit the xattrs of ext4 together with the rest of a record, 7,500 is near Azure's 8 KiB limit.
METADATA_PAD_BYTES = (0, 0, 0, 0, 4_000, 7_500)
JOIN_TIMEOUT_S = 90.0
RETRY_S = 30.0
ALL_KINDS = ("put", "blocks", "metadata", "delete")


@dataclass(frozen=True, slots=True)
class Plan:
    """What the load does. `retry` sends a request again whose connection broke (a worker was killed);
    without it a client ends at its first failure (the disk is gone)."""

    seed: str
    clients: int = 6
    kinds: tuple[str, ...] = ALL_KINDS
    metadata_pad_bytes: tuple[int, ...] = METADATA_PAD_BYTES
    retry: bool = False
    stage_blocks: bool = True


@dataclass(slots=True)
class Client:
    """One client's own record; only its thread writes it until the load has been joined."""

    number: int
    rng: random.Random
    transport: Transport
    writes: list[Write] = field(default_factory=list)
    state: dict[str, Version] = field(default_factory=dict)  # of its own blobs
    lost: list[ConnectionLost] = field(default_factory=list)
    refused_count: int = 0
    failure: Exception | None = None
    slowest_s: float = 0.0

    def label(self, seed: str) -> str:
        """Return a name for the next write that no other write of any load has."""
        return f"{seed}-{self.number}-{len(self.writes)}"


class Load:
    """The running clients. `start`, wait for `await_acknowledged(n)`, crash the server, `stop`, then read
    `writes`, `staged` and the clients' records."""

    def __init__(self, target: Target, container: str, plan: Plan, before: dict[str, Found]) -> None:
        self.plan = plan
        self.staged = StagedBlocks(f"staged-{plan.seed}")
        self.clients = []
        for number in range(plan.clients + plan.stage_blocks):
            rng = random.Random(f"{plan.seed}/{number}")
            client = Client(number, rng, Transport(target, container))
            own = f"client-{number}/"
            client.state = {blob: it.version for blob, it in before.items() if blob.startswith(own)}
            self.clients.append(client)
        self._stop = threading.Event()
        self._count = 0
        self._counted = threading.Condition()
        self._threads: list[threading.Thread] = []

    @property
    def writes(self) -> list[Write]:
        """All writes of all clients."""
        return [write for client in self.clients for write in client.writes]

    @property
    def failures(self) -> list[str]:
        """What ended clients early."""
        return [f"client {client.number}: {client.failure}" for client in self.clients if client.failure]

    def start(self) -> None:
        """Start a thread for each client."""
        for client in self.clients:
            stages = client.number == self.plan.clients
            step = self._stage_block if stages else self._write
            self._threads.append(threading.Thread(target=self._run, args=(client, step), daemon=True))
        for thread in self._threads:
            thread.start()

    def await_acknowledged(self, count: int, timeout_s: float) -> None:
        """Wait until so many writes are acknowledged; raises AssertionError with the clients' failures."""
        with self._counted:
            self._counted.wait_for(lambda: self._count >= count or self.failures, timeout_s)
        assert self._count >= count, f"{self._count} of {count} acknowledged; {self.failures}"

    def acknowledged_count(self) -> int:
        """Return how many writes were acknowledged so far."""
        return self._count

    def stop(self) -> None:
        """Ask every client to end after its request, and wait for them."""
        self._stop.set()
        for thread in self._threads:
            thread.join(JOIN_TIMEOUT_S)
            assert not thread.is_alive(), "a client hangs"

    def _run(self, client: Client, step: Callable[[Client], None]) -> None:
        try:
            while not self._stop.is_set():
                step(client)
        except (ConnectionLost, ConnectionRefused, UnexpectedAnswer) as error:
            client.failure = error
        finally:
            client.transport.close()
            with self._counted:
                self._counted.notify_all()

    def _write(self, client: Client) -> None:
        """Do one write of a random kind to a random blob."""
        if client.rng.random() < SHARED_SHARE:
            blob = f"{SHARED_FOLDER}blob-{client.rng.randrange(SHARED_BLOBS)}"
            kind = client.rng.choice([kind for kind in self.plan.kinds if kind in ("put", "delete")])
        else:
            blob = f"client-{client.number}/blob-{client.rng.randrange(OWN_BLOBS)}"
            exists = blob in client.state
            kind = client.rng.choice([kind for kind in self.plan.kinds if exists or kind in ("put", "blocks")])
        content = make_content(client.rng, client.label(self.plan.seed), self.plan.metadata_pad_bytes)
        if kind == "delete":
            self._delete(client, blob)
        elif kind == "metadata":
            changed = replace(client.state[blob], metadata=tuple(sorted(content.metadata.items())))
            send = partial(client.transport.set_metadata, blob, content.metadata)
            self._change(client, blob, kind, changed, send)
        elif kind == "blocks":
            ids = self._put_blocks(client, blob, content.body)
            commit = partial(client.transport.put_block_list, blob, ids, content)
            self._change(client, blob, kind, content.version(), commit)
        else:
            self._change(client, blob, kind, content.version(), partial(client.transport.put_blob, blob, content))

    def _change(self, client: Client, blob: str, kind: str, result: Version, send: Callable[[], str]) -> None:
        write = Write(blob, kind, result, time.monotonic())
        client.writes.append(write)
        write.etag = self._send(client, send)
        if not is_shared(blob):
            client.state[blob] = result
        self._acknowledge(write)

    def _delete(self, client: Client, blob: str) -> None:
        write = Write(blob, "delete", None, time.monotonic())
        client.writes.append(write)
        lost_before = len(client.lost)
        existed = self._send(client, partial(client.transport.delete, blob))
        if not is_shared(blob):
            # Only a repeated request may find that the first one did the work before its worker died.
            if not existed and len(client.lost) == lost_before:
                raise UnexpectedAnswer(f"delete {blob}: acknowledged blob is gone", 404, b"")
            del client.state[blob]
        elif not existed:
            # Among competitors a 404 says only that there was nothing at some moment: an attempt that
            # stays unacknowledged, so it forbids nothing later.
            return
        self._acknowledge(write)

    def _put_blocks(self, client: Client, blob: str, body: bytes) -> list[str]:
        """Put a body as a few blocks, in any order and some of them twice; return their ids in the list's order."""
        part_bytes = max(1, -(-len(body) // BLOCKS_OF_UPLOAD))
        parts = [body[start : start + part_bytes] for start in range(0, len(body), part_bytes)]
        ids = block_ids(client.label(self.plan.seed), len(parts), counting=client.rng.random() < 0.5)
        upload = list(zip(ids, parts, strict=True))
        if parts and client.rng.random() < 0.2:
            replaced = client.rng.choice(ids)
            put = partial(client.transport.put_block, blob, replaced, client.rng.randbytes(part_bytes))
            self._send(client, put)
        client.rng.shuffle(upload)
        for block_id, part in upload:
            self._send(client, partial(client.transport.put_block, blob, block_id, part))
        return ids

    def _stage_block(self, client: Client) -> None:
        """Put one more block that is never committed."""
        body = client.rng.randbytes(client.rng.choice(STAGED_BLOCK_BYTES))
        (block_id,) = block_ids(f"{len(self.staged.blocks):06d}", 1, counting=False)
        self._send(client, partial(client.transport.put_block, self.staged.blob, block_id, body))
        self.staged.blocks.append((block_id, body, time.monotonic()))

    def _acknowledge(self, write: Write) -> None:
        write.acknowledged_at = time.monotonic()
        with self._counted:
            self._count += 1
            self._counted.notify_all()

    def _send(self, client: Client, send: Callable[[], T]) -> T:
        """Send a request, again after a lost connection if the plan says so; keep the longest wait."""
        started_at = time.monotonic()
        while True:
            try:
                answer = send()
            except ConnectionRefused:
                client.refused_count += 1
                raise
            except ConnectionLost as error:
                client.lost.append(error)
                if not self.plan.retry or time.monotonic() > started_at + RETRY_S:
                    raise
                continue
            client.slowest_s = max(client.slowest_s, time.monotonic() - started_at)
            return answer


def block_ids(label: str, count: int, *, counting: bool) -> list[str]:
    """Return ids that no other upload of the blob has, all of one length as Azure wants.

    `counting` ids end in their number as those of most clients do, the others in something else.
    """
    ends = [f"{index:05d}" if counting else f"{index:04d}x" for index in range(count)]
    return [base64.b64encode(f"{label:>31}{end}".encode()).decode() for end in ends]


def is_shared(blob: str) -> bool:
    """Tell whether several clients write this blob, so that none knows its state."""
    return blob.startswith(SHARED_FOLDER)


def make_content(rng: random.Random, label: str, pad_bytes: tuple[int, ...]) -> Content:
    """Return content that differs from every other: random bytes, and the label in its properties."""
    metadata = {"op": label}
    if pad := rng.choice(pad_bytes):
        metadata["pad"] = "x" * pad
    return Content(rng.randbytes(rng.choice(BODY_SIZES)), f"application/x-{label}", metadata)
