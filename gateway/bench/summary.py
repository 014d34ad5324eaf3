"""Turns runs into the figures that are reported; docs/benchmarks.md defines each.

Only whole answers have latencies and count tokens. A question that failed is
counted by its kind of failure and in nothing else, however fast it failed.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median

from msgspec import Struct

from gateway.bench.drive import Run, Sample
from gateway.bench.load import Rate
from gateway.bench.question import Answer


class Spread(Struct, frozen=True, kw_only=True):
    """How a latency is distributed, in seconds."""

    mean: float
    p50: float
    p95: float
    p99: float


class Goal(Struct, frozen=True, kw_only=True):
    """What an answer must keep to count as good, in seconds; None: any."""

    first_output: float | None = None
    per_token: float | None = None
    total: float | None = None


class Latencies(Struct, frozen=True, kw_only=True):
    """Of all whole answers; None where no answer had one."""

    first_output: Spread | None  # TTFT
    per_token: Spread | None  # TPOT
    between: Spread | None  # ITL
    total: Spread | None  # end to end


class Summary(Struct, frozen=True, kw_only=True):
    """One run in figures."""

    subject: str
    load: str
    round: int
    answers: int
    failures: Mapping[str, int]  # by kind
    failure_messages: Mapping[str, str]  # the first of each kind
    unasked: int
    seconds: float
    requests_per_second: float
    tokens_per_second: float  # output
    total_tokens_per_second: float  # prompts too
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    expected_tokens: int | None  # where every answer was to have a given length
    pieces: int
    untold: int  # answers whose server told no usage: their pieces were counted as tokens
    latencies: Latencies
    good_per_second: float | None
    client_busy: float | None
    late: Spread | None  # open loop: how late questions were asked
    roofline: float | None = None  # achieved part of what the hardware allows

    @property
    def num_failures(self) -> int:
        """Questions without a whole answer, of those that were asked."""
        return sum(self.failures.values())

    @property
    def tokens_per_piece(self) -> float:
        """1 where every token came in a chunk of its own."""
        return self.output_tokens / self.pieces if self.pieces else 0.0


def summary_of(run: Run, *, goal: Goal | None = None, roofline: float | None = None) -> Summary:
    """All figures of one run."""
    answered = run.answered
    answers = [answer for _, answer in answered]
    failures = [sample.failure for sample in run.samples if sample.failure is not None]
    prompt_tokens = sum(answer.prompt_tokens for answer in answers)
    return Summary(
        subject=run.subject,
        load=str(run.load),
        round=run.round,
        answers=len(answers),
        failures=dict(Counter(failure.kind for failure in failures)),
        failure_messages={failure.kind: failure.message for failure in reversed(failures)},
        unasked=run.num_unasked,
        seconds=run.seconds,
        requests_per_second=len(answers) / run.seconds,
        tokens_per_second=run.tokens_per_second,
        total_tokens_per_second=(prompt_tokens + run.output_tokens) / run.seconds,
        prompt_tokens=prompt_tokens,
        cached_tokens=sum(answer.cached_tokens for answer in answers),
        output_tokens=run.output_tokens,
        expected_tokens=_expected_tokens(run.samples),
        pieces=sum(len(answer.arrivals) for answer in answers),
        untold=sum(not answer.tokens_were_told for answer in answers),
        latencies=_latencies(answered),
        good_per_second=_num_good(answered, goal) / run.seconds if goal else None,
        client_busy=run.client_busy,
        late=_lateness(run),
        roofline=roofline,
    )


def first_output(sample: Sample, answer: Answer) -> float:
    """TTFT: from when the question was due to the first piece of output."""
    return answer.arrivals[0] - sample.due


def per_token(answer: Answer) -> float | None:
    """TPOT: the time from first to last piece, over the tokens after the first."""
    if answer.completion_tokens < 2 or len(answer.arrivals) < 2:
        return None
    return (answer.arrivals[-1] - answer.arrivals[0]) / (answer.completion_tokens - 1)


def total(sample: Sample, answer: Answer) -> float:
    """End to end: from when the question was due to the end of the stream."""
    return answer.finished_at - sample.due


def spread_of(values: Sequence[float]) -> Spread | None:
    """Mean and percentiles; None of nothing. A percentile is a value that occurred."""
    if not values:
        return None
    ordered = sorted(values)

    def at(fraction: float) -> float:  # the nearest rank
        return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]

    return Spread(mean=fmean(ordered), p50=at(0.5), p95=at(0.95), p99=at(0.99))


def median_of(summaries: Sequence[Summary]) -> Summary:
    """The round whose tokens per second are in the middle."""
    ordered = sorted(summaries, key=lambda summary: summary.tokens_per_second)
    return ordered[len(ordered) // 2]


class Ratio(Struct, frozen=True, kw_only=True):
    """One figure of `ours` over that of `theirs`: the median over the rounds, and the range."""

    load: str
    ours: str
    theirs: str
    figure: str
    median: float
    lowest: float
    highest: float


_COMPARED: Mapping[str, Callable[[Summary], float | None]] = {
    "output tokens/s": lambda summary: summary.tokens_per_second,
    "requests/s": lambda summary: summary.requests_per_second,
    "first output p50": lambda s: s.latencies.first_output and s.latencies.first_output.p50,
    "per token p50": lambda s: s.latencies.per_token and s.latencies.per_token.p50,
    "answer p50": lambda s: s.latencies.total and s.latencies.total.p50,
}


def ratios_of(ours: Sequence[Summary], theirs: Sequence[Summary]) -> list[Ratio]:
    """Round by round, as they ran side by side; a figure that a round lacks is left out."""
    ratios: list[Ratio] = []
    for figure, read in _COMPARED.items():
        pairs = [(read(mine), read(other)) for mine, other in zip(ours, theirs, strict=True)]
        values = [mine / other for mine, other in pairs if mine and other]
        if values:
            ratios.append(
                Ratio(
                    load=ours[0].load,
                    ours=ours[0].subject,
                    theirs=theirs[0].subject,
                    figure=figure,
                    median=median(values),
                    lowest=min(values),
                    highest=max(values),
                )
            )
    return ratios


def _latencies(answered: Sequence[tuple[Sample, Answer]]) -> Latencies:
    rates = [rate for _, answer in answered if (rate := per_token(answer)) is not None]
    between = [
        later - earlier
        for _, answer in answered
        for earlier, later in zip(answer.arrivals, answer.arrivals[1:], strict=False)
    ]
    return Latencies(
        first_output=spread_of([first_output(*pair) for pair in answered]),
        per_token=spread_of(rates),
        between=spread_of(between),
        total=spread_of([total(*pair) for pair in answered]),
    )


def _expected_tokens(samples: Sequence[Sample]) -> int | None:
    if not samples or not all(sample.ignores_eos for sample in samples):
        return None
    return sum(sample.max_tokens for sample in samples if sample.answer is not None)


def _num_good(answered: Sequence[tuple[Sample, Answer]], goal: Goal) -> int:
    def keeps(value: float | None, limit: float | None) -> bool:
        return limit is None or value is None or value <= limit

    return sum(
        keeps(first_output(sample, answer), goal.first_output)
        and keeps(per_token(answer), goal.per_token)
        and keeps(total(sample, answer), goal.total)
        for sample, answer in answered
    )


def _lateness(run: Run) -> Spread | None:
    if not isinstance(run.load, Rate):
        return None
    return spread_of([sample.asked_at - sample.due for sample in run.samples])
