"""What the pages for operators name is there: every command of ours, its options, and every page that a message or a
page points to."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from agent.cli import app

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = [*sorted((CHECKOUT / "docs" / "runbooks").glob("*.md")), CHECKOUT / "docs" / "status.md"]
ISSUE_RUNBOOKS = {
    "auth-failures", "dns", "throttling", "copy-failures", "full-disk", "hung-mount", "clock-skew",
    "certificate-renewal", "upgrade",
}  # fmt: skip
MESSAGES = {"blobedge did not start"}  # what tools/install says


def commands(page: str) -> set[str]:
    """The command lines of ours in blocks and between backticks, without comments."""
    lines = re.findall(r"^    (?:\$ )?(?:sudo )?(blobedge [a-z].*)$", page, re.M) + re.findall(
        r"`(blobedge [^`]*)`", page
    )
    return {re.split(r"\s+#|[;|]|\[", line)[0].strip() for line in lines} - MESSAGES


def unknown(line: str) -> str:
    """Why our command line does not take this, "" if it does."""
    command = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            return f"no command {words[:1]}"
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in parameter.opts}
    return "".join(f" no option {word}" for word in words if word.startswith("--") and word not in options)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_are_there(page: Path) -> None:
    found = commands(page.read_text())
    assert not {line: reason for line in found if (reason := unknown(line))}


def test_this_test_sees_what_is_wrong() -> None:
    assert commands("    sudo blobedge doctor --config X # why\nand `blobedge tune plan`") == {
        "blobedge doctor --config X", "blobedge tune plan",
    }  # fmt: skip
    assert unknown("blobedge heal") == "no command ['heal']"
    assert unknown("blobedge health --often") == " no option --often"


def test_all_runbooks_are_there() -> None:
    assert {page.stem for page in PAGES} >= ISSUE_RUNBOOKS


def test_the_pages_that_messages_and_pages_point_to_are_there() -> None:
    sources = [*(CHECKOUT / "agent").rglob("*.py"), *(CHECKOUT / "config").glob("*.yml"), *PAGES]
    named = {name for source in sources for name in re.findall(r"docs/[a-z/-]+\.md", source.read_text())}
    assert not {name for name in named if not (CHECKOUT / name).is_file()}
