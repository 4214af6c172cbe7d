"""One endpoint for all attacks. After each test nothing may have gone wrong inside it, and nothing may have leaked."""

import itertools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.client import Stranger
from tests.security.endpoint import OUTSIDE_TEXT, WORKER_LOST, Endpoint
from tests.server.certificate import self_signed

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """The endpoint under attack; at the end it must stop as if nothing had happened."""
    scratch = tmp_path_factory.mktemp("attacked")
    self_signed(scratch)
    started = Endpoint(scratch)
    try:
        yield started
        assert started.stop() == 0
        for trouble in ("Traceback", "Fatal Python error", WORKER_LOST):
            assert trouble not in started.log(), started.log()[-4000:]
        for key in started.keys:
            assert key not in started.log()
    finally:
        if started.process.poll() is None:
            started.stop()
        subprocess.run(["rm", "-rf", str(scratch)], check=True)  # shutil's recursion is not up to what the tests leave


@pytest.fixture
def stranger(endpoint: Endpoint) -> Iterator[Stranger]:
    """A client. Whatever it was answered in the test may not be a 500, nor show a path, a key or the operator's
    file."""
    seen_before = endpoint.log().count("Traceback")
    opened = endpoint.stranger()
    yield opened
    opened.close()
    traces = endpoint.log().split("Traceback")[1 + seen_before :]
    assert not traces, traces[0][-3000:]
    for answer in opened.answers:
        assert answer.status != 500, answer
        check_no_leak(endpoint, answer.raw)


def check_no_leak(endpoint: Endpoint, raw: bytes) -> None:
    """Neither a path of the machine, nor a key, nor what lies outside of the root."""
    assert str(endpoint.scratch).encode() not in raw, raw
    assert OUTSIDE_TEXT.encode() not in raw, raw
    assert re.search(rb"root:[^:]*:0:0", raw) is None, raw  # the line of /etc/passwd that everybody has
    for key in endpoint.keys:
        assert key.encode() not in raw, raw


@pytest.fixture
def container(endpoint: Endpoint, stranger: Stranger) -> str:
    """The name of a new container."""
    name = f"attacked{next(_numbers)}"
    assert stranger.signed("PUT", f"/{name}", "restype=container").status == 201
    return name


@pytest.fixture
def directory(endpoint: Endpoint, container: str) -> Path:
    """The container as its NFS users see it."""
    return endpoint.root / container
