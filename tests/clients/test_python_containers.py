"""azure-storage-blob, synchronous: listings, containers, batches, tags across blobs, and the service itself."""

from __future__ import annotations

import secrets
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import (
    AccessPolicy,
    BlobPrefix,
    BlobServiceClient,
    ContainerClient,
    ContainerSasPermissions,
    CorsRule,
    Metrics,
    RetentionPolicy,
)

from .endpoint import Endpoint
from .refusals import refused
from .sas import container_sas, expiry

NAMES = ["a/1", "a/2", "a/b/3", "a.txt", "b", "c/4", "ä/5", "z+ %/6"]


@pytest.fixture
def filled(container: ContainerClient) -> ContainerClient:
    """A container with a small tree, each blob with metadata."""
    for name in NAMES:
        container.upload_blob(name, name.encode(), metadata={"length": str(len(name))})
    return container


def test_listing_in_pages(filled: ContainerClient) -> None:
    """Pages of every size give each name once and in order, also when resumed from a marker later."""
    in_order = sorted(NAMES, key=str.encode)
    assert list(filled.list_blob_names()) == in_order
    for size in (1, 2, 3, len(NAMES), 5000):
        pages = [[blob.name for blob in page] for page in filled.list_blobs(results_per_page=size).by_page()]
        assert [name for page in pages for name in page] == in_order
        assert all(len(page) <= size for page in pages)
    first: Any = filled.list_blobs(results_per_page=3).by_page()
    begun = [blob.name for blob in next(first)]
    rest = filled.list_blobs(results_per_page=3).by_page(str(first.continuation_token))
    assert begun + [blob.name for page in rest for blob in page] == in_order
    assert [blob.name for blob in filled.list_blobs(name_starts_with="a/")] == ["a/1", "a/2", "a/b/3"]
    assert list(filled.list_blobs(name_starts_with="none")) == []
    assert {blob.name: blob.metadata for blob in filled.list_blobs(include=["metadata"])} == {
        name: {"length": str(len(name))} for name in NAMES
    }


def walk(container: ContainerClient, prefix: str, page: int) -> Iterator[str]:
    """Depth-first names by hierarchy, each prefix shown before what is below it."""
    for entry in container.walk_blobs(name_starts_with=prefix, delimiter="/", results_per_page=page):
        yield entry.name
        if isinstance(entry, BlobPrefix):
            yield from walk(container, entry.name, page)


@pytest.mark.parametrize("page", [1, 2, 5000])
def test_hierarchy(filled: ContainerClient, page: int) -> None:
    seen = list(walk(filled, "", page))
    prefixes = [name for name in seen if name.endswith("/")]
    assert sorted(prefixes) == sorted(["a/", "a/b/", "c/", "ä/", "z+ %/"])
    assert sorted(name for name in seen if not name.endswith("/")) == sorted(NAMES)


def test_container_properties_and_metadata(service: BlobServiceClient, container: ContainerClient) -> None:
    first = container.get_container_properties()
    container.set_container_metadata({"Owner": "plant 7", "x": "1"})
    second = container.get_container_properties()
    assert second.etag != first.etag
    assert {key.lower(): value for key, value in second.metadata.items()} == {"owner": "plant 7", "x": "1"}
    assert second.last_modified >= first.last_modified
    assert second.public_access is None
    listed = list(service.list_containers(name_starts_with=str(container.container_name), include_metadata=True))
    assert [item.name for item in listed] == [container.container_name]
    assert {key.lower(): value for key, value in listed[0].metadata.items()} == {"owner": "plant 7", "x": "1"}
    assert listed[0].etag == second.etag
    with refused(409, "ContainerAlreadyExists"):
        container.create_container()


def test_list_containers_in_pages(service: BlobServiceClient) -> None:
    stem = f"paged-{secrets.token_hex(4)}"
    names = [f"{stem}-{letter}" for letter in "abcde"]
    for name in names:
        service.create_container(name, metadata={"n": name})
    pages = service.list_containers(name_starts_with=stem, results_per_page=2).by_page()
    assert [[item.name for item in page] for page in pages] == [names[:2], names[2:4], names[4:]]
    for name in names:
        service.delete_container(name)
    assert list(service.list_containers(name_starts_with=stem)) == []


def test_deleted_container_is_gone_and_comes_back_empty(container: ContainerClient) -> None:
    container.upload_blob("x", b"data")
    container.delete_container()
    assert not container.exists()
    with refused(404, "ContainerNotFound"):
        container.download_blob("x")
    container.create_container()
    assert list(container.list_blobs()) == []


@pytest.mark.parametrize("name", ["$root", "$web"])
def test_special_containers(endpoint: Endpoint, service: BlobServiceClient, name: str) -> None:
    """`$web` is an ordinary container here; a blob in `$root` needs no container in its URL."""
    container = service.create_container(name)
    try:
        container.upload_blob("page.html", b"<p>hello")
        assert container.download_blob("page.html").readall() == b"<p>hello"
        if name == "$root":
            token = container_sas(endpoint, container, "r")
            with urllib.request.urlopen(f"{endpoint.url}/page.html?{token}") as answer:
                assert answer.read() == b"<p>hello"
    finally:
        container.delete_container()


def test_access_policies(container: ContainerClient) -> None:
    """Stored policies and the level of public access are read back as they were set."""
    end = expiry().replace(microsecond=0)
    policies = {
        "reader": AccessPolicy(ContainerSasPermissions.from_string("r"), expiry=end, start=None),
        "empty": AccessPolicy(),
    }
    container.set_container_access_policy(policies, public_access="blob")
    answer = container.get_container_access_policy()
    assert answer["public_access"] == "blob"
    assert {one.id for one in answer["signed_identifiers"]} == {"reader", "empty"}
    assert container.get_container_properties().public_access == "blob"


@pytest.mark.parametrize("level", ["blob", "container", None])
def test_public_access(container: ContainerClient, level: str | None) -> None:
    """Without a credential: `blob` lets one read blobs, `container` list them too, none neither.

    A refusal is a bearer challenge (401) since version 2019-12-12; before, it was a 404.
    """
    container.upload_blob("open.txt", b"for all")
    container.set_container_access_policy({}, public_access=level)
    anonymous = ContainerClient.from_container_url(container.url, retry_total=0)
    if level is None:
        with refused(401, "NoAuthenticationInformation"):
            anonymous.download_blob("open.txt")
    else:
        assert anonymous.download_blob("open.txt").readall() == b"for all"
    if level == "container":
        assert list(anonymous.list_blob_names()) == ["open.txt"]
    else:
        with refused(401, "NoAuthenticationInformation"):
            list(anonymous.list_blobs())
    with pytest.raises(HttpResponseError) as caught:
        anonymous.upload_blob("open.txt", b"mine", overwrite=True)
    assert caught.value.status_code in {401, 403, 404}
    assert container.download_blob("open.txt").readall() == b"for all"


def test_batch_delete(container: ContainerClient) -> None:
    """One batch deletes what is there and reports what is not, each part by its own status."""
    names = [f"dir/x + {number}%" for number in range(20)]
    for name in names:
        container.upload_blob(name, b"")
    answers = list(container.delete_blobs(*names[:10], "missing", raise_on_any_failure=False))
    assert [answer.status_code for answer in answers] == [202] * 10 + [404]
    assert set(container.list_blob_names()) == set(names[10:])
    container.upload_blob("with-snapshot", b"").create_snapshot()
    kept = list(container.delete_blobs("with-snapshot", raise_on_any_failure=False))
    assert [answer.status_code for answer in kept] == [409]
    container.delete_blobs("with-snapshot", delete_snapshots="include")
    container.delete_blobs(*names[10:])
    assert list(container.list_blobs(include=["snapshots"])) == []


def test_batch_tier(container: ContainerClient) -> None:
    names = [f"t{number}" for number in range(5)]
    for name in names:
        container.upload_blob(name, b"x")
    container.set_standard_blob_tier_blobs("Cool", *names)
    assert {str(blob.blob_tier) for blob in container.list_blobs()} == {"Cool"}


def test_batch_of_256(container: ContainerClient) -> None:
    """The largest batch the SDK sends."""
    names = [f"n{number:03}" for number in range(256)]
    for name in names:
        container.upload_blob(name, b"")
    assert {answer.status_code for answer in container.delete_blobs(*names)} == {202}
    assert list(container.list_blobs()) == []


def test_find_by_tags(service: BlobServiceClient, container: ContainerClient, other_container: ContainerClient) -> None:
    """Tags select blobs in one container and across the account, by equality, range and container name."""
    mark = secrets.token_hex(6)
    for number in range(6):
        where = container if number % 2 else other_container
        where.upload_blob(f"b{number}", b"", tags={"mark": mark, "n": f"{number:02}", "with space": "x"})
    container.upload_blob("untagged", b"")

    def found(expression: str) -> list[str]:
        return sorted(str(blob.name) for blob in service.find_blobs_by_tags(expression))

    assert found(f"mark = '{mark}'") == [f"b{number}" for number in range(6)]
    assert found(f"mark = '{mark}' AND n >= '02' AND n < '04'") == ["b2", "b3"]
    assert found(f"mark = '{mark}' AND \"with space\" = 'x' AND @container = '{container.container_name}'") == [
        "b1",
        "b3",
        "b5",
    ]
    assert found(f"mark = '{mark}-none'") == []
    (only,) = container.find_blobs_by_tags(f"mark = '{mark}' AND n = '03'")
    assert (only.name, only.container_name, only.tags) == ("b3", container.container_name, {"n": "03", "mark": mark})
    paged = service.find_blobs_by_tags(f"mark = '{mark}'", results_per_page=4).by_page()
    assert [len(list(page)) for page in paged] == [4, 2]
    container.get_blob_client("b3").set_blob_tags({"mark": "other"})
    assert list(container.find_blobs_by_tags(f"mark = '{mark}' AND n = '03'")) == []


def test_service_properties_and_cors(endpoint: Endpoint, service: BlobServiceClient) -> None:
    """Properties are read back as set, and the CORS rules among them answer a browser's preflight."""
    before = service.get_service_properties()
    rule = CorsRule(
        ["https://app.example", "https://two.example"],
        ["GET", "PUT"],
        allowed_headers=["x-ms-*", "content-type"],
        exposed_headers=["x-ms-meta-*"],
        max_age_in_seconds=77,
    )
    metrics = Metrics(enabled=True, include_apis=True, retention_policy=RetentionPolicy(enabled=True, days=3))
    try:
        service.set_service_properties(cors=[rule], hour_metrics=metrics, target_version="2021-12-02")
        now = service.get_service_properties()
        (kept,) = now["cors"]
        assert (kept.allowed_origins, kept.allowed_methods) == ("https://app.example,https://two.example", "GET,PUT")
        assert (kept.exposed_headers, kept.max_age_in_seconds) == ("x-ms-meta-*", 77)
        assert (now["hour_metrics"].enabled, now["hour_metrics"].retention_policy.days) == (True, 3)
        assert now["target_version"] == "2021-12-02"
        preflight = urllib.request.Request(
            f"{endpoint.url}/any/blob",
            method="OPTIONS",
            headers={"Origin": "https://app.example", "Access-Control-Request-Method": "PUT"},
        )
        with urllib.request.urlopen(preflight) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
            assert answer.headers["Access-Control-Max-Age"] == "77"
    finally:
        service.set_service_properties(cors=[], hour_metrics=before["hour_metrics"])


def test_account_information(service: BlobServiceClient, container: ContainerClient) -> None:
    """Account, container and blob URLs all answer it."""
    blob = container.upload_blob("x", b"")
    answers = [
        service.get_account_information(),
        container.get_account_information(),
        blob.get_account_information(),
    ]
    assert {(answer["sku_name"], answer["account_kind"]) for answer in answers} == {
        (answers[0]["sku_name"], answers[0]["account_kind"])
    }
    assert answers[0]["account_kind"] == "StorageV2"
