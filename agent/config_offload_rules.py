"""The rules of the [offload] and [cloud] tables that need two values, or a look at the machine.

As in config_rules.py each yields the path of the offending key and a sentence that says how to mend it. What is said of
the rules' templates needs the models; it is left out while those find mistakes of their own.
"""

import os
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any, Final

from pydantic import ValidationError

from agent.config_offload import Offload, Rule
from agent.offload import amounts
from agent.offload.templates import Route
from agent.toml_positions import Path

Finding = tuple[Path, str]

#: Each of these is one way to be let in by the cloud.
CREDENTIALS: Final = ("sas_file", "connection_string_file", "key_file", "credential")
#: What else each kind of `credential` needs, and what it may have.
_NEEDED: Final = {
    "client-secret": ("tenant_id", "client_id", "client_secret_file"),
    "managed-identity": (),
    "workload-identity": (),
}
_ALLOWED: Final = {"managed-identity": ("client_id",), "workload-identity": ("tenant_id", "client_id")}


def relations(document: Mapping[str, Any]) -> Iterator[Finding]:
    """The rules between keys; looks at nothing outside the document."""
    cloud = document.get("cloud")
    if isinstance(cloud, Mapping):
        yield from _credential(cloud)
    if not isinstance(document.get("offload"), Mapping):
        return
    try:
        offload = Offload.model_validate(document["offload"])
    except ValidationError:
        return
    yield from _cloud_of(offload, cloud)
    yield from _state(document, offload)
    yield from _marks(offload)
    accounts = _names(document)
    for index, rule in enumerate(offload.rules):
        yield from _rule(("offload", "rules", index), rule, accounts)
    yield from _meetings(offload, accounts)


def environment(document: Mapping[str, Any]) -> Iterator[Finding]:
    """The state directory, where one is named: it, or what it can be made in, must be writable."""
    offload = document.get("offload")
    directory = offload.get("directory") if isinstance(offload, Mapping) else None
    if not isinstance(directory, str) or not directory.startswith("/"):
        return
    there = directory
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        yield (
            ("offload", "directory"),
            f"user {os.geteuid()} cannot write to {there}: change its owner, or name another",
        )


def _names(document: Mapping[str, Any]) -> list[str]:
    accounts = document.get("accounts")
    tables = [each for each in accounts if isinstance(each, Mapping)] if isinstance(accounts, list) else []
    return [each["name"] for each in tables if isinstance(each.get("name"), str)]


def _credential(cloud: Mapping[str, Any]) -> Iterator[Finding]:
    given = [key for key in CREDENTIALS if key in cloud]
    for key in given[1:]:
        yield ("cloud", key), f"{given[0]} and {key} are two ways to be let in: keep one"
    kind = cloud.get("credential")
    needed = _NEEDED.get(kind, ()) if isinstance(kind, str) else ()
    for key in needed:
        if key not in cloud:
            yield ("cloud", "credential"), f'credential = "{kind}" needs {key} too'
    allowed = {*needed, *(_ALLOWED.get(kind, ()) if isinstance(kind, str) else ())}
    for key in ("tenant_id", "client_id", "client_secret_file"):
        if key in cloud and key not in allowed:
            whose = [word for word in _NEEDED if key in (*_NEEDED[word], *_ALLOWED.get(word, ()))]
            yield ("cloud", key), f"{key} belongs to credential = " + " or ".join(f'"{word}"' for word in whose)


def _cloud_of(offload: Offload, cloud: object) -> Iterator[Finding]:
    if not offload.rules:
        return
    if not isinstance(cloud, Mapping):
        yield ("offload",), "offload needs a [cloud] table with endpoint and a credential: where would blobs go?"
    elif not any(key in cloud for key in CREDENTIALS):
        yield ("cloud",), f"offload needs one way to be let in: add one of {', '.join(CREDENTIALS)}"


def _state(document: Mapping[str, Any], offload: Offload) -> Iterator[Finding]:
    """The queue is a database, which loses commits on a network file system, and its files would be blobs."""
    if offload.directory is None:
        return
    state = PurePosixPath(offload.directory)
    accounts = document.get("accounts")
    for account in accounts if isinstance(accounts, list) else []:
        root = account.get("root") if isinstance(account, Mapping) else None
        if isinstance(root, str) and PurePosixPath(os.path.normpath(root)) in (state, *state.parents):
            yield (
                ("offload", "directory"),
                f"{state} is inside {root}, which is an account's data: name a local directory",
            )


def _rule(path: Path, rule: Rule, accounts: list[str]) -> Iterator[Finding]:
    for index, name in enumerate(rule.accounts):
        if name not in accounts:
            yield (*path, "accounts", index), f"there is no account {name!r}: there is {', '.join(accounts) or 'none'}"
    if (rule.upload == "age") != (rule.age_days is not None):
        yield (*path, "upload"), 'upload = "age" and age_days go together: give both, or neither'
    if rule.size_min and rule.size_max and amounts.size(rule.size_min) > amounts.size(rule.size_max):
        yield (*path, "size_max"), f"no blob has at least {rule.size_min} and at most {rule.size_max}"
    yield from _leaving(path, rule)


def _leaving(path: Path, rule: Rule) -> Iterator[Finding]:
    """How blobs leave this node: one way for each rule, and none that needs a copy which nobody makes or keeps."""
    if (rule.evict == "age") != (rule.evict_days is not None):
        yield (*path, "evict"), 'evict = "age" and evict_days go together: give both, or neither'
    evicts, deletes = ("evict",) * (rule.evict != "never"), ("delete_after_upload",) * rule.delete_after_upload
    expires = ("ttl_days",) * (rule.ttl_days is not None)
    if rule.upload == "never":
        for key in evicts + deletes:
            yield (*path, key), f"{key} needs the cloud's copy: say when to upload, or leave {key} out"
    if evicts and deletes:
        yield (*path, "delete_after_upload"), "evict and delete_after_upload are two ways to leave: keep one"
    if rule.delete == "propagate":
        for key in deletes + expires:
            yield (*path, key), f'{key} leaves the copy in the cloud, delete = "propagate" deletes it: keep one'
    if rule.pin:
        for key in evicts + deletes + expires:
            yield (*path, key), f"pin keeps it here, {key} does not: keep one"


def _marks(offload: Offload) -> Iterator[Finding]:
    """The marks of a mount's use, in the order in which they are met while it fills up."""
    order = ("space_low_percent", "space_high_percent", "low_space_percent", "reserve_percent")
    for lower, upper in pairwise(order):
        below, above = getattr(offload, lower), getattr(offload, upper)
        if below >= above:
            key = upper if upper in offload.model_fields_set else lower
            yield ("offload", key), f"{lower} is {below:g} and has to be less than {upper}, which is {above:g}"


def _meetings(offload: Offload, accounts: list[str]) -> Iterator[Finding]:
    """Two different blobs must never get one name in the cloud, whichever rules they go by."""
    routes: list[tuple[int, Route]] = []
    for index, rule in enumerate(offload.rules):
        path: Path = ("offload", "rules", index)
        if rule.upload == "never":
            continue
        try:
            route = rule.route(offload.node_name(), accounts)
        except ValueError as error:
            yield path, str(error)
            continue
        for earlier, other in routes:
            if not route.apart(other):
                yield (
                    path,
                    f"blobs of this rule and of rule {earlier + 1} could meet in one name: begin their "
                    "names with different words, or give both the same container and name, {account} and {container} "
                    "in them",
                )
                break
        routes.append((index, route))
