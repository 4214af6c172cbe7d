"""The direction of imports: blobapi <- store <- server, ipc <- server, {blobapi, store, ipc} <- agent, nothing upward.

Read from the syntax trees, so that an import inside a function counts too. And what is declared in pyproject.toml is
what the product imports, no more and no less.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PRODUCT = ("agent", "dataplane")

# Which parts of the product each part may import, besides itself. The top of dataplane is its __main__.
ALLOWED: dict[str, set[str]] = {
    "dataplane.blobapi": set(),
    "dataplane.store": {"dataplane.blobapi"},
    "dataplane.ipc": {"dataplane.blobapi"},
    "dataplane.journal": {"dataplane.store"},  # on which kind of file system it is
    "dataplane.server": {"dataplane.blobapi", "dataplane.store", "dataplane.ipc", "dataplane.journal"},
    "dataplane": {"dataplane.server"},
    "agent": {"dataplane.blobapi", "dataplane.store", "dataplane.ipc", "dataplane.journal"},
}

# The protocol is pure: whatever could see a socket, a file, a clock, chance or an event loop is an argument there.
IMPURE = {
    "asyncio", "concurrent", "io", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "select",
    "selectors", "shutil", "signal", "socket", "ssl", "subprocess", "tempfile", "threading", "trio", "uvloop",
}  # fmt: skip

# Event loops stay in their part: the store and the channel's codec serve both.
LOOPS = {
    "dataplane.store": {"asyncio", "trio", "uvloop"},
    "dataplane.ipc": {"asyncio", "trio", "uvloop"},
    "dataplane.journal": {"asyncio", "trio", "uvloop"},
    "dataplane.server": {"trio"},
    "agent": {"asyncio", "uvloop"},
}

# Import names that differ from the name of the distribution. The longest that fits counts.
DISTRIBUTIONS = {
    "azure.identity": "azure-identity",
    "azure.storage.blob": "azure-storage-blob",
    "azure.storage.extensions": "azure-storage-extensions",
    "prometheus_client": "prometheus-client",
    "sqlite_utils": "sqlite-utils",
}
# Imported, and always there because a declared distribution needs it in its own interface.
IMPLIED = {"azure.core": "azure-storage-blob", "pydantic_core": "pydantic", "yarl": "aiohttp"}


def part_of(module: str) -> str | None:
    """The longest part that holds the module, None for what is not ours."""
    names = [part for part in ALLOWED if module == part or module.startswith(f"{part}.")]
    return max(names, key=len, default=None)


def modules() -> list[Path]:
    return [path for package in PRODUCT for path in sorted((CHECKOUT / package).rglob("*.py"))]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> Iterator[str]:
    """Every module that the file imports, absolute."""
    package = path.relative_to(CHECKOUT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")] if node.level else []
            name = ".".join(filter(None, base)) if node.level else node.module or ""
            for alias in node.names:  # `from dataplane import store` imports dataplane.store
                deeper = f"{name}.{alias.name}"
                yield deeper if name in PRODUCT else name


def distribution_of(module: str) -> str:
    """The name of the distribution that a module comes from; of the standard library and of ours, the top package."""
    known = IMPLIED | DISTRIBUTIONS
    prefixes = [prefix for prefix in known if f"{module}.".startswith(f"{prefix}.")]
    return known[max(prefixes, key=len)] if prefixes else module.partition(".")[0]


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_imports_go_down_only(path: Path) -> None:
    own = part_of(module_name(path))
    assert own is not None
    for name in imported(path):
        other = part_of(name)
        assert other in {None, own, *ALLOWED[own]}, f"{own} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_event_loops_and_the_outside_world_stay_where_they_belong(path: Path) -> None:
    own = part_of(module_name(path))
    assert own is not None
    banned = IMPURE if own == "dataplane.blobapi" else LOOPS.get(own, set())
    found = {name.partition(".")[0] for name in imported(path)} & banned
    assert not found, f"{own} may not import {found}"


def test_the_protocol_asks_no_clock_and_opens_no_file() -> None:
    """datetime and time.gmtime convert there; nothing tells the present time."""
    for path in sorted((CHECKOUT / "dataplane" / "blobapi").rglob("*.py")):
        calls = re.findall(r"\.(?:now|utcnow|today)\(|\bopen\(|\btime\.(?!gmtime\()\w+\(", path.read_text())
        assert not calls, path.name


def test_what_is_declared_is_what_is_imported() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[\[<>=]", line)[0] for line in project["dependencies"]}
    names = {distribution_of(name) for path in modules() for name in imported(path)}
    assert names - set(sys.stdlib_module_names) - set(PRODUCT) == declared
