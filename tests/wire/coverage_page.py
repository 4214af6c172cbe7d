"""The tables of docs/api-coverage.md that follow from the wire tests: `python -m tests.wire.coverage_page` writes them.

What people have to say stands in the page itself; what the rows know is put between its markers, and
test_coverage_page.py fails when the two no longer agree.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from dataplane.blobapi.errors import ErrorCode
from dataplane.blobapi.message import Level
from dataplane.blobapi.operations import SPECS, Operation
from tests.wire.accepted import ACCEPTED, NOT_IN_AZURITE
from tests.wire.documented import IGNORED, NEVER_SENT, REFUSED
from tests.wire.matrix import rows_of
from tests.wire.product import CHECKOUT

PAGE: Final = CHECKOUT / "docs" / "api-coverage.md"
_MARKED: Final = "<!-- {0} -->\n{1}<!-- end of {0} -->"


def title(operation: Operation) -> str:
    """The operation's name as people write it."""
    return operation.name.replace("_", " ").title().replace("Url", "URL").replace("Acl", "ACL")


def codes_of(operation: Operation) -> set[ErrorCode]:
    """The error codes that the rows of an operation produce."""
    return {row.want for row in rows_of(operation) if isinstance(row.want, ErrorCode)}


#: They need no credential, or never succeed, so they say nothing about what is common.
_EXCEPTIONS: Final = (Operation.PREFLIGHT, Operation.GET_USER_DELEGATION_KEY, Operation.GET_SERVICE_STATS)
_COMMON: Final = {
    "every operation": (Level.SERVICE, Level.CONTAINER, Level.BLOB),
    "every operation on a container or blob": (Level.CONTAINER, Level.BLOB),
    "every operation on a blob": (Level.BLOB,),
}


def codes_table() -> str:
    """Which operation answers with which error codes; what is common to many is said once."""
    rows: list[tuple[str, str]] = []
    said: dict[Operation, set[ErrorCode]] = {operation: set() for operation in Operation}
    for name, levels in _COMMON.items():
        members = [each for each in Operation if SPECS[each].level in levels and each not in _EXCEPTIONS]
        common = set.intersection(*(codes_of(each) - said[each] for each in members))
        rows.append((name, _codes(common)))
        for each in members:
            said[each] |= common
    rows += [(title(each), _codes(codes_of(each) - said[each])) for each in Operation]
    return _table(("operation", "error codes"), rows)


def headers_table() -> str:
    """Documented headers without a place here, and why."""
    rows = [(f"`{name}`", "answer", f"never sent: {reason}") for name, reason in sorted(NEVER_SENT.items())]
    rows += [(f"`{name}`", "request", "refused with FeatureNotSupported") for name in sorted(REFUSED)]
    rows += [(f"`{name}`", "request", f"ignored: {reason}") for name, reason in sorted(IGNORED.items())]
    return _table(("header", "of a", "what becomes of it"), rows)


def azurite_table() -> str:
    """The accepted differences from Azurite."""
    rows = [(entry.here, entry.azurite, entry.basis) for entry in ACCEPTED]
    without = ", ".join(sorted(title(operation) for operation in NOT_IN_AZURITE))
    return f"Not compared, because Azurite lacks them or cannot run them: {without}.\n\n" + _table(
        ("here", "Azurite", "what says so"), rows
    )


TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "error codes": codes_table,
    "headers": headers_table,
    "azurite": azurite_table,
}


def written(page: str) -> str:
    """The page with its tables as they are now. Raises ValueError when a marker is missing."""
    for name, make in TABLES.items():
        pattern = re.compile(_MARKED.format(re.escape(name), ".*?"), re.DOTALL)
        if pattern.search(page) is None:
            raise ValueError(f"the page has no place for the table {name!r}")
        block = _MARKED.format(name, make())
        page = pattern.sub(lambda _, block=block: block, page)  # type: ignore[misc]
    return page


def _codes(codes: Iterable[ErrorCode]) -> str:
    texts = sorted({f"{code.status} {code.code}" for code in codes})
    return ", ".join(texts) or "no others"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main(page: Path = PAGE) -> None:
    """Write the tables into the page."""
    page.write_text(written(page.read_text()))


if __name__ == "__main__":
    main()
