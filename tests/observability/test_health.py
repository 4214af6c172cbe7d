"""The verdict and its pages, over a real socket, while mounts hang and workers die."""

import datetime
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from agent.commands.health import lines
from agent.observability.health import Health, Observations, Verdict, count_descriptors, judge, read_certificate
from agent.observability.http import Guard, Server
from agent.observability.mounts import Facts, Mounts, Place, Reading
from agent.supervision.snapshot import ReloadSnapshot, ReportSnapshot
from tests.observability.faults import write_certificate
from tests.observability.support import SECONDS_MAX, WORKER, FakeService, config, exchange

WELL = Facts(50, 100, 50, 100, True)
ROOT, MAPPED = Place("acct", "", "/data"), Place("acct", "mapped", "/mnt")
OBSERVED = Observations([Reading(ROOT, WELL), Reading(MAPPED, WELL)])


def verdict(service: FakeService, seen: Observations = OBSERVED) -> Verdict:
    return judge(service, service.snapshot(), seen, monotonic=100.0, unix=100.0)


@pytest.fixture
def service(tmp_path: Path) -> FakeService:
    return FakeService(config(tmp_path, health={"interval_seconds": 0.5, "mount_seconds_max": 0.3}))


def test_all_is_well(service: FakeService) -> None:
    found = verdict(service)
    assert (found.status, found.ready) == ("ok", True)
    assert lines(found.document()) == [f"BLOBEDGE OK - {len(found.checks)} checks are ok"]


@pytest.mark.parametrize(
    ("change", "status", "ready"),
    [
        ({"state": "stopping"}, "failing", False),
        ({"state": "starting"}, "failing", False),
        ({"state": "reloading"}, "ok", True),
        ({"processes": ()}, "failing", False),
        ({"processes": (replace(WORKER, state="idle"),)}, "failing", False),
        ({"processes": (WORKER, replace(WORKER, number=1, state="idle"))}, "degraded", True),
        ({"last_reload": ReloadSnapshot(2, "refused", 1.0, ("f:3: no",))}, "degraded", True),
        ({"reports": (ReportSnapshot("cloud", 99.0, {"error": "TLS"}),)}, "degraded", True),
    ],
)
def test_states(service: FakeService, change: dict[str, Any], status: str, ready: bool) -> None:
    service.change(**change)
    found = verdict(service)
    assert (found.status, found.ready) == (status, ready)
    assert (found.checks[0].status != "ok") == (status != "ok")  # the worst comes first


def test_one_mount_away_is_degraded_and_all_roots_away_is_failing(service: FakeService) -> None:
    mapped_away = verdict(service, Observations([Reading(ROOT, WELL), Reading(MAPPED, error="away")]))
    assert (mapped_away.status, mapped_away.ready) == ("degraded", True)
    root_away = verdict(service, Observations([Reading(ROOT, error="away"), Reading(MAPPED, WELL)]))
    assert (root_away.status, root_away.ready) == ("failing", False)
    said = lines(root_away.document())
    assert said == ["BLOBEDGE CRITICAL - /data: away", "failing: mount:acct: /data: away"]


async def ask(url: str, path: str) -> tuple[int, Any]:
    answer = await exchange(url, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.trio
async def test_a_mount_that_begins_to_hang_is_told_within_two_seconds_and_no_answer_waits(service: FakeService) -> None:
    hang, let = threading.Event(), threading.Event()

    def question(_path: str) -> Facts:
        assert not hang.is_set() or let.wait(SECONDS_MAX)
        return WELL

    health = Health(service, Mounts(question))
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"

    async def until(path: str, status: int) -> float:
        began = trio.current_time()
        while True:
            found, _ = await ask(url, path)  # that it comes, while the mount's question is held back, is the point
            if found == status:
                return trio.current_time() - began

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(health.observe)
            nursery.start_soon(Server(health.routes()).serve, listener, Guard())
            await until("/health/ready", 200)
            hang.set()
            assert await until("/health/ready", 503) < 2.0
            status, answer = await ask(url, "/health/ready")
            assert (status, answer["status"]) == (503, "failing")
            assert "it hangs" in answer["checks"][0]["reason"]
            assert (await ask(url, "/health/live"))[0] == 200
            assert (await ask(url, "/health/startup"))[0] == 200  # it did start
            let.set()
            await until("/health/ready", 200)
            nursery.cancel_scope.cancel()
    finally:
        let.set()


@pytest.mark.trio
async def test_startup_before_and_after_ready(service: FakeService) -> None:
    health = Health(service)
    startup = health.routes()["/health/startup"]
    service.change(state="starting")
    assert (await startup({})).status == 503
    service.change(state="ready")
    assert (await startup({})).status == 200
    service.change(state="stopping")
    assert (await startup({})).status == 200


@pytest.mark.trio
async def test_live_fails_when_the_observer_has_stopped(service: FakeService, autojump_clock: object) -> None:
    health = Health(service, Mounts(lambda _path: WELL))
    live = health.routes()["/health/live"]
    assert (await live({})).status == 200
    await trio.sleep(60)  # of the test's clock; nobody observes
    answer = await live({})
    assert answer.status == 503
    assert "late" in json.loads(answer.body)["checks"][0]["reason"]


def test_certificate(tmp_path: Path) -> None:
    ends = datetime.datetime(2031, 5, 6, tzinfo=datetime.UTC)
    write_certificate(tmp_path, ends)
    assert read_certificate(str(tmp_path / "cert.pem")).expires_at == ends.timestamp()
    (tmp_path / "cert.pem").write_bytes(b"not PEM")
    assert read_certificate(str(tmp_path / "cert.pem")).expires_at is None
    assert "No such file" in read_certificate(str(tmp_path / "none.pem")).error


def test_descriptors_of_this_process_and_of_none() -> None:
    import os

    (mine,) = count_descriptors({"me": os.getpid(), "gone": 2**22})
    assert mine.who == "me"
    assert 0 < mine.open < mine.limit
