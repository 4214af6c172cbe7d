"""Tiers: the way out of Archive by the clock, what it forbids meanwhile, and what a second request may change."""

from dataclasses import replace

import pytest

from dataplane.blobapi import limits
from dataplane.blobapi.errors import BlobError
from dataplane.blobapi.model import AccessTier, BlobProperties
from dataplane.blobapi.tiers import HIGH, STANDARD, change_tier, check_online, parse_priority, settled

NOW = 1_557_362_521
HOT = BlobProperties("0x8D", NOW - 9, NOW - 9)
ARCHIVED = replace(HOT, access_tier=AccessTier.ARCHIVE, tier_changed=NOW - 5)
COMING = replace(ARCHIVED, rehydrate_to=AccessTier.COOL, rehydrate_priority=STANDARD, tier_changed=NOW)


def test_changes_among_online_tiers_and_to_archive() -> None:
    for tier in AccessTier:
        changed = change_tier(HOT, tier, None, NOW)
        assert changed.status == 200
        assert changed.properties == replace(HOT, access_tier=tier, tier_changed=NOW)
    assert change_tier(ARCHIVED, AccessTier.ARCHIVE, None, NOW).properties is ARCHIVED


@pytest.mark.parametrize(("priority", "kept"), [(None, STANDARD), (STANDARD, STANDARD), (HIGH, HIGH)])
def test_a_rehydration_begins(priority: str | None, kept: str) -> None:
    changed = change_tier(ARCHIVED, AccessTier.COOL, priority, NOW)
    assert changed.status == 202
    assert changed.properties == replace(COMING, rehydrate_priority=kept)


@pytest.mark.parametrize(
    ("priority", "seconds"),
    [(STANDARD, limits.rehydrate_seconds_standard), (HIGH, limits.rehydrate_seconds_high), ("", 60)],
)
def test_a_rehydration_ends_by_the_clock(priority: str, seconds: int) -> None:
    coming = replace(COMING, rehydrate_priority=priority)
    assert settled(coming, NOW + seconds - 1) is coming
    done = settled(coming, NOW + seconds)
    assert (done.access_tier, done.rehydrate_to, done.rehydrate_priority) == (AccessTier.COOL, None, "")
    assert settled(done, NOW + seconds) is done


def test_while_it_lasts_only_the_priority_may_rise() -> None:
    raised = change_tier(COMING, AccessTier.COOL, HIGH, NOW + 1)
    assert (raised.status, raised.properties.rehydrate_priority) == (202, HIGH)
    for tier, priority in ((AccessTier.HOT, HIGH), (AccessTier.COOL, None), (AccessTier.ARCHIVE, HIGH)):
        with pytest.raises(BlobError) as caught:
            change_tier(COMING, tier, priority, NOW + 1)
        assert caught.value.code.code == "BlobBeingRehydrated"


def test_what_archive_forbids() -> None:
    check_online(HOT, NOW)
    check_online(COMING, NOW + limits.rehydrate_seconds_standard)
    for properties, code in ((ARCHIVED, "BlobArchived"), (COMING, "BlobBeingRehydrated")):
        with pytest.raises(BlobError) as caught:
            check_online(properties, NOW)
        assert (caught.value.code.status, caught.value.code.code) == (409, code)


def test_priorities() -> None:
    assert parse_priority("high") == HIGH
    assert parse_priority("Standard") == STANDARD
    assert parse_priority(None) is parse_priority("") is None
    with pytest.raises(BlobError):
        parse_priority("urgent")
