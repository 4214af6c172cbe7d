"""The three conflict policies, for any order of writes here, writes and deletes in the cloud, faults and crashes.

    edge-wins   ends with our version
    keep-both   ends with our version, and every version of theirs that ours replaced is beside it
    cloud-wins  ends with our version when they changed nothing since our last one, else with theirs

A crash forgets everything that an upload would have told the queue. A write of theirs may also fall between any two
requests of an upload.
"""

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent.offload.failures import CloudFailed
from agent.offload.upload import Conflict, Policy
from tests.offload.azurite import Exchange
from tests.offload.upload_support import World, source

EXAMPLES = 20
_names = itertools.count(1)

HERE, THERE, GONE_THERE, CRASH = "written here", "written there", "deleted there", "crash"


@dataclass(frozen=True, slots=True)
class Try:
    """An upload in which request `number` has an accident, and they write before request `they_write_at`."""

    number: int
    accident: str  # "", "reset", "lost answer", "500"
    they_write_at: int | None


tries = st.builds(
    Try, st.integers(0, 6), st.sampled_from(["", "reset", "lost answer", "500"]), st.none() | st.integers(0, 4)
)
steps = st.lists(st.sampled_from([HERE, THERE, GONE_THERE, CRASH]) | tries, max_size=10)


@dataclass
class Story:
    """One blob's life, and what is owed to them."""

    world: World
    path: Path
    policy: Policy
    name: str = field(default_factory=lambda: f"blob-{next(_names)}")
    here: bytes = b"version 0"
    versions: int = 0
    etag: str = ""  # the cloud's, of our last upload that the queue knows
    theirs: bytes | None = None  # what they wrote since a commit of ours; b"" for a delete
    owed: list[bytes] = field(default_factory=list)
    failed: bool = False

    def content(self) -> bytes | None:
        blob = self.world.container.get_blob_client(self.name)
        return blob.download_blob().readall() if blob.exists() else None

    def they_write(self) -> None:
        self.versions += 1
        self.theirs = b"theirs %d" % self.versions
        self.world.container.upload_blob(self.name, self.theirs, overwrite=True)

    def they_delete(self) -> None:
        if self.content() is not None:
            self.world.container.delete_blob(self.name)
            self.theirs = b""

    def write(self) -> None:
        self.versions += 1
        self.here = b"ours %d" % self.versions

    def crash(self) -> None:
        self.etag = ""
        self.failed = False

    def attempt(self, plan: Try | None) -> CloudFailed | None:
        """One upload; afterwards what became of their version is noted."""
        begin = len(self.world.proxy.log)

        def accidents(exchange: Exchange) -> None:
            at = exchange.number - begin
            if plan and at == plan.they_write_at:
                self.they_write()
            if plan and at == plan.number:
                exchange.lose_answer = plan.accident == "lost answer"
                exchange.reset_after_body_bytes = 0 if plan.accident == "reset" else None
                exchange.answer = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n" if plan.accident == "500" else b""

        self.world.proxy.fault = accidents
        failure = None
        with source(self.path, self.here, etag=f"0x8DC{self.versions:012X}") as version:
            try:
                outcome = self.world.send(version, self.name, etag=self.etag, policy=self.policy, again=self.failed)
                self.etag = outcome.cloud_etag
            except CloudFailed as failed:
                failure = failed
        self.world.proxy.fault = lambda exchange: None
        self.failed = failure is not None
        if self.theirs is not None and self.content() == self.here:
            self.owed += [self.theirs] if self.theirs else []
            self.theirs = None
        return failure

    def kept(self) -> set[bytes]:
        names = self.world.container.list_blob_names(name_starts_with=f"{self.name}.conflict-")
        return {self.world.bytes_of(name) for name in names}


@pytest.mark.parametrize("policy", Policy, ids=lambda policy: policy.value)
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=steps)
@example(plan=[Try(0, "", None), CRASH, HERE])
@example(plan=[Try(0, "", None), HERE, Try(0, "lost answer", None), CRASH, HERE, THERE])
def test_every_order_of_events_ends_as_documented(
    world: World, tmp_path: Path, policy: Policy, plan: list[str | Try]
) -> None:
    story = Story(world, tmp_path / "f", policy)
    simple = {HERE: story.write, THERE: story.they_write, GONE_THERE: story.they_delete, CRASH: story.crash}
    for step in plan:
        if isinstance(step, Try):
            story.attempt(step)
        else:
            simple[step]()
    # Whether they changed something that our queue can know of: a blob that is gone is, after a crash, a new one.
    conflict = story.theirs is not None and (story.theirs != b"" or story.etag != "")
    failure = story.attempt(None)
    if policy is Policy.CLOUD_WINS and conflict:
        assert isinstance(failure, Conflict)
        assert (story.content() or b"") == story.theirs
        assert (failure.present is None) is (story.theirs == b"")
    else:
        assert failure is None
        assert story.content() == story.here
    if policy is Policy.KEEP_BOTH:
        assert story.kept() >= set(story.owed)
    else:
        assert story.kept() == set()
    if policy is Policy.CLOUD_WINS:
        assert [each for each in story.owed if each] == []
