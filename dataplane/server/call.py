"""One request on its way through a handler: what was asked, by whom, and how to reach the disk.

A handler is a coroutine function that takes a Call and returns a Response or raises BlobError. It never touches the
file system itself: metadata reads go through `read`, work that may take long through `blocking`, and every change is a
Job that `write` commits together with those of other requests. So whether the mount is quick enough for the event loop
is decided here, once.
"""

from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.etag import RANDOM_BITS, new_etag
from dataplane.blobapi.message import Request, Response
from dataplane.blobapi.operations import OperationSpec
from dataplane.server.diskpool import busy
from dataplane.server.patience import in_time
from dataplane.server.recallrefusals import check_known
from dataplane.server.recalls import LOOKS_COUNT_MAX
from dataplane.server.sender import discard
from dataplane.server.timings import Timings
from dataplane.store.errors import BytesAway

if TYPE_CHECKING:
    from dataplane.blobapi.authorization import Caller
    from dataplane.server.diskpool import DiskPools
    from dataplane.server.node import Account, Node
    from dataplane.store.commit import Job
    from dataplane.store.store import Store

T = TypeVar("T")
P = ParamSpec("P")


class Body(Protocol):
    """A request's body as handlers read it; BodyReader of the connection is one, EmptyBody another."""

    @property
    def length(self) -> int | None:
        """Bytes to come as the head announced them; None for a chunked body."""

    @property
    def waited_ns(self) -> int:
        """Nanoseconds that its reader has waited for the client so far."""

    async def read_all(self, bytes_max: int) -> bytes:
        """The whole body. Raises BlobError RequestBodyTooLarge when it is longer than bytes_max."""

    def chunks(self) -> AsyncIterator[bytes | memoryview]:
        """The body in large pieces; a piece is valid until the next one is asked for."""

    async def skip(self, bytes_max: int) -> bool:
        """Read the rest and forget it; False when it is longer than bytes_max, then the connection has to close."""

    def leave(self) -> None:
        """The request is answered without its handler: what the handler holds stays its own, more does not come."""


class EmptyBody:
    """The body of a request that has none (parts of a batch)."""

    length: int | None = 0
    waited_ns: int = 0

    async def read_all(self, bytes_max: int) -> bytes:
        return b""

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        return
        yield b""

    async def skip(self, bytes_max: int) -> bool:
        return True

    def leave(self) -> None:
        return None


@dataclass(slots=True)
class Call:
    """A routed and authorised request. `now` is its one reading of the clock, in whole seconds since the epoch.

    `secondary` tells that it came to the account's secondary name; the data is the same.
    """

    request: Request
    spec: OperationSpec
    caller: "Caller"
    body: Body
    account: "Account"
    node: "Node"
    now: int
    request_id: str
    secondary: bool = False
    timings: Timings = field(default_factory=Timings)

    @property
    def store(self) -> "Store":
        return self.account.store

    @property
    def pools(self) -> "DiskPools":
        """The threads for the file system that the request's container is on."""
        return self.account.pools(self.request.resource.container)

    @property
    def version(self) -> str:
        """The x-ms-version to answer as; versions compare as strings."""
        return self.request.version

    def new_etag(self) -> str:
        """A fresh ETag without quotes."""
        return new_etag(self.node.random.getrandbits(RANDOM_BITS))

    def new_guid(self) -> str:
        """A fresh GUID (lease and copy ids)."""
        return self.node.new_guid()

    def ticks(self) -> int:
        """The time in 100 ns ticks since the epoch, larger on every call (snapshot ids)."""
        return self.node.ticks()

    async def read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A metadata read of the store: at once when its file system is local, else on a thread for metadata."""
        if self.account.store.local():
            return self.timings.at_once(function, *args, **kwargs)
        return await self.timings.on_thread(self.pools.metadata, function, *args, **kwargs)

    async def blocking(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Anything that computes or waits for long (hashing, copying, listings), on a thread for data."""
        return await self.timings.on_thread(self.pools.data, function, *args, **kwargs)

    async def write(self, job: "Job[T]") -> T:
        """Commit a change of the store; returns when it is as durable as the container asks for."""
        return await self.timings.committed(self.account.committer, job)

    async def write_with_bytes(self, make: Callable[[], "Job[T]"]) -> T:
        """Commit a change that may need the bytes of a stub: they are brought then, and `make` makes another job.
        Raises what the job raises, and BlobError when they do not come."""
        for _ in range(LOOKS_COUNT_MAX):
            try:
                return await self.write(make())
            except BytesAway as away:
                state = await self.read(self.store.stat_blob, away.ref)
                if state is not None:
                    check_known(state.properties)
                await self.node.recalls.bring(self.account.name, away.ref, away.etag)
        raise busy()

    def query(self, name: str) -> str | None:
        """A query parameter, None when it is absent or empty."""
        return self.request.query.get(name) or None

    def require_header(self, name: str) -> str:
        """A header that the operation cannot do without. Raises BlobError MissingRequiredHeader."""
        value = self.request.header(name)
        if value is None:
            raise BlobError(ErrorCode.MISSING_REQUIRED_HEADER, header_name=name)
        return value

    def require_query(self, name: str) -> str:
        """A query parameter that the operation cannot do without. Raises BlobError MissingRequiredQueryParameter."""
        value = self.query(name)
        if value is None:
            raise BlobError(ErrorCode.MISSING_REQUIRED_QUERY_PARAMETER, query_name=name)
        return value


Handler = Callable[[Call], Coroutine[Any, Any, Response]]
#: A handler for what can be answered at once; None when it cannot, then nothing has happened yet.
SyncHandler = Callable[[Call], Response | None]


async def handled_in_time(handler: Handler, call: Call) -> Response:
    """The handler's answer on a mount that may hang. Raises BlobError OperationTimedOut, or what the handler raises."""
    return await in_time(handler(call), call.pools.bounds.call_seconds_max, call.body.leave, discard)
