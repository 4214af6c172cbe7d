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


def overlay(document: dict[str, Any], flags: Flags, origins: dict[Path, str]) -> None:
    """Change the document in place, and the place of each changed path in `origins` to the flag's name.

    Raises OperatorError when the flags do not say which of several accounts they are about.
    """
    _put(origins, document, (), "listen", list(flags.listen) or None, "--listen")
    _put(origins, document, (), "workers", flags.workers, "--workers")
    _put(origins, _table(document, "log", flags.access_log), ("log",), "access", flags.access_log, "--access-log")
    tls = _table(document, "tls", flags.tls_cert, flags.tls_key)
    _put(origins, tls, ("tls",), "cert", _absolute(flags.tls_cert), "--tls-cert")
    _put(origins, tls, ("tls",), "key", _absolute(flags.tls_key), "--tls-key")
    accounts = document.setdefault("accounts", [])
    if isinstance(accounts, list) and all(isinstance(account, dict) for account in accounts):
        _one_account(origins, accounts, flags)
        for index, account in enumerate(accounts):
            _put(origins, account, ("accounts", index), "durability", flags.durability, "--durability")
            _put(origins, account, ("accounts", index), "records", flags.records, "--records")
    document.setdefault("listen", [DEFAULT_LISTEN])


def _put(origins: dict[Path, str], table: dict[str, Any], path: Path, key: str, value: Any, flag: str) -> None:
    """Set a key of the table at `path`, unless the flag was not given. The table itself then has a place too."""
    if value is not None:
        table[key] = value
        origins[(*path, key)] = flag
        origins.setdefault(path, flag)


def _one_account(origins: dict[Path, str], accounts: list[dict[str, Any]], flags: Flags) -> None:
    """Apply --account, --key, --key-file and --root to the account that they mean."""
    said = {"--account": flags.account, "--key": flags.key, "--key-file": flags.key_file, "--root": flags.root}
    given = [flag for flag, value in said.items() if value is not None]
    if not given:
        return
    index = _chosen(accounts, flags.account, given[0])
    if index == len(accounts):
        accounts.append({})
    account, path = accounts[index], ("accounts", index)
    if flags.key is not None or flags.key_file is not None:
        account.pop("key1", None)  # a flag replaces either form of the file's key
        account.pop("key1_file", None)
    _put(origins, account, path, "name", flags.account, "--account")
    _put(origins, account, path, "key1", flags.key, "--key")
    _put(origins, account, path, "key1_file", _absolute(flags.key_file), "--key-file")
    _put(origins, account, path, "root", _absolute(flags.root), "--root")


def _chosen(accounts: list[dict[str, Any]], name: str | None, flag: str) -> int:
    """The index of the account that the flags are about; the length of the list for a new one."""
    if name is not None:
        names = [account.get("name") for account in accounts]
        return names.index(name) if name in names else len(accounts)
    if len(accounts) > 1:
        raise OperatorError(f"{flag}: the configuration has {len(accounts)} accounts: say which with --account NAME")
    return 0


def _table(document: dict[str, Any], key: str, *values: object) -> dict[str, Any]:
    """The table of that name for these values, made if there are any and it is not there.

    What the file has in its place, if that is no table, stays for the check to complain of.
    """
    if all(value is None for value in values):
        return {}
    table = document.setdefault(key, {})
    return table if isinstance(table, dict) else {}


def _absolute(path: str | None) -> str | None:
    """A path on the command line is relative to the working directory, as everywhere in a shell."""
    return os.path.abspath(path) if path else path  # "" is a mistake, not the working directory
