"""A factory day: applications write in every way there is, the link goes and comes back, and nobody notices.

So far: written through the endpoint by Azure's SDK and by AzCopy and onto the mount by cp, with and without a link; the
queue drains, and the cloud has what the node has.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.azcopy import AzCopy
from tests.clients.client_tools import azcopy_path, client_environment
from tests.clients.endpoint import Endpoint
from tests.clients.sas import container_sas
from tests.offload.lab import need
from tests.offload.lab.cloud import lab
from tests.offload.lab.edge import ACCOUNT, KEY, Edge, edge
from tests.offload.lab.settling import EVERYTHING_AT_ONCE, judge, settle
from tests.offload.lab.work import Work

CONTAINER = "line4"
SEED = 4
ACTS = 40
FILES = 12


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Edge]:
    need()
    with lab(tmp_path) as made, edge(made, tmp_path, EVERYTHING_AT_ONCE) as node:
        node.make_container(CONTAINER)
        yield node


@pytest.fixture
def azcopy(tmp_path: Path) -> AzCopy:
    home = tmp_path / "azcopy-home"
    home.mkdir()
    return AzCopy(azcopy_path(), tmp_path / "azcopy", client_environment(home))


def copy_tree(azcopy: AzCopy, node: Edge, work: Work, scratch: Path, name: str) -> None:
    """AzCopy uploads a directory."""
    tree = scratch / name
    tree.mkdir()
    chance = random.Random(name)
    for number in range(FILES):
        content = chance.randbytes(100_000)
        (tree / f"{number}.bin").write_bytes(content)
        work.ledger.wrote(CONTAINER, f"{name}/{number}.bin", content)
    with node.service() as service, node.lab.link.at_edge():
        container = service.get_container_client(CONTAINER)
        sas = container_sas(Endpoint(ACCOUNT, KEY, node.url), container)
        finished = azcopy.run("copy", tree, f"{container.url}?{sas}", "--recursive", "--from-to", "LocalBlob")
    assert finished.count("TransfersCompleted") == FILES


def work_a_shift(azcopy: AzCopy, node: Edge, work: Work, scratch: Path, shift: str) -> None:
    """Every way of writing once."""
    with node.service() as service:
        work.some(service, ACTS)
    copy_tree(azcopy, node, work, scratch, f"azcopy-{shift}")
    for number in range(3):
        work.copy_file(f"cp/{shift}/{number}.txt")


def test_a_day_with_an_outage(node: Edge, azcopy: AzCopy, tmp_path: Path) -> None:
    work = Work(random.Random(SEED), CONTAINER, node.root)
    work_a_shift(azcopy, node, work, tmp_path, "early")
    settle(node, CONTAINER)
    assert judge(node, CONTAINER, work.ledger) == []

    node.lab.link.cut()
    before = len(node.lab.proxy.traffic.all())
    work_a_shift(azcopy, node, work, tmp_path, "late")
    work.copy_file("cp/early/0.txt")  # over a blob that the cloud has already
    assert len(node.lab.proxy.traffic.all()) == before, "the cloud heard something over a link that is cut"

    node.lab.heal()
    settle(node, CONTAINER)
    assert judge(node, CONTAINER, work.ledger) == []


def test_tags_that_are_changed_alone_follow(node: Edge) -> None:
    with node.service() as service:
        service.get_blob_client(CONTAINER, "b").upload_blob(b"content", tags={"line": "1"})
    settle(node, CONTAINER)
    with node.service() as service:
        service.get_blob_client(CONTAINER, "b").set_blob_tags({"line": "2"})
    settle(node, CONTAINER)
