"""The queue's socket: what `blobedge queue` asks the sidecar, as JSON over HTTP on a Unix socket.

    GET  /queue/status    totals, link, pace, scan: the document that `status` and the metrics are made of
    GET  /queue/rows      a page of rows: account, container, prefix, residency=a,b hold=a,b, failure, after, limit
    GET  /queue/blob      the row of account, container, name
    POST /queue/act       act=retry|hold|release|confirm|drop|pin|unpin on the next slice of what the filter lets by
    POST /queue/pause     nothing is sent until resume, not even after a restart
    POST /queue/resume    go on; confirm_deletes=1: with the deletes that the fuse stopped, too
    POST /queue/scan      look at everything on the mounts now
    /residency/...        where bytes are: agent/offload/residency.py

The socket has mode 0600 and is in a directory that others cannot enter, or that the unit owns: who may use it may
delete in the cloud. Its name is made of the queue's directory, and only the sidecar that holds the queue's lock binds
it, so two never meet. The address is in the status of the service, where the command finds it.
"""

import hashlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import trio

from agent.observability.address import default_socket, make_directory
from agent.observability.http import Guard, Refused, Response, Routes, Server, json_response
from agent.offload.acts import HELD, Act
from agent.offload.asyncqueue import AsyncQueue
from agent.offload.delivery import MOUNT
from agent.offload.engine import BUG
from agent.offload.failures import Kind
from agent.offload.fuse import FAILURE as FUSE
from agent.offload.queries import BadCursor, Filter
from agent.offload.rows import Row
from agent.offload.states import COPY_LOST, Hold, Residency

HEAD_BYTES_MAX: Final = 64 * 1024  # a name of 1,024 characters, percent-encoded, twice
ROWS_DEFAULT: Final = 100
ROWS_MAX: Final = 1_000
SOCKET_MODE: Final = 0o600
BACKLOG_COUNT: Final = 16
ANY_HOLD: Final = "any"
#: What a row's failure can be. A link that is down is none of a blob.
FAILURES: Final = (*(kind.value for kind in Kind if kind is not Kind.LINK), MOUNT, FUSE, HELD, BUG, COPY_LOST)
_DIGEST_BYTES: Final = 6

E = TypeVar("E", Act, Hold, Residency)


class Engine(Protocol):
    """What the socket needs of the engine."""

    async def status(self) -> dict[str, Any]:
        """The document of /queue/status."""
        ...

    async def pause(self) -> None:
        """Start nothing any more."""
        ...

    async def resume(self, *, confirm_deletes: bool) -> None:
        """Go on."""
        ...

    async def scan(self) -> None:
        """Look at everything on the mounts, from the beginning."""
        ...

    def wake(self) -> None:
        """There may be work."""
        ...


def socket_path(directory: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the socket of the queue in `directory` is: beside the admin endpoint's."""
    digest = hashlib.blake2b(os.fsencode(directory), digest_size=_DIGEST_BYTES).hexdigest()
    return default_socket(environ, os.geteuid(), 0).with_name(f"queue-{digest}.sock")


def bind(path: Path) -> socket.socket:
    """The bound socket; one that is there already is what a killed sidecar left. Raises OSError, OperatorError."""
    if not os.environ.get("RUNTIME_DIRECTORY"):  # systemd makes that one, with the mode of the unit
        make_directory(path.parent, os.geteuid())
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        path.unlink(missing_ok=True)
        sock.bind(str(path))
        path.chmod(SOCKET_MODE)  # before listen: until then nobody can connect
        sock.listen(BACKLOG_COUNT)
    except BaseException:
        sock.close()
        raise
    return sock


async def serve(sock: socket.socket, queue: AsyncQueue, engine: Engine, more: tuple[Routes, Routes] = ({}, {})) -> None:
    """Answer until cancelled; closes the socket. `more`: pages of others, those that change nothing first."""
    routes, actions = ({**own, **other} for own, other in zip(_routes(queue, engine), more, strict=True))
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    await Server(routes, actions, HEAD_BYTES_MAX).serve(listener, Guard())


def _routes(queue: AsyncQueue, engine: Engine) -> tuple[Routes, Routes]:
    async def status(_query: Mapping[str, str]) -> Response:
        return json_response(await engine.status())

    async def rows(query: Mapping[str, str]) -> Response:
        wanted, limit = read_filter(query), _limit(query)
        try:
            page = await queue(lambda q: q.rows(wanted, query.get("after"), limit))
        except BadCursor as error:
            raise Refused(400, f"after: {error}") from None
        return json_response({"rows": [document(row) for row in page.rows], "after": page.after})

    async def blob(query: Mapping[str, str]) -> Response:
        try:
            names = query["account"], query["container"], query["name"]
        except KeyError as error:
            raise Refused(400, f"{error.args[0]} is needed") from None
        row = await queue(lambda q: q.find(*names))
        return json_response({"row": document(row) if row else None})

    async def act(query: Mapping[str, str]) -> Response:
        wanted, what = read_filter(query), _one_of(Act, query.get("act", ""))
        try:
            done = await queue(lambda q: q.act(what, wanted, query.get("after")))
        except BadCursor as error:
            raise Refused(400, f"after: {error}") from None
        engine.wake()
        return json_response({"rows": done.rows, "after": done.after})

    async def pause(_query: Mapping[str, str]) -> Response:
        await engine.pause()
        return json_response({"paused": True})

    async def resume(query: Mapping[str, str]) -> Response:
        await engine.resume(confirm_deletes=query.get("confirm_deletes") == "1")
        return json_response({"paused": False})

    async def scan(_query: Mapping[str, str]) -> Response:
        await engine.scan()
        return json_response({"asked": True})

    reads = {"/queue/status": status, "/queue/rows": rows, "/queue/blob": blob}
    return reads, {"/queue/act": act, "/queue/pause": pause, "/queue/resume": resume, "/queue/scan": scan}


def document(row: Row) -> dict[str, Any]:
    """A row as JSON. Times stay whole nanoseconds since 1970 UTC, 0 for never; there is no secret in it."""
    return row._asdict()


def read_filter(query: Mapping[str, str]) -> Filter:
    """The rows that a query means. Raises Refused for words that are none."""
    residency, hold, failure = query.get("residency"), query.get("hold"), query.get("failure")
    if failure is not None and failure not in FAILURES:
        raise Refused(400, f"{failure!r} is none of {', '.join(FAILURES)}")
    if hold == ANY_HOLD:
        hold = ",".join(each for each in Hold if each is not Hold.NONE)
    return Filter(
        account=query.get("account"),
        container=query.get("container"),
        prefix=query.get("prefix", ""),
        residencies=None if residency is None else _words(Residency, residency),
        holds=None if hold is None else _words(Hold, hold),
        failure=failure,
    )


def _words(kind: type[E], text: str) -> frozenset[E]:
    return frozenset(_one_of(kind, word) for word in text.split(","))


def _one_of(kind: type[E], word: str) -> E:
    try:
        return kind(word)
    except ValueError:
        raise Refused(400, f"{word!r} is none of {', '.join(each.value for each in kind if each.value)}") from None


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", str(ROWS_DEFAULT))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= ROWS_MAX:
        raise Refused(400, f"limit is a number from 1 to {ROWS_MAX}")
    return int(text)
