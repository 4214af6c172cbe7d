"""A large upload that is interrupted half way goes on where it was: what the cloud has staged is not sent again.

BLOBEDGE_RESUME_MIB sets the size; the promise is shown with 1024.
"""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.offload.lab import need
from tests.offload.lab.cloud import lab
from tests.offload.lab.edge import Edge, edge
from tests.offload.lab.oracle import compare, look, sent_twice
from tests.offload.lab.settling import EVERYTHING_AT_ONCE, settle

CONTAINER, NAME = "large", "checkpoint"
MIB = 1 << 20
SIZE = int(os.environ.get("BLOBEDGE_RESUME_MIB", "128")) * MIB
AGAIN_SHARE_MAX = 0.55
MBITS = 1000.0  # so that half of it takes long enough to be noticed
APPEAR_SECONDS_MAX = 120.0
POLL_SECONDS = 0.005


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Edge]:
    need()
    with lab(tmp_path) as made, edge(made, tmp_path, EVERYTHING_AT_ONCE) as node:
        node.make_container(CONTAINER)
        yield node


def sent(node: Edge) -> int:
    return node.lab.proxy.traffic.bytes_up()[CONTAINER, NAME]


def test_at_most_the_other_half_is_sent_again(node: Edge) -> None:
    node.lab.link.limit(MBITS)
    with node.service() as service:
        blob = service.get_blob_client(CONTAINER, NAME)
        chance = random.Random(1)
        blob.upload_blob(b"".join(chance.randbytes(MIB) for _ in range(SIZE // MIB)), overwrite=True)
    deadline = time.monotonic() + APPEAR_SECONDS_MAX
    while sent(node) < SIZE // 2:
        assert time.monotonic() < deadline, f"{sent(node)} bytes were sent: {node.tail()}"
        time.sleep(POLL_SECONDS)
    node.kill()
    before = sent(node)
    assert before < SIZE * 0.9, "it was interrupted too late to show anything"

    node.start()
    settle(node, CONTAINER)
    again = sent(node) - before
    print(f"{before / SIZE:.3f} of it was sent before, {again / SIZE:.3f} after")
    assert again <= SIZE * AGAIN_SHARE_MAX
    with node.service() as service:
        here = look(service, [CONTAINER])
    with node.lab.straight() as cloud:
        assert compare(here, look(cloud, [CONTAINER])) == []
    assert sent_twice(node.lab.proxy.traffic) == []
