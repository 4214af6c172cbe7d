"""The admin endpoint: serves health, status and the pages that it is given, where the configuration says.

A reload changes that too (doors.py); the default socket follows the port of the first listener.
"""

import logging
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import trio

from agent.listen import parse_listen
from agent.observability.doors import Doors
from agent.observability.health import Health
from agent.observability.http import Response, Routes, Server
from agent.observability.listeners import Address, Opened, open_all
from agent.observability.metrics import MountUsage, page
from agent.observability.mounts import Reading
from agent.observability.status import status_route
from agent.problems import OperatorError
from agent.supervision.service import Prepare
from agent.supervision.service import Service as RunningService
from agent.supervision.snapshot import Service

log = logging.getLogger("blobedge.admin")


async def serve(
    service: Service,
    routes: Routes,
    task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED,
    *,
    health: Health | None = None,
    follow: Callable[[Prepare], None] | None = None,
) -> None:
    """Serve until cancelled; `started` gives the URLs. `routes` are the pages besides health and status.

    `follow` gets what a reload calls. Without it, OperatorError is raised when an address cannot be had or the token
    cannot be read; with it that is told in the log and no more: clients are served all the same, and a reload tries
    again.
    """
    health = health or Health(service)
    server = Server({**health.routes(), **status_route(service, health), **routes})
    opened: dict[Address, Opened] = {}
    try:
        opened = open_all(service.config.admin, _first_port(service))
    except OperatorError as error:
        if follow is None:
            raise
        log.error("there is no admin endpoint: %s", error)
    async with trio.open_nursery() as nursery:
        doors = Doors(server, nursery, opened)
        if follow is not None:
            follow(doors.prepare)
        nursery.start_soon(health.observe)
        task_status.started(doors.urls())


async def companion(service: RunningService) -> None:
    """Serve all pages beside the workers, until cancelled, and follow the reloads."""
    health = Health(service)

    async def metrics(_query: Mapping[str, str]) -> Response:
        verdict = health.verdict()
        answering = {check.name for check in verdict.checks if check.status == "ok"}
        usages = [_usage(each, f"mount:{each.place.name}" in answering) for each in health.readings()]
        body, content_type = await page(service, usages, verdict)
        return Response(200, body, content_type)

    await serve(service, {"/metrics": metrics}, health=health, follow=service.follow_reloads)


def _usage(reading: Reading, answers: bool) -> MountUsage:
    """What metrics tell of a mount: nothing of one that hangs, whatever it said before."""
    place, facts = reading.place, reading.facts
    if facts is None or not answers:
        return MountUsage(place.account, place.container)
    return MountUsage(
        place.account, place.container, facts.free_bytes, facts.size_bytes, facts.free_inodes, facts.inodes
    )


def _first_port(service: Service) -> int:
    """The port that was really bound, as the URLs have it."""
    urls = service.snapshot().urls
    return (urlsplit(urls[0]).port if urls else None) or parse_listen(service.config.listen[0]).port
