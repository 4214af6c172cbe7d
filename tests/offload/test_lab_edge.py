"""The edge of the lab: the product serves in its namespace, reaches its cloud over the link alone, can be killed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import ContentSettings

from tests.durability.processes import is_alive
from tests.offload.lab import need
from tests.offload.lab.cloud import lab
from tests.offload.lab.edge import ACCOUNT, Edge, edge
from tests.offload.lab.oracle import Ledger, compare, look, lost

CONTAINER = "line4"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    need()
    scratch = tmp_path_factory.mktemp("edge")
    with lab(scratch) as made, edge(made, scratch) as node:
        with node.service() as service:
            service.create_container(CONTAINER)
        yield node


def test_all_its_processes_are_in_the_namespace_of_the_edge(node: Edge) -> None:
    namespace = Path(f"/proc/self/fd/{node.lab.link.edge}").readlink()
    node.sidecar()
    assert len(node.alive()) >= 4, "supervisor, two workers, sidecar"
    assert {Path(f"/proc/{pid}/ns/net").readlink() for pid in node.alive()} == {namespace}


def test_it_serves_what_applications_and_programs_write(node: Edge, tmp_path: Path) -> None:
    ledger = Ledger()
    with node.service() as service:
        settings = ContentSettings(content_type="text/csv", cache_control="no-cache")
        container = service.get_container_client(CONTAINER)
        container.upload_blob("by/sdk", b"sdk", content_settings=settings, metadata={"Shift": "2"}, tags={"a": "b"})
        ledger.wrote(CONTAINER, "by/sdk", b"sdk")
        (tmp_path / "file").write_bytes(b"copied")
        shutil.copy(tmp_path / "file", node.root / CONTAINER / "by-cp.txt")
        ledger.wrote(CONTAINER, "by-cp.txt", b"copied")
        here = look(service, [CONTAINER])
    assert lost(ledger, here) == []
    assert here[CONTAINER, "by/sdk"].metadata == {"shift": "2"}
    assert here[CONTAINER, "by-cp.txt"].settings["content_type"] == "text/plain"
    with node.lab.straight() as cloud:
        missing = compare(here, look(cloud, [CONTAINER]))
    assert {finding.what for finding in missing} == {"not in the cloud"}, "there is no rule that sends them"


def test_a_killed_sidecar_is_replaced_and_a_killed_node_starts_again(node: Edge) -> None:
    old = node.kill_sidecar()
    assert node.sidecar(other_than=old) != old
    with node.service() as service:
        service.get_container_client(CONTAINER).upload_blob("before", b"kept")
    before = node.alive()
    node.kill()
    assert not any(is_alive(pid) for pid in before)
    node.start()
    with node.service() as service:
        assert service.get_blob_client(CONTAINER, "before").download_blob().readall() == b"kept"
        assert service.account_name == ACCOUNT
