"""The table of states: total where it must be, and never a way that loses the only copy."""

import pytest

from agent.offload.states import TABLE, Event, Residency, after

HERE = {Residency.LOCAL, Residency.QUEUED, Residency.COPIED}  # where all bytes are on this node
SEEN = {Event.STUBBED}  # what a look found on the mount; it moves no bytes
IN_CLOUD = {Residency.COPIED, Residency.REMOTE}  # where the cloud has this very version


@pytest.mark.parametrize("event", [Event.CHANGED, Event.KEPT, Event.DELETED])
@pytest.mark.parametrize("residency", Residency)
def test_what_happens_on_the_mount_is_never_refused(residency: Residency, event: Event) -> None:
    assert after(residency, event) is not None


def test_bytes_go_away_here_only_where_the_cloud_has_them() -> None:
    ways = {
        (before, then)
        for (before, event), then in TABLE.items()
        if before in HERE and then not in HERE and event not in {Event.DELETED, *SEEN}
    }
    assert ways == {(Residency.COPIED, Residency.REMOTE)}


def test_only_a_verified_upload_or_recall_says_that_the_cloud_has_it() -> None:
    ways = {
        (before, event)
        for (before, event), then in TABLE.items()
        if then in IN_CLOUD and before not in IN_CLOUD and event not in SEEN
    }
    assert ways == {(Residency.QUEUED, Event.COPIED)}


def test_every_state_is_reached_and_left() -> None:
    assert {then for (before, _), then in TABLE.items() if then is not before} == set(Residency)
    assert {before for (before, _), then in TABLE.items() if then is not before} == set(Residency)


def test_bytes_come_back_only_where_the_cloud_has_them() -> None:
    ways = {(before, then) for (before, event), then in TABLE.items() if event is Event.ARRIVED}
    assert ways == {(Residency.REMOTE, Residency.COPIED), (Residency.COPIED, Residency.COPIED)}


@pytest.mark.parametrize("residency", set(Residency) - {Residency.COPIED})
def test_only_a_blob_whose_bytes_are_here_is_sent_again(residency: Residency) -> None:
    assert after(residency, Event.LOST) is None


@pytest.mark.parametrize("residency", set(Residency) - {Residency.QUEUED})
def test_an_upload_of_what_is_not_queued_says_nothing(residency: Residency) -> None:
    assert after(residency, Event.COPIED) is None
