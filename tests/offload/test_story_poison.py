"""Blobs that the cloud will never take: they are set apart and counted, everything else drains, and a person's retry
sends them once the reason is gone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.offload.lab import need
from tests.offload.lab.cloud import lab
from tests.offload.lab.edge import Edge, edge
from tests.offload.lab.faults import Act, Fault, Request, decide
from tests.offload.lab.oracle import Ledger
from tests.offload.lab.settling import EVERYTHING_AT_ONCE, judge, settle

CONTAINER = "poison"
BLOBS = 400
SHARE = 0.01
SEED = 11
#: A refusal that no second try changes: another one than the node has seen before, as in life.
NEVER = Fault(Act.REFUSE, SHARE, frozenset({"PutBlob"}), lasting=True, status=400, code="BlobOfAnEvilKind")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Edge]:
    need()
    with lab(tmp_path, SEED) as made, edge(made, tmp_path, EVERYTHING_AT_ONCE) as node:
        node.make_container(CONTAINER)
        yield node


def test_one_in_a_hundred_never_goes_and_the_rest_does(node: Edge) -> None:
    node.lab.proxy.meet(NEVER)
    ledger = Ledger()
    with node.service() as service:
        container = service.get_container_client(CONTAINER)
        for number in range(BLOBS):
            container.upload_blob(f"{number}", f"{number}".encode())
            ledger.wrote(CONTAINER, f"{number}", f"{number}".encode())
    requests = [Request("PutBlob", CONTAINER, f"{number}", "", 0) for number in range(BLOBS)]
    refused = {(CONTAINER, request.blob) for request in requests if decide(SEED, [NEVER], request)}
    assert 0 < len(refused) < BLOBS / 20, "the seed poisons some, and few"
    settle(node, CONTAINER, refused)
    held = node.rows("--container", CONTAINER, "--hold", "poison")
    assert {(CONTAINER, row["name"]) for row in held} == refused
    assert all("BlobOfAnEvilKind" in row["error"] for row in held)

    node.lab.heal()
    node.queue("retry", "--container", CONTAINER, "--hold", "poison")
    settle(node, CONTAINER)
    assert judge(node, CONTAINER, ledger) == []
    assert node.rows("--container", CONTAINER, "--hold", "any") == []
