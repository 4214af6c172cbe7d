"""Random operations over HTTP against two workers agree with the model, answer by answer.

Every operation goes to a worker chosen at random, and after each one the other worker has to show the blob as the model
has it. The numbers of an ordinary run are small; BLOBEDGE_MODEL_EXAMPLES and BLOBEDGE_MODEL_STEPS make it a long one.
A failure shows all steps that led to it; BLOBEDGE_MODEL_SHRINK=1 takes minutes more to find the few that matter.
"""

from __future__ import annotations

import base64
import itertools
import os
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.support import Answer

from .cluster import WORKERS, Cluster, path_of
from .model import ANY, Blob, Conditions, Listed, Model, New, Refused

T = TypeVar("T")
At = tuple[str, str]

EXAMPLES = int(os.environ.get("BLOBEDGE_MODEL_EXAMPLES", "25"))
STEPS = int(os.environ.get("BLOBEDGE_MODEL_STEPS", "40"))
PHASES = [phase for phase in Phase if phase is not Phase.shrink or os.environ.get("BLOBEDGE_MODEL_SHRINK")]
STRICT_SHARE = 5  # of the examples, one in so many is run again with every write synced

NAMES = ("a", "a/b", "a/", "a//b", "a/b/c", "b")
SIZES = (0, 1, 2, 7, 5000, 300_000)
LEASE_IDS = tuple(f"{digit * 8}-0000-4000-8000-000000000000" for digit in "abc")
PAST, FUTURE = "Thu, 09 May 2019 00:27:16 GMT", "Fri, 31 Dec 2060 00:00:00 GMT"
_runs = itertools.count(1)

names = st.sampled_from(NAMES)
boxes = st.sampled_from(("one", "one", "one", "two"))
workers = st.integers(0, WORKERS - 1)


class Content(bytes):
    """Bytes that fit into a failure's report."""

    def __repr__(self) -> str:
        return super().__repr__() if len(self) < 20 else f"Content({self[:1]!r} * {len(self)})"


contents = st.builds(lambda byte, count: Content(byte * count), st.sampled_from((b"x", b"y")), st.sampled_from(SIZES))
metadata = st.dictionaries(st.sampled_from(("k", "other")), st.sampled_from(("1", "2")), max_size=2)
tags = st.dictionaries(st.sampled_from(("color", "size")), st.sampled_from(("red", "9")), max_size=2)
types = st.sampled_from(("", "text/plain", "image/png"))
tiers = st.sampled_from(("Hot", "Cool", "Cold"))
news = st.builds(New, types, metadata, tags, st.just("") | tiers)
lease_choice = st.sampled_from(("right", "right", "right", "right", "none", "other"))
blocks_ids = st.sampled_from(("01", "02", "03", "long"))
etag_choice = st.sampled_from((None, None, "current", "stale", "*"))
holds = st.sampled_from((None, None, None, True, False))
condition_choice = st.just((None, None, None, None, None)) | st.tuples(
    etag_choice, etag_choice, holds, holds, st.none() | st.tuples(st.just("color"), st.sampled_from(("red", "9")))
)


class TwoWorkers(RuleBasedStateMachine):
    """The model beside the product."""

    cluster: Cluster  # given by a subclass: hypothesis makes the instances

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.run = next(_runs)
        self.etags: dict[int, str] = {0: "0x8D0000000000000"}
        self.written: dict[int, str] = {}  # ETag -> Last-Modified
        self.snapshots: dict[int, str] = {}
        self.worker = 0

    # --- requests ---

    def send(
        self, at: At, method: str, query: dict[str, str] | None = None, headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:  # fmt: skip
        return self.cluster.request(self.worker, method, self.path(at), query or {}, headers or {}, body)

    def path(self, at: At) -> str:
        return path_of(f"{at[0]}{self.run}", at[1])

    def agree(self, expected: Callable[[], T], status: int, send: Callable[[], Answer]) -> tuple[Answer, T | None]:
        """Ask the model and the product. None as the model's result: both refuse, in the same way."""
        try:
            result: T | None = expected()
            allowed: tuple[tuple[int, str], ...] = ((status, ""),)
        except Refused as refusal:
            result, allowed = None, refusal.allowed
        answer = send()
        assert (answer.status, answer.code) in allowed
        if answer.code and answer.body:
            assert answer.xml().findtext("Code") == answer.code
        return answer, result

    def blob(self, at: At, snapshot: int = 0) -> Blob | None:
        name = self.model.containers.get(at[0], {}).get(at[1])
        if name is None:
            return None
        return name.snapshots.get(snapshot) if snapshot else name.base

    def conditions(self, at: At, choice: tuple[object, ...], snapshot: int = 0) -> tuple[Conditions, dict[str, str]]:
        """The conditions for the model, and as headers."""
        blob = self.blob(at, snapshot)
        current = blob.etag if blob is not None else 0
        stale = max((etag for etag in self.etags if etag < current), default=0)
        values = {"current": current, "stale": stale, "*": ANY}
        match, none_match = (values.get(str(each)) for each in choice[:2])
        _, _, modified, unmodified, tag = choice
        headers = {
            "if-match": match is not None and self.quoted(match),
            "if-none-match": none_match is not None and self.quoted(none_match),
            "if-modified-since": modified is not None and (PAST if modified else FUTURE),
            "if-unmodified-since": unmodified is not None and (FUTURE if unmodified else PAST),
            "x-ms-if-tags": isinstance(tag, tuple) and f"\"{tag[0]}\" = '{tag[1]}'",
        }
        made = Conditions(match, none_match, modified, unmodified, tag)  # type: ignore[arg-type]
        return made, {name: str(value) for name, value in headers.items() if value}

    def quoted(self, etag: int) -> str:
        return "*" if etag == ANY else f'"{self.etags[etag]}"'

    def lease_id(self, at: At, choice: str) -> tuple[str, dict[str, str]]:
        """The lease id for the model, and as headers."""
        blob = self.blob(at)
        held = blob.lease.id if blob is not None and blob.lease is not None else ""
        lease_id = {"right": held, "none": "", "other": next(i for i in LEASE_IDS if i != held)}[choice]
        return lease_id, {"x-ms-lease-id": lease_id} if lease_id else {}

    def snapshot_of(self, at: At, index: int) -> int:
        """One of a blob's snapshots, or 0."""
        name = self.model.containers.get(at[0], {}).get(at[1])
        return sorted(name.snapshots)[index % len(name.snapshots)] if name is not None and name.snapshots else 0

    # --- what was answered ---

    def learn(self, answer: Answer, etag: int) -> None:
        """ETag and Last-Modified: the same as ever for an ETag that is known, else never seen and not earlier."""
        self.learn_etag(answer.headers["etag"].strip('"'), etag)
        modified = answer.headers["last-modified"]
        latest = max((parsedate_to_datetime(each) for each in self.written.values()), default=None)
        if etag not in self.written:
            assert latest is None or parsedate_to_datetime(modified) >= latest
        assert self.written.setdefault(etag, modified) == modified

    def learn_etag(self, text: str, etag: int) -> None:
        if etag not in self.etags:
            assert text not in self.etags.values()
        assert self.etags.setdefault(etag, text) == text

    def check(self, at: At, snapshot: int = 0) -> None:
        """The other worker shows a blob as the model has it."""
        self.worker = (self.worker + 1) % WORKERS
        blob = self.blob(at, snapshot)
        query = {"snapshot": self.snapshots[snapshot]} if snapshot else {}
        head, answer = self.send(at, "HEAD", query), self.send(at, "GET", query)
        if blob is None:
            code = "BlobNotFound" if at[0] in self.model.containers else "ContainerNotFound"
            assert (head.status, head.code, answer.status, answer.code) == (404, code, 404, code)
            return
        assert (head.status, answer.status) == (200, 200)
        assert (answer.body, head.headers["content-length"]) == (blob.content, str(len(blob.content)))
        for each in (head, answer):
            self.learn(each, blob.etag)
            self.check_headers(each, blob, snapshot)
        tier = head.headers["x-ms-access-tier"], "x-ms-access-tier-inferred" in head.headers
        assert tier == (blob.tier or "Hot", not blob.tier)

    def check_headers(self, answer: Answer, blob: Blob, snapshot: int) -> None:
        headers = answer.headers
        assert headers["content-type"] == blob.content_type
        shown = {n.removeprefix("x-ms-meta-"): v for n, v in headers.items() if n.startswith("x-ms-meta-")}
        assert shown == blob.metadata
        assert headers.get("x-ms-tag-count", "0") == str(len(blob.tags))
        assert headers.get("content-md5", "") == (base64.b64encode(blob.md5).decode() if blob.md5 else "")
        lease = tuple(headers.get(f"x-ms-lease-{name}") for name in ("state", "status", "duration"))
        assert lease == ((None, None, None) if snapshot else lease_shown(blob))

    # --- rules: containers ---

    @initialize()
    def containers(self) -> None:
        for box in ("one", "two"):
            self.model.create_container(box)
            assert self.send((box, ""), "PUT", {"restype": "container"}).status == 201

    @rule(worker=workers, box=st.sampled_from(("one", "two", "two", "two")))
    def create_container(self, worker: int, box: str) -> None:
        self.worker = worker
        query = {"restype": "container"}
        self.agree(lambda: self.model.create_container(box), 201, lambda: self.send((box, ""), "PUT", query))

    @rule(worker=workers)
    def delete_container(self, worker: int) -> None:
        self.worker = worker
        query = {"restype": "container"}
        self.agree(lambda: self.model.delete_container("two"), 202, lambda: self.send(("two", ""), "DELETE", query))

    # --- rules: whole blobs ---

    @rule(worker=workers, box=boxes, name=names, content=contents, new=news, cond=condition_choice, lease=lease_choice)
    def put_blob(
        self, worker: int, box: str, name: str, content: bytes, new: New, cond: tuple[object, ...], lease: str
    ) -> None:
        at, self.worker = (box, name), worker
        conditions, more = self.conditions(at, cond)
        lease_id, held = self.lease_id(at, lease)
        headers = {"x-ms-blob-type": "BlockBlob", **new_headers(new), **more, **held}
        answer, blob = self.agree(
            lambda: self.model.put_blob(at, content, new, conditions, lease_id),
            201,
            lambda: self.send(at, "PUT", {}, headers, content),
        )
        if blob is not None:
            self.learn(answer, blob.etag)
        self.check(at)

    @rule(
        worker=workers, box=boxes, name=names, source_box=boxes, source=names, index=st.integers(-4, 3),
        new=news, cond=condition_choice, source_cond=condition_choice, lease=lease_choice,
    )  # fmt: skip
    def copy_blob(
        self, worker: int, box: str, name: str, source_box: str, source: str, index: int, new: New,
        cond: tuple[object, ...], source_cond: tuple[object, ...], lease: str,
    ) -> None:  # fmt: skip
        at, source_at, self.worker = (box, name), (source_box, source), worker
        snapshot = self.snapshot_of(source_at, index) if index >= 0 else 0
        conditions, more = self.conditions(at, cond)
        source_conditions, source_more = self.conditions(source_at, source_cond, snapshot)
        lease_id, held = self.lease_id(at, lease)
        url = self.cluster.url(self.path(source_at)) + (f"?snapshot={self.snapshots[snapshot]}" if snapshot else "")
        headers = {"x-ms-copy-source": url, **new_headers(New("", new.metadata, new.tags, new.tier)), **more, **held}
        headers |= {f"x-ms-source-{n.removeprefix('x-ms-')}": value for n, value in source_more.items()}
        answer, blob = self.agree(
            lambda: self.model.copy(at, source_at, snapshot, new, conditions, lease_id, source_conditions),
            202,
            lambda: self.send(at, "PUT", {}, headers),
        )
        if blob is not None:
            assert answer.headers["x-ms-copy-status"] == "success"
            self.learn(answer, blob.etag)
        self.check(at)

    @rule(
        worker=workers, box=boxes, name=names, index=st.integers(-2, 3), cond=condition_choice, lease=lease_choice,
        first=st.integers(0, 10), last=st.integers(0, 12) | st.none(), method=st.sampled_from(("GET", "HEAD")),
    )  # fmt: skip
    def read_blob(
        self, worker: int, box: str, name: str, index: int, cond: tuple[object, ...], lease: str, first: int,
        last: int | None, method: str,
    ) -> None:  # fmt: skip
        """A range of a blob or of a snapshot, under conditions."""
        at, self.worker = (box, name), worker
        snapshot = self.snapshot_of(at, index) if index >= 0 else 0
        conditions, headers = self.conditions(at, cond, snapshot)
        lease_id, held = ("", {}) if snapshot else self.lease_id(at, lease)
        ranged = method == "GET" and (last is None or first <= last)

        def expected() -> tuple[Blob, bytes]:
            blob = self.model.read(at, snapshot, conditions, lease_id)
            if ranged and first >= len(blob.content):
                raise Refused((416, "InvalidRange"))
            return blob, blob.content[first : None if last is None else last + 1] if ranged else blob.content

        query = {"snapshot": self.snapshots[snapshot]} if snapshot else {}
        sent = {
            **headers,
            **held,
            **({"x-ms-range": f"bytes={first}-{'' if last is None else last}"} if ranged else {}),
        }
        answer, found = self.agree(expected, 206 if ranged else 200, lambda: self.send(at, method, query, sent))
        if found is not None:
            blob, content = found
            self.learn(answer, blob.etag)
            assert answer.body == (content if method == "GET" else b"")
            if ranged:
                end = first + len(content) - 1
                assert answer.headers["content-range"] == f"bytes {first}-{end}/{len(blob.content)}"

    @rule(
        worker=workers, box=boxes, name=names, index=st.integers(-3, 3), cond=condition_choice, lease=lease_choice,
        scope=st.sampled_from(("", "", "include", "only")),
    )  # fmt: skip
    def delete_blob(
        self, worker: int, box: str, name: str, index: int, cond: tuple[object, ...], lease: str, scope: str
    ) -> None:
        at, self.worker = (box, name), worker
        snapshot = self.snapshot_of(at, index) if index >= 0 else 0
        conditions, more = self.conditions(at, cond, snapshot)
        lease_id, held = ("", {}) if snapshot else self.lease_id(at, lease)
        headers = {**more, **held, **({"x-ms-delete-snapshots": scope} if scope else {})}
        query = {"snapshot": self.snapshots[snapshot]} if snapshot else {}
        self.agree(
            lambda: self.model.delete(at, snapshot, scope, conditions, lease_id),
            202,
            lambda: self.send(at, "DELETE", query, headers),
        )
        self.check(at, snapshot)
        self.check(at)

    # --- rules: parts of a blob ---

    @rule(worker=workers, box=boxes, name=names, new=news, cond=condition_choice, lease=lease_choice,
          what=st.sampled_from(("metadata", "properties")))  # fmt: skip
    def set_part(
        self, worker: int, box: str, name: str, new: New, cond: tuple[object, ...], lease: str, what: str
    ) -> None:
        at, self.worker = (box, name), worker
        conditions, more = self.conditions(at, cond)
        lease_id, held = self.lease_id(at, lease)
        content_type = new.content_type or "text/css"
        changes: dict[str, tuple[Callable[[], Blob], dict[str, str]]] = {
            "metadata": (
                lambda: self.model.set_metadata(at, new.metadata, conditions, lease_id),
                new_headers(New(metadata=new.metadata)),
            ),
            "properties": (
                lambda: self.model.set_properties(at, content_type, conditions, lease_id),
                {"x-ms-blob-content-type": content_type},
            ),
        }
        expected, sent = changes[what]
        answer, blob = self.agree(expected, 200, lambda: self.send(at, "PUT", {"comp": what}, {**sent, **more, **held}))
        if blob is not None:
            self.learn(answer, blob.etag)
        self.check(at)

    @rule(worker=workers, box=boxes, name=names, tier=tiers, tag=st.none() | tags, lease=lease_choice)
    def set_tier(self, worker: int, box: str, name: str, tier: str, tag: dict[str, str] | None, lease: str) -> None:
        """The only condition that it takes is on tags."""
        at, self.worker = (box, name), worker
        condition = next(iter((tag or {}).items()), None)
        conditions, more = self.conditions(at, (None, None, None, None, condition))
        lease_id, held = self.lease_id(at, lease)
        headers = {"x-ms-access-tier": tier, **more, **held}
        self.agree(
            lambda: self.model.set_tier(at, tier, conditions, lease_id),
            200,
            lambda: self.send(at, "PUT", {"comp": "tier"}, headers),
        )
        self.check(at)

    @rule(worker=workers, box=boxes, name=names, new=tags, cond=condition_choice, lease=lease_choice)
    def set_tags(
        self, worker: int, box: str, name: str, new: dict[str, str], cond: tuple[object, ...], lease: str
    ) -> None:
        at, self.worker = (box, name), worker
        conditions, more = self.conditions(at, (None, None, None, None, cond[4]))
        lease_id, held = self.lease_id(at, lease)
        items = "".join(f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>" for key, value in new.items())
        self.agree(
            lambda: self.model.set_tags(at, new, conditions, lease_id),
            204,
            lambda: self.send(
                at, "PUT", {"comp": "tags"}, {**more, **held}, f"<Tags><TagSet>{items}</TagSet></Tags>".encode()
            ),
        )
        self.check(at)

    @rule(worker=workers, box=boxes, name=names, cond=condition_choice, lease=lease_choice)
    def get_tags(self, worker: int, box: str, name: str, cond: tuple[object, ...], lease: str) -> None:
        at, self.worker = (box, name), worker
        conditions, more = self.conditions(at, (None, None, None, None, cond[4]))
        lease_id, held = self.lease_id(at, lease)
        answer, blob = self.agree(
            lambda: self.model.read(at, 0, conditions, lease_id),
            200,
            lambda: self.send(at, "GET", {"comp": "tags"}, {**more, **held}),
        )
        if blob is not None:
            shown = {t.findtext("Key"): t.findtext("Value") or "" for t in answer.xml().iter("Tag")}
            assert shown == blob.tags

    @rule(worker=workers, box=boxes, name=names, meta=st.just({}) | metadata, cond=condition_choice, lease=lease_choice)
    def take_snapshot(
        self, worker: int, box: str, name: str, meta: dict[str, str], cond: tuple[object, ...], lease: str
    ) -> None:
        at, self.worker = (box, name), worker
        conditions, more = self.conditions(at, cond)
        lease_id, held = self.lease_id(at, lease)
        headers = {**new_headers(New(metadata=meta)), **more, **held}
        answer, number = self.agree(
            lambda: self.model.snapshot(at, meta, conditions, lease_id),
            201,
            lambda: self.send(at, "PUT", {"comp": "snapshot"}, headers),
        )
        if number is not None:
            taken = answer.headers["x-ms-snapshot"]
            mine = self.model.containers[box][name].snapshots
            assert all(self.snapshots[each] < taken for each in mine if each != number)
            self.snapshots[number] = taken
            self.learn(answer, mine[number].etag)
            self.check(at, number)
        self.check(at)

    # --- rules: blocks ---

    @rule(worker=workers, box=boxes, name=names, block_id=blocks_ids, content=contents.filter(bool), lease=lease_choice)
    def put_block(self, worker: int, box: str, name: str, block_id: str, content: bytes, lease: str) -> None:
        at, self.worker = (box, name), worker
        lease_id, held = self.lease_id(at, lease)
        query = {"comp": "block", "blockid": encoded(block_id)}
        self.agree(
            lambda: self.model.put_block(at, block_id, content, lease_id),
            201,
            lambda: self.send(at, "PUT", query, held, content),
        )
        self.check(at)

    @rule(
        worker=workers, box=boxes, name=names, new=news, cond=condition_choice, lease=lease_choice,
        entries=st.lists(
            st.tuples(st.sampled_from(("Committed", "Uncommitted", "Latest", "Latest")), blocks_ids), max_size=3
        ),
        all_there=st.booleans(),
    )  # fmt: skip
    def put_block_list(
        self, worker: int, box: str, name: str, new: New, cond: tuple[object, ...], lease: str,
        entries: list[tuple[str, str]], all_there: bool,
    ) -> None:  # fmt: skip
        at, self.worker = (box, name), worker
        if all_there:  # rather than a random list, most of which are refused
            there = self.model.containers.get(box, {}).get(name)
            known = [
                *(there.uncommitted if there else ()),
                *(i for i, _ in (there.base.blocks if there and there.base else ())),
            ]
            entries = [("Latest", block_id) for block_id in known]
        conditions, more = self.conditions(at, cond)
        lease_id, held = self.lease_id(at, lease)
        items = "".join(f"<{place}>{encoded(block_id)}</{place}>" for place, block_id in entries)
        headers = {**new_headers(new), **more, **held}
        answer, blob = self.agree(
            lambda: self.model.put_block_list(at, entries, new, conditions, lease_id),
            201,
            lambda: self.send(at, "PUT", {"comp": "blocklist"}, headers, f"<BlockList>{items}</BlockList>".encode()),
        )
        if blob is not None:
            self.learn(answer, blob.etag)
        self.check(at)

    @rule(worker=workers, box=boxes, name=names, lease=lease_choice)
    def get_block_list(self, worker: int, box: str, name: str, lease: str) -> None:
        at, self.worker = (box, name), worker
        lease_id, held = self.lease_id(at, lease)
        query = {"comp": "blocklist", "blocklisttype": "all"}
        answer, lists = self.agree(
            lambda: self.model.block_list(at, lease_id), 200, lambda: self.send(at, "GET", query, held)
        )
        if lists is not None:
            committed, uncommitted = (shown_blocks(answer.xml(), tag) for tag in ("Committed", "Uncommitted"))
            assert (committed, sorted(uncommitted)) == lists

    # --- rules: leases ---

    @rule(
        worker=workers, box=boxes, name=names, cond=condition_choice, proposed=st.sampled_from(LEASE_IDS),
        choice=st.sampled_from(("right", "right", "other")), fixed=st.booleans(),
        period=st.sampled_from((None, 0, 60)),
        action=st.sampled_from(("acquire", "acquire", "acquire", "renew", "change", "release", "break")),
    )  # fmt: skip
    def lease(
        self, worker: int, box: str, name: str, cond: tuple[object, ...], proposed: str, choice: str, fixed: bool,
        period: int | None, action: str,
    ) -> None:  # fmt: skip
        at, self.worker = (box, name), worker
        conditions, headers = self.conditions(at, cond)
        lease_id = self.lease_id(at, choice)[0] or proposed
        model = self.model
        requests: dict[str, tuple[int, Callable[[], object], dict[str, str]]] = {
            "acquire": (
                201,
                lambda: model.acquire(at, proposed, fixed, conditions),
                {"duration": "60" if fixed else "-1", "proposed": proposed},
            ),
            "renew": (200, lambda: model.renew(at, lease_id, conditions), {"id": lease_id}),
            "change": (
                200,
                lambda: model.change(at, lease_id, proposed, conditions),
                {"id": lease_id, "proposed": proposed},
            ),
            "release": (200, lambda: model.release(at, lease_id, conditions), {"id": lease_id}),
            "break": (
                202,
                lambda: model.break_lease(at, period, conditions),
                {} if period is None else {"break-period": str(period)},
            ),
        }
        status, expected, more = requests[action]
        headers["x-ms-lease-action"] = action
        for part, value in more.items():
            headers["x-ms-proposed-lease-id" if part == "proposed" else f"x-ms-lease-{part}"] = value
        answer, result = self.agree(expected, status, lambda: self.send(at, "PUT", {"comp": "lease"}, headers))
        if answer.status == 202:
            left = int(answer.headers["x-ms-lease-time"])
            assert 0 <= left <= 60
            assert left == 0 or result == "breaking"
        elif answer.status in (200, 201):
            assert answer.headers.get("x-ms-lease-id") == result
            blob = self.blob(at)
            assert blob is not None
            self.learn(answer, blob.etag)
        self.check(at)

    # --- rules: listing ---

    @rule(
        worker=workers, box=boxes, prefix=st.sampled_from(("", "", "a", "a/", "a//", "b", "c")),
        delimiter=st.sampled_from(("", "", "/", "/b")), limit=st.sampled_from((None, 1, 2, 3)),
        snapshots=st.booleans(), uncommitted=st.booleans(),
    )  # fmt: skip
    def list_blobs(
        self, worker: int, box: str, prefix: str, delimiter: str, limit: int | None, snapshots: bool, uncommitted: bool
    ) -> None:
        self.worker = worker
        snapshots = snapshots and not delimiter  # the service lists snapshots without a delimiter only
        included = ["metadata", "tags", *["snapshots"] * snapshots, *["uncommittedblobs"] * uncommitted]
        query = {"restype": "container", "comp": "list", "include": ",".join(included)}
        query |= {"prefix": prefix} if prefix else {}
        query |= {"delimiter": delimiter} if delimiter else {}
        query |= {"maxresults": str(limit)} if limit else {}
        answer, wanted = self.agree(
            lambda: self.model.listing(box, prefix, delimiter, snapshots=snapshots, uncommitted=uncommitted),
            200,
            lambda: self.send((box, ""), "GET", query),
        )
        if wanted is None:
            return
        found: list[ET.Element] = []
        while True:
            page = answer.xml()
            found += page.findall("Blobs/*")
            marker = page.findtext("NextMarker")
            if not marker:
                break
            self.worker = (self.worker + 1) % WORKERS  # a marker of one worker is good at the other
            answer = self.send((box, ""), "GET", {**query, "marker": marker})
            assert answer.status == 200
        assert [(each.tag, each.findtext("Name")) for each in found] == [listed_as(each) for each in wanted]
        for node, each in zip(found, wanted, strict=True):
            if each.blob is not None:
                self.check_listed(node, each.blob, each.snapshot)

    def check_listed(self, node: ET.Element, blob: Blob, snapshot: int) -> None:
        assert node.findtext("Snapshot", "") == (self.snapshots[snapshot] if snapshot else "")
        properties = node.find("Properties")
        assert properties is not None
        self.learn_etag(properties.findtext("Etag", ""), blob.etag)
        assert properties.findtext("Last-Modified") == self.written[blob.etag]
        assert properties.findtext("Content-Length") == str(len(blob.content))
        assert properties.findtext("Content-Type") == blob.content_type
        assert {each.tag: each.text for each in node.iterfind("Metadata/*")} == blob.metadata
        assert {each.findtext("Key"): each.findtext("Value") for each in node.iter("Tag")} == blob.tags
        if not snapshot:
            lease = tuple(properties.findtext(f"Lease{name}") for name in ("State", "Status", "Duration"))
            assert lease == lease_shown(blob)

    def teardown(self) -> None:
        for box in self.model.containers:
            for name in NAMES:
                self.check((box, name))
            self.send((box, ""), "DELETE", {"restype": "container"})


def new_headers(new: New) -> dict[str, str]:
    headers = {f"x-ms-meta-{name}": value for name, value in new.metadata.items()}
    if new.content_type:
        headers["x-ms-blob-content-type"] = new.content_type
    if new.tags:
        headers["x-ms-tags"] = "&".join(f"{name}={value}" for name, value in new.tags.items())
    if new.tier:
        headers["x-ms-access-tier"] = new.tier
    return headers


def lease_shown(blob: Blob) -> tuple[str, str, str | None]:
    """State, status and duration of a blob's lease, as its properties show them."""
    if blob.lease is None:
        return "available", "unlocked", None
    duration = ("fixed" if blob.lease.fixed else "infinite") if blob.lease.state == "leased" else None
    return blob.lease.state, "unlocked" if blob.lease.state == "broken" else "locked", duration


def listed_as(each: Listed) -> tuple[str, str]:
    return "Blob" if each.blob is not None or each.uncommitted else "BlobPrefix", each.name


def shown_blocks(document: ET.Element, tag: str) -> list[tuple[str, int]]:
    blocks = document.findall(f"{tag}Blocks/Block")
    return [(base64.b64decode(b.findtext("Name", "")).decode(), int(b.findtext("Size", ""))) for b in blocks]


def encoded(block_id: str) -> str:
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
    machine = type("Machine", (TwoWorkers,), {"cluster": cluster})
    run_state_machine_as_test(machine, settings=chosen)
    assert min(cluster.served()) > examples
