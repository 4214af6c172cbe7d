"""A checked configuration for a person: a short summary, or the whole of it as TOML without the keys."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from agent.config import Account, Config

_HIDDEN: Final = frozenset({"key1", "key2"})


def summary(config: Config) -> str:
    """A few lines: what is served, where, how."""
    lines = [f"ok: {config.worker_count()} workers, {len(config.accounts)} account(s)"]
    lines += [f"  listens on {address}" for address in config.listen]
    for account in config.accounts:
        lines += _account_lines(account)
    hosts = ", ".join(source.host for source in config.copy_sources) or "none besides this node's accounts"
    lines.append(f"  copies may read from: {hosts}")
    if config.cloud is not None and config.offload is not None and config.offload.rules:
        lines.append(f"  sends blobs to {config.cloud.endpoint}: {len(config.offload.rules)} rule(s)")
    return "\n".join(lines)


def _account_lines(account: Account) -> Iterator[str]:
    keys = 1 + bool(account.key2 or account.key2_file)
    yield (
        f"  account {account.name}: {account.root}, {keys} key(s), durability {account.durability}, "
        f"records {account.records}"
    )
    for container in account.containers:
        place = container.path or "in the account's root"
        access = ", read-only" if container.read_only else ""
        durability = container.durability or account.durability
        yield f"    container {container.name}: {place}, durability {durability}{access}"


def document(config: Config) -> str:
    """The configuration with every default as TOML; account keys are replaced by a remark."""
    return "".join(f"{line}\n" for line in _table((), config.model_dump(exclude_none=True)))


def _table(path: tuple[str, ...], table: Mapping[str, Any]) -> Iterator[str]:
    """Plain values first, then sub-tables: TOML has no way back from a sub-table."""
    for key, value in table.items():
        if not _is_table(value):
            yield f'{key} = "(hidden)"' if key in _HIDDEN else f"{key} = {json.dumps(value, ensure_ascii=False)}"
    for key, value in table.items():
        header = (*path, key)
        if isinstance(value, Mapping):
            yield f"\n[{'.'.join(header)}]"
            yield from _table(header, value)
        elif _is_table(value):
            for element in value:
                yield f"\n[[{'.'.join(header)}]]"
                yield from _table(header, element)


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))
