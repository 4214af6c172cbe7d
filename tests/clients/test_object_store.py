"""The Rust object_store crate, through obstore and through deltalake: conditional puts, startFrom, ranges, commits."""

from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Callable
from typing import Any

import pytest
from azure.storage.blob import ContainerClient

from .client_tools import python_client
from .endpoint import Endpoint
from .sas import container_sas
from .trees import AWKWARD_NAMES, KIB, MIB, content, read_container

WRITERS = 4


@pytest.fixture
def store(endpoint: Endpoint, container: ContainerClient) -> Any:
    """An AzureStore for the test's container, with the account key."""
    return python_client("obstore.store").AzureStore(
        str(container.container_name),
        account_name=endpoint.account,
        account_key=endpoint.key,
        endpoint=endpoint.url,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


def names(pages: Any) -> list[str]:
    """All paths of a listing."""
    return [item["path"] for page in pages for item in page]


def test_put_get_head_delete(store: Any, container: ContainerClient) -> None:
    """Bytes, attributes, ETag and size; a multipart upload; ranges; deletion in batches."""
    obstore = python_client("obstore")
    data = content("obstore", 12 * MIB + 1)
    small = obstore.put(
        store, "dir/small", b"small", attributes={"Content-Type": "text/x-small", "Cache-Control": "no-cache", "k": "v"}
    )
    head = obstore.head(store, "dir/small")
    assert (head["e_tag"], head["size"]) == (small["e_tag"], 5)
    properties = container.get_blob_client("dir/small").get_blob_properties()
    assert properties.content_settings.content_type == "text/x-small"
    assert properties.content_settings.cache_control == "no-cache"
    assert properties.metadata == {"k": "v"}
    obstore.put(store, "big", data, chunk_size=4 * MIB, max_concurrency=3)
    assert container.download_blob("big").readall() == data
    assert bytes(obstore.get(store, "big").bytes()) == data
    assert bytes(obstore.get_range(store, "big", start=1000, length=50)) == data[1000:1050]
    ranges = obstore.get_ranges(store, "big", starts=[0, 5 * MIB], ends=[10, 5 * MIB + 10])
    assert [bytes(part) for part in ranges] == [data[:10], data[5 * MIB : 5 * MIB + 10]]
    suffix = obstore.get(store, "big", options={"range": {"offset": len(data) - 9}})
    assert bytes(suffix.bytes()) == data[-9:]
    obstore.delete(store, ["dir/small", "big"])
    assert list(container.list_blobs()) == []
    with pytest.raises(FileNotFoundError):
        obstore.head(store, "big")


def test_names(store: Any, container: ContainerClient) -> None:
    obstore = python_client("obstore")
    legal = [name for name in AWKWARD_NAMES if "percent%20" not in name]
    for name in legal:
        obstore.put(store, name, name.encode())
    assert sorted(names(obstore.list(store))) == sorted(container.list_blob_names())
    for name in container.list_blob_names():
        assert bytes(obstore.get(store, name).bytes()) == container.download_blob(name).readall()


def test_conditional_writes(store: Any, container: ContainerClient) -> None:
    """Create-if-absent and compare-and-swap, on which table formats build their commits."""
    obstore, exceptions = python_client("obstore"), python_client("obstore.exceptions")
    first = obstore.put(store, "x", b"1", mode="create")
    with pytest.raises(exceptions.AlreadyExistsError):
        obstore.put(store, "x", b"2", mode="create")
    second = obstore.put(store, "x", b"2", mode={"e_tag": first["e_tag"]})
    with pytest.raises(exceptions.PreconditionError):
        obstore.put(store, "x", b"3", mode={"e_tag": first["e_tag"]})
    assert bytes(obstore.get(store, "x", options={"if_match": second["e_tag"]}).bytes()) == b"2"
    with pytest.raises(exceptions.NotModifiedError):
        obstore.get(store, "x", options={"if_none_match": second["e_tag"]})
    with pytest.raises(exceptions.PreconditionError):
        obstore.get(store, "x", options={"if_match": first["e_tag"]})
    obstore.copy(store, "x", "y")
    with pytest.raises(exceptions.AlreadyExistsError):
        obstore.copy(store, "x", "y", overwrite=False)
    obstore.rename(store, "y", "z")
    assert read_container(container) == {"x": b"2", "z": b"2"}


def test_listing_with_offset(store: Any, container: ContainerClient) -> None:
    """`offset` becomes startFrom, which is inclusive; the client drops the first name itself."""
    obstore = python_client("obstore")
    for name in ("log/00", "log/01", "log/02", "log/sub/03", "other"):
        container.upload_blob(name, b"")
    assert names(obstore.list(store, "log", offset="log/00")) == ["log/01", "log/02", "log/sub/03"]
    assert names(obstore.list(store, offset="log/015")) == ["log/02", "log/sub/03", "other"]
    assert names(obstore.list(store, "log", offset="log/zz")) == []
    level = obstore.list_with_delimiter(store, "log")
    assert [item["path"] for item in level["objects"]] == ["log/00", "log/01", "log/02"]
    assert level["common_prefixes"] == ["log/sub"]


def test_many_at_once_with_sas(endpoint: Endpoint, container: ContainerClient) -> None:
    """A thousand small objects with a SAS: put, listed over pages, deleted in batches."""
    obstore = python_client("obstore")
    store = python_client("obstore.store").AzureStore(
        str(container.container_name),
        account_name=endpoint.account,
        sas_token=container_sas(endpoint, container, "racwdl"),
        endpoint=endpoint.url,
        client_options={"allow_http": True},
    )
    keys = [f"many/{number:04}" for number in range(1000)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: obstore.put(store, key, key.encode()), keys))
    assert names(obstore.list(store, chunk_size=100)) == keys
    assert bytes(obstore.get(store, keys[777]).bytes()) == keys[777].encode()
    obstore.delete(store, keys)
    assert list(container.list_blobs()) == []


def test_streaming_writer_and_reader(store: Any, container: ContainerClient) -> None:
    obstore = python_client("obstore")
    data = content("obstore stream", 7 * MIB)
    with obstore.open_writer(store, "streamed", buffer_size=5 * MIB, attributes={"Content-Type": "text/s"}) as writer:
        for offset in range(0, len(data), 300 * KIB):
            writer.write(data[offset : offset + 300 * KIB])
    assert container.download_blob("streamed").readall() == data
    reader = obstore.open_reader(store, "streamed", buffer_size=MIB)
    reader.seek(6 * MIB)
    assert bytes(reader.read(100)) == data[6 * MIB : 6 * MIB + 100]


@pytest.fixture
def delta_options(endpoint: Endpoint) -> dict[str, str]:
    """storage_options of a Delta table."""
    return {
        "azure_storage_account_name": endpoint.account,
        "azure_storage_account_key": endpoint.key,
        "azure_storage_endpoint": endpoint.url,
        "allow_http": "true",
    }


@pytest.fixture
def rows() -> Callable[[int, int], Any]:
    """A table of the numbers from `begin` up to `end`."""
    arrow = python_client("pyarrow")

    def make(begin: int, end: int) -> Any:
        return arrow.table({"n": list(range(begin, end)), "part": [number % 2 for number in range(begin, end)]})

    return make


def numbers(table: Any) -> list[int]:
    """The column `n` of a Delta table, sorted."""
    found = table.to_pyarrow_table() if hasattr(table, "to_pyarrow_table") else table.to_pyarrow_dataset().to_table()
    return sorted(found["n"].to_pylist())


def test_delta_write_append_time_travel(
    container: ContainerClient, delta_options: dict[str, str], rows: Callable[[int, int], Any]
) -> None:
    """Versions are commits in _delta_log; each can be read back; overwrite and delete make new ones."""
    deltalake = python_client("deltalake")
    uri = f"az://{container.container_name}/tables/my table"
    deltalake.write_deltalake(uri, rows(0, 100), storage_options=delta_options, partition_by=["part"])
    deltalake.write_deltalake(uri, rows(100, 150), storage_options=delta_options, mode="append")
    table = deltalake.DeltaTable(uri, storage_options=delta_options)
    assert (table.version(), numbers(table)) == (1, list(range(150)))
    assert numbers(deltalake.DeltaTable(uri, version=0, storage_options=delta_options)) == list(range(100))
    table.delete("n >= 120")
    table.update(predicate="n = 0", updates={"n": "1000"})
    table = deltalake.DeltaTable(uri, storage_options=delta_options)
    assert numbers(table) == [*range(1, 120), 1000]
    table.create_checkpoint()
    deltalake.write_deltalake(uri, rows(5, 6), storage_options=delta_options, mode="overwrite")
    assert numbers(deltalake.DeltaTable(uri, storage_options=delta_options)) == [5]
    log = list(container.list_blob_names(name_starts_with="tables/my table/_delta_log/"))
    assert [name.rsplit("/", 1)[1] for name in log if name.endswith(".json")] == [
        f"{number:020}.json" for number in range(5)
    ]


def test_delta_concurrent_appends(
    container: ContainerClient, delta_options: dict[str, str], rows: Callable[[int, int], Any]
) -> None:
    """Writers that race for the same version all get in, one after the other: no commit is lost or written twice."""
    deltalake = python_client("deltalake")
    uri = f"az://{container.container_name}/race"
    deltalake.write_deltalake(uri, rows(0, 1), storage_options=delta_options)

    def append(writer: int) -> None:
        deltalake.write_deltalake(uri, rows(writer, writer + 1), storage_options=delta_options, mode="append")

    with concurrent.futures.ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(append, range(1, 1 + 3 * WRITERS)))
    table = deltalake.DeltaTable(uri, storage_options=delta_options)
    assert (table.version(), numbers(table)) == (3 * WRITERS, list(range(3 * WRITERS + 1)))


def test_delta_conflict(
    container: ContainerClient, delta_options: dict[str, str], rows: Callable[[int, int], Any]
) -> None:
    """A commit that contradicts one made meanwhile is refused, and the table stays as the first one left it."""
    deltalake = python_client("deltalake")
    uri = f"az://{container.container_name}/conflict"
    deltalake.write_deltalake(uri, rows(0, 10), storage_options=delta_options)
    stale = deltalake.DeltaTable(uri, storage_options=delta_options)
    deltalake.DeltaTable(uri, storage_options=delta_options).delete("n < 5")
    with pytest.raises(deltalake.exceptions.CommitFailedError):
        stale.delete("n < 3")
    table = deltalake.DeltaTable(uri, storage_options=delta_options)
    assert (table.version(), numbers(table)) == (1, [5, 6, 7, 8, 9])
    log = container.download_blob("conflict/_delta_log/00000000000000000001.json").readall()
    assert all(json.loads(line) for line in log.splitlines())
