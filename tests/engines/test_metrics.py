import asyncio
from itertools import pairwise

import msgspec
import pytest

from engines.errors import ContextTooLong, EngineError, Overloaded, Unavailable
from engines.metrics import (
    FIRST_TOKEN_BOUNDS,
    REQUEST_BOUNDS,
    TOKEN_GAP_BOUNDS,
    Buckets,
    Histogram,
    ModelMetrics,
    RecordedRequest,
    RequestRecorder,
    StepRecorder,
    length_bounds,
)
from tests.fakes import FakeClock


def recorder_at(clock: FakeClock) -> RequestRecorder:
    return RequestRecorder(context_tokens=1000, clock=clock)


def a_request(recorder: RequestRecorder, **changes: float) -> RecordedRequest:
    fields = {"prompt_tokens": 7, "max_tokens": 20, "arrived_at": recorder.clock(), **changes}
    return recorder.request(**fields)  # type: ignore[arg-type]


def place_of(buckets: Buckets, value: float) -> int:
    """Values in the bucket that `value` falls into."""
    return next(
        count
        for bound, count in zip((*buckets.bounds, float("inf")), buckets.counts, strict=True)
        if value <= bound
    )


def test_a_value_on_a_bound_is_below_it() -> None:
    histogram = Histogram((1.0, 2.0))

    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)

    assert histogram.snapshot() == Buckets((1.0, 2.0), (2, 2, 1), 7.5)
    assert histogram.snapshot().count == 5


def test_a_snapshot_does_not_change_any_more() -> None:
    histogram = Histogram((1.0,))
    before = histogram.snapshot()

    histogram.observe(0.5, times=3)

    assert before == Buckets((1.0,), (0, 0), 0.0)
    assert histogram.snapshot() == Buckets((1.0,), (3, 0), 1.5)


def test_the_bounds_are_those_of_vllm_and_finer_ones_below_ten_milliseconds() -> None:
    first = "0.001 .005 .01 .02 .04 .06 .08 .1 .25 .5 .75 1 2.5 5 7.5 10 20 40 80 160 640 2560"
    gap = ".01 .025 .05 .075 .1 .15 .2 .3 .4 .5 .75 1 2.5 5 7.5 10 20 40 80"
    request = ".3 .5 .8 1 1.5 2 2.5 5 10 15 20 30 40 50 60 120 240 480 960 1920 7680"

    assert [float(bound) for bound in first.split()] == list(FIRST_TOKEN_BOUNDS)
    assert [0.0005, 0.001, 0.0025, 0.005, *map(float, gap.split())] == list(TOKEN_GAP_BOUNDS)
    assert [float(bound) for bound in request.split()] == list(REQUEST_BOUNDS)
    assert length_bounds(600) == (1, 2, 5, 10, 20, 50, 100, 200, 500)
    assert all(low < high for low, high in pairwise(length_bounds(131072)))


def test_a_request_tells_of_its_first_token_its_gaps_and_its_end() -> None:
    clock = FakeClock()
    recorder = recorder_at(clock)

    with a_request(recorder) as request:
        request.admitted(cached_tokens=4)
        clock.advance(0.5)
        request.reached(1)
        clock.advance(0.002)
        request.reached(2)
        clock.advance(0.002)
        request.reached(2)  # nothing new
        clock.advance(0.002)
        request.reached(3)
        request.finished("length", queued=0.1, prefill=0.4, decode=0.006)

    told = recorder.snapshot()
    assert (told.prompt_tokens, told.cached_tokens, told.generation_tokens) == (7, 4, 3)
    assert (told.prefix_queries, told.prefix_hits) == (7, 4)
    assert told.ended == {"stop": 0, "length": 1, "abort": 0, "error": 0}
    assert told.first_token_seconds.sum == pytest.approx(0.5)
    assert told.token_gap_seconds.count == 2
    assert told.token_gap_seconds.sum == pytest.approx(0.006)
    assert told.seconds_per_token.sum == pytest.approx(0.003)
    assert told.request_seconds.sum == pytest.approx(0.506)
    assert told.queue_seconds.sum == pytest.approx(0.1)
    assert told.inference_seconds.sum == pytest.approx(0.406)
    assert (told.prompt_lengths.sum, told.answer_lengths.sum, told.max_tokens.sum) == (7, 3, 20)


def test_tokens_that_came_together_share_the_time_they_took() -> None:
    clock = FakeClock()
    recorder = recorder_at(clock)
    request = a_request(recorder)

    request.reached(1)
    clock.advance(0.008)
    request.reached(5)

    gaps = recorder.snapshot().token_gap_seconds
    assert place_of(gaps, 0.002) == gaps.count == 4
    assert gaps.sum == pytest.approx(0.008)
    assert recorder.snapshot().generation_tokens == 5


def test_the_prompt_counts_with_the_first_token_and_not_before() -> None:
    recorder = recorder_at(FakeClock())

    with a_request(recorder) as request:
        request.admitted(cached_tokens=2)
        request.reached(0)

    told = recorder.snapshot()
    assert (told.prompt_tokens, told.cached_tokens, told.prefix_queries) == (0, 0, 7)
    assert told.first_token_seconds.count == 0


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (None, "abort"),
        (GeneratorExit(), "abort"),
        (asyncio.CancelledError(), "abort"),
        (Unavailable("gone"), "error"),
        (RuntimeError("a bug"), "error"),
    ],
)
def test_a_request_that_does_not_finish_was_given_up_or_failed(
    error: BaseException | None, end: str
) -> None:
    recorder = recorder_at(FakeClock())

    try:
        with a_request(recorder) as request:
            request.reached(1)
            if error is not None:
                raise error
    except BaseException as raised:  # noqa: BLE001
        assert raised is error

    assert {reason for reason, count in recorder.snapshot().ended.items() if count} == {end}
    assert recorder.snapshot().request_seconds.count == 0


@pytest.mark.parametrize(
    "error", [Overloaded("full"), ContextTooLong(prompt_tokens=9, context_tokens=8)]
)
def test_a_request_that_is_turned_away_never_was_one(error: EngineError) -> None:
    recorder = recorder_at(FakeClock())

    with pytest.raises(EngineError), a_request(recorder):
        raise error

    assert not any(recorder.snapshot().ended.values())


def test_a_reader_that_leaves_after_the_end_changes_nothing() -> None:
    recorder = recorder_at(FakeClock())

    try:
        with a_request(recorder) as request:
            request.reached(1)
            request.finished("stop", queued=0.0, prefill=0.0, decode=0.0)
            raise GeneratorExit
    except GeneratorExit:
        pass

    told = recorder.snapshot()
    assert told.ended == {"stop": 1, "length": 0, "abort": 0, "error": 0}
    assert told.seconds_per_token.count == 0  # a single token has no time of its own


def test_inputs_to_embed_are_requests_without_an_answer() -> None:
    clock = FakeClock()
    recorder = recorder_at(clock)
    began = clock()
    clock.advance(0.25)

    recorder.embedded([3, 4], arrived_at=began)

    told = recorder.snapshot()
    assert (told.prompt_tokens, told.generation_tokens, told.ended["stop"]) == (7, 0, 2)
    assert told.request_seconds.sum == pytest.approx(0.5)
    assert told.first_token_seconds.count == told.answer_lengths.count == 0


def test_steps_without_a_new_token_are_steps_but_no_iterations() -> None:
    recorder = StepRecorder()

    recorder.stepped(0.02, computed_tokens=512, sequences=1, iteration_tokens=0)
    recorder.stepped(0.02, computed_tokens=88, sequences=1, iteration_tokens=601)
    recorder.stepped(0.001, computed_tokens=1, sequences=1, iteration_tokens=1)
    recorder.preempted()
    recorder.preempted(2)

    told = recorder.snapshot()
    assert (told.computed_tokens.count, told.computed_tokens.sum) == (3, 601)
    assert (told.iteration_tokens.count, told.iteration_tokens.sum) == (2, 602)
    assert told.step_seconds.sum == pytest.approx(0.041)
    assert told.sequences.sum == 3
    assert told.num_preemptions == 3


def test_what_a_model_tells_survives_a_socket() -> None:
    recorder = recorder_at(FakeClock())
    a_request(recorder).reached(3)
    told = ModelMetrics(
        model="m",
        running=1,
        cache={"block_size": "1"},
        requests=recorder.snapshot(),
        steps=StepRecorder().snapshot(),
    )

    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=ModelMetrics)

    assert decoded.requests.generation_tokens == 3
    assert decoded == told
