"""What the endpoint does not serve is refused at once, with an Azure error that names the reason.

A silent success would be worse than a refusal, and a 5xx answer would make clients repeat a request that can never
succeed. docs/clients.md lists the same things.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobServiceClient, ContainerClient, CustomerProvidedEncryptionKey

from .client_tools import python_client
from .endpoint import Endpoint
from .sas import expiry
from .trees import read_container

CUSTOMER_KEY = CustomerProvidedEncryptionKey(
    "MDEyMzQ1NjcwMTIzNDU2NzAxMjM0NTY3MDEyMzQ1Njc=", "3QFFFpRA5+XANHqwwbT4yXDmrT/2JaLt/FKHjzhOdoE="
)


def refusal_of(call: Callable[[], Any]) -> tuple[int, str]:
    """Status and code of the refusal."""
    with pytest.raises(HttpResponseError) as caught:
        call()
    headers = getattr(caught.value.response, "headers", {})
    return int(caught.value.status_code or 0), str(headers.get("x-ms-error-code", ""))


def test_other_kinds_of_blobs_and_queries(service: BlobServiceClient, container: ContainerClient) -> None:
    blob = container.upload_blob("x", b"data")
    new = container.get_blob_client("new")
    calls: dict[str, Callable[[], Any]] = {
        "append blob": new.create_append_blob,
        "page blob": lambda: new.create_page_blob(512),
        "append block": lambda: blob.append_block(b"more"),
        "query": lambda: blob.query_blob("SELECT * FROM BlobStorage").readall(),
        "undelete": blob.undelete_blob,
        "legal hold": lambda: blob.set_legal_hold(True),
        "user delegation key": lambda: service.get_user_delegation_key(expiry(), expiry()),
    }
    answers = {name: refusal_of(call) for name, call in calls.items()}
    assert all(400 <= status < 500 and code for status, code in answers.values()), answers
    assert read_container(container) == {"x": b"data"}


def over_tls(endpoint: Endpoint, credential: Any) -> BlobServiceClient:
    """A client of the TLS listener: the SDK sends bearer tokens and keys of its own over nothing else."""
    if endpoint.tls_port is None:
        pytest.skip("the endpoint under test has no TLS listener")
    return BlobServiceClient(
        f"https://127.0.0.1:{endpoint.tls_port}/{endpoint.account}",
        credential=credential,
        connection_verify=str(endpoint.ca_file),
        retry_total=0,
    )


def test_customer_provided_key(endpoint: Endpoint, container: ContainerClient) -> None:
    """Storing in clear what a client asked to have encrypted with its own key would be a lie."""
    with over_tls(endpoint, endpoint.key) as service:
        blob = service.get_blob_client(str(container.container_name), "secret")
        status, code = refusal_of(lambda: blob.upload_blob(b"data", cpk=CUSTOMER_KEY))
    assert 400 <= status < 500, code
    assert read_container(container) == {}


def test_bearer_token(endpoint: Endpoint, container: ContainerClient) -> None:
    """A token that nobody can check opens nothing."""

    class Nobody:
        def get_token(self, *scopes: str, **options: Any) -> AccessToken:
            return AccessToken("e30.e30.e30", int(expiry().timestamp()))

    container.upload_blob("x", b"data")
    with over_tls(endpoint, Nobody()) as guest:
        status, code = refusal_of(guest.get_blob_client(str(container.container_name), "x").download_blob)
    assert status in {401, 403}, code


def test_adlfs_append(endpoint: Endpoint, container: ContainerClient) -> None:
    """Mode `ab` needs append blobs: an error, and the blob as it was."""
    adlfs = python_client("adlfs")
    fs = adlfs.AzureBlobFileSystem(connection_string=endpoint.connection_string, skip_instance_cache=True)
    path = f"{container.container_name}/log"
    with pytest.raises((OSError, HttpResponseError, RuntimeError)), fs.open(path, "ab") as file:
        file.write(b"line\n")
    assert read_container(container) == {}
