"""The Python and Rust SDKs over TLS by the account's public name: host-style requests and their signatures.

AzCopy and boostedblob have the same in their own modules.
"""

from __future__ import annotations

from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from .client_tools import python_client
from .endpoint import Endpoint
from .sas import account_sas, blob_sas
from .trees import MIB, content
from .tunnel import Tunnel


@pytest.fixture
def through_the_proxy(endpoint: Endpoint, public_name: Tunnel) -> dict[str, Any]:
    """How the Python SDK is told of a proxy and of an authority to trust."""
    return {
        "proxies": {"https": public_name.url},
        "connection_verify": str(endpoint.ca_file),
        "max_single_put_size": MIB,
        "max_block_size": MIB,
        "retry_total": 0,
    }


@pytest.mark.parametrize("credential", ["key", "sas"])
def test_python_sdk(
    endpoint: Endpoint, container: ContainerClient, through_the_proxy: dict[str, Any], credential: str
) -> None:
    """Shared Key signs the path without the account in it, and a SAS made for one address style serves both."""
    secret: Any = endpoint.key if credential == "key" else account_sas(endpoint)
    url = f"https://{endpoint.public_host}"
    name = str(container.container_name)
    data = content("host style", 5 * MIB)
    with BlobServiceClient(url, credential=secret, **through_the_proxy) as service:
        there = service.get_container_client(name)
        there.upload_blob("dir/a b+%ü.bin", data, metadata={"k": "v"}, tags={"t": "1"})
        assert there.download_blob("dir/a b+%ü.bin").readall() == data
        assert name in {item.name for item in service.list_containers()}
        assert list(there.list_blob_names()) == ["dir/a b+%ü.bin"]
        copied = there.get_blob_client("copied")
        copied.start_copy_from_url(there.get_blob_client("dir/a b+%ü.bin").url)
        assert copied.download_blob().readall() == data
        there.delete_blobs("copied")
    assert container.download_blob("dir/a b+%ü.bin").readall() == data, "both listeners serve one store"


def test_https_only_sas(endpoint: Endpoint, container: ContainerClient, through_the_proxy: dict[str, Any]) -> None:
    """spr=https is satisfied by this listener."""
    container.upload_blob("x", b"data")
    token = blob_sas(endpoint, container, "x", protocol="https")
    with BlobServiceClient(f"https://{endpoint.public_host}", credential=token, **through_the_proxy) as service:
        assert service.get_blob_client(str(container.container_name), "x").download_blob().readall() == b"data"


def test_path_style_on_the_tls_listener(endpoint: Endpoint, container: ContainerClient) -> None:
    """https listeners answer path style too."""
    if endpoint.tls_port is None:
        pytest.skip("the endpoint under test has no TLS listener")
    with BlobServiceClient(
        f"https://127.0.0.1:{endpoint.tls_port}/{endpoint.account}",
        credential=endpoint.key,
        connection_verify=str(endpoint.ca_file),
        retry_total=0,
    ) as service:
        service.get_container_client(str(container.container_name)).upload_blob("x y", b"data")
    assert container.download_blob("x y").readall() == b"data"


def test_object_store(endpoint: Endpoint, container: ContainerClient, public_name: Tunnel) -> None:
    """obstore with nothing but an account name and key finds the public name by itself."""
    obstore = python_client("obstore")
    assert endpoint.ca_file is not None
    store = python_client("obstore.store").AzureStore(
        str(container.container_name),
        account_name=endpoint.account,
        account_key=endpoint.key,
        client_options={"proxy_url": public_name.url, "root_certificate": endpoint.ca_file.read_bytes()},
        retry_config={"max_retries": 0},
    )
    obstore.put(store, "dir/a b", b"by name")
    assert bytes(obstore.get(store, "dir/a b").bytes()) == b"by name"
    assert container.download_blob("dir/a b").readall() == b"by name"
