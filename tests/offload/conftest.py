"""Fixtures of the tests that need a cloud: Azurite for the session, a proxy and a container for each test."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient

from agent.offload.cloud import Cloud
from tests.clients.client_tools import missing
from tests.offload import azurite
from tests.offload.engine_support import Edge, back, edge
from tests.offload.lab.proxy import Proxy
from tests.offload.recall_support import streaming_proxy
from tests.offload.upload_support import World, settings

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cloud_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A running Azurite."""
    if azurite.command() is None:
        missing("Azurite", "NOTHING IS SENT TO A CLOUD: run tools/test, or set BLOBEDGE_AZURITE to its azurite-blob")
    with azurite.running(tmp_path_factory.mktemp("azurite")) as port:
        yield port


@pytest.fixture(scope="module")
def _node_of_module(cloud_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with edge(cloud_port, tmp_path_factory.mktemp("node")) as made:
        made.until(lambda report: report.get("reconcile"))  # that of the new database finds what a test has dropped
        yield made


@pytest.fixture
def node(_node_of_module: Edge) -> Iterator[Edge]:
    """A node for all tests of a module that leave it as they found it, each with a container of its own: to start one
    takes three seconds. Its cloud is well again afterwards."""
    yield _node_of_module
    _node_of_module.proxy.fault = back


@pytest.fixture
def streamed(cloud_port: int, tmp_path: Path) -> Iterator[tuple[Proxy, Cloud]]:
    """The same cloud behind a proxy that passes bytes on as they come, and counts them."""
    with streaming_proxy(cloud_port) as (proxy, port):
        cloud = Cloud(settings(port, tmp_path))
        try:
            yield proxy, cloud
        finally:
            cloud.close()


@pytest.fixture
def world(cloud_port: int, tmp_path: Path) -> Iterator[World]:
    """The cloud behind a proxy, and an empty container."""
    url = f"http://127.0.0.1:{cloud_port}/{azurite.ACCOUNT}"
    with (
        azurite.proxy(cloud_port) as proxy,
        BlobServiceClient(url, credential={"account_name": azurite.ACCOUNT, "account_key": azurite.KEY}) as service,
    ):
        container = service.create_container(f"container{next(_numbers)}")
        cloud = Cloud(settings(proxy.port, tmp_path), answer_seconds=10.0)
        try:
            yield World(cloud, proxy, service, container, tmp_path)
        finally:
            cloud.close()
