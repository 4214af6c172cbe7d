"""The proxy of the lab: each fault really does to a request what its name says, and the record of it is true."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import AzureError, HttpResponseError, IncompleteReadError, ResourceNotFoundError
from azure.storage.blob import BlobBlock, BlobClient, ContainerClient

from tests.offload.lab import need
from tests.offload.lab.cloud import Lab, lab
from tests.offload.lab.faults import (
    BUSY,
    DONE_BUT_500,
    EXPIRED_SAS,
    INTERNAL_ERROR,
    THROTTLED,
    UPLOADS,
    Act,
    Fault,
    Request,
    decide,
)
from tests.offload.lab.traffic import Exchange

CONTAINER = "faults"
CONTENT = bytes(range(256)) * 4096  # 1 MiB
MD5 = bytearray(hashlib.md5(CONTENT).digest())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    need()
    with lab(tmp_path_factory.mktemp("lab")) as made:
        with made.across() as service:
            service.create_container(CONTAINER)
        yield made


@pytest.fixture
def there(made: Lab) -> Iterator[ContainerClient]:
    """The container as a client at the edge sees it. The proxy is healed afterwards."""
    with made.across() as service:
        yield service.get_container_client(CONTAINER)
    made.heal()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


def in_cloud(made: Lab, name: str) -> bytes | None:
    """What the cloud has, seen behind the proxy's back."""
    with made.straight() as service:
        try:
            content: bytes = service.get_blob_client(CONTAINER, name).download_blob().readall()
        except ResourceNotFoundError:
            return None
        return content


def record_of(made: Lab, name: str) -> Exchange:
    """The last exchange about a blob."""
    return [exchange for exchange in made.proxy.traffic.all() if exchange.request.blob == name][-1]


def upload(there: ContainerClient, name: str, **options: Any) -> Any:
    return there.get_blob_client(name).upload_blob(CONTENT, overwrite=True, **options)


def test_without_a_fault_everything_passes_and_is_counted(
    made: Lab, there: ContainerClient, name: str, tmp_path: Path
) -> None:
    upload(there, name, metadata={"blobedge_etag": '"0x7"'}, tags={"line": "4"})
    assert in_cloud(made, name) == CONTENT
    assert there.get_blob_client(name).download_blob().readall() == CONTENT
    traffic, blob = made.proxy.traffic, (CONTAINER, name)
    assert traffic.bytes_up()[blob] == traffic.bytes_down()[blob] == len(CONTENT)
    (commit,) = traffic.commits()[blob]
    assert (commit.source_etag, commit.cloud_status, commit.answered) == ("0x7", 201, 201)
    traffic.write(tmp_path / "traffic.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "traffic.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(len(lines)))


def test_blocks_are_counted_each_and_committed_once(made: Lab, there: ContainerClient, name: str) -> None:
    blob = there.get_blob_client(name)
    for number in range(3):
        blob.stage_block(f"block-{number}", CONTENT)
    blob.commit_block_list([BlobBlock(f"block-{number}") for number in range(3)], metadata={"blobedge_etag": "0x8"})
    operations = [e.request.operation for e in made.proxy.traffic.all() if e.request.blob == name]
    assert operations == ["PutBlock"] * 3 + ["PutBlockList"]
    assert made.proxy.traffic.bytes_up()[CONTAINER, name] >= 3 * len(CONTENT)
    assert [c.source_etag for c in made.proxy.traffic.commits()[CONTAINER, name]] == ["0x8"]


@pytest.mark.parametrize("fault", [INTERNAL_ERROR, BUSY, THROTTLED, EXPIRED_SAS], ids=lambda fault: fault.status)
def test_a_refusal_keeps_the_request_from_the_cloud(made: Lab, there: ContainerClient, name: str, fault: Fault) -> None:
    made.proxy.meet(fault)
    with pytest.raises(HttpResponseError) as refused:
        upload(there, name)
    assert refused.value.status_code == fault.status
    answer: Any = refused.value.response
    after = fault.retry_after_seconds
    assert answer.headers["x-ms-error-code"] == fault.code
    assert answer.headers.get("Retry-After") == (str(after) if after is not None else None)
    if fault.detail:
        assert "not valid in the specified time frame" in answer.text()
    with pytest.raises(HttpResponseError):
        there.get_blob_client(name).get_blob_properties()
    assert in_cloud(made, name) is None
    assert record_of(made, name).cloud_status is None


@pytest.mark.parametrize("fault", [DONE_BUT_500, Fault(Act.RESET_AFTER)], ids=lambda f: f.act)
def test_what_the_cloud_did_although_nobody_was_told(
    made: Lab, there: ContainerClient, name: str, fault: Fault
) -> None:
    made.proxy.meet(fault)
    with pytest.raises(AzureError):
        upload(there, name)
    assert in_cloud(made, name) == CONTENT
    record = record_of(made, name)
    assert (record.cloud_status, record.act) == (201, fault.act)
    assert record.committed


def test_a_truncated_answer_to_an_upload_says_created_and_nothing_else(
    made: Lab, there: ContainerClient, name: str
) -> None:
    made.proxy.meet(Fault(Act.TRUNCATE))
    answer = upload(there, name)  # http.client takes a head that ends with its connection, and Azure's client the 201
    assert answer["etag"] is None
    assert in_cloud(made, name) == CONTENT
    assert (record_of(made, name).cloud_status, record_of(made, name).answered) == (201, None)


@pytest.mark.parametrize("act", [Act.RESET_BEFORE, Act.RESET_MIDDLE])
def test_a_reset_before_the_cloud_has_it(made: Lab, there: ContainerClient, name: str, act: Act) -> None:
    made.proxy.meet(Fault(act))
    with pytest.raises(AzureError):
        upload(there, name)
    assert in_cloud(made, name) is None
    record = record_of(made, name)
    assert (record.cloud_status, record.answered) == (None, None)
    assert record.bytes_up >= (len(CONTENT) // 2 if act is Act.RESET_MIDDLE else 0)


def test_a_lie_is_convincing(made: Lab, there: ContainerClient, name: str) -> None:
    made.proxy.meet(Fault(Act.LIE))
    answer = upload(there, name)
    assert answer["etag"]
    assert answer["content_md5"] == MD5
    assert in_cloud(made, name) is None
    assert not record_of(made, name).committed


def test_another_etag_and_another_md5_in_an_answer(made: Lab, there: ContainerClient, name: str) -> None:
    made.proxy.meet(Fault(Act.WRONG_ETAG))
    answer = upload(there, name)
    made.proxy.meet()
    properties = there.get_blob_client(name).get_blob_properties()
    assert answer["etag"] != properties.etag
    assert properties.content_settings.content_md5 == MD5
    made.proxy.meet(Fault(Act.WRONG_MD5))
    wrong = there.get_blob_client(name).get_blob_properties()
    assert wrong.content_settings.content_md5 != MD5


def test_a_spoilt_upload_is_stored_spoilt_unless_its_md5_was_sent(made: Lab, there: ContainerClient, name: str) -> None:
    made.proxy.meet(Fault(Act.SPOIL))
    with pytest.raises(HttpResponseError, match="Md5Mismatch"):
        upload(there, name, validate_content=True)
    upload(there, name)
    stored = in_cloud(made, name)
    assert stored is not None
    assert stored[0] != CONTENT[0]
    assert stored[1:] == CONTENT[1:]


def test_a_truncated_download_is_an_error_of_the_client(made: Lab, there: ContainerClient, name: str) -> None:
    upload(there, name)
    made.proxy.meet(Fault(Act.TRUNCATE))
    with pytest.raises((AzureError, IncompleteReadError)):
        there.get_blob_client(name).download_blob().readall()


def test_a_fault_has_its_operations_its_blobs_and_an_end(made: Lab, there: ContainerClient) -> None:
    made.proxy.meet(BUSY.only(1.0, "GetBlob"), replace(INTERNAL_ERROR, blobs="bad/*"))
    upload(there, "good/blob")
    with pytest.raises(HttpResponseError, match="ServerBusy"):
        there.get_blob_client("good/blob").download_blob()
    with pytest.raises(HttpResponseError, match="InternalError"):
        upload(there, "bad/blob")
    made.proxy.meet()
    upload(there, "bad/blob")
    assert there.get_blob_client("good/blob").download_blob().readall() == CONTENT


def test_open_connections_can_be_ended(made: Lab, there: ContainerClient, name: str) -> None:
    blob: BlobClient = there.get_blob_client(name)
    blob.upload_blob(CONTENT)
    made.proxy.reset_all()
    blob.upload_blob(CONTENT, overwrite=True)  # over a new one
    assert in_cloud(made, name) == CONTENT


def requests(attempts: int) -> list[Request]:
    return [Request("PutBlob", "c", f"b{number}", "", attempt) for number in range(1000) for attempt in range(attempts)]


def test_decisions_follow_from_the_seed_and_the_request_alone() -> None:
    faults = [BUSY.only(0.1), Fault(Act.LIE, 0.1)]
    first = [decide(1, faults, request) for request in requests(2)]
    again = [decide(1, faults, request) for request in reversed(requests(2))]
    assert first == again[::-1]
    assert first != [decide(2, faults, request) for request in requests(2)]
    shares = [sum(found is fault for found in first) / len(first) for fault in faults]
    assert 0.07 < shares[0] < 0.13
    assert 0.06 < shares[1] < 0.12, "a tenth of the nine tenths that the first fault left"


def test_a_lasting_fault_befalls_the_same_blobs_each_time() -> None:
    poison = [Fault(Act.REFUSE, 0.01, lasting=True)]
    struck = {
        request.blob: [decide(5, poison, replace(request, attempt=attempt)) is not None for attempt in range(5)]
        for request in requests(1)
    }
    assert all(len(set(results)) == 1 for results in struck.values())
    assert 2 <= sum(results[0] for results in struck.values()) <= 25


@pytest.mark.parametrize("act", [Act.LIE, Act.SPOIL, Act.RESET_MIDDLE])
def test_what_needs_content_befalls_uploads_only(act: Act) -> None:
    befalls = {
        operation: decide(1, [Fault(act)], Request(operation, "c", "b", "", 0)) is not None
        for operation in (*UPLOADS, "GetBlob", "GetBlobProperties", "DeleteBlob")
    }
    assert {operation for operation, found in befalls.items() if found} == UPLOADS
