"""Every page beside the real supervisor and its real workers, in this process."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from agent.observability import admin, client
from agent.supervision.plan import plan
from agent.supervision.service import Service
from agent.supervision.supervisor import supervise
from tests.observability.support import SECONDS_MAX, config, exchange


@pytest.mark.trio
async def test_pages_of_a_real_service(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    url = f"unix:{tmp_path}/a.sock"
    tables = {"admin": {"listen": [url]}, "listen": ["http://127.0.0.1:0"], "workers": 1}
    the_plan = plan(config(tmp_path / "root", **tables))
    ready, services = trio.Event(), []

    async def announce(_urls: Sequence[str]) -> None:
        ready.set()

    async def beside(service: Service) -> None:
        services.append(service)
        await admin.companion(service)

    async def serve() -> None:
        await supervise(the_plan, announce, companions=(beside,))

    with trio.fail_after(SECONDS_MAX):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await ready.wait()
            while (await trio.to_thread.run_sync(client.get, url, "/health/ready"))[0] != 200:
                await trio.lowlevel.checkpoint()
            status, document = await trio.to_thread.run_sync(client.get, url, "/status")
            assert (status, document["state"], document["health"]["status"]) == (200, "ready", "ok")
            metrics = await exchange(url, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert metrics.startswith(b"HTTP/1.1 200 ")
            assert b"blobedge_" in metrics
            services[0].stop(1.0)
