"""Counts calls when they end. Lives on the event loop; a few dictionary look-ups for each call.

Labels come from the policy and from tables in the code, never from a caller: a
model is named only if it has a table of its own in models.toml, a team only if
teams.toml has it. So nobody can make the number of series grow.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct

from engines.metrics import FIRST_TOKEN_BOUNDS, Buckets, Histogram
from gateway.call import Call

NONE = "-"
CALL_BOUNDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0),
    *(120.0, 300.0, 600.0, 1800.0),
)
ADMISSION_BOUNDS = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
RETRY_COUNT = "x-stainless-retry-count"  # what OpenAI's clients send

Labels = tuple[str, ...]


class CallCounts(Struct, frozen=True, kw_only=True):
    """All that was counted at one moment; the labels of each are beside it."""

    calls: Mapping[Labels, int]  # endpoint, model, engine, team, outcome
    seconds: Mapping[Labels, Buckets]  # endpoint, model, engine
    first_output_seconds: Mapping[Labels, Buckets]  # endpoint, model, engine
    admission_seconds: Mapping[Labels, Buckets]  # endpoint
    tokens: Mapping[Labels, int]  # direction, model, engine, team
    cached_tokens: Mapping[Labels, int]  # model, engine, team
    reasoning_tokens: Mapping[Labels, int]  # model, engine, team
    retries: Mapping[Labels, int]  # endpoint
    targets_left: Mapping[Labels, int]  # engine, why
    in_flight: Mapping[Labels, int]  # endpoint


class CallMetrics:
    """What `record` was told, until the process ends."""

    def __init__(self) -> None:
        self._calls: Counter[Labels] = Counter()
        self._seconds: dict[Labels, Histogram] = {}
        self._first_output_seconds: dict[Labels, Histogram] = {}
        self._admission_seconds: dict[Labels, Histogram] = {}
        self._tokens: Counter[Labels] = Counter()
        self._cached_tokens: Counter[Labels] = Counter()
        self._reasoning_tokens: Counter[Labels] = Counter()
        self._retries: Counter[Labels] = Counter()
        self._targets_left: Counter[Labels] = Counter()

    def record(self, call: Call) -> None:
        """Count a call that has ended, well or not."""
        policy = call.policy
        model = call.model.name if call.model and call.model.name in policy.models else NONE
        team = call.principal.team if call.principal.team in policy.teams else NONE
        engine = call.target.engine if call.target else NONE
        where = (call.endpoint, model, engine)
        self._calls[*where, team, call.outcome] += 1
        _histogram(self._seconds, where, CALL_BOUNDS).observe(call.seconds)
        if call.first_output_at is not None:
            histogram = _histogram(self._first_output_seconds, where, FIRST_TOKEN_BOUNDS)
            histogram.observe(call.first_output_at - call.started_at)
        if call.admission_seconds is not None:
            histogram = _histogram(self._admission_seconds, (call.endpoint,), ADMISSION_BOUNDS)
            histogram.observe(call.admission_seconds)
        self._count_tokens(call, (model, engine, team))
        if call.headers.get(RETRY_COUNT, "0") != "0":
            self._retries[(call.endpoint,)] += 1
        for tried in call.tried:
            if tried.left:
                self._targets_left[tried.engine, tried.left] += 1

    def _count_tokens(self, call: Call, labels: Labels) -> None:
        usage = call.usage
        if not (usage.prompt_tokens or usage.completion_tokens):
            return
        self._tokens["prompt", *labels] += usage.prompt_tokens
        self._tokens["completion", *labels] += usage.completion_tokens
        self._cached_tokens[labels] += usage.cached_tokens
        self._reasoning_tokens[labels] += usage.reasoning_tokens

    def snapshot(self, in_flight: Iterable[Call], *, names_teams: bool) -> CallCounts:
        """How it is now; without team names, their numbers are added up under `-`."""
        return CallCounts(
            calls=_teams(self._calls, 3, named=names_teams),
            seconds=_snapshots(self._seconds),
            first_output_seconds=_snapshots(self._first_output_seconds),
            admission_seconds=_snapshots(self._admission_seconds),
            tokens=_teams(self._tokens, 3, named=names_teams),
            cached_tokens=_teams(self._cached_tokens, 2, named=names_teams),
            reasoning_tokens=_teams(self._reasoning_tokens, 2, named=names_teams),
            retries=self._retries.copy(),
            targets_left=self._targets_left.copy(),
            in_flight=Counter((call.endpoint,) for call in in_flight),
        )


def _histogram(
    series: dict[Labels, Histogram], labels: Labels, bounds: tuple[float, ...]
) -> Histogram:
    if (found := series.get(labels)) is None:
        found = series[labels] = Histogram(bounds)
    return found


def _snapshots(series: Mapping[Labels, Histogram]) -> dict[Labels, Buckets]:
    return {labels: histogram.snapshot() for labels, histogram in series.items()}


def _teams(series: Mapping[Labels, int], place: int, *, named: bool) -> Mapping[Labels, int]:
    """The same; unless `named`, with the team at `place` blanked and what is alike added up."""
    if named:
        return dict(series)
    summed: Counter[Labels] = Counter()
    for labels, count in series.items():
        summed[*labels[:place], NONE, *labels[place + 1 :]] += count
    return summed
