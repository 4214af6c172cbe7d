"""Hung mounts: a question that blocks its thread, and, for root, a FUSE file system whose server never answers."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from agent.observability.mounts import MARKER, Facts, Mounts, Place, ask, places
from tests.observability.support import SECONDS_MAX, config

FACTS = Facts(1, 2, 3, 4, True)
GOOD, BAD = Place("good", "", "/good"), Place("bad", "c", "/bad")


class Server:
    """Answers at once for /good; for /bad when it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.let = threading.Event()

    def __call__(self, path: str) -> Facts:
        self.asked.append(path)
        if path == "/bad":
            assert self.let.wait(SECONDS_MAX)
        return FACTS


@pytest.mark.trio
async def test_a_hung_mount_has_one_thread_and_the_others_are_still_asked() -> None:
    server = Server()
    mounts = Mounts(server)
    began = trio.current_time()
    for _ in range(5):
        await mounts.look([GOOD, BAD], 0.2)
    assert trio.current_time() - began < 1.0  # the deadline was waited for once, not five times
    assert sorted(server.asked) == ["/bad", *["/good"] * 5]
    good, bad = mounts.readings()
    assert (good.facts, good.asked_at) == (FACTS, None)
    assert bad.facts is None
    assert bad.asked_at == pytest.approx(began, abs=0.2)

    server.let.set()
    while mounts.readings()[1].asked_at is not None:
        await trio.lowlevel.checkpoint()
    assert mounts.readings()[1].facts == FACTS
    await mounts.look([GOOD, BAD], SECONDS_MAX)
    assert server.asked.count("/bad") == 2


@pytest.mark.trio
async def test_a_mount_that_is_not_wanted_any_more_is_forgotten() -> None:
    mounts = Mounts(Server())
    await mounts.look([GOOD, BAD], 0.05)
    await mounts.look([GOOD], 0.05)
    assert [reading.place for reading in mounts.readings()] == [GOOD]


@pytest.mark.trio
async def test_real_directories(tmp_path: Path) -> None:
    here, gone = Place("a", "", str(tmp_path)), Place("b", "", str(tmp_path / "gone"))
    mounts = Mounts()
    (tmp_path / MARKER).parent.mkdir()
    (tmp_path / MARKER).write_text("1")
    await mounts.look([here, gone], SECONDS_MAX)
    (tmp_path / MARKER).unlink()
    await mounts.look([here, gone], SECONDS_MAX)
    first, second = mounts.readings()
    assert first.facts is not None
    assert (first.facts.marked, first.was_marked) == (False, True)
    assert (second.facts, second.error) == (None, "No such file or directory")
    assert ask(str(tmp_path)).size_bytes > 0


def test_places(tmp_path: Path) -> None:
    the_config = config(tmp_path)
    account = the_config.accounts[0].model_dump()
    account["containers"] = [{"name": "usual"}, {"name": "mapped", "path": "/mnt/x"}]
    mapped = type(the_config).model_validate({"accounts": [account]})
    assert [(each.name, each.path) for each in places(mapped)] == [("acct", str(tmp_path)), ("acct/mapped", "/mnt/x")]


HANGING_SERVER = """
import os, sys
fd = os.open("/dev/fuse", os.O_RDWR)
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
if libc.mount(b"hang", sys.argv[1].encode(), b"fuse.hang", 0, options):
    sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
print("mounted", flush=True)
sys.stdin.read()
"""  # it never reads a request of the kernel's, the first (FUSE_INIT) included, so every caller waits


@pytest.fixture
def hung_mount(tmp_path: Path) -> Iterator[Path]:
    """A real mount that never answers. Its end aborts all that wait for it."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("a hung FUSE mount needs root and /dev/fuse")
    directory = tmp_path / "hung"
    directory.mkdir()
    command = [sys.executable, "-c", HANGING_SERVER, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        try:
            if server.stdout.readline() != b"mounted\n":
                pytest.skip(f"FUSE cannot be mounted here: {server.stderr.read().decode()}")
            yield directory
        finally:
            subprocess.run(["umount", "-l", str(directory)], check=False, stderr=subprocess.DEVNULL)
            server.kill()


@pytest.mark.trio
async def test_a_real_hung_mount(hung_mount: Path) -> None:
    place = Place("acct", "", str(hung_mount))
    mounts = Mounts()
    began = trio.current_time()
    await mounts.look([place], 0.3)
    await mounts.look([place], 0.3)
    assert 0.3 <= trio.current_time() - began < 1.5
    (reading,) = mounts.readings()
    assert reading.asked_at is not None
    assert reading.facts is None
