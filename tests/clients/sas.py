"""Signatures that the tests hand to clients, made by Azure's own library and never by the product."""

from __future__ import annotations

import datetime
from typing import Any

from azure.storage.blob import (
    AccountSasPermissions,
    BlobSasPermissions,
    ContainerClient,
    ContainerSasPermissions,
    ResourceTypes,
    generate_account_sas,
    generate_blob_sas,
    generate_container_sas,
)

from .endpoint import Endpoint

LIFETIME = datetime.timedelta(hours=2)


def expiry() -> datetime.datetime:
    """A time after the session's end."""
    return datetime.datetime.now(datetime.UTC) + LIFETIME


def account_sas(endpoint: Endpoint, permission: str = "rwdxyltfmeopi", **options: Any) -> str:
    """An account SAS for the blob service, all resource types."""
    return generate_account_sas(
        endpoint.account,
        endpoint.key,
        resource_types=ResourceTypes(service=True, container=True, object=True),
        permission=AccountSasPermissions.from_string(permission),  # type: ignore[no-untyped-call]
        **{"expiry": expiry(), **options},
    )


def container_sas(
    endpoint: Endpoint, container: ContainerClient, permission: str | None = "racwdxyltfmei", **options: Any
) -> str:
    """A service SAS for one container; a permission of None leaves everything to the stored policy."""
    if permission is not None:
        options = {
            "permission": ContainerSasPermissions.from_string(permission),
            "expiry": expiry(),
            **options,
        }
    return generate_container_sas(endpoint.account, container.container_name, endpoint.key, **options)


def blob_sas(endpoint: Endpoint, container: ContainerClient, name: str, permission: str = "r", **options: Any) -> str:
    """A service SAS for one blob, snapshot (`snapshot=`) or directory (`is_directory=True`)."""
    return generate_blob_sas(
        endpoint.account,
        container.container_name,
        name,
        account_key=endpoint.key,
        permission=BlobSasPermissions.from_string(permission),
        **{"expiry": expiry(), **options},
    )
