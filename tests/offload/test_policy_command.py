"""`blobedge policy`: what it says of blobs on a real mount, and of those that are not there."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agent.cli import main
from agent.offload.dryrun import PAGE_BLOBS
from agent.problems import EXIT_CONFIG
from dataplane.blobapi.model import BlobProperties
from dataplane.store.store import BlobRef, Store

CHECKOUT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 60.0
KEY = "c2l4dGVlbiBieXRlcyBvciBtb3Jl"
OLD = 1_700_000_000  # 2023-11-14T22:13:20Z
RULES = """
[[offload.rules]]
containers = ["tmp-*"]
upload = "never"

[[offload.rules]]
containers = ["cam-*"]
size_max = "1 KiB"
upload = "age"
age_days = 1
container = "cold"
name = "{node}/{container}/{date:%Y/%m/%d}/{name}"
tier = "Cool"
delete = "propagate"
evict = "age"
evict_days = 30

[[offload.rules]]
containers = ["cam-*"]
upload = "age"
evict = "space"
age_days = 36500
priority = "low"
order = "smallest"
"""


class Done(NamedTuple):
    """How the command ended."""

    returncode: int
    stdout: str
    stderr: str


Policy = Callable[..., Done]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "plant7"
    for path, size in (
        ("cam-1/line1/a.jpg", 100),
        ("cam-1/line1/b.jpg", 2048),
        ("cam-2/c\x1b[31m.jpg", 1),
        ("tmp-1/x", 7),
        ("other/y", 3),
        ("not_a_container/z", 1),
    ):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * size)
        os.utime(file, (OLD, OLD))
    return root


@pytest.fixture
def policy(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> Policy:
    """Run the command line; each of these starts no process, which would take a second."""
    file = tmp_path / "blobedge.toml"
    cloud = (
        '[cloud]\nendpoint = "https://cold.example.net"\nsas_file = "/etc/blobedge/sas"\n[offload]\nnode = "edge1"\n'
    )
    schedule = "[[offload.schedule]]\nmbits = 20\n"
    account = f'[[accounts]]\nname = "plant7"\nroot = "{root}"\nkey1 = "{KEY}"\nhost_names = ["blobs.plant7.example"]\n'
    file.write_text(account + cloud + schedule + RULES)

    def run(*arguments: str, text: str = "") -> Done:
        if text:
            file.write_text(text)
        with pytest.raises(SystemExit) as ended:
            main(["policy", *arguments, "--config", str(file)])
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, *capsys.readouterr())

    return run


def answer(done: Done) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_explain_says_which_rule_why_when_and_where(policy: Policy) -> None:
    done = policy("explain", "plant7/cam-1/line1/a.jpg")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "plant7/cam-1/line1/a.jpg: 100 B, last changed 2023-11-14T22:13:20Z",
        "  rule 1: container cam-1 is none of tmp-*",
        "  rule 2: matches",
        "  due: 2023-11-15T22:13:20Z (now), 1.0 days after Last-Modified",
        "  turn: priority 500, oldest first",
        "  speed then: 20 Mbit/s",
        "  target: https://cold.example.net/cold/edge1/cam-1/2023/11/14/line1/a.jpg, tier Cool",
        "  deleted here: propagate, at most 20 % of a container at once; changed there: edge-wins",
        "  leaves: evicted 30.0 d after its last read or change, not before 2023-12-14T22:13:20Z, "
        "sooner when the disk is 85 % full",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:10000/plant7/cam-1/line1/b.jpg",
        "https://plant7.blob.core.windows.net/cam-1/line1/b.jpg",
        "https://blobs.plant7.example/cam-1/line1%2Fb.jpg",
    ],
)
def test_explain_takes_urls(policy: Policy, url: str) -> None:
    document = answer(policy("explain", url, "--json"))
    assert document["blob"] == "plant7/cam-1/line1/b.jpg"
    assert [each["why_not"] for each in document["rules"]] == [
        "container cam-1 is none of tmp-*",
        "2.0 KiB is more than 1 KiB",
        "",
    ]
    assert (document["rule"], document["container"], document["priority"]) == (3, "cam-1", 900)
    assert document["due_seconds"] > 36_000 * 86_400 - (datetime.now(UTC).timestamp() - OLD)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('evict = "space"', "evicted when the disk is 85 % full, coldest first, down to 75 %"),
        ("pin = true", "never, it is pinned"),
        ("delete_after_upload = true", "deleted here as soon as the cloud has it"),
        ("ttl_days = 1", "deleted here at 2023-11-15T22:13:20Z if the cloud has it then"),
        ('upload = "never"\nttl_days = 1', "deleted here at 2023-11-15T22:13:20Z"),
        ("", "only by blobedge evict"),
    ],
)
def test_explain_says_how_a_blob_leaves(policy: Policy, root: Path, tmp_path: Path, rule: str, said: str) -> None:
    config = (tmp_path / "blobedge.toml").read_text().partition("[[offload.rules]]")[0]
    done = policy("explain", "plant7/cam-1/line1/a.jpg", text=f"{config}[[offload.rules]]\n{rule}\n")
    assert done.stdout.splitlines()[-1] == f"  leaves: {said}"


def test_explain_says_to_a_script_why_a_blob_does_not_leave_now(policy: Policy) -> None:
    document = answer(policy("explain", "plant7/cam-1/line1/b.jpg", "--json"))
    assert (document["leaves"]["now"], document["leaves"]["why_not_now"]) == ("", "the disk has room")
    document = answer(policy("explain", "plant7/cam-1/line1/a.jpg", "--json"))
    assert (document["leaves"]["now"], document["leaves"]["evict_at"]) == ("evict", "2023-12-14T22:13:20Z")


def test_explain_says_what_would_be(policy: Policy) -> None:
    document = answer(policy("explain", "plant7/cam-9/new", "--size", "1 KiB", "--modified", "2026-01-02", "--json"))
    assert (document["rule"], document["due"]) == (2, "2026-01-03T00:00:00Z")
    assert document["name"] == "edge1/cam-9/2026/01/02/new"
    bigger = answer(policy("explain", "plant7/cam-1/line1/a.jpg", "--size", "1 MiB", "--json"))
    assert (bigger["rule"], bigger["modified"]) == (3, "2023-11-14T22:13:20Z")


@pytest.mark.parametrize(
    ("blob", "said"), [("plant7/tmp-1/x", 'upload = "never"'), ("plant7/other/y", "no rule matches")]
)
def test_explain_says_what_stays(policy: Policy, blob: str, said: str) -> None:
    assert policy("explain", blob).stdout.splitlines()[-1] == f"  stays here: {said}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["explain", "plant7/cam-1/none"], "there is no blob plant7/cam-1/none: to see what would happen to one"),
        (["explain", "plant8/cam-1/none"], "there is no account plant8: there is plant7"),
        (["explain", "plant7/cam-1"], "names no blob: write ACCOUNT/CONTAINER/NAME or its URL"),
        (["explain", "http://127.0.0.1:10000/plant7"], "names no blob"),
        (["explain", "plant7/c/n", "--size", "3 MB"], "'3 MB' is not a size"),
        (["explain", "plant7/c/n", "--size", "3 B", "--modified", "noon"], "'noon' is not a time"),
        (["simulate", "plant8"], "there is no account plant8"),
    ],
)
def test_a_mistake_is_one_line_and_exit_78(policy: Policy, arguments: list[str], said: str) -> None:
    done = policy(*arguments)
    assert (done.returncode, done.stdout) == (EXIT_CONFIG, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_configuration_without_rules_and_a_root_that_is_not_there(policy: Policy, root: Path) -> None:
    account = f'[[accounts]]\nname = "plant7"\nroot = "{root}/none"\nkey1 = "{KEY}"\n'
    assert "there is no rule" in policy("simulate", text=account).stderr
    cloud = '[cloud]\nendpoint = "https://cold.example.net"\nsas_file = "/s"\n'
    done = policy("simulate", text=account + cloud + "[[offload.rules]]\n")
    assert done.returncode == EXIT_CONFIG
    assert done.stderr == f"blobedge: cannot read {root}/none: No such file or directory\n"


def test_simulate_counts_what_goes_by_which_rule(policy: Policy) -> None:
    def tally(blobs: int, size: int, due: int, leave: int, evictable: int, *names: str) -> dict[str, Any]:
        """Of a rule; `due`, `leave` and `evictable` are how many of the blobs, which are all of them or none."""
        counts = {"due_now": due, "leave_now": leave, "evictable": evictable}
        found = {f"{key}_{what}": of for key, many in counts.items() for what, of in _both(many, blobs, size)}
        return {"blobs": blobs, "bytes": size, **found, "names": list(names)}

    def _both(many: int, blobs: int, size: int) -> list[tuple[str, int]]:
        return [("blobs", many), ("bytes", size if many == blobs else 0)]

    document = answer(policy("simulate", "--json"))
    assert document == {
        "rules": [
            {"rule": 1, **tally(1, 7, 0, 0, 0, "plant7/tmp-1/x")},
            {"rule": 2, **tally(2, 101, 2, 2, 2, "plant7/cam-1/line1/a.jpg", "plant7/cam-2/c\x1b[31m.jpg")},
            {"rule": 3, **tally(1, 2048, 0, 0, 1, "plant7/cam-1/line1/b.jpg")},
        ],
        "no_rule": tally(1, 3, 0, 0, 0, "plant7/other/y"),
    }
    part = answer(policy("simulate", "plant7/cam-1/line1/b", "--json"))
    assert [each["blobs"] for each in part["rules"]] == [0, 0, 1]


def test_simulate_prints_a_table_that_no_name_can_break(policy: Policy) -> None:
    done = policy("simulate")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "\n  rule 1: plant7/tmp-1/x\n" in done.stdout  # whole, below the table, in a terminal of any width
    assert "\\u001b" in done.stdout
    rows = [line.split()[:5] for line in done.stdout.splitlines() if line[:1].isdigit() or line.startswith("none")]
    assert rows == [
        ["1", "never", "1", "7", "B"],
        ["2", "age", "2", "101", "B"],
        ["3", "age", "1", "2.0", "KiB"],
        ["none", "never", "1", "3", "B"],
    ]


def test_simulate_reads_page_after_page_and_changes_nothing(policy: Policy, root: Path) -> None:
    many = root / "other" / "many"
    many.mkdir()
    for number in range(PAGE_BLOBS * 2):
        (many / f"{number:05}").touch()
    before = sorted(str(path) for path in root.rglob("*"))
    assert answer(policy("simulate", "plant7/other", "--json"))["no_rule"]["blobs"] == PAGE_BLOBS * 2 + 1
    assert sorted(str(path) for path in root.rglob("*")) == before


def test_simulate_counts_aloud_on_a_terminal(policy: Policy, tmp_path: Path) -> None:
    assert policy("simulate").stderr == ""
    terminal, its_end = os.openpty()
    command = [sys.executable, "-m", "agent", "policy", "simulate", "--config", str(tmp_path / "blobedge.toml")]
    environ = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=its_end, cwd=CHECKOUT, env=environ) as process:
        os.close(its_end)
        said = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while piece := os.read(terminal, 4096):
                said += piece
        os.close(terminal)
        assert process.communicate(timeout=SECONDS_MAX)[0].startswith(b"rule")
    assert b"counting" in said or b"blobs" in said


def test_what_the_endpoint_wrote_is_found_with_its_last_modified(policy: Policy, root: Path) -> None:
    store = Store(str(root))
    name = "odd//name/.."
    properties = BlobProperties(etag="0x8D000000000001", last_modified=OLD + 3600, created=OLD)
    store.run(store.put(BlobRef("cam-1", name), b"x", lambda _: properties))
    store.close()
    document = answer(policy("explain", f"plant7/cam-1/{name}", "--json"))
    assert document["modified"] == "2023-11-14T23:13:20Z"
    assert document["name"] == "edge1/cam-1/2023/11/14/odd//name/.%~2E"
