"""What an engine tells of its work in numbers, and what counts them while it works.

Nothing here knows Prometheus or a metric's public name: the Structs cross the
socket of an engine's process as they are, and the gateway names what is in them.

One thread writes a recorder and anybody may take a snapshot. Nothing is locked,
so a snapshot may be late by one step; it never shows a half-written number. To
record costs well under a microsecond (docs/experiments.md).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from msgspec import Struct

from engines.errors import Overloaded, RequestRefused
from engines.histogram import Buckets, Histogram, length_bounds

# Upper bounds, in seconds. vLLM's own, so that its dashboards read them; its gaps between
# tokens begin at 10 ms, where everything that a small model does would be one bucket.
FIRST_TOKEN_BOUNDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
TOKEN_GAP_BOUNDS = (
    *(0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
REQUEST_BOUNDS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
LOAD_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
STEP_TOKENS_BOUNDS = (1, 8, *(2**power for power in range(4, 15)))
STEP_SEQUENCES_BOUNDS = tuple(2**power for power in range(11))

STOP, LENGTH, ABORT, ERROR = "stop", "length", "abort", "error"
"""How a request ends: the model's end or a stop text, no tokens left, nobody waits, a failure."""


class RequestMetrics(Struct, frozen=True, kw_only=True):
    """What became of the requests of one model, since the engine was started."""

    prompt_tokens: int  # of requests that had a first token
    cached_tokens: int  # of those, the ones that were not computed again
    generation_tokens: int
    prefix_queries: int  # prompt tokens that were looked up in the prefix cache
    prefix_hits: int  # and found there
    ended: Mapping[str, int]  # by STOP, LENGTH, ABORT, ERROR
    first_token_seconds: Buckets
    token_gap_seconds: Buckets
    seconds_per_token: Buckets  # of one request: its decode time over its tokens but the first
    request_seconds: Buckets
    queue_seconds: Buckets
    prefill_seconds: Buckets
    decode_seconds: Buckets
    inference_seconds: Buckets  # prefill and decode
    prompt_lengths: Buckets
    answer_lengths: Buckets
    max_tokens: Buckets  # how long an answer was allowed to be


class StepMetrics(Struct, frozen=True, kw_only=True):
    """What the steps of one model did, since the engine was started."""

    num_preemptions: int
    iteration_tokens: Buckets  # of a step: new ones, and prompts that it completed
    computed_tokens: Buckets  # of a step
    sequences: Buckets  # in a step
    step_seconds: Buckets


class LoadMetrics(Struct, frozen=True, kw_only=True):
    """How often one model was loaded and let go, since the engine was started."""

    num_failed: int
    unloads: Mapping[str, int]  # by why: expired, evicted, asked, replaced, failed, closed
    seconds: Buckets  # that loads took which went well


class ModelMetrics(Struct, frozen=True, kw_only=True):
    """One model of one engine. What it counts survives an unload; a new process begins anew."""

    model: str  # the engine's own name for it
    running: int = 0
    waiting: int = 0  # for a place in a step
    loading: int = 0  # waiting for the model itself
    cache_used: float = 0.0  # by requests; what is kept for later prompts does not count
    cache: Mapping[str, str] = {}  # how the KV cache is divided, as `cache_config_info` says it
    memory_bytes: int | None = None  # None while it is not loaded
    gpu_bytes: int = 0  # of `memory_bytes`
    loads: LoadMetrics | None = None  # None: it never was
    requests: RequestMetrics
    steps: StepMetrics


class RequestRecorder:
    """Counts the requests of one model. Lives on the event loop, which alone writes it."""

    def __init__(self, *, context_tokens: int, clock: Callable[[], float] = time.monotonic) -> None:
        lengths = length_bounds(context_tokens)
        self.clock = clock
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generation_tokens = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self.ended = {STOP: 0, LENGTH: 0, ABORT: 0, ERROR: 0}
        self.first_token_seconds = Histogram(FIRST_TOKEN_BOUNDS)
        self.token_gap_seconds = Histogram(TOKEN_GAP_BOUNDS)
        self.seconds_per_token = Histogram(TOKEN_GAP_BOUNDS)
        self.request_seconds = Histogram(REQUEST_BOUNDS)
        self.queue_seconds = Histogram(REQUEST_BOUNDS)
        self.prefill_seconds = Histogram(REQUEST_BOUNDS)
        self.decode_seconds = Histogram(REQUEST_BOUNDS)
        self.inference_seconds = Histogram(REQUEST_BOUNDS)
        self.prompt_lengths = Histogram(lengths)
        self.answer_lengths = Histogram(lengths)
        self.max_tokens = Histogram(lengths)

    def request(
        self,
        *,
        prompt_tokens: int,
        max_tokens: int,
        arrived_at: float,
        loading_seconds: float = 0.0,
    ) -> "RecordedRequest":
        """One request that the engine has taken in; use it as a context around its answer."""
        request = RecordedRequest(self, prompt_tokens, max_tokens, arrived_at)
        request.loading_seconds = loading_seconds
        return request

    def embedded(self, lengths: Sequence[int], *, arrived_at: float) -> None:
        """Count inputs that became vectors: requests of no answer, all done at once."""
        seconds = self.clock() - arrived_at
        for length in lengths:
            self.prompt_tokens += length
            self.prompt_lengths.observe(length)
            self.request_seconds.observe(seconds)
        self.ended[STOP] += len(lengths)

    def snapshot(self) -> RequestMetrics:
        """How it is now."""
        return RequestMetrics(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            generation_tokens=self.generation_tokens,
            prefix_queries=self.prefix_queries,
            prefix_hits=self.prefix_hits,
            ended=dict(self.ended),
            first_token_seconds=self.first_token_seconds.snapshot(),
            token_gap_seconds=self.token_gap_seconds.snapshot(),
            seconds_per_token=self.seconds_per_token.snapshot(),
            request_seconds=self.request_seconds.snapshot(),
            queue_seconds=self.queue_seconds.snapshot(),
            prefill_seconds=self.prefill_seconds.snapshot(),
            decode_seconds=self.decode_seconds.snapshot(),
            inference_seconds=self.inference_seconds.snapshot(),
            prompt_lengths=self.prompt_lengths.snapshot(),
            answer_lengths=self.answer_lengths.snapshot(),
            max_tokens=self.max_tokens.snapshot(),
        )


class RecordedRequest:
    """One request, from its arrival to its end; what it tells goes to its recorder.

    Left without `finished` it failed where an error ended it, and else was given up. One
    that was turned away on its arrival never was a request.
    """

    __slots__ = (
        "_arrived_at", "_has_ended", "_last_token_at", "_max_tokens", "_num_cached", "_num_prompt",
        "_num_tokens", "_recorder", "loading_seconds",
    )  # fmt: skip

    def __init__(
        self, recorder: RequestRecorder, prompt_tokens: int, max_tokens: int, arrived_at: float
    ) -> None:
        self._recorder = recorder
        self._num_prompt = prompt_tokens
        self._max_tokens = max_tokens
        self._arrived_at = arrived_at
        self._num_cached = 0
        self._num_tokens = 0
        self._last_token_at = 0.0
        self._has_ended = False
        self.loading_seconds = 0.0  # that it waited for its model

    def __enter__(self) -> "RecordedRequest":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._has_ended and not isinstance(error, Overloaded | RequestRefused):
            # A reader that leaves is a GeneratorExit or a CancelledError, no Exception.
            self._recorder.ended[ERROR if isinstance(error, Exception) else ABORT] += 1

    def admitted(self, cached_tokens: int) -> None:
        """It runs, and so much of its prompt was in the cache."""
        self._num_cached = cached_tokens
        self._recorder.prefix_queries += self._num_prompt
        self._recorder.prefix_hits += cached_tokens

    def reached(self, num_tokens: int) -> None:
        """Its answer has so many tokens by now.

        Where the event loop was late and several came together, each is given
        the same share of the time.
        """
        num_new = num_tokens - self._num_tokens
        if num_new <= 0:
            return
        recorder, now = self._recorder, self._recorder.clock()
        gap = (now - self._last_token_at) / num_new
        if not self._num_tokens:
            self._has_first(now)
            gap, num_new = 0.0, num_new - 1  # what came with the first took no time of its own
        if num_new:
            recorder.token_gap_seconds.observe(gap, num_new)
        recorder.generation_tokens += num_tokens - self._num_tokens
        self._num_tokens = num_tokens
        self._last_token_at = now

    def finished(self, reason: str, *, queued: float, prefill: float, decode: float) -> None:
        """It ended well, after so many seconds in each phase."""
        recorder, now = self._recorder, self._recorder.clock()
        self._has_ended = True
        if not self._num_tokens:
            self._has_first(now)  # it was the one that ended the answer, and is not in it
        recorder.ended[reason] = recorder.ended.get(reason, 0) + 1
        recorder.request_seconds.observe(now - self._arrived_at)
        recorder.queue_seconds.observe(queued)
        recorder.prefill_seconds.observe(prefill)
        recorder.decode_seconds.observe(decode)
        recorder.inference_seconds.observe(prefill + decode)
        if self._num_tokens > 1:
            recorder.seconds_per_token.observe(decode / (self._num_tokens - 1))
        recorder.prompt_lengths.observe(self._num_prompt)
        recorder.answer_lengths.observe(self._num_tokens)
        recorder.max_tokens.observe(self._max_tokens)

    def _has_first(self, now: float) -> None:
        self._recorder.first_token_seconds.observe(now - self._arrived_at)
        self._recorder.prompt_tokens += self._num_prompt
        self._recorder.cached_tokens += self._num_cached


class StepRecorder:
    """Counts the steps of one model. The step thread alone writes it."""

    def __init__(self) -> None:
        self._num_preemptions = 0
        self._iteration_tokens = Histogram(STEP_TOKENS_BOUNDS)
        self._computed_tokens = Histogram(STEP_TOKENS_BOUNDS)
        self._sequences = Histogram(STEP_SEQUENCES_BOUNDS)
        self._step_seconds = Histogram(TOKEN_GAP_BOUNDS)

    def preempted(self, num_sequences: int = 1) -> None:
        """So many sequences lost their place and will be computed again."""
        self._num_preemptions += num_sequences

    def stepped(
        self, seconds: float, *, computed_tokens: int, sequences: int, iteration_tokens: int
    ) -> None:
        """A step is done.

        `iteration_tokens` are its new tokens and the whole prompts of those that had
        their first; vLLM leaves out steps in which nobody had any, and so does this.
        """
        self._step_seconds.observe(seconds)
        self._computed_tokens.observe(computed_tokens)
        self._sequences.observe(sequences)
        if iteration_tokens:
            self._iteration_tokens.observe(iteration_tokens)

    def snapshot(self) -> StepMetrics:
        """How it is now."""
        return StepMetrics(
            num_preemptions=self._num_preemptions,
            iteration_tokens=self._iteration_tokens.snapshot(),
            computed_tokens=self._computed_tokens.snapshot(),
            sequences=self._sequences.snapshot(),
            step_seconds=self._step_seconds.snapshot(),
        )


class LoadRecorder:
    """Counts the loads of one model. Lives on the event loop, which alone writes it."""

    def __init__(self) -> None:
        self.num_failed = 0
        self._unloads: dict[str, int] = {}
        self._seconds = Histogram(LOAD_BOUNDS)

    def loaded(self, seconds: float) -> None:
        """It took so long, and went well."""
        self._seconds.observe(seconds)

    def unloaded(self, why: str) -> None:
        """It was let go."""
        self._unloads[why] = self._unloads.get(why, 0) + 1

    def snapshot(self) -> LoadMetrics:
        """How it is now."""
        return LoadMetrics(
            num_failed=self.num_failed,
            unloads=dict(self._unloads),
            seconds=self._seconds.snapshot(),
        )


class ModelRecorder:
    """Both sides of one model, kept by its engine also while the model is not loaded."""

    def __init__(self, *, context_tokens: int) -> None:
        self.requests = RequestRecorder(context_tokens=context_tokens)
        self.steps = StepRecorder()
