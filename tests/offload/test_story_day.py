"""A factory day: applications write in every way there is, the link goes and comes back, data cools and leaves the
node, a training job reads it all, and nobody notices.

There are two containers. What nobody touched in `camera` for a moment is evicted by its rule while the day goes on; in
the evening an operator has everything evicted.

BLOBEDGE_DAY_SEED makes it another day.
"""

import hashlib
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobServiceClient, ContentSettings

from tests.clients.azcopy import AzCopy
from tests.clients.client_tools import azcopy_path, client_environment, python_client
from tests.clients.endpoint import Endpoint
from tests.clients.sas import container_sas
from tests.offload.lab import need
from tests.offload.lab.cloud import lab
from tests.offload.lab.edge import ACCOUNT, KEY, Edge, edge
from tests.offload.lab.faces import faces, residencies
from tests.offload.lab.freeing import allocated, evict, stubs
from tests.offload.lab.oracle import Freed, freed_too_early
from tests.offload.lab.settling import EVERYTHING_AT_ONCE, judge, settle
from tests.offload.lab.traffic import Blob
from tests.offload.lab.training import train
from tests.offload.lab.work import Work

LINE, CAMERA = "line4", "camera"
SEED = int(os.environ.get("BLOBEDGE_DAY_SEED", "4"))
ACTS = 40
FILES = 12
PICTURES = 20
FILM_BYTES = 20_000_000
COOL_SECONDS_MAX = 150.0
STUB_BYTES_MAX = 8192  # of disk blocks: none for its content, perhaps one for its record and one for its tags
RULES = EVERYTHING_AT_ONCE + (
    """evict = "age"
evict_days = 2.5e-5 # two seconds
containers = ["camera"]
[[offload.rules]]
upload = "now"
delete = "propagate"
delete_fuse_percent = 100.0
"""
)


@dataclass(slots=True)
class Plant:
    """A node, its applications, and all that was seen to have left its disk."""

    node: Edge
    azcopy: AzCopy
    scratch: Path
    line: Work
    camera: Work
    freed: list[Freed] = field(default_factory=list)

    def blobs(self) -> dict[Blob, bytes]:
        """What there has to be, with its MD5."""
        digests = self.line.ledger.digests | self.camera.ledger.digests
        return {blob: digest for blob, digest in digests.items() if digest is not None}

    def work(self, shift: str) -> None:
        """Every way of writing once."""
        with self.node.service() as service:
            self.line.some(service, ACTS)
            self._take_pictures(service, shift)
        self._copy_tree(f"azcopy-{shift}")
        for number in range(3):
            self.line.copy_file(f"cp/{shift}/{number}.txt")

    def _take_pictures(self, service: BlobServiceClient, shift: str) -> None:
        """Blobs as a camera writes them, and one long film, which clients send in blocks."""
        chance = random.Random(shift)
        sizes = {f"{shift}/{number:02}.jpg": chance.randrange(100_000, 600_000) for number in range(PICTURES)}
        for name, size in (sizes | {f"{shift}/film.avi": FILM_BYTES}).items():
            content = chance.randbytes(size)
            service.get_blob_client(CAMERA, name).upload_blob(
                content,
                metadata={"Shift": shift},
                tags={"line": "4"},
                content_settings=ContentSettings(content_type="image/jpeg"),
            )
            self.camera.ledger.wrote(CAMERA, name, content)

    def _copy_tree(self, name: str) -> None:
        """AzCopy uploads a directory."""
        tree = self.scratch / name
        tree.mkdir()
        chance = random.Random(name)
        for number in range(FILES):
            content = chance.randbytes(100_000)
            (tree / f"{number}.bin").write_bytes(content)
            self.line.ledger.wrote(LINE, f"{name}/{number}.bin", content)
        with self.node.service() as service, self.node.lab.link.at_edge():
            container = service.get_container_client(LINE)
            sas = container_sas(Endpoint(ACCOUNT, KEY, self.node.url), container)
            finished = self.azcopy.run("copy", tree, f"{container.url}?{sas}", "--recursive", "--from-to", "LocalBlob")
        assert finished.count("TransfersCompleted") == FILES

    def settle(self) -> None:
        """Wait until the cloud has everything."""
        for container in (LINE, CAMERA):
            settle(self.node, container)

    def judge(self) -> None:
        """Everything is as it was promised, here and in the cloud. Reads every blob."""
        for work, container in ((self.line, LINE), (self.camera, CAMERA)):
            assert judge(self.node, container, work.ledger) == []
        assert freed_too_early(self.freed, self.node.lab.proxy.traffic) == []

    def cool(self) -> None:
        """Wait until the rule has evicted all that the camera wrote."""
        etags = {blob: face.headers["etag"].strip('"') for blob, face in faces(self.node, CAMERA).items()}
        until = time.monotonic() + COOL_SECONDS_MAX
        while etags.keys() - (gone := stubs(self.node, CAMERA)):
            assert time.monotonic() < until, f"{etags.keys() - gone} stay: {self.node.tail()}"
            time.sleep(0.1)
        self.freed += [Freed(blob, etag, time.monotonic()) for blob, etag in etags.items()]

    def read(self, blob: Blob) -> bytes:
        """The MD5 of a blob, as a client reads it that tries everything once. Raises the client's errors."""
        with self.node.service() as service:
            return hashlib.md5(service.get_blob_client(*blob).download_blob().readall()).digest()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Edge]:
    need()
    with lab(tmp_path) as made, edge(made, tmp_path, RULES) as node:
        node.make_container(LINE)
        node.make_container(CAMERA)
        try:
            yield node
        finally:
            made.proxy.traffic.write(tmp_path / "traffic.jsonl")


@pytest.fixture
def plant(node: Edge, tmp_path: Path) -> Plant:
    home = tmp_path / "azcopy-home"
    home.mkdir()
    azcopy = AzCopy(azcopy_path(), tmp_path / "azcopy", client_environment(home))
    python_client("adlfs")
    line, camera = (Work(random.Random(f"{SEED} {name}"), name, node.root) for name in (LINE, CAMERA))
    return Plant(node, azcopy, tmp_path, line, camera)


@pytest.mark.timeout(900)
def test_a_whole_day(plant: Plant) -> None:
    node = plant.node
    plant.work("early")
    early = faces(node, CAMERA)
    plant.settle()
    node.stop()
    node.start()  # rules by age are looked after when it starts, and then once a minute
    plant.cool()
    assert faces(node, CAMERA) == early
    assert set(residencies(node, CAMERA).values()) == {"remote"}

    node.lab.link.cut()
    before = len(node.lab.proxy.traffic.all())
    plant.work("late")
    plant.line.copy_file("cp/early/0.txt")  # over a blob that the cloud has already
    plant.camera.copy_file("early/00.jpg")  # over a stub: it is held until its mark is taken off (StubWritten)
    (node.root / CAMERA / "early/00.jpg").chmod(0o644)
    reads_without_a_link(plant)
    changes_of_stubs_without_a_link(plant)
    assert len(node.lab.proxy.traffic.all()) == before, "the cloud heard something over a link that is cut"

    node.lab.heal()
    plant.settle()
    late = {container: faces(node, container) for container in (LINE, CAMERA)}
    occupied = allocated(node)
    for container in late:
        plant.freed += evict(node, container)
    has_left_without_a_trace(plant, occupied)
    assert {container: faces(node, container) for container in late} == late

    for read in train(node, plant.blobs()):
        assert read == plant.blobs()
    plant.judge()


def reads_without_a_link(plant: Plant) -> None:
    """What is here is served as ever, and a stub is refused with what a client needs to come back."""
    away = stubs(plant.node, CAMERA)
    assert away
    for blob, digest in plant.blobs().items():
        if blob not in away:
            assert plant.read(blob) == digest
    for blob in sorted(away):
        began = time.monotonic()
        with pytest.raises(HttpResponseError, match="no way to the cloud") as raised:
            plant.read(blob)
        assert (raised.value.status_code, getattr(raised.value, "error_code", "")) == (503, "ServerBusy")
        headers = getattr(raised.value.response, "headers", {})
        assert int(headers["Retry-After"]) > 0
        print(f"{blob}: refused after {time.monotonic() - began:.2f} s")


def changes_of_stubs_without_a_link(plant: Plant) -> None:
    """A stub can be described, written over and deleted as any blob."""
    with plant.node.service() as service:
        camera = service.get_container_client(CAMERA)
        camera.get_blob_client("early/01.jpg").set_blob_metadata({"Seen": "yes"})
        camera.get_blob_client("early/02.jpg").set_blob_tags({"line": "5"})
        camera.upload_blob("early/03.jpg", b"a new picture", overwrite=True)
        plant.camera.ledger.wrote(CAMERA, "early/03.jpg", b"a new picture")
        camera.delete_blob("early/04.jpg")
        plant.camera.ledger.deleted(CAMERA, "early/04.jpg")


def has_left_without_a_trace(plant: Plant, occupied: int) -> None:
    """Every blob that has bytes is a stub, and the disk got its blocks back."""
    for container in (LINE, CAMERA):
        seen = faces(plant.node, container)
        away = {blob for blob, face in seen.items() if face.listed.size}
        assert stubs(plant.node, container) == away
        assert {blob for blob, where in residencies(plant.node, container).items() if where == "remote"} == away
    left = allocated(plant.node)
    print(f"{len(plant.blobs())} blobs had {occupied} bytes of disk, and have {left} now")
    assert left <= STUB_BYTES_MAX * len(plant.blobs())


def test_tags_that_are_changed_alone_follow(node: Edge) -> None:
    with node.service() as service:
        service.get_blob_client(LINE, "b").upload_blob(b"content", tags={"line": "1"})
    settle(node, LINE)
    with node.service() as service:
        service.get_blob_client(LINE, "b").set_blob_tags({"line": "2"})
    settle(node, LINE)
