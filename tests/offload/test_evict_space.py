"""How full a mount is, and what follows: the modes, their hysteresis, and the bytes that have to go."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.offload.evict.space import Marks, Mode, Use, bytes_to_free, next_mode, use_of

MARKS = Marks(low=75, high=85, low_space=92)
HUNDRED = 100_000


def used(percent: float, inodes: float = 0) -> Use:
    return Use(int(percent * HUNDRED / 100), HUNDRED, int(inodes * 10), 1_000)


def statvfs(blocks: int, free: int, available: int, files: int, files_free: int) -> os.statvfs_result:
    return os.statvfs_result((4096, 4096, blocks, free, available, files, files_free, files_free, 0, 255))


@pytest.mark.parametrize(
    ("before", "percent", "after"),
    [
        (Mode.NORMAL, 84.9, Mode.NORMAL),
        (Mode.NORMAL, 85, Mode.EVICT),
        (Mode.EVICT, 75.1, Mode.EVICT),
        (Mode.EVICT, 75, Mode.NORMAL),
        (Mode.EVICT, 92, Mode.LOW_SPACE),
        (Mode.NORMAL, 99, Mode.LOW_SPACE),
        (Mode.LOW_SPACE, 85, Mode.LOW_SPACE),
        (Mode.LOW_SPACE, 84.9, Mode.EVICT),
        (Mode.LOW_SPACE, 10, Mode.NORMAL),
    ],
)
def test_a_mode_is_left_at_another_mark_than_it_was_entered_at(before: Mode, percent: float, after: Mode) -> None:
    assert next_mode(before, used(percent), MARKS) is after


MARK_LISTS = st.lists(st.floats(1, 100), min_size=3, max_size=3, unique=True).map(lambda found: Marks(*sorted(found)))
USES = st.builds(
    lambda taken, every, inodes: Use(min(taken, every), every, min(inodes, 1_000), 1_000),
    st.integers(0, 1 << 50),
    st.integers(1, 1 << 50),
    st.integers(0, 2_000),
)


@given(st.lists(USES, max_size=20), MARK_LISTS)
def test_no_mode_contradicts_its_marks_and_a_steady_use_has_a_steady_mode(uses: list[Use], marks: Marks) -> None:
    mode = Mode.NORMAL
    for use in uses:
        mode = next_mode(mode, use, marks)
        assert next_mode(mode, use, marks) is mode
        if use.percent >= marks.low_space:
            assert mode is Mode.LOW_SPACE
        elif use.percent >= marks.high:
            assert mode is not Mode.NORMAL
        elif use.percent <= marks.low:
            assert mode is Mode.NORMAL


@given(USES, MARK_LISTS, st.sampled_from(Mode))
def test_freeing_what_is_asked_for_ends_at_the_low_mark_and_not_far_below(use: Use, marks: Marks, before: Mode) -> None:
    mode = next_mode(before, use, marks)
    wanted = bytes_to_free(mode, use, marks)
    assert (wanted > 0) <= (mode is not Mode.NORMAL)
    after = use._replace(used_bytes=use.used_bytes - wanted, used_inodes=0)
    if mode is not Mode.NORMAL:
        assert after.used_bytes >= 0
        assert after.bytes_percent <= marks.low + 1e-6
        assert wanted == 0 or after.used_bytes + 1 >= use.all_bytes * marks.low / 100


def test_inodes_count_for_the_mode_and_ask_for_no_bytes() -> None:
    use = used(10, inodes=95)
    assert next_mode(Mode.NORMAL, use, MARKS) is Mode.LOW_SPACE
    assert bytes_to_free(Mode.LOW_SPACE, use, MARKS) == 0


def test_use_is_what_df_shows() -> None:
    use = use_of(statvfs(blocks=1_000, free=150, available=100, files=200, files_free=50))
    assert (use.used_bytes, use.all_bytes) == (850 * 4096, 950 * 4096)
    assert use.bytes_percent == pytest.approx(89.47, abs=0.01)
    assert use.inodes_percent == 75


def test_a_file_system_without_counted_inodes_is_never_out_of_them() -> None:
    use = use_of(statvfs(blocks=1_000, free=900, available=900, files=0, files_free=0))
    assert (use.inodes_percent, use.percent) == (0, 10)
