"""pyarrow's own AzureFileSystem: Azure's C++ SDK, which sends Expect: 100-continue and asks first whether there is a
hierarchical namespace."""

from __future__ import annotations

from typing import Any

import pytest
from azure.storage.blob import ContainerClient

from .client_tools import python_client
from .endpoint import Endpoint
from .trees import MIB, content


@pytest.fixture
def azurefs(endpoint: Endpoint) -> Any:
    """Path-style over http; the DFS authority is ours too, so that no request leaves this machine."""
    return python_client("pyarrow.fs").AzureFileSystem(
        account_name=endpoint.account,
        account_key=endpoint.key,
        blob_storage_authority=endpoint.authority,
        dfs_storage_authority=endpoint.authority,
        blob_storage_scheme="http",
        dfs_storage_scheme="http",
    )


@pytest.fixture
def root(container: ContainerClient) -> str:
    """The container's name."""
    return str(container.container_name)


def test_streams(azurefs: Any, root: str, container: ContainerClient) -> None:
    """Write in several blocks with metadata, read from the start, at random, and to the end."""
    data = content("azurefs", 11 * MIB + 3)
    with azurefs.open_output_stream(
        f"{root}/dir/a b+%ü.bin", metadata={"Content-Type": "application/x-arrow", "who": "arrow"}
    ) as sink:
        for offset in range(0, len(data), MIB):
            sink.write(data[offset : offset + MIB])
    assert container.download_blob("dir/a b+%ü.bin").readall() == data
    properties = container.get_blob_client("dir/a b+%ü.bin").get_blob_properties()
    assert properties.content_settings.content_type == "application/x-arrow"
    assert properties.metadata["who"] == "arrow"
    with azurefs.open_input_stream(f"{root}/dir/a b+%ü.bin") as source:
        assert source.read() == data
    with azurefs.open_input_file(f"{root}/dir/a b+%ü.bin") as source:
        assert source.size() == len(data)
        assert source.read_at(1000, 5 * MIB) == data[5 * MIB : 5 * MIB + 1000]
        assert source.read_at(1000, len(data) - 10) == data[-10:]
    with azurefs.open_output_stream(f"{root}/empty") as sink:
        sink.write(b"")
    assert container.download_blob("empty").readall() == b""


def test_tree(azurefs: Any, root: str, container: ContainerClient) -> None:
    """get_file_info on files, directories and nothing; selectors flat and recursive; copy, move, delete."""
    fs = python_client("pyarrow.fs")
    for name in ("a/b/one", "a/two", "three"):
        container.upload_blob(name, name.encode())
    kinds = [info.type for info in azurefs.get_file_info([f"{root}/a", f"{root}/three", f"{root}/none", root])]
    assert kinds == [fs.FileType.Directory, fs.FileType.File, fs.FileType.NotFound, fs.FileType.Directory]
    flat = azurefs.get_file_info(fs.FileSelector(root))
    assert sorted(info.base_name for info in flat) == ["a", "three"]
    deep = azurefs.get_file_info(fs.FileSelector(f"{root}/a", recursive=True))
    assert sorted(info.path for info in deep) == [f"{root}/a/b", f"{root}/a/b/one", f"{root}/a/two"]
    azurefs.copy_file(f"{root}/three", f"{root}/copied")
    assert container.download_blob("copied").readall() == b"three"
    azurefs.delete_file(f"{root}/three")
    azurefs.create_dir(f"{root}/new/dir", recursive=True)
    assert azurefs.get_file_info(f"{root}/new/dir").type == fs.FileType.Directory
    azurefs.delete_dir(f"{root}/a")
    assert {name for name in container.list_blob_names() if not name.startswith("new")} == {"copied"}


def test_containers(azurefs: Any, root: str) -> None:
    fs = python_client("pyarrow.fs")
    azurefs.create_dir(f"{root}-two")
    assert azurefs.get_file_info(f"{root}-two").type == fs.FileType.Directory
    assert {root, f"{root}-two"} <= {info.path for info in azurefs.get_file_info(fs.FileSelector(""))}
    azurefs.delete_dir(f"{root}-two")
    assert azurefs.get_file_info(f"{root}-two").type == fs.FileType.NotFound


def test_parquet(azurefs: Any, root: str) -> None:
    """A table and a partitioned dataset, written and read by pyarrow alone."""
    arrow, parquet, dataset = (python_client(f"pyarrow{part}") for part in ("", ".parquet", ".dataset"))
    table = arrow.table({"n": range(50_000), "part": [index % 4 for index in range(50_000)]})
    parquet.write_table(table, f"{root}/one.parquet", filesystem=azurefs, row_group_size=10_000)
    assert parquet.read_table(f"{root}/one.parquet", filesystem=azurefs).equals(table)
    dataset.write_dataset(table, f"{root}/set", format="parquet", partitioning=["part"], filesystem=azurefs)
    back = dataset.dataset(f"{root}/set", format="parquet", partitioning=["part"], filesystem=azurefs)
    assert back.count_rows(filter=dataset.field("part") == 3) == 12_500


def test_errors(azurefs: Any, root: str) -> None:
    with pytest.raises(FileNotFoundError):
        azurefs.open_input_stream(f"{root}/none")
    with pytest.raises(FileNotFoundError):
        azurefs.open_input_file("no-such-container-here/none")
