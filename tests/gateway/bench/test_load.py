from itertools import pairwise
from statistics import fmean, pstdev

import pytest

from gateway.bench.load import AtOnce, Rate, arrival_times


def gaps(rate: Rate, count: int = 20_000) -> list[float]:
    times = arrival_times(rate, count, seed=1)
    return [later - earlier for earlier, later in pairwise(times)]


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_arrivals_have_the_rate_and_the_burstiness_asked_for(burstiness: float) -> None:
    found = gaps(Rate(50.0, burstiness))

    assert fmean(found) == pytest.approx(1 / 50, rel=0.05)
    # Of a gamma distribution of shape k, deviation over mean is 1 over the root of k.
    assert pstdev(found) / fmean(found) == pytest.approx(burstiness**-0.5, rel=0.05)


def test_arrivals_are_drawn_from_the_seed_and_begin_at_once() -> None:
    assert arrival_times(Rate(9.0), 10, seed=1) == arrival_times(Rate(9.0), 10, seed=1)
    assert arrival_times(Rate(9.0), 10, seed=1) != arrival_times(Rate(9.0), 10, seed=2)
    assert arrival_times(Rate(9.0), 10, seed=1)[0] == 0.0


def test_loads_are_told_in_words() -> None:
    assert str(AtOnce(4)) == "4 at once"
    assert str(Rate(2.5)) == "2.5 a second"
