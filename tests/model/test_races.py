"""Requests that race for one blob through two workers: exactly one wins, nobody is lied to, no update is lost.

Threads hold one connection to each worker and take turns between them. What is checked holds for every interleaving, so
the tests pass or fail by what the product does and not by timing; more rounds (BLOBEDGE_RACE_ROUNDS) only look longer.
"""

from __future__ import annotations

import base64
import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from tests.support import Answer, WireClient

from .cluster import WORKERS, Cluster, path_of

T = TypeVar("T")

THREADS = 8
ROUNDS = int(os.environ.get("BLOBEDGE_RACE_ROUNDS", "12"))
INCREMENTS = ROUNDS  # of each thread
LARGE_BYTES = 300_000  # received into a file, not into memory
NAMES = ("a", "a/b", "a/b/c", "a/", "a//b", "a/b/", "a/b/c/d", "a.")
BLOCK_BLOB = {"x-ms-blob-type": "BlockBlob"}
_containers = itertools.count(1)


@pytest.fixture(scope="module", params=["relaxed", "strict"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("races")
    started = Cluster(directory / "root", directory / "serve.log", request.param)
    yield started
    started.stop()


@pytest.fixture
def racers(cluster: Cluster) -> Iterator[list[Racer]]:
    """Threads' worth of clients, in a container of their own."""
    container = f"races{next(_containers)}"
    made = [Racer(cluster, container, number) for number in range(THREADS)]
    assert made[0].request("PUT", "", {"restype": "container"}).status == 201
    yield made
    for racer in made:
        racer.close()


class Racer:
    """One client of a race: its requests go to the workers in turn."""

    def __init__(self, cluster: Cluster, container: str, number: int) -> None:
        self.cluster, self.container, self.number = cluster, container, number
        self._clients = list(cluster.connect_to_each().values())
        self._turn = itertools.count(number)
        self.seen: dict[str, bytes] = {}  # ETag -> content

    def request(
        self, method: str, name: str, query: dict[str, str] | None = None, headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:  # fmt: skip
        client: WireClient = self._clients[next(self._turn) % WORKERS]
        answer = client.request(method, path_of(self.container, name), query, headers, body)
        assert answer.status < 500, answer.body
        return answer

    def put(self, name: str, body: bytes, **headers: str) -> Answer:
        return self.request("PUT", name, {}, BLOCK_BLOB | {n.replace("_", "-"): v for n, v in headers.items()}, body)

    def get(self, name: str) -> Answer:
        """Read a blob; the same ETag is always the same content."""
        answer = self.request("GET", name)
        if answer.status == 200:
            content = answer.body + answer.headers.get("x-ms-meta-n", "").encode()
            assert self.seen.setdefault(answer.headers["etag"], content) == content
        return answer

    def close(self) -> None:
        for client in self._clients:
            client.close()


def race(racers: list[Racer], run: Callable[[Racer], T]) -> list[T]:
    """Run something in one thread for each racer, all starting together; raises what the first to fail raised."""
    barrier = threading.Barrier(len(racers))

    def start(racer: Racer) -> T:
        barrier.wait()
        return run(racer)

    with ThreadPoolExecutor(len(racers)) as pool:
        return list(pool.map(start, racers))


def outcomes(answers: list[Answer]) -> Counter[tuple[int, str]]:
    return Counter((answer.status, answer.code) for answer in answers)


# --- compare and swap ---


def put_small(racer: Racer, value: int, etag: str) -> Answer:
    return racer.put("n", b"%d" % value, if_match=etag)


def put_large(racer: Racer, value: int, etag: str) -> Answer:
    return racer.put("n", b"%d" % value + b" " * LARGE_BYTES, if_match=etag)


def set_metadata(racer: Racer, value: int, etag: str) -> Answer:
    return racer.request("PUT", "n", {"comp": "metadata"}, {"x-ms-meta-n": str(value), "if-match": etag})


def put_blocks(racer: Racer, value: int, etag: str) -> Answer:
    """A block of the racer's own, committed beside all blocks that others have uncommitted."""
    block_id = base64.b64encode(b"%04d" % racer.number).decode()
    staged = racer.request("PUT", "n", {"comp": "block", "blockid": block_id}, {}, b"%d" % value)
    assert staged.status == 201
    body = f"<BlockList><Latest>{block_id}</Latest></BlockList>".encode()
    return racer.request("PUT", "n", {"comp": "blocklist"}, {"if-match": etag}, body)


@pytest.mark.parametrize("write", [put_small, put_large, set_metadata, put_blocks])
def test_counter(racers: list[Racer], write: Callable[[Racer, int, str], Answer]) -> None:
    """Compare and swap: every value is written once, and the last is the number of writes."""
    assert racers[0].put("n", b"0").status == 201

    def count(racer: Racer) -> list[int]:
        written: list[int] = []
        while len(written) < INCREMENTS:
            before = racer.get("n")
            value = int(before.headers.get("x-ms-meta-n") or before.body) + 1
            answer = write(racer, value, before.headers["etag"])
            if answer.status < 300:
                written.append(value)
                assert answer.headers["etag"] != before.headers["etag"]
            else:
                # A block that another commit took along is not there any more: that commit changed the ETag too.
                assert (answer.status, answer.code) in ((412, "ConditionNotMet"), (400, "InvalidBlockList"))
        return written

    values = sorted(itertools.chain.from_iterable(race(racers, count)))
    assert values == list(range(1, THREADS * INCREMENTS + 1))
    last = racers[0].get("n")
    assert int(last.headers.get("x-ms-meta-n") or last.body) == THREADS * INCREMENTS
    seen: dict[str, bytes] = {}
    for racer in racers:
        for etag, content in racer.seen.items():
            assert seen.setdefault(etag, content) == content


# --- one wins ---


@pytest.mark.parametrize("size", [1, LARGE_BYTES])
def test_creation(racers: list[Racer], size: int) -> None:
    """If-None-Match: * is for one of them, whose content stays."""

    def create(racer: Racer) -> Answer:
        return racer.put(name, b"%d" % racer.number * size, if_none_match="*")

    for number in range(ROUNDS):
        name = f"{number}/blob"
        answers = race(racers, create)
        assert outcomes(answers) == {(201, ""): 1, (409, "BlobAlreadyExists"): THREADS - 1}
        (winner,) = (r for r, answer in zip(racers, answers, strict=True) if answer.status == 201)
        found = racers[0].get(name)
        assert found.body == b"%d" % winner.number * size
        assert found.headers["etag"] == answers[winner.number].headers["etag"]


def test_creation_by_commit_and_by_copy(racers: list[Racer]) -> None:
    assert racers[0].put("source", b"copied").status == 201
    url = racers[0].cluster.url(path_of(racers[0].container, "source"))

    def create(racer: Racer) -> Answer:
        if racer.number % 2:
            return racer.request("PUT", name, {}, {"x-ms-copy-source": url, "if-none-match": "*"})
        return racer.request("PUT", name, {"comp": "blocklist"}, {"if-none-match": "*"}, b"<BlockList />")

    for number in range(ROUNDS):
        name = f"{number}/blob"
        answers = race(racers, create)
        statuses = sorted(answer.status for answer in answers)
        assert statuses[0] in (201, 202)
        assert statuses[1:] == [409] * (THREADS - 1)
        (winner,) = (r for r, answer in zip(racers, answers, strict=True) if answer.status < 300)
        assert racers[0].get(name).body == (b"copied" if winner.number % 2 else b"")


def test_deletion(racers: list[Racer]) -> None:
    for _ in range(ROUNDS):
        assert racers[0].put("d/blob", b"x").status == 201
        answers = race(racers, lambda r: r.request("DELETE", "d/blob"))
        assert outcomes(answers) == {(202, ""): 1, (404, "BlobNotFound"): THREADS - 1}


def test_one_change_of_a_version(racers: list[Racer]) -> None:
    """Overwriting, changing and deleting the same version: one of them is first, the others see that it was."""

    def change(racer: Racer) -> Answer:
        condition = {"if-match": etag}
        kind = racer.number % 4
        if kind == 0:
            return racer.request("DELETE", "v", {}, condition)
        if kind == 1:
            return racer.request("PUT", "v", {"comp": "metadata"}, {**condition, "x-ms-meta-k": "v"})
        if kind == 2:
            return racer.request("PUT", "v", {"comp": "properties"}, {**condition, "x-ms-blob-content-type": "a/b"})
        return racer.put("v", b"new", if_match=etag)

    for _ in range(ROUNDS):
        etag = racers[0].put("v", b"old").headers["etag"]
        found = outcomes(race(racers, change))
        won = sum(count for (status, _), count in found.items() if status < 300)
        refused = found[412, "ConditionNotMet"] + found[404, "BlobNotFound"]
        assert (won, refused) == (1, THREADS - 1), found


def test_lease(racers: list[Racer]) -> None:
    """One gets the lease, and it alone may write."""

    def lease_id(racer: Racer) -> str:
        return f"00000000-0000-4000-8000-{racer.number:012d}"

    def acquire(racer: Racer) -> Answer:
        headers = {"x-ms-lease-action": "acquire", "x-ms-lease-duration": "-1"}
        headers["x-ms-proposed-lease-id"] = lease_id(racer)
        return racer.request("PUT", "leased", {"comp": "lease"}, headers)

    def write(racer: Racer) -> Answer:
        return racer.put("leased", b"%d" % racer.number, x_ms_lease_id=lease_id(racer))

    assert racers[0].put("leased", b"").status == 201
    for _ in range(ROUNDS):
        answers = race(racers, acquire)
        assert outcomes(answers) == {(201, ""): 1, (409, "LeaseAlreadyPresent"): THREADS - 1}
        (winner,) = (r for r, answer in zip(racers, answers, strict=True) if answer.status == 201)
        writes = race(racers, write)
        assert outcomes(writes) == {(201, ""): 1, (412, "LeaseIdMismatchWithBlobOperation"): THREADS - 1}
        assert racers[0].get("leased").body == b"%d" % winner.number
        headers = {"x-ms-lease-action": "release", "x-ms-lease-id": lease_id(winner)}
        assert winner.request("PUT", "leased", {"comp": "lease"}, headers).status == 200


def test_container_creation_and_deletion(racers: list[Racer]) -> None:
    for number in range(ROUNDS):
        name = f"{racers[0].container}x{number}"
        others = [Racer(r.cluster, name, r.number) for r in racers]
        made = race(others, lambda r: r.request("PUT", "", {"restype": "container"}))
        assert outcomes(made) == {(201, ""): 1, (409, "ContainerAlreadyExists"): THREADS - 1}
        gone = race(others, lambda r: r.request("DELETE", "", {"restype": "container"}))
        assert outcomes(gone) == {(202, ""): 1, (404, "ContainerNotFound"): THREADS - 1}
        for other in others:
            other.close()


# --- nothing is lost ---


def test_snapshots(racers: list[Racer]) -> None:
    """Every snapshot has an instant of its own, whichever worker took it."""
    assert racers[0].put("s", b"x").status == 201

    def take(racer: Racer) -> list[str]:
        answers = [racer.request("PUT", "s", {"comp": "snapshot"}) for _ in range(ROUNDS)]
        assert {answer.status for answer in answers} == {201}
        return [answer.headers["x-ms-snapshot"] for answer in answers]

    taken = list(itertools.chain.from_iterable(race(racers, take)))
    assert len(set(taken)) == THREADS * ROUNDS
    query = {"restype": "container", "comp": "list", "include": "snapshots"}
    listed = [node.text for node in racers[0].request("GET", "", query).xml().iter("Snapshot")]
    assert listed == sorted(taken)


@pytest.mark.parametrize("size", [1, LARGE_BYTES])
def test_blocks(racers: list[Racer], size: int) -> None:
    """Blocks that arrive side by side, some of them twice, are all there for the commit."""
    for number in range(max(2, ROUNDS // 4)):
        name = f"{number}/blocks"

        def stage(racer: Racer, name: str = name) -> None:
            for index in (racer.number, (racer.number + 1) % THREADS):
                block_id = base64.b64encode(b"%04d" % index).decode()
                answer = racer.request("PUT", name, {"comp": "block", "blockid": block_id}, {}, b"%d" % index * size)
                assert answer.status == 201

        race(racers, stage)
        entries = "".join(f"<Latest>{base64.b64encode(b'%04d' % index).decode()}</Latest>" for index in range(THREADS))
        body = f"<BlockList>{entries}</BlockList>".encode()
        assert racers[0].request("PUT", name, {"comp": "blocklist"}, {}, body).status == 201
        assert racers[1].get(name).body == b"".join(b"%d" % index * size for index in range(THREADS))


def test_names_that_want_the_same_path(racers: list[Racer]) -> None:
    """Everybody makes and deletes a name of its own; a name always is what its owner made of it last."""

    def own(racer: Racer) -> None:
        name = NAMES[racer.number]
        for number in range(ROUNDS):
            body = b"%d of %d" % (number, racer.number)
            assert racer.put(name, body).status == 201
            assert racer.get(name).body == body
            assert racer.request("PUT", name, {"comp": "metadata"}, {"x-ms-meta-k": str(number)}).status == 200
            found = racer.get(name)
            assert (found.body, found.headers["x-ms-meta-k"]) == (body, str(number))
            assert name in listed(racer)
            if (number + racer.number) % 3:
                assert racer.request("DELETE", name).status == 202
                assert racer.get(name).code == "BlobNotFound"
                assert name not in listed(racer)

    race(racers, own)


def listed(racer: Racer) -> list[str]:
    """All names, in two different pages at least if there are so many; always sorted, never twice."""
    names: list[str] = []
    query = {"restype": "container", "comp": "list", "maxresults": "3"}
    marker = ""
    while True:
        document = racer.request("GET", "", {**query, "marker": marker} if marker else query).xml()
        names += [node.text or "" for node in document.iter("Name")]
        marker = document.findtext("NextMarker") or ""
        if not marker:
            assert names == sorted(set(names))
            return names
