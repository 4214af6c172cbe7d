"""A reload that changes where the admin endpoint is, or its token: bound first, then exchanged; else refused whole."""

import http.client
import socket
from collections.abc import Callable
from pathlib import Path

import trio

from agent.config import Admin
from agent.observability import client
from agent.observability.admin import companion
from agent.supervision.plan import Plan
from agent.supervision.service import Service
from tests.agent.in_process import Scenario, make_plan, run

OLD_TOKEN, NEW_TOKEN = "o" * 32, "n" * 32
PAGE = "/health/startup"


def admin(*listen: str, token: Path | None = None) -> Admin:
    return Admin(listen=list(listen), token_file=None if token is None else str(token))


def unix(path: Path) -> str:
    return f"unix:{path}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


async def answers(url: str) -> bool:
    """Whether the service answers there."""
    try:
        await trio.to_thread.run_sync(client.get, url, PAGE)
    except client.Unreachable:
        return False
    return True


async def status(port: int, token: str) -> int:
    """The status of an answer over TCP."""

    def ask() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", PAGE, headers={"Authorization": f"Bearer {token}"})
        found = connection.getresponse().status
        connection.close()
        return found

    return await trio.to_thread.run_sync(ask)


async def reload(service: Service, load: Callable[[], Plan]) -> tuple[str, tuple[str, ...]]:
    """Reload; returns how it ended and the problems."""
    async with trio.open_nursery() as nursery:
        await service.reload(load, nursery)
    last = service.snapshot().last_reload
    assert last is not None
    return last.state, last.problems


def supervised(scenario: Scenario, first: Plan) -> None:
    assert run(scenario, first, beside=[companion]) == 0


def test_the_endpoint_moves_and_the_old_one_is_gone(tmp_path: Path) -> None:
    old, new, port = tmp_path / "old.sock", tmp_path / "new.sock", free_port()
    tcp = f"http://127.0.0.1:{port}"

    async def scenario(service: Service) -> None:
        assert await answers(unix(old))
        both = admin(unix(old), unix(new))
        assert await reload(service, lambda: make_plan(tmp_path, 1, admin=both)) == ("done", ())
        assert await answers(unix(old))
        assert await answers(unix(new))
        moved = admin(unix(new), tcp)
        assert await reload(service, lambda: make_plan(tmp_path, 1, admin=moved)) == ("done", ())
        assert await answers(unix(new))
        assert await answers(tcp)
        assert not old.exists()

    supervised(scenario, make_plan(tmp_path, 1, admin=admin(unix(old))))
    assert not new.exists()


def test_a_new_token_is_asked_for_on_the_same_port(tmp_path: Path) -> None:
    token, port = tmp_path / "token", free_port()
    token.write_text(OLD_TOKEN)
    first = make_plan(tmp_path, 1, admin=admin(f"http://127.0.0.1:{port}", token=token))

    async def scenario(service: Service) -> None:
        assert [await status(port, each) for each in (OLD_TOKEN, NEW_TOKEN)] == [200, 401]
        token.write_text(NEW_TOKEN)
        assert await reload(service, lambda: first) == ("done", ())
        assert [await status(port, each) for each in (OLD_TOKEN, NEW_TOKEN)] == [401, 200]

    supervised(scenario, first)


def test_an_address_that_cannot_be_had_refuses_the_whole(tmp_path: Path) -> None:
    old, new = tmp_path / "old.sock", tmp_path / "new.sock"

    async def scenario(service: Service) -> None:
        workers = {child.pid for child in service.fleet.current}
        with socket.create_server(("127.0.0.1", 0)) as taken:
            tcp = f"http://127.0.0.1:{taken.getsockname()[1]}"
            wanted = make_plan(tmp_path, 1, admin=admin(unix(new), tcp))
            state, problems = await reload(service, lambda: wanted)
        assert state == "failed"
        assert problems == (f"cannot listen on {tcp} for admin: Address already in use",)
        assert not new.exists()
        assert await answers(unix(old))
        assert {child.pid for child in service.fleet.current} == workers

    supervised(scenario, make_plan(tmp_path, 1, admin=admin(unix(old))))


def test_workers_that_cannot_boot_leave_the_endpoint_where_it_was(tmp_path: Path) -> None:
    old, new = tmp_path / "old.sock", tmp_path / "new.sock"

    async def scenario(service: Service) -> None:
        state, _ = await reload(service, lambda: make_plan(tmp_path, 1, "refuse", admin=admin(unix(new))))
        assert state == "failed"
        assert not new.exists()
        assert await answers(unix(old))

    supervised(scenario, make_plan(tmp_path, 1, admin=admin(unix(old))))


def test_a_service_that_began_without_its_endpoint_gets_it_by_a_reload(tmp_path: Path) -> None:
    new = tmp_path / "new.sock"

    async def scenario(service: Service) -> None:
        assert await reload(service, lambda: make_plan(tmp_path, 1, admin=admin(tcp))) == ("done", ())
        assert await reload(service, lambda: make_plan(tmp_path, 1, admin=admin(unix(new)))) == ("done", ())
        assert await answers(unix(new))

    with socket.create_server(("127.0.0.1", 0)) as taken:
        tcp = f"http://127.0.0.1:{taken.getsockname()[1]}"
        supervised(scenario, make_plan(tmp_path, 1, admin=admin(tcp)))
