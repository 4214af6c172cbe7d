"""docs/offload/policies.md: each example is a configuration, and its table is what the rules say."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from agent.config import Config
from agent.config_load import load
from agent.offload.amounts import NANOSECONDS, size, span_text
from agent.offload.rules import Rules, Subject, decide
from agent.offload.templates import fit_name

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "offload" / "policies.md").read_text()
NOON = 1_795_435_200 * NANOSECONDS  # 2026-11-23T12:00:00Z
KEY = "c2l4dGVlbiBieXRlcyBvciBtb3Jl"
CLOUD = '[cloud]\nendpoint = "https://cold.blob.core.windows.net"\nsas_file = "/etc/blobedge/cloud.sas"\n'
_EXAMPLE = re.compile(r"```toml\n(.*?)```\n(?:\n\| blob \|[^\n]*\n\|[-|]+\|\n((?:\|[^\n]*\n)+))?", re.DOTALL)


class Example(NamedTuple):
    """A configuration without its accounts, and the lines of its table as cells."""

    toml: str
    rows: list[list[str]]


EXAMPLES = [
    Example(found[1], [[cell.strip(" `") for cell in row.split("|")[1:-1]] for row in (found[2] or "").splitlines()])
    for found in _EXAMPLE.finditer(PAGE)
]
ROWS = [(number, row) for number, example in enumerate(EXAMPLES) for row in example.rows]


def loaded(example: Example, tmp_path: Path) -> Config:
    """The example with what it leaves out: the accounts that its table names, and a cloud or a rule."""
    accounts = sorted({row[0].partition("/")[0] for row in example.rows} | {"plant7"})
    text = example.toml + ("[[offload.rules]]\n" if "[cloud]" in example.toml else CLOUD)
    text += "".join(f'[[accounts]]\nname = "{name}"\nroot = "/srv/{name}"\nkey1 = "{KEY}"\n' for name in accounts)
    path = tmp_path / "blobedge.toml"
    path.write_text(text)
    return load(str(path), files=False)


def test_the_page_has_its_examples() -> None:
    assert len(EXAMPLES) == PAGE.count("```toml")
    assert len(ROWS) > 10


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_example_is_a_configuration(number: int, tmp_path: Path) -> None:
    offload = loaded(EXAMPLES[number], tmp_path).offload
    assert offload is not None
    assert offload.rules


@pytest.mark.parametrize(("number", "row"), ROWS)
def test_every_line_of_a_table_is_what_the_rules_say(number: int, row: list[str], tmp_path: Path) -> None:
    config = loaded(EXAMPLES[number], tmp_path)
    assert config.offload is not None
    blob, size_text, rule, due, target = row
    account, container, name = blob.split("/", 2)
    rules = Rules(config.offload, [each.name for each in config.accounts])
    decision = decide(rules, Subject(account, container, name, size(size_text), NOON, NOON), NOON)
    assert rule == ("none" if decision.rule is None else str(decision.rule + 1))
    assert due == (span_text((decision.due_at - NOON) / NANOSECONDS) if decision.upload else "never")
    assert target == (f"{decision.target.container}/{decision.target.name}" if decision.target else "")


def test_the_metered_link_is_as_the_page_says(tmp_path: Path) -> None:
    example = next(each for each in EXAMPLES if "Europe/Berlin" in each.toml)
    offload = loaded(example, tmp_path).offload
    assert offload is not None
    weekly = offload.weekly()
    hour = 3600 * NANOSECONDS
    sunday = NOON - 24 * hour - 12 * hour - hour  # midnight in Berlin, Saturday to Sunday is a window's middle
    assert weekly.mbits(NOON) == 20  # a Monday, 13:00 in Berlin
    assert weekly.mbits(NOON + 6 * hour) == 80
    assert weekly.mbits(sunday + 5 * hour) == 200
    assert weekly.mbits(sunday + 6 * hour) == 0
    assert weekly.next_change(sunday + 6 * hour) == sunday + 24 * hour


def test_names_that_the_page_shows_are_made_so() -> None:
    for name, fitted in (("a\\b", "a%~5Cb"), ("a/../b", "a/.%~2E/b"), ("end.", "end%~2E"), ("dir/", "dir%~2F")):
        assert fit_name(name, "cold") == fitted
        assert f"`{name}`" in PAGE
        assert f"`{fitted}`" in PAGE
