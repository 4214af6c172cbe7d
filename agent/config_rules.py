"""The rules of the configuration that no single value shows: about two keys together, and about the file system.

They read the document as tomllib gives it, not the models, and skip whatever has the wrong type: so they run beside
the models' own checks, and an operator sees every mistake at once instead of the next one after each repair. Each rule
yields the path of the offending key and a sentence that says how to mend it.
"""

import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from agent import config_offload_rules
from agent.config import MAKE_KEY, check_key
from agent.listen import Listen, is_loopback, parse_admin, parse_listen
from agent.toml_positions import Path

Document = Mapping[str, Any]
Finding = tuple[Path, str]

KEY_NAMES = ("key1", "key2")
READ_FILES = (
    ("admin", "token_file"),
    ("cloud", "sas_file"),
    ("cloud", "connection_string_file"),
    ("cloud", "key_file"),
    ("cloud", "client_secret_file"),
    ("cloud", "ca_file"),
)


def relations(document: Document) -> Iterator[Finding]:
    """The rules between keys; looks at nothing outside the document."""
    yield from _listeners(document)
    yield from _admin(document)
    accounts = list(_tables(document, "accounts"))
    yield from _repeated([(path, account.get("name")) for path, account in accounts], "name", "account")
    yield from _host_names(accounts)
    yield from _roots(accounts)
    for path, account in accounts:
        yield from _keys(path, account)
        yield from _containers(path, account)
    yield from config_offload_rules.relations(document)


def environment(document: Document) -> Iterator[Finding]:
    """The rules about this machine: directories and files that must be there and usable by this user."""
    for path, account in _tables(document, "accounts"):
        yield from _directory((*path, "root"), account.get("root"), writable=True)
        for name in KEY_NAMES:
            yield from _key_file((*path, f"{name}_file"), account.get(f"{name}_file"))
        for place, container in _tables(account, "containers"):
            writable = container.get("read_only") is not True
            yield from _directory((*path, *place, "path"), container.get("path"), writable=writable)
    tls = document.get("tls")
    if isinstance(tls, Mapping):
        yield from _certificate(tls.get("cert"), tls.get("key"))
    yield from _readable(("copy_ca_file",), document.get("copy_ca_file"))
    yield from config_offload_rules.environment(document)
    for table, key in READ_FILES:
        values = document.get(table)
        if isinstance(values, Mapping):
            yield from _readable((table, key), values.get(key))


def _tables(document: Document, key: str) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    values = document.get(key)
    for index, value in enumerate(values if isinstance(values, list) else []):
        if isinstance(value, Mapping):
            yield (key, index), value


def _listeners(document: Document) -> Iterator[Finding]:
    seen: dict[tuple[str, int], str] = {}
    values = document.get("listen")
    for index, text in enumerate(values if isinstance(values, list) else []):
        try:
            listen = parse_listen(text)
        except (ValueError, AttributeError, TypeError):
            continue  # the model says what is wrong
        if listen.scheme == "https" and "tls" not in document:
            yield ("listen", index), "an https listener needs a [tls] table with cert and key (--tls-cert, --tls-key)"
        address = (listen.host, listen.port)
        if listen.port and address in seen:
            yield ("listen", index), f"{text} is the address of {seen[address]} too: one address, one listener"
        seen.setdefault(address, text)


def _admin(document: Document) -> Iterator[Finding]:
    admin = document.get("admin")
    if not isinstance(admin, Mapping):
        return
    values = admin.get("listen")
    for index, text in enumerate(values if isinstance(values, list) else []):
        try:
            listen = parse_admin(text)
        except (ValueError, AttributeError, TypeError):
            continue  # the model says what is wrong
        if isinstance(listen, Listen) and not is_loopback(listen.host) and "token_file" not in admin:
            yield ("admin", "listen", index), f"{text} can be reached from outside: add token_file, or use loopback"


def _repeated(named: list[tuple[Path, Any]], key: str, what: str) -> Iterator[Finding]:
    seen: set[str] = set()
    for path, name in named:
        if isinstance(name, str):
            if name in seen:
                yield (*path, key), f"{what} {name!r} is defined twice: remove one, or give it another name"
            seen.add(name)


def _host_names(accounts: list[tuple[Path, Mapping[str, Any]]]) -> Iterator[Finding]:
    seen: set[str] = set()
    for path, account in accounts:
        names = account.get("host_names")
        for index, name in enumerate(names if isinstance(names, list) else []):
            if isinstance(name, str):
                if name in seen:
                    yield (
                        (*path, "host_names", index),
                        f"host name {name!r} is used twice: it can mean one account only",
                    )
                seen.add(name)


def _roots(accounts: list[tuple[Path, Mapping[str, Any]]]) -> Iterator[Finding]:
    """Two accounts in one tree would see each other's data, and share one `.blobedge`."""
    seen: list[PurePosixPath] = []
    for path, account in accounts:
        if not isinstance(account.get("root"), str):
            continue
        root = PurePosixPath(os.path.normpath(account["root"]))
        for other in seen:
            if root == other or root in other.parents or other in root.parents:
                yield (*path, "root"), f"{root} and another account's root {other} overlap: give each its own directory"
        seen.append(root)


def _keys(path: Path, account: Mapping[str, Any]) -> Iterator[Finding]:
    for name in KEY_NAMES:
        if name in account and f"{name}_file" in account:
            yield (*path, f"{name}_file"), f"both {name} and {name}_file are given: keep one"
    if not account.keys() & {"key1", "key1_file"}:
        yield path, f"the account has no key: add key1_file or key1 (--key-file, --key); {MAKE_KEY} makes one"


def _containers(path: Path, account: Mapping[str, Any]) -> Iterator[Finding]:
    containers = [((*path, *place), container) for place, container in _tables(account, "containers")]
    yield from _repeated([(place, container.get("name")) for place, container in containers], "name", "container")
    root = account.get("root")
    seen: dict[str, str] = {}
    for place, container in containers:
        mapped = container.get("path")
        if not isinstance(mapped, str):
            continue
        mapped = os.path.normpath(mapped)
        if mapped in seen:
            yield (*place, "path"), f"{mapped} is container {seen[mapped]!r} already"
        seen.setdefault(mapped, str(container.get("name")))
        if isinstance(root, str) and PurePosixPath(os.path.normpath(root)) in (
            PurePosixPath(mapped),
            *PurePosixPath(mapped).parents,
        ):
            yield (
                (*place, "path"),
                f"{mapped} is inside the account's root, where it is a container or part of one by its own name",
            )


def _directory(path: Path, value: object, *, writable: bool) -> Iterator[Finding]:
    if not isinstance(value, str) or not value.startswith("/"):
        return
    if not os.path.isdir(value):
        if os.path.lexists(value):
            yield path, f"{value} is not a directory"
        else:
            yield path, f"there is no directory {value}: create it, or mount what belongs there"
        return
    needed = os.R_OK | os.X_OK | (os.W_OK if writable else 0)
    if not os.access(value, needed):
        wish = "read and write" if writable else "read"
        yield path, f"user {os.geteuid()} may not {wish} {value}: change its owner or its mode"


def _readable(path: Path, value: object) -> Iterator[Finding]:
    if isinstance(value, str) and value.startswith("/"):
        try:
            with open(value, "rb") as file:
                file.read(1)
        except OSError as error:
            yield path, f"cannot read {value}: {error.strerror}"


def _key_file(path: Path, value: object) -> Iterator[Finding]:
    unreadable = list(_readable(path, value))
    if unreadable or not isinstance(value, str) or not value.startswith("/"):
        yield from unreadable
        return
    try:
        check_key(read_key(value))
    except ValueError as error:
        yield path, f"{value}: {error}"


def read_key(path: str) -> str:
    """Return the text of a key file without the newlines that editors and openssl add. Raises OSError, ValueError."""
    with open(path, encoding="ascii") as file:
        return "".join(file.read().split())


def _certificate(cert: object, key: object) -> Iterator[Finding]:
    unreadable = [*_readable(("tls", "cert"), cert), *_readable(("tls", "key"), key)]
    yield from unreadable
    if unreadable or not (isinstance(cert, str) and isinstance(key, str) and cert[:1] == key[:1] == "/"):
        return
    try:
        # An empty password refuses an encrypted key; without one OpenSSL would ask on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            yield ("tls", "key"), f"{key} is not the key of the certificate {cert}"
        else:
            yield (
                ("tls", "cert"),
                f"{cert} and {key} are not a PEM certificate and its unencrypted key{f': {reason}' if reason else ''}",
            )
