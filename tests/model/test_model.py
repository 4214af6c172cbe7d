"""Random operations over HTTP against two workers agree with the model, answer by answer.

Every operation goes to a worker chosen at random, and after each one the other worker has to show the blob as the model
has it. The numbers of an ordinary run are small: BLOBEDGE_MODEL_EXAMPLES and BLOBEDGE_MODEL_STEPS make it a long one. A
failure shows all steps that led to it; BLOBEDGE_MODEL_SHRINK=1 takes minutes more to find the few that matter.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from dataplane.blobapi.model import Remote
from dataplane.store.store import BlobRef
from tests.support import Answer

from . import strategies as some
from .cluster import WORKERS, Cluster, path_of
from .model import Model, Name
from .observer import Observer, blocks_in, tags_in
from .rules import ANY, Blob, Conditions, New, Refused
from .strategies import BOXES, LEASE_IDS, NAMES, Choice, Content, How

T = TypeVar("T")
At = tuple[str, str]

EXAMPLES = int(os.environ.get("BLOBEDGE_MODEL_EXAMPLES", "40"))
STEPS = int(os.environ.get("BLOBEDGE_MODEL_STEPS", "40"))
PHASES = [phase for phase in Phase if phase is not Phase.shrink or os.environ.get("BLOBEDGE_MODEL_SHRINK")]
STRICT_SHARE = 5  # of the examples, one in so many is run again with every write synced

PAST, FUTURE = "Thu, 09 May 2019 00:27:16 GMT", "Fri, 31 Dec 2060 00:00:00 GMT"
LEASE_SECONDS = 60  # longer than an example takes
CONTAINER = {"restype": "container"}
BLOCK_BLOB = {"x-ms-blob-type": "BlockBlob"}
_runs = itertools.count(1)


@dataclass(slots=True)
class Request:
    """One request: what the model is told of it, and what is sent."""

    at: At
    snapshot: int
    conditions: Conditions
    lease_id: str
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)


class TwoWorkers(RuleBasedStateMachine):
    """The model beside the product."""

    cluster: Cluster  # given by a subclass, as hypothesis makes the instances

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.observer = Observer()
        self.run = next(_runs)
        self.worker = 0

    # --- from a choice to a request ---

    def begin(self, how: How, snapshot_index: int = -1, *, leased: bool = False) -> Request:
        """Choose the worker, the blob (one with a lease if it can be, with `leased`), and, with an index that is not
        negative, the snapshot if there is one."""
        self.worker = how.worker
        at = self.chosen(how, leased)
        name = self.name(at)
        numbers = list(name.snapshots) if name is not None and snapshot_index >= 0 else []
        snapshot = numbers[snapshot_index % len(numbers)] if numbers else 0
        conditions, headers = self.conditions(self.blob(at, snapshot), how.choice)
        lease_id = "" if snapshot else self.lease_id(at, how.lease)
        if lease_id:
            headers["x-ms-lease-id"] = lease_id
        query = {"snapshot": self.observer.snapshots[snapshot]} if snapshot else {}
        return Request(at, snapshot, conditions, lease_id, headers, query)

    def chosen(self, how: How, leased: bool) -> At:
        blobs = {
            (box, name): found.base
            for box, names in self.model.containers.items()
            for name, found in names.items()
            if found.base is not None
        }
        there = [at for at, blob in blobs.items() if blob.lease is not None and leased] or list(blobs)
        return there[how.index % len(there)] if how.there and there else (how.box, how.name)

    def name(self, at: At) -> Name | None:
        return self.model.containers.get(at[0], {}).get(at[1])

    def blob(self, at: At, snapshot: int = 0) -> Blob | None:
        name = self.name(at)
        if name is None:
            return None
        return name.snapshots.get(snapshot) if snapshot else name.base

    def conditions(self, blob: Blob | None, choice: Choice) -> tuple[Conditions, dict[str, str]]:
        """The conditions for the model, and as headers."""
        current = blob.etag if blob is not None else 0
        stale = max((etag for etag in self.observer.etags if etag < current), default=0)
        etags = {"": None, "current": current, "stale": stale, "*": ANY}
        made = Conditions(
            etags[choice.if_match], etags[choice.if_none_match], choice.modified, choice.unmodified, choice.if_tag
        )
        headers = {}
        if made.if_match is not None:
            headers["if-match"] = self.observer.quoted(made.if_match)
        if made.if_none_match is not None:
            headers["if-none-match"] = self.observer.quoted(made.if_none_match)
        if made.modified is not None:
            headers["if-modified-since"] = PAST if made.modified else FUTURE
        if made.unmodified is not None:
            headers["if-unmodified-since"] = FUTURE if made.unmodified else PAST
        if made.if_tag is not None:
            headers["x-ms-if-tags"] = f"\"{made.if_tag[0]}\" = '{made.if_tag[1]}'"
        return made, headers

    def lease_id(self, at: At, choice: str) -> str:
        blob = self.blob(at)
        held = blob.lease.id if blob is not None and blob.lease is not None else ""
        return {"right": held, "none": "", "other": next(i for i in LEASE_IDS if i != held)}[choice]

    # --- from a request to an answer ---

    def path(self, at: At) -> str:
        return path_of(f"{at[0]}{self.run}", at[1])

    def send(
        self, at: At, method: str, query: dict[str, str], headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        return self.cluster.request(self.worker, method, self.path(at), query, headers or {}, body)

    def agree(self, expected: Callable[[], T], status: int, answer: Answer) -> T | None:
        """The model's result if both go on; None if both refuse, in the same way."""
        try:
            result: T | None = expected()
            allowed: tuple[tuple[int, str], ...] = ((status, ""),)
        except Refused as refusal:
            result, allowed = None, refusal.allowed
        assert (answer.status, answer.code) in allowed
        if answer.code and answer.body:
            assert answer.xml().findtext("Code") == answer.code
        return result

    def agree_on_blob(self, expected: Callable[[], Blob], status: int, answer: Answer, at: At) -> None:
        """The same for a write that answers the blob's ETag."""
        blob = self.agree(expected, status, answer)
        if blob is not None:
            self.observer.entity(answer, blob.etag)
        self.check(at)

    def check(self, at: At, snapshot: int = 0) -> None:
        """The other worker shows a blob as the model has it."""
        self.worker = (self.worker + 1) % WORKERS
        blob = self.blob(at, snapshot)
        query = {"snapshot": self.observer.snapshots[snapshot]} if snapshot else {}
        head, answer = self.send(at, "HEAD", query), self.send(at, "GET", query)
        if blob is None:
            code = "BlobNotFound" if at[0] in self.model.containers else "ContainerNotFound"
            assert (head.status, head.code, answer.status, answer.code) == (404, code, 404, code)
            return
        assert (head.status, answer.status) == (200, 200)
        assert (answer.body, head.headers["content-length"]) == (blob.content, str(len(blob.content)))
        self.observer.headers(head, blob, snapshot)
        self.observer.headers(answer, blob, snapshot)
        self.observer.tier(head, blob)

    # --- containers ---

    @initialize()
    def start(self) -> None:
        """Two containers, one of them with blobs, some of these leased."""
        for box in BOXES:
            self.model.create_container(box)
            assert self.send((box, ""), "PUT", CONTAINER).status == 201
        for name, size in (("a", 20), ("a/b", 0), ("a//b", 5000), ("b", 1)):
            how = How(0, False, BOXES[0], name, 0, "none", Choice())
            self.put_blob(how, Content(1, size), New("", {}, {"color": "red"}, ""))
            if "b" in name:
                self.acquire_lease(how, LEASE_IDS[0], fixed=name == "b")

    @rule(worker=some.workers, action=st.sampled_from(("create", "create", "delete")))
    def change_container(self, worker: int, action: str) -> None:
        """The second container comes and goes; the first one is always there."""
        self.worker = worker
        at = (BOXES[1], "")
        if action == "create":
            self.agree(lambda: self.model.create_container(BOXES[1]), 201, self.send(at, "PUT", CONTAINER))
        else:
            self.agree(lambda: self.model.delete_container(BOXES[1]), 202, self.send(at, "DELETE", CONTAINER))

    # --- whole blobs ---

    @rule(how=some.hows, content=some.contents, new=some.news)
    def put_blob(self, how: How, content: Content, new: New) -> None:
        it = self.begin(how)
        answer = self.send(it.at, "PUT", {}, BLOCK_BLOB | headers_of(new) | it.headers, content)
        self.agree_on_blob(
            lambda: self.model.put_blob(it.at, content, new, it.conditions, it.lease_id), 201, answer, it.at
        )

    @rule(how=some.hows, source=some.hows, index=st.integers(-3, 3), new=some.news)
    def copy_blob(self, how: How, source: How, index: int, new: New) -> None:
        of, it = self.begin(source, index), self.begin(how)
        url = self.cluster.url(self.path(of.at)) + (f"?snapshot={of.query['snapshot']}" if of.snapshot else "")
        headers = {"x-ms-copy-source": url, **headers_of(New("", new.metadata, new.tags, new.tier))}
        for name, value in of.headers.items():
            if name != "x-ms-lease-id":
                headers[f"x-ms-source-{name.removeprefix('x-ms-')}"] = value
        answer = self.send(it.at, "PUT", {}, headers | it.headers)
        self.agree_on_blob(
            lambda: self.model.copy(it.at, of.at, of.snapshot, new, it.conditions, it.lease_id, of.conditions),
            202, answer, it.at,
        )  # fmt: skip

    @rule(
        how=some.hows, index=st.integers(-2, 3), first=st.sampled_from((-1, 0, 1, 6, 19, 4999)),
        last=st.sampled_from((None, 0, 6, 19, 4999, 10_000)),
        method=st.sampled_from(("GET", "GET", "HEAD")),
    )  # fmt: skip
    def read_blob(self, how: How, index: int, first: int, last: int | None, method: str) -> None:
        """A blob or a snapshot, whole when `first` is negative or behind `last`."""
        it = self.begin(how, index)
        ranged = method == "GET" and first >= 0 and (last is None or first <= last)

        def expected() -> tuple[Blob, bytes]:
            blob = self.model.read(it.at, it.snapshot, it.conditions, it.lease_id)
            if ranged and first >= len(blob.content):
                raise Refused((416, "InvalidRange"))
            return blob, blob.content[first : None if last is None else last + 1] if ranged else blob.content

        if ranged:
            it.headers["x-ms-range"] = f"bytes={first}-{'' if last is None else last}"
        answer = self.send(it.at, method, it.query, it.headers)
        found = self.agree(expected, 206 if ranged else 200, answer)
        if found is not None:
            blob, content = found
            self.observer.headers(answer, blob, it.snapshot)
            assert answer.body == (content if method == "GET" else b"")
            if ranged:
                end = first + len(content) - 1
                assert answer.headers["content-range"] == f"bytes {first}-{end}/{len(blob.content)}"

    @rule(how=some.hows, index=st.integers(-3, 3), scope=st.sampled_from(("", "", "include", "only")))
    def delete_blob(self, how: How, index: int, scope: str) -> None:
        it = self.begin(how, index)
        headers = it.headers | ({"x-ms-delete-snapshots": scope} if scope else {})
        answer = self.send(it.at, "DELETE", it.query, headers)
        self.agree(lambda: self.model.delete(it.at, it.snapshot, scope, it.conditions, it.lease_id), 202, answer)
        if it.snapshot:
            self.check(it.at, it.snapshot)
        self.check(it.at)

    @rule(how=some.hows, new=st.just({}) | some.metadata)
    def evict_and_recall(self, how: How, new: dict[str, str]) -> None:
        """Another process lets the bytes go, and brings them back: meanwhile the blob is what it was, and metadata that
        are set on the stub are the blob's."""
        it = self.begin(without_conditions(how))
        blob = self.blob(it.at)
        if blob is None or not blob.content:
            return
        ref = BlobRef(f"{it.at[0]}{self.run}", it.at[1])
        self.evict(ref, blob.content)
        for self.worker in range(WORKERS):
            head = self.send(it.at, "HEAD", {})
            assert (head.status, head.headers["content-length"]) == (200, str(len(blob.content)))
            self.observer.headers(head, blob, 0)
            self.observer.tier(head, blob)
        self.list_blobs(self.worker, it.at[0], "", "", None, snapshots=False, uncommitted=False)
        if new:
            answer = self.send(it.at, "PUT", {"comp": "metadata"}, headers_of(New(metadata=new)) | it.headers)
            changed = self.agree(lambda: self.model.set_metadata(it.at, new, it.conditions, it.lease_id), 200, answer)
            if changed is not None:
                self.observer.entity(answer, changed.etag)
        self.recall(ref, blob.content)
        self.check(it.at)
        self.check(it.at)

    def evict(self, ref: BlobRef, content: bytes) -> None:
        """A stub takes the blob's place."""
        store = self.cluster.store
        state = store.stat_blob(ref)
        assert state is not None
        etag = state.properties.etag
        remote = Remote(len(content), hashlib.md5(content).digest(), "0x8DC", "cloud", "name", etag, 0, 0)
        assert store.run(store.evict(ref, etag, remote)) == len(content)

    def recall(self, ref: BlobRef, content: bytes) -> None:
        """The blob takes the stub's place."""
        store = self.cluster.store
        state, staged = store.stat_blob(ref), store.stage(ref.container)
        assert state is not None
        staged.write(content)
        store.run(store.recall(ref, staged, state.properties.etag))

    # --- parts of a blob ---

    @rule(how=some.hows, new=some.metadata)
    def set_metadata(self, how: How, new: dict[str, str]) -> None:
        it = self.begin(how)
        answer = self.send(it.at, "PUT", {"comp": "metadata"}, headers_of(New(metadata=new)) | it.headers)
        self.agree_on_blob(lambda: self.model.set_metadata(it.at, new, it.conditions, it.lease_id), 200, answer, it.at)

    @rule(how=some.hows, new=some.content_types.filter(bool))
    def set_properties(self, how: How, new: str) -> None:
        it = self.begin(how)
        answer = self.send(it.at, "PUT", {"comp": "properties"}, {"x-ms-blob-content-type": new} | it.headers)
        self.agree_on_blob(
            lambda: self.model.set_properties(it.at, new, it.conditions, it.lease_id), 200, answer, it.at
        )

    @rule(how=some.hows, new=some.tiers)
    def set_tier(self, how: How, new: str) -> None:
        it = self.begin(only_on_tags(how))
        answer = self.send(it.at, "PUT", {"comp": "tier"}, {"x-ms-access-tier": new} | it.headers)
        self.agree(lambda: self.model.set_tier(it.at, new, it.conditions, it.lease_id), 200, answer)
        self.check(it.at)

    @rule(how=some.hows, new=some.tags)
    def set_tags(self, how: How, new: dict[str, str]) -> None:
        it = self.begin(only_on_tags(how))
        items = "".join(f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>" for key, value in new.items())
        body = f"<Tags><TagSet>{items}</TagSet></Tags>".encode()
        answer = self.send(it.at, "PUT", {"comp": "tags"}, it.headers, body)
        self.agree(lambda: self.model.set_tags(it.at, new, it.conditions, it.lease_id), 204, answer)
        self.check(it.at)

    @rule(how=some.hows, index=st.integers(-3, 3))
    def get_tags(self, how: How, index: int) -> None:
        it = self.begin(only_on_tags(how), index)
        answer = self.send(it.at, "GET", {"comp": "tags"} | it.query, it.headers)
        blob = self.agree(lambda: self.model.read(it.at, it.snapshot, it.conditions, it.lease_id), 200, answer)
        if blob is not None:
            assert tags_in(answer.xml()) == blob.tags

    @rule(how=some.hows, new=st.just({}) | some.metadata)
    def take_snapshot(self, how: How, new: dict[str, str]) -> None:
        it = self.begin(how)
        name = self.name(it.at)
        older = list(name.snapshots) if name is not None else []
        answer = self.send(it.at, "PUT", {"comp": "snapshot"}, headers_of(New(metadata=new)) | it.headers)
        number = self.agree(lambda: self.model.snapshot(it.at, new, it.conditions, it.lease_id), 201, answer)
        if number is not None:
            self.observer.taken(answer, number, older)
            self.check(it.at, number)
        self.check(it.at)

    # --- blocks ---

    @rule(how=some.hows, block_id=some.block_ids, content=some.contents.filter(bool))
    def put_block(self, how: How, block_id: str, content: Content) -> None:
        it = self.begin(without_conditions(how))
        query = {"comp": "block", "blockid": encoded(block_id)}
        answer = self.send(it.at, "PUT", query, it.headers, content)
        self.agree(lambda: self.model.put_block(it.at, block_id, content, it.lease_id), 201, answer)
        self.check(it.at)

    @rule(how=some.hows, entries=some.block_entries, known=st.booleans(), new=some.news)
    def put_block_list(self, how: How, entries: list[tuple[str, str]], known: bool, new: New) -> None:
        """A random list, which is often refused, or the latest of each block that is `known`."""
        it = self.begin(how)
        name = self.name(it.at)
        if known and name is not None:
            there = [*name.uncommitted, *(block_id for block_id, _ in (name.base.blocks if name.base else ()))]
            entries = [("Latest", block_id) for block_id in there]
        items = "".join(f"<{place}>{encoded(block_id)}</{place}>" for place, block_id in entries)
        body = f"<BlockList>{items}</BlockList>".encode()
        answer = self.send(it.at, "PUT", {"comp": "blocklist"}, headers_of(new) | it.headers, body)
        self.agree_on_blob(
            lambda: self.model.put_block_list(it.at, entries, new, it.conditions, it.lease_id), 201, answer, it.at
        )

    @rule(how=some.hows, index=st.integers(-3, 3))
    def get_block_list(self, how: How, index: int) -> None:
        it = self.begin(without_conditions(how), index)
        answer = self.send(it.at, "GET", {"comp": "blocklist", "blocklisttype": "all"} | it.query, it.headers)
        lists = self.agree(lambda: self.model.block_list(it.at, it.snapshot, it.lease_id), 200, answer)
        if lists is not None:
            document = answer.xml()
            assert (blocks_in(document, "Committed"), sorted(blocks_in(document, "Uncommitted"))) == lists

    # --- leases ---

    @rule(how=some.hows, proposed=st.sampled_from(LEASE_IDS), fixed=st.booleans())
    def acquire_lease(self, how: How, proposed: str, fixed: bool) -> None:
        self.lease(
            how, "acquire", 201, lambda it: self.model.acquire(it.at, proposed, fixed, it.conditions),
            {"x-ms-lease-duration": str(LEASE_SECONDS if fixed else -1), "x-ms-proposed-lease-id": proposed},
        )  # fmt: skip

    @rule(how=some.hows)
    def renew_lease(self, how: How) -> None:
        self.lease(how, "renew", 200, lambda it: self.model.renew(it.at, it.lease_id, it.conditions))

    @rule(how=some.hows, proposed=st.sampled_from(LEASE_IDS))
    def change_lease(self, how: How, proposed: str) -> None:
        self.lease(
            how, "change", 200, lambda it: self.model.change(it.at, it.lease_id, proposed, it.conditions),
            {"x-ms-proposed-lease-id": proposed},
        )  # fmt: skip

    @rule(how=some.hows)
    def release_lease(self, how: How) -> None:
        self.lease(how, "release", 200, lambda it: self.model.release(it.at, it.lease_id, it.conditions))

    @rule(how=some.hows, period=st.sampled_from((None, 0, LEASE_SECONDS)))
    def break_lease(self, how: How, period: int | None) -> None:
        self.lease(
            how, "break", 202, lambda it: self.model.break_lease(it.at, period, it.conditions),
            {} if period is None else {"x-ms-lease-break-period": str(period)},
        )  # fmt: skip

    def lease(
        self, how: How, action: str, status: int, expected: Callable[[Request], str],
        more: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        it = self.begin(how, leased=action != "acquire")
        if action not in ("acquire", "break") and not it.lease_id:  # these have to name a lease
            it.lease_id = it.headers["x-ms-lease-id"] = LEASE_IDS[0]
        headers = {"x-ms-lease-action": action, **it.headers, **(more or {})}
        answer = self.send(it.at, "PUT", {"comp": "lease"}, headers)
        result = self.agree(lambda: expected(it), status, answer)
        if result is not None:
            blob = self.blob(it.at)
            assert blob is not None
            self.observer.entity(answer, blob.etag)
            if action == "break":
                left = int(answer.headers["x-ms-lease-time"])
                assert (0 < left <= LEASE_SECONDS) if result == "breaking" else left == 0
            else:
                assert answer.headers.get("x-ms-lease-id", "") == result
        self.check(it.at)

    # --- listing ---

    @rule(
        worker=some.workers, box=st.sampled_from(BOXES), prefix=st.sampled_from(("", "", "a", "a/", "a//", "b", "c")),
        delimiter=st.sampled_from(("", "", "/", "/b")), limit=st.sampled_from((None, 1, 2, 3)),
        snapshots=st.booleans(), uncommitted=st.booleans(),
    )  # fmt: skip
    def list_blobs(
        self, worker: int, box: str, prefix: str, delimiter: str, limit: int | None, snapshots: bool, uncommitted: bool
    ) -> None:
        """Page by page, each from the other worker: a marker of one is good at the other."""
        self.worker = worker
        snapshots = snapshots and not delimiter  # the service lists snapshots without a delimiter only
        included = ["metadata", "tags", *["snapshots"] * snapshots, *["uncommittedblobs"] * uncommitted]
        query = {**CONTAINER, "comp": "list", "include": ",".join(included)}
        query |= {"prefix": prefix} if prefix else {}
        query |= {"delimiter": delimiter} if delimiter else {}
        query |= {"maxresults": str(limit)} if limit else {}
        answer = self.send((box, ""), "GET", query)
        wanted = self.agree(
            lambda: self.model.listing(box, prefix, delimiter, snapshots=snapshots, uncommitted=uncommitted),
            200, answer,
        )  # fmt: skip
        if wanted is None:
            return
        found: list[ET.Element] = []
        while True:
            page = answer.xml()
            found += page.findall("Blobs/*")
            assert limit is None or snapshots or len(page.findall("Blobs/*")) <= limit
            marker = page.findtext("NextMarker")
            if not marker:
                break
            self.worker = (self.worker + 1) % WORKERS
            answer = self.send((box, ""), "GET", {**query, "marker": marker})
            assert answer.status == 200
        self.observer.listed(found, wanted)

    def teardown(self) -> None:
        for box in self.model.containers:
            for name in NAMES:
                self.check((box, name))
            self.send((box, ""), "DELETE", CONTAINER)


def only_on_tags(how: How) -> How:
    """For operations that take no other condition."""
    return replace(how, choice=Choice(if_tag=how.choice.if_tag))


def without_conditions(how: How) -> How:
    """For operations that take none."""
    return replace(how, choice=Choice())


def headers_of(new: New) -> dict[str, str]:
    """What makes a blob, as headers."""
    headers = {f"x-ms-meta-{name}": value for name, value in new.metadata.items()}
    if new.content_type:
        headers["x-ms-blob-content-type"] = new.content_type
    if new.tags:
        headers["x-ms-tags"] = "&".join(f"{name}={value}" for name, value in new.tags.items())
    if new.tier:
        headers["x-ms-access-tier"] = new.tier
    return headers


def encoded(block_id: str) -> str:
    """A block id as it goes on the wire."""
    return base64.b64encode(block_id.encode()).decode()


@pytest.fixture(params=["relaxed", "strict"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    started = Cluster(tmp_path / "root", tmp_path / "serve.log", request.param)
    yield started
    started.stop()


def test_two_workers_agree_with_the_model(cluster: Cluster) -> None:
    """Fewer examples where every write is synced."""
    examples = EXAMPLES if cluster.durability == "relaxed" else max(1, EXAMPLES // STRICT_SHARE)
    chosen = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        phases=PHASES,
    )
    run_state_machine_as_test(type("Machine", (TwoWorkers,), {"cluster": cluster}), settings=chosen)
    assert min(cluster.served()) > examples
