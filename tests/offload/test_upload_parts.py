"""The pure parts of an upload: how a blob is cut, what the cloud is to have, and reading one version."""

import os
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.offload.blocks import (
    BLOB_BYTES_MAX,
    BLOCK_BYTES_MAX,
    BLOCK_BYTES_MIN,
    BLOCKS_COUNT_MAX,
    MIB,
    block_bytes,
    block_id,
    cut,
)
from agent.offload.failures import CloudFailed, Request
from agent.offload.keep import NAME_CHARACTERS_MAX, conflict_name
from agent.offload.verify import (
    CHECK,
    ETAG,
    METADATA_BYTES_MAX,
    MODIFIED,
    OURS,
    Seen,
    difference,
    metadata_bytes,
    sorted_metadata,
    wanted,
)
from agent.offload.verify import NODE as NODE_ENTRY
from dataplane.blobapi.model import AccessTier, BlobProperties
from tests.offload.upload_support import NODE, source

REQUEST = Request("Put Blob", "w", "edgestore", "c", "b")
MD5 = bytes(16)

ascii_text = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,30}", fullmatch=True)
versions = st.builds(
    BlobProperties,
    etag=st.from_regex(r"0x[0-9A-F]{15}", fullmatch=True),
    last_modified=st.integers(0, 4_000_000_000),
    created=st.just(0),
    content_type=ascii_text,
    content_language=ascii_text,
    cache_control=ascii_text,
    metadata=st.dictionaries(names, ascii_text, max_size=5),
    tags=st.dictionaries(names, ascii_text, max_size=3),
)


@given(st.integers(0, BLOB_BYTES_MAX))
def test_any_blob_fits_azures_limits(size: int) -> None:
    step = block_bytes(size)
    assert BLOCK_BYTES_MIN <= step <= BLOCK_BYTES_MAX
    assert step % MIB == 0
    assert -(-size // step) <= BLOCKS_COUNT_MAX


def test_a_larger_one_is_refused() -> None:
    with pytest.raises(ValueError, match="more than"):
        block_bytes(BLOB_BYTES_MAX + 1)


@given(st.integers(0, 300 * MIB))
def test_the_pieces_are_the_blob(size: int) -> None:
    pieces = list(cut(size))
    assert [piece.number for piece in pieces] == list(range(len(pieces)))
    assert sum(piece.size for piece in pieces) == size
    assert all(later.offset == earlier.offset + earlier.size for earlier, later in pairwise(pieces))
    assert all(piece.size > 0 for piece in pieces)


def test_ids_are_equally_long_and_say_everything() -> None:
    ids = [
        block_id(etag, step, number, md5)
        for etag in ("0x1", "0x11")
        for step in (MIB, 10 * MIB)
        for number in (0, 1, 49_999)
        for md5 in (MD5, bytes(15) + b"1")
    ]
    assert len(set(ids)) == len(ids)
    assert {len(each) for each in ids} == {48}  # before base64; Azure takes 64


@given(versions, st.integers(0, 1 << 40))
def test_what_arrives_as_it_was_sent_is_ours_and_nothing_else_is(version: BlobProperties, size: int) -> None:
    want = wanted(size, MD5, version, "", NODE)
    seen = Seen("0x8D", want.facts)
    assert difference(want, seen) == ""
    assert seen.written_by(NODE)
    assert not seen.written_by("another")
    assert metadata_bytes(want.metadata) <= METADATA_BYTES_MAX
    for change in (
        {"size": size + 1}, {"md5": None}, {"md5": b"1" * 16}, {"content_type": "other/type"}, {"tags_count": 9},
        {"metadata": (*want.facts.metadata, ("zzz", "1"))}, {"blob_type": "AppendBlob"}, {"cache_control": "\n"},
    ):  # fmt: skip
        other = Seen("0x8D", replace(want.facts, **change))
        assert difference(want, other) == next(iter(change))
        assert other.written_by(NODE) is ("tags_count" in change)  # changing tags makes no other version


@given(versions)
def test_the_users_metadata_is_never_shortened(version: BlobProperties) -> None:
    users = {name: value for name, value in version.metadata.items() if name.lower() not in OURS}
    assert wanted(1, MD5, version, "", NODE).metadata.items() >= users.items()


def test_ours_go_along_entirely_or_not_at_all() -> None:
    base = BlobProperties("0x8DC0000000000A1", 0, 0)
    ours = metadata_bytes(wanted(1, MD5, base, "", NODE).metadata)
    for spare, there in ((0, True), (-1, False)):
        users = {"a": "x" * (METADATA_BYTES_MAX - ours - spare - 1)}
        want = wanted(1, MD5, replace(base, metadata=users), "", NODE)
        assert (CHECK in want.metadata) is there
        assert set(want.metadata) == {"a"} | ({ETAG, MODIFIED, NODE_ENTRY, CHECK} if there else set())
        assert want.facts.metadata == sorted_metadata(want.metadata)


def test_entries_left_over_from_a_restore_are_replaced() -> None:
    version = BlobProperties("0x8DC0000000000A1", 0, 0, metadata={"Blobedge_ETag": "old", "k": "v"})
    want = wanted(1, MD5, version, "", NODE)
    assert dict(want.facts.metadata)["blobedge_etag"] == "0x8DC0000000000A1"
    assert "Blobedge_ETag" not in want.metadata


def test_the_rules_tier_comes_before_the_blobs() -> None:
    version = BlobProperties("0x8DC0000000000A1", 0, 0, access_tier=AccessTier.COOL)
    assert wanted(1, MD5, version, "Archive", NODE).tier == "Archive"
    assert wanted(1, MD5, version, "", NODE).tier == "Cool"
    assert wanted(1, MD5, replace(version, access_tier=None), "", NODE).tier == ""


@given(st.text(min_size=1, max_size=NAME_CHARACTERS_MAX), st.from_regex(r'"?0x[0-9A-Fa-f]{1,16}"?', fullmatch=True))
def test_conflict_names_fit(name: str, etag: str) -> None:
    kept = conflict_name(name, etag)
    assert len(kept) <= NAME_CHARACTERS_MAX
    assert kept.endswith(".conflict-" + etag.strip('"').lower().removeprefix("0x"))


def test_a_source_reads_what_is_asked_and_finds_a_shorter_file(tmp_path: Path) -> None:
    with source(tmp_path / "f", b"0123456789") as version:
        assert version.read(2, 5, REQUEST) == b"23456"
        os.truncate(tmp_path / "f", 4)
        with pytest.raises(CloudFailed) as raised:
            version.read(2, 5, REQUEST)
        assert raised.value.fault.code == "SourceChanged"
        with pytest.raises(CloudFailed):
            version.check(REQUEST)


def test_a_source_that_fails_is_no_failure_of_the_link(tmp_path: Path) -> None:
    with source(tmp_path / "f", b"data") as version:
        directory = os.open(tmp_path, os.O_RDONLY)  # reading it fails with EISDIR
        try:
            with pytest.raises(CloudFailed) as raised:
                replace(version, fd=directory).read(0, 4, REQUEST)
        finally:
            os.close(directory)
    assert raised.value.fault.code == "ReadFailed"


def nothing() -> None:
    """The ETag of a blob that is gone."""


def test_another_md5_is_damage_only_while_it_is_the_same_version(tmp_path: Path) -> None:
    with source(tmp_path / "f", b"data", content_md5=MD5) as version:
        for now, code in (
            (version.properties.etag, "SourceDamaged"),
            ("0x1", "SourceChanged"),
            (None, "SourceChanged"),
        ):
            with pytest.raises(CloudFailed) as raised:
                replace(version, etag_now=partial(str, now) if now else nothing).check_md5(bytes(15) + b"1", REQUEST)
            assert raised.value.fault.code == code
