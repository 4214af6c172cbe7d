"""The flags of `blobedge serve`, laid over the document of the configuration file before anything is checked.

So a flag and a key obey the same rules and give the same messages; only the place differs: a line of the file, or the
flag's own name.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.config import DEFAULT_LISTEN
from agent.problems import OperatorError
from agent.toml_positions import Path


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line says; None (or nothing) where it says nothing."""

    root: str | None = None
    listen: Sequence[str] = ()
    account: str | None = None
    key: str | None = None
    key_file: str | None = None
    workers: int | None = None
    durability: str | None = None
    records: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    access_log: bool | None = None


def overlay(document: dict[str, Any], flags: Flags) -> dict[Path, str]:
    """Change the document in place; return which flag each changed path comes from.

    Raises OperatorError when the flags do not say which of several accounts they are about.
    """
    origins: dict[Path, str] = {}

    def put(table: dict[str, Any], path: Path, key: str, value: Any, flag: str) -> None:
        if value is not None:
            table[key] = value
            origins[(*path, key)] = flag

    put(document, (), "listen", list(flags.listen) or None, "--listen")
    put(document, (), "workers", flags.workers, "--workers")
    if flags.access_log is not None:
        put(_table(document, "log"), ("log",), "access", flags.access_log, "--access-log")
    if flags.tls_cert is not None or flags.tls_key is not None:
        tls = _table(document, "tls")
        origins.setdefault(("tls",), "--tls-cert" if flags.tls_cert else "--tls-key")
        put(tls, ("tls",), "cert", _absolute(flags.tls_cert), "--tls-cert")
        put(tls, ("tls",), "key", _absolute(flags.tls_key), "--tls-key")
    for index, account in enumerate(_accounts(document, flags, origins)):
        path: Path = ("accounts", index)
        put(account, path, "durability", flags.durability, "--durability")
        put(account, path, "records", flags.records, "--records")
    document.setdefault("listen", [DEFAULT_LISTEN])
    return origins


def _accounts(document: dict[str, Any], flags: Flags, origins: dict[Path, str]) -> list[dict[str, Any]]:
    """The accounts, after --account, --key, --key-file and --root were applied to the one they mean."""
    accounts = document.setdefault("accounts", [])
    if not isinstance(accounts, list) or not all(isinstance(account, dict) for account in accounts):
        return []
    said = {"--account": flags.account, "--key": flags.key, "--key-file": flags.key_file, "--root": flags.root}
    given = [flag for flag, value in said.items() if value is not None]
    if not given:
        return accounts
    index = _chosen(accounts, flags.account, given[0])
    if index == len(accounts):
        accounts.append({})
        origins["accounts", index] = given[0]
    account = accounts[index]
    for key, value, flag in (
        ("name", flags.account, "--account"),
        ("key1", flags.key, "--key"),
        ("key1_file", _absolute(flags.key_file), "--key-file"),
        ("root", _absolute(flags.root), "--root"),
    ):
        if value is not None:
            account[key] = value
            origins["accounts", index, key] = flag
    for key, other, value in (("key1", "key1_file", flags.key), ("key1_file", "key1", flags.key_file)):
        if value is not None and ("accounts", index, other) not in origins:
            account.pop(other, None)  # a flag replaces either form of the file's key
        assert key in account or value is None
    return accounts


def _chosen(accounts: list[dict[str, Any]], name: str | None, flag: str) -> int:
    """The index of the account that the flags are about; the length of the list for a new one."""
    if name is not None:
        names = [account.get("name") for account in accounts]
        return names.index(name) if name in names else len(accounts)
    if len(accounts) > 1:
        raise OperatorError(f"{flag}: the configuration has {len(accounts)} accounts: say which with --account NAME")
    return 0


def _table(document: dict[str, Any], key: str) -> dict[str, Any]:
    table = document.setdefault(key, {})
    return table if isinstance(table, dict) else {}


def _absolute(path: str | None) -> str | None:
    """A path on the command line is relative to the working directory, as everywhere in a shell."""
    return os.path.abspath(path) if path is not None else None
