import math

import pytest

from gateway.targets.latency import DECAY_SECONDS, UNKNOWN_SECONDS, PeakLatency


def test_a_slower_answer_counts_at_once_and_in_full():
    latency = PeakLatency()
    latency.observe(0.1, now=0.0)

    latency.observe(3.0, now=0.01)

    assert latency.seconds(0.01) == 3.0


def test_a_faster_answer_is_believed_by_the_time_since_the_last():
    latency = PeakLatency()
    latency.observe(3.0, now=0.0)

    latency.observe(1.0, now=DECAY_SECONDS * math.log(2))

    assert latency.seconds(DECAY_SECONDS * math.log(2)) == pytest.approx(2.0)


def test_with_no_answers_it_fades_so_that_the_target_gets_another_chance():
    latency = PeakLatency()
    latency.observe(3.0, now=0.0)

    faded = [latency.cost(0, now) for now in (0.0, 10.0, 60.0)]

    assert faded[0] == 3.0
    assert faded[0] > faded[1] > faded[2]
    assert faded[2] < 0.01


def test_each_running_call_adds_one_wait():
    latency = PeakLatency()
    latency.observe(0.5, now=0.0)

    assert latency.cost(0, 0.0) == 0.5
    assert latency.cost(3, 0.0) == 2.0


def test_an_unknown_target_is_asked_once_until_it_is_known():
    latency = PeakLatency()

    assert latency.seconds(0.0) is None
    assert latency.cost(0, 0.0) == 0
    assert latency.cost(1, 0.0) == UNKNOWN_SECONDS


def test_a_call_given_up_is_news_only_if_it_waited_longer_than_expected():
    latency = PeakLatency()
    latency.observe_at_least(9.0, now=0.0)
    assert latency.seconds(0.0) is None

    latency.observe(1.0, now=0.0)
    latency.observe_at_least(0.2, now=0.0)
    assert latency.seconds(0.0) == 1.0
    latency.observe_at_least(4.0, now=0.0)
    assert latency.seconds(0.0) == 4.0


def test_a_clock_that_stands_still_or_goes_back_breaks_nothing():
    latency = PeakLatency()
    latency.observe(1.0, now=10.0)
    latency.observe(0.5, now=9.0)

    assert latency.seconds(5.0) == 1.0
