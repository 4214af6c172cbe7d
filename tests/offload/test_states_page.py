"""docs/offload/states.md is the table of agent/offload/states.py."""

import re
from pathlib import Path

from agent.offload.states import TABLE, Event, Hold, Residency

PAGE = Path(__file__).resolve().parents[2] / "docs" / "offload" / "states.md"


def test_the_page_has_the_table() -> None:
    found = re.findall(r"^\| `?(\w+)`? \| ([A-Z]+) \| `(\w+)` \|", PAGE.read_text(), re.M)
    told = {
        (before, Event(event.lower())): Residency(after)
        for first, event, after in found
        for before in (Residency if first == "any" else [Residency(first)])
    }
    assert told == TABLE


def test_the_page_has_every_residency_and_hold() -> None:
    first_cells = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.M))
    assert first_cells >= {*Residency, *Hold} - {Hold.NONE}
