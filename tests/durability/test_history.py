"""The checker itself: each kind of damage is found, and nothing that is allowed is called damage."""

import pytest

from .history import Crash, Found, StagedBlocks, Version, Write, candidates, fault, faults, standing

CRASH = Crash(began_at=100.0, over_at=101.0)


def version(name: str) -> Version:
    return Version(f"sha-{name}", 10, f"type/{name}", (("op", name),))


def write(name: str | None, sent_at: float, acknowledged_at: float | None, etag: str | None = None) -> Write:
    result = version(name) if name else None
    return Write("b", "put" if name else "delete", result, sent_at, acknowledged_at, etag)


def found(name: str, etag: str = "e") -> Found:
    return Found(version(name), etag)


BEFORE = standing("b", None)
A_THEN_B = [BEFORE, write("a", 1, 2), write("b", 3, 4)]


@pytest.mark.parametrize(
    ("writes", "it"),
    [
        (A_THEN_B, found("b")),
        ([BEFORE, write("a", 1, 2), write("b", 99, None)], found("a")),
        ([BEFORE, write("a", 1, 2), write("b", 99, None)], found("b")),
        ([BEFORE, write("a", 1, None)], None),
        # Heard only after the cut: not acknowledged, either state is right.
        ([BEFORE, write("a", 1, 2), write("b", 99, 100.5)], found("a")),
        # Two clients at once: the order is open.
        ([BEFORE, write("a", 1, 5), write("b", 2, 4)], found("a")),
        ([BEFORE, write("a", 1, 5), write("b", 2, 4)], found("b")),
        ([BEFORE, write("a", 1, 2), write(None, 3, 4)], None),
        ([BEFORE, write("a", 1, 2), write(None, 99, None)], found("a")),
        # An unacknowledged write may take effect after a later acknowledged one.
        ([BEFORE, write("a", 1, None), write("b", 3, 4)], found("a")),
    ],
)
def test_allowed_states_are_no_fault(writes: list[Write], it: Found | None) -> None:
    assert fault("b", writes, CRASH, it) is None


@pytest.mark.parametrize(
    ("writes", "it", "says"),
    [
        (A_THEN_B, None, "acknowledged write is lost"),
        (A_THEN_B, found("a"), "older version is back"),
        ([BEFORE, write("a", 1, 2), write(None, 3, 4)], found("a"), "older version is back"),
        (A_THEN_B, found("z"), "torn"),
        (A_THEN_B, Found(Version("sha-b", 10, "type/b", ()), "e"), "belong to another version"),
        ([standing("b", found("a")), write("b", 3, 4)], found("a"), "older version is back"),
        # Sent only after the crash was over: cannot be there.
        ([BEFORE, write("a", 1, 2), write("b", 102, None)], found("b"), "older version is back"),
        ([BEFORE, write("a", 1, 2, etag="right")], found("a", "wrong"), "ETag"),
    ],
)
def test_damage_is_found_and_named(writes: list[Write], it: Found | None, says: str) -> None:
    assert says in (fault("b", writes, CRASH, it) or "no fault")


def test_a_blob_nobody_wrote_is_a_fault() -> None:
    assert len(faults([], CRASH, {"stray": found("a")})) == 1
    assert faults([standing("b", found("a"))], CRASH, {"b": found("a")}) == []


def test_the_state_before_is_superseded_by_an_acknowledged_write_only() -> None:
    before = standing("b", found("old"))
    assert candidates([before, write("a", 1, 2)], CRASH) == [write("a", 1, 2)]
    assert before in candidates([before, write("a", 99, 100.5)], CRASH)


def test_blocks_are_owed_if_acknowledged_before_the_crash() -> None:
    staged = StagedBlocks("s", [("1", b"x", 99.0), ("2", b"y", 100.5)])
    assert staged.owed(CRASH) == [("1", b"x")]
