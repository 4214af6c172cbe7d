"""Secrets stay secret (goal 18): compared in constant time, kept out of answers, logs and what the kernel shows."""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.security.client import Stranger
from tests.security.endpoint import CHECKOUT, Endpoint

#: Names of values that must never be compared with == or looked for with `in`: it ends at the first difference.
_SECRET: Final = re.compile(
    r"(^|_)(sig|signature|signatures|hmac|mac|password|passphrase|secret|presented|key1|key2)($|_)"
)
#: Names that look like it and are none: what is compared with them is public.
_PUBLIC: Final = frozenset({"signature_of", "key1_file", "key2_file"})
_SOURCES: Final = sorted([*(CHECKOUT / "dataplane").rglob("*.py"), *(CHECKOUT / "agent").rglob("*.py")])


def _names(node: ast.expr) -> Iterator[str]:
    """What an operand is called: its own name, not those of what it is made from."""
    match node:
        case ast.Name(name) | ast.Attribute(_, name):
            yield name
        case ast.Call(function, arguments):
            yield from _names(function)
            for argument in arguments:
                yield from _names(argument)
        case ast.Subscript(value, _):
            yield from _names(value)
        case ast.BinOp(left, _, right):
            yield from _names(left)
            yield from _names(right)


def comparisons(source: str) -> list[tuple[int, str]]:
    """(line, name) of every comparison of something that is called like a secret."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare):
            continue
        operands = [node.left, *node.comparators]
        if any(isinstance(operand, ast.Constant) for operand in operands):
            continue  # with a literal: whether there is one at all
        for operand in operands:
            found += [(node.lineno, name) for name in _names(operand) if _SECRET.search(name) and name not in _PUBLIC]
    return found


def test_the_rule_finds_what_it_looks_for() -> None:
    bad = [
        "a.signature == b",
        "sig != c",
        "x = given == sig",
        "signature(k, s) == t",
        "presented in keys",
        "p.key1 == q",
    ]
    assert all(comparisons(line) for line in bad)
    assert not any(map(comparisons, ["compare_digest(sig, b)", "sig == ''", "name == other", "signature is None"]))


@pytest.mark.parametrize("path", _SOURCES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_secrets_are_not_compared_with_operators(path: Path) -> None:
    assert comparisons(path.read_text()) == []


def test_signatures_and_the_admin_token_are_compared_in_constant_time() -> None:
    uses = [path.name for path in _SOURCES if re.search(r"\bcompare_digest\(", path.read_text())]
    assert sorted(uses) == ["http.py", "sharedkey.py"]


def test_secrets_are_not_in_what_objects_show_of_themselves() -> None:
    """A traceback or a log line with a value's repr must not tell a key."""
    from dataplane.blobapi.authorization import AccountKeys
    from dataplane.ipc.settings import AccountSettings

    canary = "Y2FuYXJ5IGNhbmFyeSBjYW5hcnk="
    assert canary not in repr(AccountSettings("a", "/r", (canary,)))
    assert "canary" not in repr(AccountKeys("a", (b"canary canary",)))


def test_a_request_leaves_no_secret_behind(endpoint: Endpoint, stranger: Stranger, container: str) -> None:
    """Tokens and signatures of good and bad requests, in every place where they may be written."""
    blob, put = f"/{container}/b", {"x-ms-blob-type": "BlockBlob"}
    assert stranger.signed("PUT", blob, headers=put, body=b"x").status == 201
    tokens = [stranger.service_sas(blob, "r", sr="b"), stranger.account_sas("r", se="2020-01-01T00:00:00Z")]
    sent = []
    for token in tokens:
        signature = token.rpartition("sig=")[2]
        sent.append(signature)
        here = f"http://127.0.0.1:{endpoint.port}/victim{blob}?{token}"
        for answer in (
            stranger.bare("GET", blob, token), stranger.bare("DELETE", blob, token),
            stranger.bare("GET", blob + "/..", token),
            stranger.bare("GET", blob, token + "&sp=rw"),
            stranger.bare("GET", blob, token, {"authorization": "SharedKey a:b"}),
            stranger.signed("PUT", blob + "2", "", {"x-ms-copy-source": here, "x-ms-requires-sync": "true"}),
            stranger.signed("PUT", blob + "2", "", {"x-ms-copy-source": here + "\u00e9 x"}),
            stranger.signed("HEAD", blob + "2"),
            stranger.signed("GET", f"/{container}", "restype=container&comp=list&include=copy"),
        ):  # fmt: skip
            assert signature.encode() not in answer.raw, answer
            assert signature.replace("%3D", "=").replace("%2F", "/").replace("%2B", "+").encode() not in answer.raw, (
                answer
            )
    for key in endpoint.keys:
        for answer in stranger.answers:
            assert key.encode() not in answer.raw
    log = endpoint.log()
    for text in [*sent, *endpoint.keys]:
        assert text not in log


def test_the_kernel_shows_no_key(endpoint: Endpoint) -> None:
    """Command lines are for everybody; environments, for the same user and every crash report."""
    for pid in [endpoint.process.pid, *endpoint.workers()]:
        for name in ("cmdline", "environ"):
            shown = Path(f"/proc/{pid}/{name}").read_bytes()
            for key in endpoint.keys:
                assert key.encode() not in shown, (pid, name)


def test_workers_hold_no_descriptor_of_others(endpoint: Endpoint) -> None:
    """A worker has its own tree, sockets and log, and no file that holds a key."""
    for pid in endpoint.workers():
        for number in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{number}")
            except FileNotFoundError:
                continue
            assert not target.endswith(("key1", "key2", "key3", "blobedge.toml", ".pem")), target


def test_nothing_is_served_without_credentials_beside_the_protocol(endpoint: Endpoint, stranger: Stranger) -> None:
    """No metrics, status, debug or admin page on the public listeners."""
    for path in (
        "/", "/metrics", "/status", "/health", "/healthz", "/debug", "/debug/pprof/", "/admin", "/config", "/env",
        "/server-status", "/.git/config", "/favicon.ico", "/robots.txt", "/api", "/minio/health/live", "/.well-known/x",
        "/victim", "/victim/",
    ):  # fmt: skip
        for method in ("GET", "POST", "PUT", "DELETE", "TRACE", "CONNECT", "PROPFIND"):
            headers = {"content-length": "0"} if method in ("POST", "PUT") else {}
            answer = stranger.send(method, path, headers)
            assert 400 <= answer.status < 500, (method, path, answer)
