"""Which rule a blob goes by, when it is due, in which order, and where it goes."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config_offload import Offload
from agent.offload.amounts import NANOSECONDS
from agent.offload.rules import STAYS, Decision, Leaving, Rules, Subject, decide, first_turn
from agent.offload.templates import Target

DAY = 86_400 * NANOSECONDS
NOW = 20_000 * DAY


def rules(*tables: dict[str, Any], accounts: tuple[str, ...] = ("plant7",)) -> Rules:
    return Rules(Offload.model_validate({"node": "edge1", "rules": list(tables)}), accounts)


def blob(name: str = "a.jpg", **said: Any) -> Subject:
    values = {"account": "plant7", "container": "cam", "size": 100, "modified_ns": NOW, "noticed_ns": NOW, **said}
    return Subject(name=name, **values)


RULE = st.fixed_dictionaries(
    {"upload": st.sampled_from(["now", "idle", "never"])},
    optional={
        "containers": st.lists(st.sampled_from(["cam", "cam-*", "logs", "*"]), min_size=1, max_size=2),
        "prefix": st.sampled_from(["", "a", "a/", "b/"]),
        "glob": st.sampled_from(["*.jpg", "**.jpg", "a/*", "?", "[ab]/**"]),
        "size_min": st.sampled_from(["1 B", "1 KiB"]),
        "size_max": st.sampled_from(["0 B", "2 KiB"]),
        "idle_seconds": st.integers(0, 5).map(float),
        "order": st.sampled_from(["oldest", "newest", "smallest"]),
        "priority": st.sampled_from(["high", "low", 7]),
        "tier": st.sampled_from(["Cool", "Archive"]),
        "delete": st.just("propagate"),
    },
)
TABLES = st.lists(RULE, max_size=4)
SUBJECTS = st.builds(
    Subject,
    st.just("plant7"),
    st.sampled_from(["cam", "cam-1", "logs"]),
    st.sampled_from(["a", "a.jpg", "a/b", "a/b.jpg", "b/c", "c", "a/b/c.jpg"]),
    st.sampled_from([0, 1, 1024, 2048, 2049]),
    st.integers(NOW - 10 * NANOSECONDS, NOW + 10 * NANOSECONDS),
    st.integers(NOW - 10 * NANOSECONDS, NOW),
)


@given(TABLES, SUBJECTS)
def test_the_same_blob_gets_the_same_decision(tables: list[dict[str, Any]], subject: Subject) -> None:
    known = rules(*tables)
    assert decide(known, subject, NOW) == decide(known, subject, NOW) == decide(rules(*tables), subject, NOW)


@given(TABLES, SUBJECTS)
def test_the_first_rule_that_matches_decides_and_a_blob_without_one_stays(
    tables: list[dict[str, Any]], subject: Subject
) -> None:
    """A rule decides what it would decide alone, if none before it says anything of the blob."""
    alone = [decide(rules(table), subject, NOW) for table in tables]
    first = next((number for number, decision in enumerate(alone) if decision.rule is not None), None)
    decision = decide(rules(*tables), subject, NOW)
    assert decision.rule == first
    if first is None:
        assert decision == STAYS
        assert not decision.upload
    else:
        assert (decision.upload, decision.turn, decision.target) == (
            alone[first].upload,
            alone[first].turn,
            alone[first].target,
        )


@given(TABLES, SUBJECTS)
def test_what_is_explained_is_what_is_decided(tables: list[dict[str, Any]], subject: Subject) -> None:
    known = rules(*tables)
    said = known.mismatches(subject)
    assert decide(known, subject, NOW).rule == (said.index("") if "" in said else None)


@given(
    st.sampled_from([{"upload": "idle", "idle_seconds": 3.0}, {"upload": "age", "age_days": 0.5}, {"upload": "now"}]),
    st.integers(0, NOW),
    st.integers(0, NOW),
)
def test_nothing_is_due_before_its_condition_holds(table: dict[str, Any], modified: int, noticed: int) -> None:
    due_at = decide(rules(table), blob(modified_ns=modified, noticed_ns=noticed), NOW).due_at
    if table["upload"] == "idle":
        assert due_at - max(modified, noticed) == 3 * NANOSECONDS
    elif table["upload"] == "age":
        assert due_at - modified == DAY // 2
    else:
        assert due_at == noticed


@given(st.lists(st.tuples(st.integers(0, NOW), st.integers(0, 2**50)), min_size=2, max_size=2))
def test_order_keys_order(blobs: list[tuple[int, int]]) -> None:
    def keys(order: str) -> list[int]:
        known = rules({"order": order, "upload": "now"})
        return [decide(known, blob(modified_ns=when, size=size), NOW).order_key for when, size in blobs]

    (when, size), (other_when, other_size) = blobs
    oldest, newest, smallest = keys("oldest"), keys("newest"), keys("smallest")
    assert (oldest[0] < oldest[1]) == (when < other_when)
    assert (newest[0] < newest[1]) == (when > other_when)
    assert (smallest[0] < smallest[1]) == (size < other_size)


@settings(max_examples=300)
@given(TABLES, SUBJECTS)
def test_a_look_by_name_is_never_too_late(tables: list[dict[str, Any]], subject: Subject) -> None:
    """The journal knows no size, and a blob that it tells of was modified when it was noticed."""
    subject = subject._replace(modified_ns=subject.noticed_ns)
    known = rules(*tables)
    turn = first_turn(known, subject.account, subject.container, subject.name, subject.noticed_ns)
    decision = decide(known, subject, NOW)
    if decision.upload:
        assert turn is not None
        assert turn.due_at <= decision.due_at


def test_a_name_that_no_rule_sends_needs_no_look() -> None:
    known = rules({"prefix": "tmp/", "upload": "never"}, {"containers": ["cam"], "size_min": "1 MiB"})
    assert first_turn(known, "plant7", "cam", "tmp/x", NOW) is None
    assert first_turn(known, "plant7", "logs", "x", NOW) is None
    assert first_turn(known, "plant7", "cam", "x", NOW) is not None


def test_a_time_in_the_future_is_not_believed() -> None:
    """A camera whose clock is wrong: its pictures go when they were noticed, not in 2038."""
    wrong = blob(modified_ns=NOW + 4000 * DAY, noticed_ns=NOW - NANOSECONDS)
    assert decide(rules({"upload": "idle", "idle_seconds": 3.0}), wrong, NOW).due_at == NOW + 2 * NANOSECONDS
    assert decide(rules({"upload": "age", "age_days": 1}), wrong, NOW).due_at == NOW - NANOSECONDS + DAY
    assert decide(rules({"name": "{date:%Y}/{name}"}), wrong, NOW).target == Target("cam", "2024/a.jpg")


@pytest.mark.parametrize("upload", [{"upload": "idle"}, {"upload": "age", "age_days": 1}, {"upload": "now"}])
def test_a_blob_all_of_whose_times_are_in_the_future_is_not_put_off_for_ever(upload: dict[str, Any]) -> None:
    wrong = blob(modified_ns=NOW + 4000 * DAY, noticed_ns=NOW + 4000 * DAY)
    decision = decide(rules({**upload, "name": "{date:%Y}/{name}"}), wrong, NOW)
    assert (decision.due_at, decision.order_key, decision.target) == (NOW, NOW, Target("cam", "2024/a.jpg"))


def test_a_decision_says_all_that_the_engine_needs() -> None:
    known = rules(
        {"containers": ["tmp-*"], "upload": "never"},
        {
            "containers": ["cam*"],
            "upload": "now",
            "container": "cold",
            "name": "{node}/{container}/{name}",
            "tier": "Cool",
            "priority": "high",
            "order": "newest",
            "delete": "propagate",
            "conflict": "keep-both",
        },
    )
    assert decide(known, blob(), NOW) == Decision(
        upload=True,
        rule=1,
        due_at=NOW,
        priority=100,
        order_key=-NOW,
        target=Target("cold", "edge1/cam/a.jpg", "Cool"),
        delete="propagate",
        delete_fuse_percent=20.0,
        conflict="keep-both",
    )
    assert decide(known, blob(container="tmp-1"), NOW) == Decision(upload=False, rule=0)
    assert decide(known, blob(container="other"), NOW) == STAYS


def test_keys_fit_into_the_queue() -> None:
    decision = decide(rules({"upload": "age", "age_days": 36_500}), blob(modified_ns=-(2**70), size=2**70), NOW)
    assert -(2**63) <= decision.order_key < 2**63
    assert -(2**63) <= decision.due_at < 2**63


def test_a_decision_needs_a_size() -> None:
    with pytest.raises(ValueError, match="size"):
        decide(rules({}), blob(size=None), NOW)


FULL = {"upload": "age", "age_days": 3, "evict": "space", "priority": "low"}


def test_a_mount_in_low_space_hurries_what_may_leave() -> None:
    known = rules(FULL)
    old = blob(modified_ns=NOW - 3600 * NANOSECONDS, noticed_ns=NOW - 3600 * NANOSECONDS)
    assert decide(known, old, NOW).due_at == NOW + 3 * DAY - 3600 * NANOSECONDS
    known.low_space = lambda account, container: (account, container) == ("plant7", "cam")
    assert decide(known, old, NOW).turn[:2] == (old.modified_ns + 60 * NANOSECONDS, 0)
    assert decide(known, blob(whole=True), NOW).turn[:2] == (NOW, 0)
    assert decide(known, blob(), NOW).turn[:2] == (NOW + 60 * NANOSECONDS, 0)
    assert decide(known, blob(container="other"), NOW).priority == 900
    turn = first_turn(known, "plant7", "cam", "a", NOW)
    assert turn is not None
    assert turn[:2] == (NOW, 0)


def test_what_may_not_leave_is_not_hurried() -> None:
    known = rules(FULL | {"evict": "never"})
    known.low_space = lambda account, container: True
    assert decide(known, blob(whole=True), NOW).turn[:2] == (NOW + 3 * DAY, 900)


def test_a_rule_says_how_a_blob_leaves_whether_it_sends_it_or_not() -> None:
    assert decide(rules({"upload": "never", "ttl_days": 2}), blob(), NOW).leaving == Leaving(ttl_ns=2 * DAY)
    decision = decide(rules({"evict": "age", "evict_days": 0.5}), blob(), NOW)
    assert decision.leaving == Leaving("age", DAY // 2)
    assert decide(rules({"pin": True}), blob(), NOW).leaving.pinned
    assert decide(rules({"delete_after_upload": True}), blob(), NOW).leaving.makes_room
