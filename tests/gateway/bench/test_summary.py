import pytest

from gateway.bench.drive import Failure
from gateway.bench.load import Rate
from gateway.bench.summary import Goal, Spread, median_of, ratios_of, spread_of, summary_of
from tests.gateway.bench.answers import answer, run, sample


def test_latencies_count_from_when_the_question_was_due() -> None:
    summary = summary_of(run(sample(answer(2.0, 2.1, 2.4, end=2.5), due=1.5, late=0.2)))

    latencies = summary.latencies
    assert latencies.first_output is not None
    assert latencies.first_output.p50 == pytest.approx(0.5)
    assert latencies.total is not None
    assert latencies.total.p50 == pytest.approx(1.0)
    assert latencies.between is not None
    assert latencies.between.mean == pytest.approx(0.2)
    assert latencies.between.p99 == pytest.approx(0.3)


def test_time_per_token_divides_by_the_tokens_that_the_server_told() -> None:
    # Nine tokens in three pieces: four a second, whatever the pieces were.
    summary = summary_of(run(sample(answer(1.0, 2.0, 3.0, tokens=9))))

    assert summary.latencies.per_token is not None
    assert summary.latencies.per_token.mean == pytest.approx(2.0 / 8)
    assert summary.output_tokens == 9
    assert summary.tokens_per_piece == 3.0


def test_an_answer_in_one_piece_has_no_time_per_token() -> None:
    summary = summary_of(run(sample(answer(1.0, tokens=9))))

    assert summary.latencies.per_token is None
    assert summary.latencies.between is None
    assert summary.latencies.first_output is not None


def test_a_failure_is_counted_by_its_kind_and_in_no_latency_or_throughput() -> None:
    slow = sample(answer(5.0, 6.0), due=0.0)
    refused = [sample(Failure("http_429", f"busy {n}"), due=0.0, index=n) for n in range(3)]

    summary = summary_of(run(slow, *refused, sample(Failure("timeout", "late")), seconds=10.0))

    assert summary.answers == 1
    assert summary.failures == {"http_429": 3, "timeout": 1}
    assert summary.failure_messages == {"http_429": "busy 0", "timeout": "late"}
    assert summary.num_failures == 4
    assert summary.requests_per_second == pytest.approx(0.1)
    assert summary.tokens_per_second == pytest.approx(0.2)
    assert summary.latencies.total is not None
    assert summary.latencies.total.mean == 6.0


def test_a_run_in_which_all_failed_has_no_latencies() -> None:
    summary = summary_of(run(sample(Failure("connect", "no")), sample(Failure("connect", "no"))))

    assert summary.answers == 0
    assert summary.tokens_per_second == 0
    assert summary.latencies.first_output is None
    assert summary.latencies.total is None


def test_percentiles_are_values_that_occurred() -> None:
    assert spread_of([float(n) for n in range(1, 101)]) == Spread(
        mean=50.5, p50=50.0, p95=95.0, p99=99.0
    )
    assert spread_of([3.0, 1.0]) == Spread(mean=2.0, p50=1.0, p95=3.0, p99=3.0)
    assert spread_of([]) is None


def test_a_goal_counts_only_answers_that_keep_all_of_it() -> None:
    samples = [
        sample(answer(0.1, 0.2, 0.3), index=0),
        sample(answer(0.5, 0.6, 0.7), index=1),  # its first output is late
        sample(answer(0.1, 1.1, 2.1), index=2),  # its tokens are slow
        sample(Failure("empty", "nothing"), index=3),
    ]

    summary = summary_of(run(*samples, seconds=2.0), goal=Goal(first_output=0.2, per_token=0.5))

    assert summary.good_per_second == pytest.approx(0.5)
    assert summary_of(run(*samples)).good_per_second is None


def test_lateness_is_told_of_an_open_loop_only() -> None:
    late = sample(answer(1.0), late=0.25)

    assert summary_of(run(late)).late is None
    found = summary_of(run(late, load=Rate(1.0))).late
    assert found is not None
    assert found.p50 == 0.25


def test_the_median_round_is_the_one_in_the_middle() -> None:
    rounds = [
        summary_of(run(sample(answer(1.0, 2.0)), seconds=seconds)) for seconds in (1.0, 9.0, 2.0)
    ]

    assert median_of(rounds) is rounds[2]


def test_ratios_compare_round_by_round() -> None:
    def rounds(name: str, *seconds: float) -> list:
        return [
            summary_of(run(sample(answer(each, 2 * each)), seconds=each, subject=name))
            for each in seconds
        ]

    # A machine that slows down fourfold during the run changes neither ratio.
    ratios = {
        ratio.figure: ratio
        for ratio in ratios_of(rounds("a", 1.0, 2.0, 4.0), rounds("b", 2.0, 4.0, 8.0))
    }

    assert (ratios["output tokens/s"].ours, ratios["output tokens/s"].theirs) == ("a", "b")
    assert ratios["output tokens/s"].median == 2.0
    assert ratios["output tokens/s"].lowest == ratios["output tokens/s"].highest == 2.0
    assert ratios["first output p50"].median == 0.5
