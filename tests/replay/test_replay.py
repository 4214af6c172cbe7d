"""Recorded answers of the real service decide: the replay judge plays them against two workers of the product.

The judge is a folder of its own next to the checkout (`replay.py` and `recordings/`), because it belongs to no
implementation; BLOBEDGE_REPLAY names it when it lies elsewhere. What is out of scope is told by recordings.py, what a
remaining mismatch means by docs/api-coverage.md.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.replay.recordings import Need, RecordedRequest, needs_of, read
from tests.wire.product import ACCOUNT, CHECKOUT, KEY, running

JUDGE: Final = Path(os.environ.get("BLOBEDGE_REPLAY", CHECKOUT.parent / "shared" / "replay"))
JUDGE_SECONDS_MAX: Final = 280.0
SEMANTIC_SHARE_MIN: Final = 0.97
STRICT_SHARE_MIN: Final = 0.93
#: Fewer recordings in scope than this mean that the rule, not the endpoint, makes the figures good.
IN_SCOPE_COUNT_MIN: Final = 170
COVERAGE_PAGE: Final = CHECKOUT / "docs" / "api-coverage.md"


def test_recordings_in_scope_are_answered_as_azure_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not (JUDGE / "replay.py").is_file():
        pytest.skip(f"NOT COMPARED WITH AZURE: no replay judge at {JUDGE}; name its folder with BLOBEDGE_REPLAY")
    report = _judge(tmp_path)
    needs = read(JUDGE / "recordings")
    judged = [entry for entry in report["recordings"] if entry["replayable"] and not needs[entry["name"]]]
    semantic = sum(entry["semantic"] for entry in judged)
    strict = sum(entry["strict"] for entry in judged)
    with capsys.disabled():
        print(f"\nreplay: {semantic} semantic and {strict} strict of {len(judged)} recordings in scope")
        print(_table(report["recordings"], needs))
    assert len(judged) >= IN_SCOPE_COUNT_MIN
    assert semantic >= SEMANTIC_SHARE_MIN * len(judged)
    assert strict >= STRICT_SHARE_MIN * len(judged)
    _check_explained(report["recordings"], needs)


def _judge(scratch: Path) -> Any:
    """Play every recording against two workers; the judge's report."""
    result = scratch / "report.json"
    # Recordings make thousands of small writes one after the other; that they are durable is shown elsewhere.
    with running(scratch / "root", scratch / "log", "--durability", "relaxed") as product:
        command = [sys.executable, str(JUDGE / "replay.py"), "--endpoint", product.url, "--account", ACCOUNT]
        command += ["--key", KEY, "--json", str(result), str(JUDGE / "recordings")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=JUDGE_SECONDS_MAX, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(result.read_text())


def _table(entries: list[dict[str, Any]], needs: Mapping[str, frozenset[Need]]) -> str:
    """Every recording that does not pass strictly: the mismatch in scope, the counts of what is not."""
    lines = []
    reasons: Counter[str] = Counter()
    for entry in entries:
        if entry["replayable"] and not entry["strict"]:
            need = needs[entry["name"]]
            if need:
                reasons["out of scope: " + " and ".join(sorted(item.value for item in need))] += 1
            else:
                lines.append(f"  {entry['name']}: {'; '.join(_problems(entry))}")
        elif not entry["replayable"]:
            reasons["not replayable: " + "; ".join(entry["reasons"])] += 1
    lines += [f"  {count:4}  {reason}" for reason, count in sorted(reasons.items())]
    return "\n".join(lines)


def _problems(entry: Mapping[str, Any]) -> list[str]:
    """The first mismatch of each exchange; later ones mostly follow from it."""
    return [f"[{item['index']}] {item['problems'][0]['kind']}" for item in entry["detail"] if item.get("problems")]


def _check_explained(entries: list[dict[str, Any]], needs: Mapping[str, frozenset[Need]]) -> None:
    """What remains in scope has to be explained by name in the coverage page."""
    page = COVERAGE_PAGE.read_text()
    silent = [
        entry["name"]
        for entry in entries
        if entry["replayable"] and not entry["strict"] and not needs[entry["name"]] and entry["name"] not in page
    ]
    assert not silent, f"not explained in {COVERAGE_PAGE.name}: {silent}"


def _recorded(uri: str, method: str = "GET", body: str = "", **headers: str) -> RecordedRequest:
    """A request as a recording has it; keyword names are headers with underscores."""
    sent = {name.replace("_", "-"): [value] for name, value in headers.items()}
    return RecordedRequest.from_yaml({"method": method, "uri": f"https://a/{uri}", "headers": sent, "body": body})


_RETENTION = _recorded("?comp=properties", "PUT", "<DeleteRetentionPolicy><Enabled>True</Enabled>")


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ([_recorded("c/b", "PUT", X_Ms_Blob_Type="PageBlob")], {Need.OTHER_BLOB_TYPES}),
        ([_recorded("c/b?comp=appendblock", "PUT")], {Need.OTHER_BLOB_TYPES}),
        ([_recorded("c/b?comp=undelete", "PUT")], {Need.SOFT_DELETE}),
        ([_recorded("c?comp=list&include=copy,deleted")], {Need.SOFT_DELETE}),
        ([_RETENTION, _recorded("c/b", "DELETE")], {Need.SOFT_DELETE}),
        ([_RETENTION, _recorded("c", "DELETE")], set()),
        ([_recorded("c/b", "DELETE"), _RETENTION], set()),
        ([_recorded("c/b", x_ms_encryption_key="k")], {Need.CUSTOMER_KEYS}),
        ([_recorded("c/b?comp=block", "PUT", x_ms_blob_type="BlockBlob")], set()),
    ],
)
def test_the_rule_of_scope(requests: list[RecordedRequest], expected: set[Need]) -> None:
    assert needs_of(requests) == expected
