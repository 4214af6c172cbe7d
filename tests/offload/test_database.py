"""The file of the queue: made, locked, upgraded, and refused when it is damaged, newer, or on another machine."""

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.offload import opening, schema
from agent.offload.database import Queue
from agent.offload.opening import DamagedDatabase, NewerDatabase, QueueBusy, QueueUnwritable
from agent.problems import OperatorError

from .database_support import NOW, change, copy, everything

if TYPE_CHECKING:
    from sqlite_utils import Database


def fill(path: Path, rows: int) -> None:
    with Queue(path) as queue:
        queue.ingest("s", rows, [change(f"name {number:06d} {'x' * 100}") for number in range(rows)])


def test_a_new_one_says_that_it_is_new(tmp_path: Path) -> None:
    path = tmp_path / "made" / "queue.db"
    with Queue(path) as queue:
        assert queue.fresh
    with Queue(path) as queue:
        assert not queue.fresh
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_commits_survive_a_power_cut_by_configuration(tmp_path: Path) -> None:
    connection, _ = opening.connect(tmp_path / "queue.db")
    settings = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    connection.close()
    assert settings == ["wal", 2]  # 2: FULL


def test_a_second_one_waits_for_the_first_to_end(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with Queue(path), pytest.raises(QueueBusy):
        Queue(path)
    Queue(path).close()


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    program = "import sys, pathlib; from agent.offload.database import Queue; Queue(pathlib.Path(sys.argv[1]))\n"
    program += "print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        with pytest.raises(QueueBusy):
            Queue(path)
        other.kill()
    Queue(path).close()


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "9p", "fuse", "fuse.sshfs", "lustre"])
def test_network_disks_are_refused(kind: str) -> None:
    assert opening.why_not_local(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuseblk", ""])
def test_disks_of_this_node_are_taken(kind: str) -> None:
    assert opening.why_not_local(kind) is None


def test_a_network_disk_is_the_operators_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "file_system", lambda device: "nfs4")
    with pytest.raises(OperatorError, match=r"nfs4 is a network file system; set \[offload\] directory"):
        Queue(tmp_path / "queue.db")
    assert not (tmp_path / "queue.db").exists()


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be one" * 100, b"SQLite format 3\0" + b"\1" * 8000]
)
def test_what_is_no_database_is_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "queue.db"
    path.write_bytes(content)
    with pytest.raises(DamagedDatabase):
        Queue(path)
    assert path.read_bytes() == content


def test_a_damaged_page_is_found_at_open(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    fill(path, 2_000)
    content = bytearray(path.read_bytes())
    for page in range(20, 40):
        content[page * 4096 : page * 4096 + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(DamagedDatabase):
        Queue(path)


def test_a_flipped_bit_in_a_name_is_found_by_verify(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    fill(path, 2_000)
    content = bytearray(path.read_bytes())
    content[content.index(b"name 001000")] ^= 1
    path.write_bytes(content)
    with Queue(path) as queue, pytest.raises(DamagedDatabase):
        queue.verify()


def test_text_that_is_none_any_more_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    fill(path, 10)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"name 000005")] = 0xFF  # in the table; the index has it whole
    path.write_bytes(content)
    with Queue(path) as queue, pytest.raises(DamagedDatabase, match="UTF-8"):
        everything(queue)


@pytest.mark.parametrize("flipped", [b"queueewaiting", b"queuedwa\tting"])
def test_a_state_that_nobody_ever_wrote_is_damage(tmp_path: Path, flipped: bytes) -> None:
    path = tmp_path / "queue.db"
    with Queue(path) as queue:
        queue.ingest("s", 1, [change("b", due=2 * NOW)])
    content = path.read_bytes()
    assert b"queuedwaiting" in content  # the two columns, in the row and in an index
    path.write_bytes(content.replace(b"queuedwaiting", flipped))
    with Queue(path) as queue:
        for look in (
            lambda: queue.find("a", "c", "b"),
            lambda: queue.known("a", "c", "", None, 9),
            queue.counts,
            lambda: everything(queue),
        ):
            with pytest.raises(DamagedDatabase, match="is damaged"):
                look()


@pytest.mark.parametrize("told", [b"cloud/name", b"cloud-c", b"cloud e1", b"my name"])
def test_a_flipped_bit_in_what_is_said_of_a_copy_is_damage(tmp_path: Path, told: bytes) -> None:
    """Bytes may leave this node because of what it says."""
    path = tmp_path / "queue.db"
    with Queue(path) as queue:
        queue.ingest("s", 1, [change("my name")])
        (row,) = queue.take(NOW, 1, [])
        queue.copied(row, copy("e1"))
        assert len(queue.candidates(1)) == 1
    content = path.read_bytes()
    assert told in content
    path.write_bytes(content.replace(told, told[:-1] + bytes([told[-1] ^ 1])))
    with Queue(path) as queue, pytest.raises(DamagedDatabase, match="check of its copy"):
        queue.candidates(1)


def test_damage_that_comes_while_it_is_open_is_said(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    fill(path, 2_000)
    with Queue(path) as queue:
        queue._connection.execute("PRAGMA cache_size = 1")  # so that it reads what is on the disk
        content = path.read_bytes()
        path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
        with pytest.raises(DamagedDatabase):
            everything(queue)


def test_a_damaged_one_is_set_aside_whole_and_rebuilt(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    path.write_bytes(b"damaged" * 1000)
    with pytest.raises(DamagedDatabase):
        Queue(path)
    aside = opening.set_aside(path, 7)
    assert aside == tmp_path / "queue.db.damaged-7"
    assert aside.read_bytes() == b"damaged" * 1000
    with Queue(path) as queue:
        assert queue.fresh
        assert everything(queue) == []


def test_one_that_another_process_rebuilt_is_not_set_aside(tmp_path: Path) -> None:
    """Two sidecars found the damage, one after the other."""
    path = tmp_path / "queue.db"
    fill(path, 1)
    assert opening.set_aside(path, 7) is None
    with Queue(path) as queue:
        assert len(everything(queue)) == 1
        with pytest.raises(QueueBusy):
            opening.set_aside(path, 8)


def test_one_that_is_found_damaged_while_it_is_open_is_set_aside_too(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    fill(path, 2_000)
    with Queue(path) as queue:
        aside = queue.set_aside(7)
    assert aside.stat().st_size > 100_000
    with Queue(path) as queue:
        assert queue.fresh


def test_a_newer_one_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    fill(path, 1)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.close()
    with pytest.raises(NewerDatabase, match="run the newer program again"):
        Queue(path)


def test_a_disk_that_refuses_is_said_and_nothing_happened(tmp_path: Path) -> None:
    with Queue(tmp_path / "queue.db") as queue:
        queue.ingest("s", 1, [change("first")])
        pages = queue._connection.execute("PRAGMA page_count").fetchone()[0]
        queue._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(QueueUnwritable):
            queue.ingest("s", 2, [change(f"{number} {'x' * 500}") for number in range(100)])
        assert queue.offsets() == {"s": 1}
        assert [row.name for row in everything(queue)] == ["first"]
        queue._connection.execute("PRAGMA max_page_count = 1000000")
        queue.ingest("s", 2, [change("second")])
        assert queue.offsets() == {"s": 2}


def test_an_upgrade_keeps_what_is_there_and_a_crash_in_it_repeats_the_step(tmp_path: Path) -> None:
    """By a step that adds a column and fails at first."""
    path = tmp_path / "queue.db"
    fill(path, 10)
    attempts: list[int] = []

    def following(database: "Database") -> None:
        database.table("blobs").add_column("checked_at", int, not_null_default=0)
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError("the power goes")

    steps = (*schema.STEPS, following)
    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(RuntimeError):
        schema.upgrade(connection, steps)
    assert schema.version_of(connection) == schema.VERSION
    assert schema.upgrade(connection, steps) == 1
    assert schema.upgrade(connection, steps) == 0
    assert schema.version_of(connection) == schema.VERSION + 1
    assert connection.execute("SELECT count(*), sum(checked_at) FROM blobs").fetchone() == (10, 0)
    connection.close()


def test_version_1_becomes_version_2(tmp_path: Path) -> None:
    """Rows stay; what was on its way back is a stub; what is in the cloud can be evicted, the coldest first."""
    path = tmp_path / "queue.db"
    connection = sqlite3.connect(path, isolation_level=None)
    schema.upgrade(connection, schema.STEPS[:1])
    connection.execute("INSERT INTO containers VALUES (1, 'a', 'c')")
    connection.executemany(
        "INSERT INTO blobs (container_id, name, residency, hold, revision, etag, modified_ns, changed_at, due_at, "
        "copied_etag, cloud_etag, cloud_name, copied_at, read_at) "
        "VALUES (1, ?, ?, '', 7, 'e', ?, 1, 1, 'e', 'cloud e', 'there', 9, ?)",
        [("warm", "copied", 5, 60), ("cold", "copied", 40, 0), ("back", "recalling", 5, 0), ("new", "queued", 5, 0)],
    )
    connection.close()
    with Queue(path) as queue:
        assert not queue.fresh
        states = {row.name: (row.residency, row.read_at, row.read_before_at) for row in everything(queue)}
        assert states == {
            "warm": ("copied", 60, 0),
            "cold": ("copied", 0, 0),
            "back": ("remote", 0, 0),
            "new": ("queued", 0, 0),
        }
        assert [row.name for row in queue.candidates(9)] == ["cold", "warm"]
        assert queue.arrived("a", "c", "back", "e")
        assert queue.looks() == []
        queue.verify()


def test_version_2_becomes_version_3(tmp_path: Path) -> None:
    """Rows stay, and what is a stub may be one that is moved."""
    path = tmp_path / "queue.db"
    connection = sqlite3.connect(path, isolation_level=None)
    schema.upgrade(connection, schema.STEPS[:2])
    connection.execute("INSERT INTO containers VALUES (1, 'a', 'c')")
    connection.executemany(
        "INSERT INTO blobs (container_id, name, residency, hold, revision, modified_ns, changed_at, due_at) "
        "VALUES (1, ?, ?, '', 7, 5, 1, 1)",
        [(residency, residency) for residency in ("local", "queued", "copied", "remote", "going")],
    )
    connection.close()
    with Queue(path) as queue:
        assert not queue.fresh
        assert {row.name: row.away for row in everything(queue)} == {
            "local": False, "queued": False, "copied": False, "remote": True, "going": False,
        }  # fmt: skip
        queue.verify()


def test_no_start_imports_more_than_it_needs(tmp_path: Path) -> None:
    """Memory: with nothing to upgrade no sqlite-utils, and never what that would import besides."""
    path = tmp_path / "queue.db"
    program = (
        "import sys, pathlib; from agent.offload.database import Queue; Queue(pathlib.Path(sys.argv[1])).close()\n"
    )
    program += "print(*{'sqlite_utils', 'pandas', 'numpy'} & set(sys.modules))"
    starts = [subprocess.check_output([sys.executable, "-c", program, str(path)], text=True) for _ in range(2)]
    assert starts == ["sqlite_utils\n", "\n"]


def note_and_fail(queue: Queue, name: str) -> None:
    with queue.transaction():
        queue.note([change(name)])
        raise ZeroDivisionError


def test_a_part_that_fails_undoes_itself_only(tmp_path: Path) -> None:
    with Queue(tmp_path / "queue.db") as queue:
        with queue.transaction():
            queue.note([change("kept")])
            with pytest.raises(ZeroDivisionError):
                note_and_fail(queue, "undone")
        with pytest.raises(ZeroDivisionError):
            note_and_fail(queue, "undone too")
        assert [row.name for row in everything(queue)] == ["kept"]


def test_sums_of_a_day_and_settings_stay(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with Queue(path) as queue:
        assert queue.spend("2026-11-23", 5) == 5
        assert queue.recall("paused") is None
        queue.remember("paused", "since 10:00")
    with Queue(path) as queue:
        assert queue.spend("2026-11-23", 6) == 11
        assert queue.spend("2026-11-24", 1) == 1
        assert queue.recall("paused") == "since 10:00"
        queue.ingest("s", 9, [])
        queue.forget_segment("s")
        assert queue.offsets() == {}
