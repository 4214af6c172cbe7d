"""Fixtures of the tests that talk to a server: one in-process server a module, a client and a container a test."""

import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support import InProcessServer, WireClient

# An example that takes long says that the machine is busy, not that the code is wrong.
settings.register_profile("suite", deadline=None, print_blob=True)
settings.load_profile("suite")

# Services that tests start have their admin sockets in here, not where those of this user's own services are.
_RUNTIME = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a run in the background; commands would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[_RUNTIME] = os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="blobedge-run.")


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_RUNTIME], ignore_errors=True)


_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessServer]:
    """A server over an empty root."""
    started = InProcessServer(tmp_path_factory.mktemp("root"))
    yield started
    started.close()


@pytest.fixture
def client(server: InProcessServer) -> Iterator[WireClient]:
    """A signing client of the account."""
    opened = server.client()
    yield opened
    opened.close()


@pytest.fixture
def container(client: WireClient) -> str:
    """The path of a new container, `/name`."""
    path = f"/container{next(_numbers)}"
    answer = client.request("PUT", path, {"restype": "container"})
    assert answer.status == 201
    return path
