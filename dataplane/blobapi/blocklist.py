"""Block lists: the body of Put Block List and the answer of Get Block List (REST pages of these names).

The order of the entries is the order of the blob's bytes, so it is kept across the three element names. Here an id has
to be base64 of 1 to 64 bytes; whether the blocks exist, and that all ids of a blob are of one length, the store knows.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from dataplane.blobapi import limits, xmlcodec
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import Block

_WHERE: Final = ("Committed", "Uncommitted", "Latest")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}\Z")


def valid_block_id(text: str) -> bool:
    """Whether the text is base64, with its padding, of 1 to 64 bytes."""
    if _BASE64.match(text) is None or len(text) % 4:
        return False
    return 0 < len(text) // 4 * 3 - text.count("=") <= limits.block_id_bytes_max


def parse(body: bytes) -> Sequence[tuple[str, str]]:
    """The entries of a Put Block List body: ("Committed" | "Uncommitted" | "Latest", block id), in order.

    Raises BlobError BlockListTooLong, InvalidBlockId, and those of the XML reader.
    """
    elements_max = limits.blocks_committed_max + 1
    root = xmlcodec.parse(
        body, "BlockList", limits.block_list_xml_bytes_max, elements_max, ErrorCode.BLOCK_LIST_TOO_LONG
    )
    root.only(_WHERE)
    if not root.children and root.leaf():
        raise xmlcodec.invalid_document("A block list has no text of its own.", root)
    entries = []
    for element in root.children:
        block_id = element.leaf()
        if not valid_block_id(block_id):
            raise BlobError(ErrorCode.INVALID_BLOCK_ID)
        entries.append((element.tag, block_id))
    return entries


def render(committed: Iterable[Block] | None, uncommitted: Iterable[Block] | None) -> bytes:
    """The body of Get Block List; None leaves a list out (blocklisttype=committed, uncommitted)."""
    pieces = ["<BlockList>"]
    for tag, blocks in (("CommittedBlocks", committed), ("UncommittedBlocks", uncommitted)):
        if blocks is None:
            continue
        items = "".join(f"<Block><Name>{block.block_id}</Name><Size>{block.size}</Size></Block>" for block in blocks)
        pieces.append(f"<{tag}>{items}</{tag}>" if items else f"<{tag} />")
    pieces.append("</BlockList>")
    return xmlcodec.document(pieces)
