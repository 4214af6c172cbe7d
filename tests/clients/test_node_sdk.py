"""@azure/storage-blob on Node: the scenarios of node_sdk.cjs, their results checked again with the Python SDK."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContainerClient

from .client_tools import NODE_MODULES, client_environment, node_path
from .endpoint import Endpoint
from .trees import KIB

SCRIPT = Path(__file__).with_name("node_sdk.cjs")
SCENARIO_SECONDS_MAX = 60.0

Scenario = Callable[[str], dict[str, Any]]


@pytest.fixture
def scenario(endpoint: Endpoint, container: ContainerClient, client_home: Path) -> Scenario:
    """Run one scenario in the test's container and return what it printed."""
    node = node_path("@azure/storage-blob")
    environment = client_environment(
        client_home, NODE_PATH=str(NODE_MODULES), BLOB_CONNECTION_STRING=endpoint.connection_string
    )

    def run(name: str) -> dict[str, Any]:
        finished = subprocess.run(
            [node, str(SCRIPT), name, str(container.container_name)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=SCENARIO_SECONDS_MAX,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        result: dict[str, Any] = json.loads(finished.stdout)
        return result

    return run


def pattern(seed: int, size: int) -> bytes:
    """The same bytes as pattern() in the script."""
    return bytes((index * 31 + seed) % 251 for index in range(size))


def test_transfer(scenario: Scenario, container: ContainerClient) -> None:
    result = scenario("transfer")
    data = pattern(1, int(result["length"]))
    assert result["names"] == ["dir/a b+%ü.bin", "empty", "streamed"]
    blob = container.get_blob_client("dir/a b+%ü.bin")
    assert blob.download_blob().readall() == data
    assert container.download_blob("streamed").readall() == data
    assert container.download_blob("empty").readall() == b""
    properties = blob.get_blob_properties()
    assert properties.metadata == {"project": "edge", "two": "b c"}
    assert properties.content_settings.content_type == "application/x-node"
    assert properties.content_settings.cache_control == "no-cache"
    assert properties.blob_tier == "Cool"
    assert blob.get_blob_tags() == {"site": "plant 7"}
    assert len(blob.get_block_list()[0]) == 8


def test_listing(scenario: Scenario) -> None:
    result = scenario("listing")
    assert result["pages"] == [[["a/1", "1"], ["a/2", "2"], ["b", "b"]], [["c/d/3", "3"]]]
    assert sorted(result["tree"]) == ["blob b", "prefix a/", "prefix c/"]


def test_conditions_and_leases(scenario: Scenario, container: ContainerClient) -> None:
    assert scenario("conditionsAndLeases") == {"metadata": {"a": "b"}}
    assert container.download_blob("x").readall() == b"two"


def test_snapshots_tags_tiers(scenario: Scenario, container: ContainerClient) -> None:
    assert scenario("snapshotsTagsTiers")["items"] == [["x", True, "Hot"], ["x", False, "Cold"]]
    assert container.get_blob_client("x").get_blob_tags() == {"later": "1"}


def test_copies(scenario: Scenario, container: ContainerClient) -> None:
    assert scenario("copies") == {"length": 200 * KIB}
    for name in ("copied", "synced", "put", "pieces"):
        assert container.download_blob(name).readall() == pattern(2, 200 * KIB), name
    for name in ("copied", "synced"):
        assert container.get_blob_client(name).get_blob_properties().metadata == {"from": "here"}


def test_batch(scenario: Scenario) -> None:
    assert scenario("batch") == {
        "tiers": [12, 0],
        "deleted": [10, 1],
        "left": [["dir/x 10+", "Cool"], ["dir/x 11+", "Cool"]],
    }


def test_sas(scenario: Scenario, container: ContainerClient) -> None:
    assert scenario("sas") == {"policies": ["readers"]}
    assert container.download_blob("a b.txt").readall() == b"guest"
