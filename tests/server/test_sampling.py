"""Which requests the access log has."""

import pytest

from dataplane.server.sampling import Sample

RUN = 30_000
DEVIATION_MAX = 3  # of the number chosen from its share of a run, whatever the run's length


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.25, 0.5, 0.9, 0.999])
def test_any_run_has_its_share(share: float) -> None:
    sample, chosen = Sample(share), 0
    for count in range(1, RUN + 1):
        chosen += sample.chosen()
        assert abs(chosen - count * share) <= DEVIATION_MAX


def test_none_and_all() -> None:
    none, all_ = Sample(0.0), Sample(1.0)
    assert not any(none.chosen() for _ in range(RUN))
    assert all(all_.chosen() for _ in range(RUN))


@pytest.mark.parametrize("period", range(2, 13))
def test_traffic_with_a_period_is_seen_whole(period: int) -> None:
    """Of PUT, GET, PUT, GET a half shows half of each."""
    sample, chosen = Sample(0.1), [0] * period
    for count in range(RUN):
        chosen[count % period] += sample.chosen()
    expected = RUN / period * 0.1
    assert all(abs(each - expected) <= DEVIATION_MAX + expected * 0.02 for each in chosen), chosen
