"""A mount that hangs, under a real worker: its own requests are answered in time, all others as if nothing were.

Two accounts lie on two FUSE file systems, so that both are served by threads; one of them hangs on command. Needs root
and FUSE (mfusepy of the `test` extra, Debian's libfuse2). Deadlines are read from what the worker itself counted.
"""

import ctypes
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Final

import pytest

from dataplane.ipc import control, slots
from dataplane.ipc.gauges import FileSystemGauges
from dataplane.ipc.series import BOUNDS_SECONDS, Reading, read
from dataplane.ipc.settings import AccountSettings, LimitSettings, ListenerSettings, Settings, to_json
from tests.support import KEY, Answer, WireClient

CHECKOUT: Final = Path(__file__).parent.parent.parent
WAIT_SECONDS: Final = 30.0  # for what has to happen some time
THREADS: Final = 4  # of each kind, for each file system
STUCK: Final = 30  # requests, more than the threads of both kinds
STORAGE_SECONDS: Final = 4.5
ANSWER_SECONDS_MAX: Final = 5.0  # half a second more, and a bound of the histogram
DRAIN_SECONDS: Final = 1.0
STOP_SECONDS_MAX: Final = 5.0
CONTENT: Final = b"the same as before " * 1000
MNT_DETACH: Final = 2

assert ANSWER_SECONDS_MAX in BOUNDS_SECONDS


@dataclass
class HangingMount:
    """A mounted file system. It hangs between `hang` and `resume`."""

    path: Path
    hang_file: Path
    process: "subprocess.Popen[bytes]"

    def hang(self) -> None:
        self.hang_file.touch()

    def resume(self) -> None:
        self.hang_file.unlink(missing_ok=True)

    def end(self) -> None:
        """Unmount, whatever state it is in: without its process, calls that hang in it fail."""
        self.resume()
        self.process.kill()
        self.process.wait(WAIT_SECONDS)
        ctypes.CDLL(None).umount2(os.fsencode(self.path), MNT_DETACH)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[dict[str, HangingMount]]:
    """Two file systems: "good" and "bad"."""
    if os.geteuid() != 0:
        pytest.skip("mounting a FUSE file system needs root")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no /dev/fuse here")
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:
        pytest.skip(f"FUSE is missing: {error}")
    made: dict[str, HangingMount] = {}
    try:
        for name in ("good", "bad"):
            made[name] = _mount(tmp_path, name)
        for each in made.values():
            until(each.path.is_mount)
        yield made
    finally:
        for each in made.values():
            each.end()


def _mount(directory: Path, name: str) -> HangingMount:
    behind, path, hang_file = directory / f"{name}-behind", directory / name, directory / f"{name}-hangs"
    behind.mkdir()
    path.mkdir()
    program = Path(__file__).with_name("hanging_file_system.py")
    process = subprocess.Popen([sys.executable, str(program), str(behind), str(path), str(hang_file)])
    return HangingMount(path, hang_file, process)


@dataclass
class Worker:
    process: "subprocess.Popen[bytes]"
    channel: control.Channel
    slot: slots.Slot
    port: int
    clients: list[WireClient] = field(default_factory=list)

    def client(self, account: str) -> WireClient:
        """A client that is closed with the worker, at the latest."""
        self.clients.append(WireClient(self.port, account))
        return self.clients[-1]

    def reading(self) -> Reading:
        return read(self.slot)

    def gauges(self, mount: HangingMount) -> FileSystemGauges:
        return self.reading().file_systems[_device(mount)]


def _device(mount: HangingMount) -> int:
    """Of the mount point, from the kernel's list: a stat would hang."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == str(mount.path):
            major, minor = map(int, fields[2].split(":"))
            return os.makedev(major, minor)
    raise AssertionError("not mounted")


@pytest.fixture
def worker(mounts: dict[str, HangingMount]) -> Iterator[Worker]:
    with started(mounts) as running:
        yield running


@contextmanager
def started(mounts: dict[str, HangingMount]) -> Iterator[Worker]:
    """A worker that is ready, with an account for each mount."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    slot_fd = slots.create("test-worker")
    port = listening.getsockname()[1]
    here = mounts["bad"].path.with_name("here")  # on a file system that is local
    here.mkdir()
    roots = {name: each.path for name, each in mounts.items()} | {"here": here}
    accounts = tuple(AccountSettings(name, str(root), (KEY,)) for name, root in roots.items())
    limits = LimitSettings(
        data_threads_count=THREADS, metadata_threads_count=THREADS, storage_seconds_max=STORAGE_SECONDS
    )
    listener = ListenerSettings(listening.fileno(), "http", "127.0.0.1", port)
    ours, theirs = control.pair()
    ours.send(control.Start(to_json(Settings(0, 1, slot_fd, (listener,), accounts, limits=limits))))
    process = subprocess.Popen(
        [sys.executable, "-m", "dataplane", "--control-fd", str(theirs.fileno())],
        pass_fds=[theirs.fileno(), slot_fd, listening.fileno()], cwd=CHECKOUT,
    )  # fmt: skip
    theirs.close()
    slot = slots.Slot(slot_fd)
    try:
        assert isinstance(ours.receive(), control.Ready)
        running = Worker(process, ours, slot, port)
        yield running
        for client in running.clients:
            client.close()
    finally:
        for each in mounts.values():
            each.resume()
        process.kill()
        process.wait(WAIT_SECONDS)
        ours.close()
        slot.close()
        listening.close()
        os.close(slot_fd)


def _prepared(worker: Worker, account: str) -> WireClient:
    """A client of an account with a container and a blob."""
    client = worker.client(account)
    assert client.request("PUT", "/cont", {"restype": "container"}).status == 201
    _put(client, "/cont/blob")
    return client


def _put(client: WireClient, path: str) -> None:
    assert client.request("PUT", path, None, {"x-ms-blob-type": "BlockBlob"}, CONTENT).status == 201


def _one_stuck(worker: Worker, number: int) -> Answer:
    """A read, a write or a listing of the mount that hangs, by turns."""
    client = worker.client("bad")
    try:
        if number % 3 == 0:
            return client.request("GET", "/cont/blob")
        if number % 3 == 1:
            return client.request("PUT", f"/cont/new{number}", None, {"x-ms-blob-type": "BlockBlob"}, CONTENT)
        return client.request("GET", "/cont", {"restype": "container", "comp": "list"})
    finally:
        client.close()


def _stuck(worker: Worker, mount: HangingMount, threads: ThreadPoolExecutor) -> list["Future[Answer]"]:
    """More requests than there are threads, of which each thread has one."""
    mount.hang()
    requests = [threads.submit(_one_stuck, worker, number) for number in range(STUCK)]
    until(lambda: worker.gauges(mount).metadata.running == THREADS)
    return requests


def test_a_hung_mount_holds_up_its_own_requests_only(worker: Worker, mounts: dict[str, HangingMount]) -> None:
    good, bad = _prepared(worker, "good"), _prepared(worker, "bad")
    with ThreadPoolExecutor(STUCK) as threads:
        requests = _stuck(worker, mounts["bad"], threads)
        assert good.request("GET", "/cont/blob").body == CONTENT
        _put(good, "/cont/another")
        listed = good.request("GET", "/cont", {"restype": "container", "comp": "list"}).xml()
        assert [each.text for each in listed.iterfind("Blobs/Blob/Name")] == ["another", "blob"]
        assert good.request("GET", "", {"comp": "list"}).status == 200
        assert not any(each.done() for each in requests), "the good account waited for the bad one"
        answers = [each.result(WAIT_SECONDS) for each in requests]
    assert {(each.status, each.code) for each in answers} == {(500, "OperationTimedOut")}
    _in_time(worker.reading())

    mounts["bad"].resume()
    until(lambda: worker.gauges(mounts["bad"]).metadata.running == 0)
    assert bad.request("GET", "/cont/blob").body == CONTENT
    _put(bad, "/cont/after")
    for number in range(1, STUCK, 3):  # an answer of 500 leaves open whether it was written, but not half of it
        answer = bad.request("GET", f"/cont/new{number}")
        assert answer.status == 404 or answer.body == CONTENT
    _stop(worker, DRAIN_SECONDS)
    assert worker.process.wait(WAIT_SECONDS) == control.EXIT_OK


def _in_time(reading: Reading) -> None:
    """No answer took longer than the storage's time and half a second, as the worker counted it."""
    within = BOUNDS_SECONDS.index(ANSWER_SECONDS_MAX)
    assert {operation: sum(counts[within + 1 :]) for operation, counts in reading.histograms.items()} == dict.fromkeys(
        reading.histograms, 0
    )
    timed_out = sum(each.count for labels, each in reading.requests.items() if labels.error_code == "OperationTimedOut")
    assert timed_out == STUCK


def test_writes_that_wait_for_a_hung_commit(worker: Worker, mounts: dict[str, HangingMount]) -> None:
    """They got past the threads before; the other file system's group commit goes on."""
    good, _ = _prepared(worker, "good"), _prepared(worker, "bad")
    sizes = sum(worker.reading().group_sizes)
    assert sizes == 4
    with ThreadPoolExecutor(STUCK) as threads:
        _stuck(worker, mounts["bad"], threads)
        for number in range(8):
            _put(good, f"/cont/{number}")
    assert sum(worker.reading().group_sizes) == sizes + 8


def test_a_copy_from_a_hung_mount_to_a_local_one_is_answered_in_time(
    worker: Worker, mounts: dict[str, HangingMount]
) -> None:
    here, bad = _prepared(worker, "here"), worker.client("bad")
    public = {"x-ms-blob-public-access": "blob"}
    assert bad.request("PUT", "/open", {"restype": "container"}, public).status == 201
    _put(bad, "/open/blob")
    source = {"x-ms-copy-source": f"http://127.0.0.1:{worker.port}/bad/open/blob"}
    assert here.request("PUT", "/cont/copy", None, source).status == 202
    mounts["bad"].hang()
    answer = here.request("PUT", "/cont/copy", None, source)
    assert (answer.status, answer.code) == (500, "OperationTimedOut")


def test_a_worker_stops_in_time_with_requests_that_hang(worker: Worker, mounts: dict[str, HangingMount]) -> None:
    _prepared(worker, "bad")
    with ThreadPoolExecutor(STUCK) as threads:
        requests = _stuck(worker, mounts["bad"], threads)
        _stop(worker, DRAIN_SECONDS)
        mounts["bad"].resume()  # only now do the connections close, with the last thread
        for each in requests:
            assert isinstance(each.exception(WAIT_SECONDS), (OSError, HTTPException))
    assert worker.process.wait(WAIT_SECONDS) == control.EXIT_OK


def test_a_mount_that_hangs_while_the_worker_starts_joins_later(mounts: dict[str, HangingMount]) -> None:
    mounts["bad"].hang()
    with started(mounts) as worker:
        good, bad = _prepared(worker, "good"), worker.client("bad")
        assert good.request("GET", "/cont/blob").body == CONTENT
        answer = bad.request("PUT", "/cont", {"restype": "container"})
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "ServerBusy", "5")
        assert bad.request("GET", "/cont/blob").status == 503
        assert bad.request("GET", "", {"comp": "list"}).status == 503
        mounts["bad"].resume()
        until(lambda: bad.request("PUT", "/cont", {"restype": "container"}).status == 201)
        _put(bad, "/cont/blob")
        until(lambda: _device(mounts["bad"]) in worker.reading().file_systems)
        _stop(worker, DRAIN_SECONDS)


def _stop(worker: Worker, drain_seconds: float) -> None:
    """Threads that the kernel waits for in FUSE outlive even SIGKILL, unlike those in NFS; the process is over when its
    main thread is, and can be reaped when they are."""
    worker.channel.send(control.Stop(drain_seconds))
    deadline = time.monotonic() + STOP_SECONDS_MAX
    stat = Path(f"/proc/{worker.process.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "the worker goes on"
        time.sleep(0.01)
