"""Block lists in and out."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.blobapi import blocklist, limits
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import Block

IDS = st.binary(min_size=1, max_size=64).map(lambda data: base64.b64encode(data).decode())
WHERE = st.sampled_from(["Committed", "Uncommitted", "Latest"])


@given(st.lists(st.tuples(WHERE, IDS), max_size=20))
def test_order_is_kept_across_the_element_names(entries: list[tuple[str, str]]) -> None:
    body = "<BlockList>" + "".join(f"<{where}>{block_id}</{where}>" for where, block_id in entries) + "</BlockList>"
    assert blocklist.parse(body.encode()) == entries


@given(st.binary(max_size=80))
def test_ids_are_base64_of_one_to_sixty_four_bytes(data: bytes) -> None:
    assert blocklist.valid_block_id(base64.b64encode(data).decode()) is (1 <= len(data) <= 64)


@pytest.mark.parametrize(
    "block_id", ["", "A", "AA", "AAA", "A===", "====", "AA=A", "AA==\n", "MQ%3D%3D", "M Q=", "é+=="]
)
def test_what_is_not_base64_is_not_an_id(block_id: str) -> None:
    assert not blocklist.valid_block_id(block_id)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("<BlockList><Latest>not base64!</Latest></BlockList>", ErrorCode.INVALID_BLOCK_ID),
        ("<BlockList><Latest></Latest></BlockList>", ErrorCode.INVALID_BLOCK_ID),
        ("<BlockList><latest>MQ==</latest></BlockList>", ErrorCode.INVALID_XML_DOCUMENT),
        ("<BlockList><Latest><a/></Latest></BlockList>", ErrorCode.INVALID_XML_DOCUMENT),
        ("<Blocks/>", ErrorCode.INVALID_XML_DOCUMENT),
    ],
)
def test_refusals(body: str, code: ErrorCode) -> None:
    with pytest.raises(BlobError) as caught:
        blocklist.parse(body.encode())
    assert caught.value.code is code


def test_fifty_thousand_blocks_are_read_and_one_more_is_not() -> None:
    block_id = base64.b64encode(bytes(64)).decode()
    element = f"<Uncommitted>{block_id}</Uncommitted>"
    body = "<BlockList>" + element * limits.blocks_committed_max + "</BlockList>"
    started = time.process_time()
    assert len(blocklist.parse(body.encode())) == limits.blocks_committed_max
    assert time.process_time() - started < 5.0
    with pytest.raises(BlobError) as caught:
        blocklist.parse(body.replace("</BlockList>", element + "</BlockList>").encode())
    assert caught.value.code is ErrorCode.BLOCK_LIST_TOO_LONG


def test_the_recorded_answers() -> None:
    committed = [Block("MQ==", 3), Block("Mg==", 3)]
    assert (
        blocklist.render(committed, None)
        .decode("utf-8-sig")
        .endswith(
            "?><BlockList><CommittedBlocks><Block><Name>MQ==</Name><Size>3</Size></Block>"
            "<Block><Name>Mg==</Name><Size>3</Size></Block></CommittedBlocks></BlockList>"
        )
    )
    assert (
        blocklist.render([], [])
        .decode("utf-8-sig")
        .endswith("?><BlockList><CommittedBlocks /><UncommittedBlocks /></BlockList>")
    )
