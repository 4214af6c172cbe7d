"""Fixtures of the client suite: one endpoint for the session, a fresh container for each test.

The endpoint is the product itself with two workers, started through its command line.
BLOBEDGE_TEST_ENDPOINT (a connection string) points the suite at another endpoint instead, such as Azurite:
that is how the tests themselves are checked. BLOBEDGE_TEST_TLS_PORT and BLOBEDGE_TEST_CA name its TLS
listener, if it has one.
"""

from __future__ import annotations

import datetime
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from . import authority
from .authority import TlsFiles
from .azcopy import AzCopy
from .client_tools import CHECKOUT, azcopy_path, client_environment
from .endpoint import DEVELOPMENT_ACCOUNT, PUBLIC_SUFFIX, Endpoint, foreign, running
from .sas import container_sas
from .tunnel import Tunnel, tunnel

WORKERS = 2
HTTPS_PORT = 443


def pytest_configure(config: pytest.Config) -> None:
    """The one marker of this directory; `-m "not slow"` leaves its tests out."""
    config.addinivalue_line("markers", "slow: takes over half a minute on two cores, and needs a package index")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Warnings of the clients are theirs to fix: elsewhere in the project they are errors, here they are
    shown.
    """
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """A test authority, and a certificate for the account's public names and for loopback."""
    return authority.issue(
        tmp_path_factory.mktemp("tls"),
        host_names=[f"{DEVELOPMENT_ACCOUNT}.{PUBLIC_SUFFIX}", f"*.{PUBLIC_SUFFIX}", "localhost"],
        addresses=["127.0.0.1"],
        now=datetime.datetime.now(datetime.UTC),
    )


@pytest.fixture(scope="session")
def endpoint(tls_files: TlsFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """The endpoint under test."""
    if named := os.environ.get("BLOBEDGE_TEST_ENDPOINT"):
        port, ca = os.environ.get("BLOBEDGE_TEST_TLS_PORT"), os.environ.get("BLOBEDGE_TEST_CA")
        yield foreign(named, int(port) if port else None, Path(ca) if ca else None)
        return
    with running(CHECKOUT, tmp_path_factory.mktemp("endpoint"), tls_files, WORKERS) as started:
        yield started


@pytest.fixture(scope="session")
def service(endpoint: Endpoint) -> Iterator[BlobServiceClient]:
    """The Python SDK with the account key, also used to look at what other clients did."""
    with BlobServiceClient.from_connection_string(endpoint.connection_string, retry_total=0) as client:
        yield client


@pytest.fixture
def container(service: BlobServiceClient, request: pytest.FixtureRequest) -> Iterator[ContainerClient]:
    """A fresh container, deleted afterwards."""
    yield from _fresh_container(service, request, "")


@pytest.fixture
def other_container(service: BlobServiceClient, request: pytest.FixtureRequest) -> Iterator[ContainerClient]:
    """A second one, for copies between containers."""
    yield from _fresh_container(service, request, "-other")


def _fresh_container(
    service: BlobServiceClient, request: pytest.FixtureRequest, suffix: str
) -> Iterator[ContainerClient]:
    # Names are 3 to 63 of a-z, 0-9 and single hyphens. The last part is random because a foreign endpoint may still
    # hold the containers of an earlier run.
    stem = re.sub(r"[^a-z0-9]+", "-", str(request.node.name).lower()).strip("-")[:40].strip("-")
    client = service.create_container(f"{stem}-{secrets.token_hex(4)}{suffix}")
    yield client
    if client.exists():
        client.delete_container()


@pytest.fixture
def client_home(tmp_path: Path) -> Path:
    """A home directory without any configuration."""
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
def azcopy(tmp_path: Path, client_home: Path) -> AzCopy:
    """AzCopy with logs and plans of its own."""
    return AzCopy(azcopy_path(), tmp_path / "azcopy", client_environment(client_home))


@pytest.fixture
def container_url(endpoint: Endpoint, container: ContainerClient) -> str:
    """The container's URL with a SAS that allows everything, as AzCopy and rclone want it."""
    return f"{container.url}?{container_sas(endpoint, container)}"


@pytest.fixture
def public_name(endpoint: Endpoint) -> Iterator[Tunnel]:
    """A proxy through which ACCOUNT.blob.core.windows.net:443 is the endpoint's TLS listener."""
    if endpoint.tls_port is None:
        pytest.skip("the endpoint under test has no TLS listener")
    with tunnel({f"{endpoint.public_host}:{HTTPS_PORT}": ("127.0.0.1", endpoint.tls_port)}) as proxy:
        yield proxy
