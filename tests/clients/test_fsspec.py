"""adlfs through fsspec, and pandas and pyarrow on top of it: files, directories, Parquet and CSV."""

from __future__ import annotations

import io
from typing import Any

import pytest
from azure.storage.blob import ContainerClient

from .client_tools import python_client
from .endpoint import Endpoint
from .trees import KIB, MIB, content, md5, read_container

ROWS = 20_000


@pytest.fixture
def adlfs_fs(endpoint: Endpoint, container: ContainerClient) -> Any:
    """A file system of its own for each test: fsspec caches instances, and each instance caches listings."""
    adlfs = python_client("adlfs")
    return adlfs.AzureBlobFileSystem(
        connection_string=endpoint.connection_string, blocksize=MIB, skip_instance_cache=True
    )


@pytest.fixture
def root(container: ContainerClient) -> str:
    """The container's name, which is where fsspec paths begin."""
    return str(container.container_name)


@pytest.fixture
def options(endpoint: Endpoint) -> dict[str, Any]:
    """storage_options for pandas."""
    return {"connection_string": endpoint.connection_string}


@pytest.fixture
def frame() -> Any:
    """A table with the column types that formats get wrong."""
    pandas = python_client("pandas")
    return pandas.DataFrame(
        {
            "number": range(ROWS),
            "share": [index / 7 for index in range(ROWS)],
            "text": [f"zeile {index} ü" for index in range(ROWS)],
            "date": pandas.to_datetime([1_700_000_000 + index for index in range(ROWS)], unit="s"),
            "kind": [("a", "b", "c")[index % 3] for index in range(ROWS)],
        }
    )


def test_files(adlfs_fs: Any, root: str, container: ContainerClient) -> None:
    """pipe, cat, ranges, info, exists, find, ls, glob, du and rm see the same tree."""
    data = content("adlfs", 3 * MIB + 5)
    adlfs_fs.pipe(f"{root}/dir/a b+%.bin", data)
    adlfs_fs.pipe({f"{root}/dir/sub/ü.txt": b"umlaut", f"{root}/top.txt": b"top", f"{root}/empty": b""})
    assert adlfs_fs.cat(f"{root}/dir/a b+%.bin") == data
    assert adlfs_fs.cat_file(f"{root}/dir/a b+%.bin", 100, 200) == data[100:200]
    assert adlfs_fs.cat_ranges([f"{root}/top.txt"] * 2, [0, 1], [1, 3]) == [b"t", b"op"]
    info = adlfs_fs.info(f"{root}/dir/a b+%.bin")
    assert (info["size"], info["type"]) == (len(data), "file")
    assert adlfs_fs.isdir(f"{root}/dir")
    assert adlfs_fs.exists(f"{root}/top.txt")
    assert not adlfs_fs.exists(f"{root}/none")
    assert sorted(adlfs_fs.find(root)) == sorted(f"{root}/{name}" for name in container.list_blob_names())
    assert sorted(adlfs_fs.ls(root, detail=False)) == [f"{root}/dir", f"{root}/empty", f"{root}/top.txt"]
    assert adlfs_fs.glob(f"{root}/**/*.txt") == [f"{root}/dir/sub/ü.txt", f"{root}/top.txt"]
    assert adlfs_fs.du(f"{root}/dir") == len(data) + 6
    adlfs_fs.rm(f"{root}/dir", recursive=True)
    assert set(container.list_blob_names()) == {"top.txt", "empty"}


def test_open_for_reading_and_writing(adlfs_fs: Any, root: str, container: ContainerClient) -> None:
    """A file written through several flushes is one blob; reading seeks and reads ahead."""
    data = content("adlfs stream", 4 * MIB + 9)
    with adlfs_fs.open(f"{root}/streamed", "wb", metadata={"origin": "adlfs"}) as file:
        for offset in range(0, len(data), 700_000):
            file.write(data[offset : offset + 700_000])
    assert container.download_blob("streamed").readall() == data
    assert container.get_blob_client("streamed").get_blob_properties().metadata["origin"] == "adlfs"
    with adlfs_fs.open(f"{root}/streamed", "rb", block_size=256 * KIB) as file:
        file.seek(3 * MIB)
        assert file.read(100) == data[3 * MIB : 3 * MIB + 100]
        file.seek(-50, 2)
        assert file.read() == data[-50:]
        file.seek(0)
        assert md5(file.read()) == md5(data)
    with adlfs_fs.open(f"{root}/text", "w", encoding="utf-8") as file:
        file.write("zeile ü\n")
    assert container.download_blob("text").readall() == "zeile ü\n".encode()


def test_exclusive_creation(adlfs_fs: Any, root: str, container: ContainerClient) -> None:
    container.upload_blob("x", b"first")
    with pytest.raises(FileExistsError), adlfs_fs.open(f"{root}/x", "xb") as file:
        file.write(b"second")
    assert container.download_blob("x").readall() == b"first"


def test_copy_move_and_directories(adlfs_fs: Any, root: str, container: ContainerClient, tmp_path: Any) -> None:
    """cp and mv copy on the server; put and get move whole trees."""
    local = tmp_path / "local"
    (local / "sub").mkdir(parents=True)
    (local / "one.bin").write_bytes(content("one", 300 * KIB))
    (local / "sub" / "two.txt").write_bytes(b"two")
    adlfs_fs.put(str(local), f"{root}/tree", recursive=True)
    assert set(container.list_blob_names()) >= {"tree/one.bin", "tree/sub/two.txt"}
    adlfs_fs.cp(f"{root}/tree/one.bin", f"{root}/copied.bin")
    adlfs_fs.mv(f"{root}/tree/sub/two.txt", f"{root}/moved.txt")
    assert container.download_blob("copied.bin").readall() == content("one", 300 * KIB)
    assert container.download_blob("moved.txt").readall() == b"two"
    assert not adlfs_fs.exists(f"{root}/tree/sub/two.txt")
    adlfs_fs.get(f"{root}/tree", str(tmp_path / "back"), recursive=True)
    assert (tmp_path / "back" / "one.bin").read_bytes() == content("one", 300 * KIB)


def test_containers(adlfs_fs: Any, root: str) -> None:
    assert root in [path.strip("/") for path in adlfs_fs.ls("", detail=False)]
    adlfs_fs.mkdir(f"{root}-new")
    assert adlfs_fs.exists(f"{root}-new")
    adlfs_fs.rmdir(f"{root}-new")
    assert not adlfs_fs.exists(f"{root}-new")


@pytest.mark.parametrize("form", ["parquet", "csv", "json"])
def test_pandas(options: dict[str, Any], root: str, container: ContainerClient, frame: Any, form: str) -> None:
    """What pandas wrote through the endpoint is what it reads back, and what the blob's own bytes hold."""
    pandas = python_client("pandas")
    url = f"az://{root}/out dir/table.{form}"
    keep: dict[str, dict[str, Any]] = {"csv": {"index": False}, "json": {"orient": "records", "date_format": "iso"}}
    getattr(frame, f"to_{form}")(url, storage_options=options, **keep.get(form, {}))
    parse: dict[str, Any] = {"parse_dates": ["date"]} if form == "csv" else {}
    read = getattr(pandas, f"read_{form}")
    back = read(url, storage_options=options, **parse)
    pandas.testing.assert_frame_equal(back, frame, check_dtype=form == "parquet", check_exact=False)
    raw = io.BytesIO(container.download_blob(f"out dir/table.{form}").readall())
    pandas.testing.assert_frame_equal(read(raw, **parse), back)


def test_parquet_columns_and_filters(options: dict[str, Any], root: str, frame: Any) -> None:
    """Reading some columns and row groups uses ranges and gives the same rows."""
    pandas = python_client("pandas")
    url = f"az://{root}/part.parquet"
    frame.to_parquet(url, storage_options=options, row_group_size=1000)
    back = pandas.read_parquet(
        url, storage_options=options, columns=["number", "kind"], filters=[("number", ">=", ROWS - 10)]
    )
    assert list(back["number"]) == list(range(ROWS - 10, ROWS))


def test_partitioned_dataset(adlfs_fs: Any, root: str, container: ContainerClient, frame: Any) -> None:
    """A pyarrow dataset with hive partitions over fsspec: written, listed, read, filtered, partly deleted."""
    dataset, arrow = python_client("pyarrow.dataset"), python_client("pyarrow")
    table = arrow.Table.from_pandas(frame, preserve_index=False)
    dataset.write_dataset(
        table, f"{root}/set", format="parquet", partitioning=["kind"], partitioning_flavor="hive", filesystem=adlfs_fs
    )
    files = [name for name in read_container(container, "set/") if name.endswith(".parquet")]
    assert {name.split("/")[0] for name in files} == {"kind=a", "kind=b", "kind=c"}
    again = dataset.dataset(f"{root}/set", format="parquet", partitioning="hive", filesystem=adlfs_fs)
    assert again.count_rows() == ROWS
    picked = again.to_table(filter=(dataset.field("kind") == "b") & (dataset.field("number") < 100))
    assert sorted(picked["number"].to_pylist()) == [number for number in range(100) if number % 3 == 1]
