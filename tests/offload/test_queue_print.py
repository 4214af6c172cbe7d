"""What an operator reads: whole reasons, times as times, and nothing that says nothing."""

import pytest

from agent.commands import queue_print
from agent.offload.api import document
from agent.offload.rows import Row
from agent.offload.states import Hold, Residency

SECOND = 1_000_000_000
REASON = "the SAS may not create: it needs c among its permissions; make one with sp=racwdl"
ROW = Row(
    7, "acct", "data", "a/1", Residency.QUEUED, Hold.OPERATOR, 3, "0x1", 1536, 9, 1_700_000_000 * SECOND,
    1_700_000_060 * SECOND, 5, 1_795_444_831_000_000_000, 2, "operator", REASON, "", "", "", "", 0, 0, False,
)  # fmt: skip


def test_a_listing_fits_80_columns_and_has_the_reason_whole_below_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    waiting = ROW._replace(hold=Hold.WAITING, failure="", error="")
    again = ROW._replace(hold=Hold.WAITING, failure="later", error="busy")
    queue_print.print_rows([document(row) for row in (ROW, waiting, again)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == f"    operator: {REASON}"
    assert lines[4] == "    due 2023-11-14 22:14:20Z"
    assert lines[6] == "    later: busy; again 2023-11-14 22:14:20Z"
    assert max(len(line) for line in lines if line != lines[2]) <= 80
    assert lines[1].endswith("acct/data/a/1")


def test_a_size_that_nobody_looked_at_is_not_said(capsys: pytest.CaptureFixture[str]) -> None:
    queue_print.print_rows([document(ROW._replace(etag="", size=0))])
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["queued", "operator", "-"]


def test_a_blob_is_told_without_the_fields_of_the_database(capsys: pytest.CaptureFixture[str]) -> None:
    queue_print.print_blob(document(ROW))
    out = capsys.readouterr().out
    assert "1795444831000000000" not in out
    assert "pinned" not in out
    assert "changed       2023-11-14 22:13:20Z\n" in out
    assert f"why           operator: {REASON}\n" in out
    assert all(line[14:].strip() for line in out.splitlines())
    there = ROW._replace(copied_etag="0x1", cloud_etag="0x9", cloud_container="c", cloud_name="n", pinned=True)
    queue_print.print_blob(document(there._replace(copied_at=1_700_000_060 * SECOND)))
    out = capsys.readouterr().out
    assert "cloud         c/n: this version, since 2023-11-14 22:14:20Z\n" in out
    assert "pinned        stays here" in out


def test_one_is_singular() -> None:
    assert queue_print.blobs(1, "is", "are") == "1 blob is"
    assert queue_print.blobs(2000, "is", "are") == "2,000 blobs are"


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J"])
def test_a_name_cannot_steer_the_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    row = document(ROW._replace(name=name, error=name))
    queue_print.print_rows([row])
    queue_print.print_blob(row)
    assert name not in capsys.readouterr().out
