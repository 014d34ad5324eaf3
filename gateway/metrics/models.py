"""What each number of a model is called: vLLM's names, and ours where vLLM has none.

With vLLM's exact names and labels its dashboards, alerts and autoscalers work
unchanged. `engine` is the engine's name in engines.toml, where vLLM has a number.
docs/metrics.md says where a number means something else than at vLLM.
"""

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct
from prometheus_client.core import Metric

from engines.metrics import Buckets, ModelMetrics
from gateway.metrics.engines import EngineState
from gateway.metrics.families import Labels, counter, gauge, histogram

Value = Callable[[ModelMetrics], float]
Distribution = Callable[[ModelMetrics], Buckets]


class Named(Struct, frozen=True):
    """A number of a model and its name."""

    name: str
    help_text: str
    value: Value


class NamedDistribution(Struct, frozen=True):
    """A histogram of a model and its name."""

    name: str
    help_text: str
    value: Distribution


GAUGES = (
    Named("vllm:num_requests_running", "Requests that run.", lambda m: m.running),
    Named("vllm:num_requests_waiting", "Requests that wait.", lambda m: m.waiting + m.loading),
    Named("vllm:kv_cache_usage_perc", "Share of the KV cache that requests hold, 0 to 1.",
          lambda m: m.cache_used),
)  # fmt: skip
COUNTERS = (
    Named("vllm:prompt_tokens", "Prompt tokens of requests that had a first token.",
          lambda m: m.requests.prompt_tokens),
    Named("vllm:prompt_tokens_cached", "Prompt tokens that were not computed again.",
          lambda m: m.requests.cached_tokens),
    Named("vllm:generation_tokens", "Tokens generated.", lambda m: m.requests.generation_tokens),
    Named("vllm:num_preemptions", "Times that a request lost its place and waited again.",
          lambda m: m.steps.num_preemptions),
    Named("vllm:prefix_cache_queries", "Prompt tokens looked up in the prefix cache.",
          lambda m: m.requests.prefix_queries),
    Named("vllm:prefix_cache_hits", "Prompt tokens found in the prefix cache.",
          lambda m: m.requests.prefix_hits),
)  # fmt: skip
HISTOGRAMS = (
    NamedDistribution("vllm:time_to_first_token_seconds", "From arrival to the first token.",
                      lambda m: m.requests.first_token_seconds),
    NamedDistribution("vllm:inter_token_latency_seconds", "From one token to the next.",
                      lambda m: m.requests.token_gap_seconds),
    NamedDistribution("vllm:request_time_per_output_token_seconds",
                      "A request's decode time for each token after the first.",
                      lambda m: m.requests.seconds_per_token),
    NamedDistribution("vllm:e2e_request_latency_seconds", "From arrival to the last token.",
                      lambda m: m.requests.request_seconds),
    NamedDistribution("vllm:request_queue_time_seconds", "Waiting to run.",
                      lambda m: m.requests.queue_seconds),
    NamedDistribution("vllm:request_inference_time_seconds", "Prefill and decode.",
                      lambda m: m.requests.inference_seconds),
    NamedDistribution("vllm:request_prefill_time_seconds", "From running to the first token.",
                      lambda m: m.requests.prefill_seconds),
    NamedDistribution("vllm:request_decode_time_seconds", "From the first token to the last.",
                      lambda m: m.requests.decode_seconds),
    NamedDistribution("vllm:request_prompt_tokens", "Prompt tokens of a request.",
                      lambda m: m.requests.prompt_lengths),
    NamedDistribution("vllm:request_generation_tokens", "Generated tokens of a request.",
                      lambda m: m.requests.answer_lengths),
    NamedDistribution("vllm:request_max_num_generation_tokens",
                      "Generated tokens of a request's longest answer; here each has one.",
                      lambda m: m.requests.answer_lengths),
    NamedDistribution("vllm:request_params_max_tokens", "Tokens that an answer was allowed.",
                      lambda m: m.requests.max_tokens),
    NamedDistribution("vllm:request_params_n", "Answers of a request; here each has one.",
                      lambda m: _ones(m.requests.answer_lengths.count)),
    NamedDistribution("vllm:iteration_tokens_total", "Tokens of a step: new, and of new prompts.",
                      lambda m: m.steps.iteration_tokens),
    NamedDistribution("penstock_step_seconds", "Duration of a step.",
                      lambda m: m.steps.step_seconds),
    NamedDistribution("penstock_step_tokens", "Tokens that a step computed.",
                      lambda m: m.steps.computed_tokens),
    NamedDistribution("penstock_step_sequences", "Sequences in a step.",
                      lambda m: m.steps.sequences),
)  # fmt: skip
N_BOUNDS = (1.0, 2.0, 5.0, 10.0, 20.0)


def model_families(engines: Sequence[EngineState]) -> Iterator[Metric]:
    """Everything about the models of these engines."""
    models = [(_labels(engine, model), model) for engine in engines for model in engine.models]
    for named in GAUGES:
        values = [(labels, named.value(model)) for labels, model in models]
        yield gauge(named.name, named.help_text, values)
    for named in COUNTERS:
        values = [(labels, named.value(model)) for labels, model in models]
        yield counter(named.name, named.help_text, values)
    for named in HISTOGRAMS:
        buckets = [(labels, named.value(model)) for labels, model in models]
        yield histogram(named.name, named.help_text, buckets)
    yield from _labelled(models)


def _labelled(models: Sequence[tuple[Labels, ModelMetrics]]) -> Iterator[Metric]:
    """Those with labels of their own."""
    yield counter(
        "vllm:request_success",
        "Requests that ended, by how.",
        [
            ({**labels, "finished_reason": reason}, count)
            for labels, model in models
            for reason, count in model.requests.ended.items()
        ],
    )
    yield gauge(
        "vllm:num_requests_waiting_by_reason",
        "Requests that wait: for room, or (deferred) for their model to be loaded.",
        [
            ({**labels, "reason": reason}, count)
            for labels, model in models
            for reason, count in (("capacity", model.waiting), ("deferred", model.loading))
        ],
    )
    yield counter(
        "vllm:prompt_tokens_by_source",
        "Prompt tokens, by where they came from.",
        [
            ({**labels, "source": source}, count)
            for labels, model in models
            for source, count in _sources(model)
        ],
    )
    yield gauge(
        "vllm:cache_config_info",
        "How the KV cache of a loaded model is divided.",
        [({**labels, **model.cache}, 1) for labels, model in models if model.cache],
    )
    yield from _loads(models)
    yield gauge(
        "penstock_model_gpu_memory_bytes",
        "GPU memory that a loaded model takes.",
        [(labels, model.gpu_bytes) for labels, model in models if model.memory_bytes is not None],
    )
    yield gauge(
        "penstock_model_memory_bytes",
        "Memory that a loaded model takes, its KV cache among it.",
        [
            (labels, model.memory_bytes)
            for labels, model in models
            if model.memory_bytes is not None
        ],
    )


def _loads(models: Sequence[tuple[Labels, ModelMetrics]]) -> Iterator[Metric]:
    loads = [(labels, model.loads) for labels, model in models if model.loads is not None]
    yield histogram(
        "penstock_model_load_seconds",
        "Loads that went well, by how long they took.",
        [(labels, counted.seconds) for labels, counted in loads],
    )
    yield counter(
        "penstock_model_load_failures",
        "Loads that failed.",
        [(labels, counted.num_failed) for labels, counted in loads],
    )
    yield counter(
        "penstock_model_unloads",
        "Times that a model was unloaded, by why.",
        [
            ({**labels, "why": why}, count)
            for labels, counted in loads
            for why, count in counted.unloads.items()
        ],
    )


def _labels(engine: EngineState, model: ModelMetrics) -> Labels:
    return {"model_name": model.model, "engine": engine.name}


def _sources(model: ModelMetrics) -> tuple[tuple[str, int], ...]:
    cached = model.requests.cached_tokens
    return (
        ("local_compute", model.requests.prompt_tokens - cached),
        ("local_cache_hit", cached),
        ("external_kv_transfer", 0),
    )


def _ones(count: int) -> Buckets:
    return Buckets(N_BOUNDS, (count, *(0 for _ in N_BOUNDS)), float(count))
