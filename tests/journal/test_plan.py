"""Workers are told of a journal, and of a reserve on the mounts, when the configuration has rules; else of none."""

from pathlib import Path

import pytest

from agent.config_load import load
from agent.supervision.plan import plan, worker_settings

TEXT = """
[[accounts]]
name = "plant7"
root = "/srv/plant7"
key1 = "c2l4dGVlbiBieXRlcyBvciBtb3Jl"
[cloud]
endpoint = "https://cold.blob.core.windows.net"
sas_file = "/etc/blobedge/cloud.sas"
"""
OFFLOAD = '[offload]\ndirectory = "/var/lib/edge"\n'
RULE = '[[offload.rules]]\ncontainers = ["a*"]\n'


@pytest.mark.parametrize(
    ("text", "directory"),
    [(TEXT, ""), (TEXT + OFFLOAD, ""), (TEXT + OFFLOAD + RULE, "/var/lib/edge/journal")],
    ids=["no offload", "no rule", "a rule"],
)
def test_a_rule_makes_a_journal(tmp_path: Path, text: str, directory: str) -> None:
    path = tmp_path / "blobedge.toml"
    path.write_text(text)
    assert worker_settings(plan(load(str(path), files=False)), 0, (), 9).journal_directory == directory


@pytest.mark.parametrize(
    ("text", "percent"),
    [
        (TEXT, 0.0),
        (TEXT + OFFLOAD, 0.0),
        (TEXT + OFFLOAD + RULE, 97.0),
        (TEXT + OFFLOAD + "reserve_percent = 93.5\n" + RULE, 93.5),
        (TEXT + OFFLOAD + "reserve_percent = 100\n" + RULE, 0.0),
    ],
    ids=["no offload", "no rule", "a rule", "a reserve", "none"],
)
def test_a_rule_makes_a_reserve(tmp_path: Path, text: str, percent: float) -> None:
    path = tmp_path / "blobedge.toml"
    path.write_text(text)
    assert worker_settings(plan(load(str(path), files=False)), 0, (), 9).reserve_percent == percent
