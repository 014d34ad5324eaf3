import re
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from engines.metrics import ModelMetrics, ModelRecorder
from engines.protocol import Health
from gateway.metrics import CallMetrics
from gateway.metrics.exposition import expose, families
from tests.gateway.metrics.observed import a_model, observed, samples_of, text_of, value
from tests.gateway.metrics.test_calls import ended
from tests.plugins.policies import call_of, policy_of

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
# What vLLM's dashboards and autoscalers ask for, by its kind and as it is on the wire.
VLLM_GAUGES = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:num_requests_waiting_by_reason",
    "vllm:kv_cache_usage_perc",
    "vllm:cache_config_info",
}
VLLM_COUNTERS = {
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:request_success_total",
    "vllm:num_preemptions_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:prompt_tokens_by_source_total",
    "vllm:prompt_tokens_cached_total",
}
VLLM_HISTOGRAMS = {
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:request_time_per_output_token_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:request_queue_time_seconds",
    "vllm:request_inference_time_seconds",
    "vllm:request_prefill_time_seconds",
    "vllm:request_decode_time_seconds",
    "vllm:request_prompt_tokens",
    "vllm:request_generation_tokens",
    "vllm:request_max_num_generation_tokens",
    "vllm:request_params_n",
    "vllm:request_params_max_tokens",
    "vllm:iteration_tokens_total",
}
MODEL = {"model_name": "qwen", "engine": "gpu0"}


def a_busy_model() -> ModelMetrics:
    recorder = ModelRecorder(context_tokens=1000)
    with recorder.requests.request(prompt_tokens=7, max_tokens=20, arrived_at=0.0) as request:
        request.admitted(4)
        request.reached(1)
        request.reached(3)
        request.finished("stop", queued=0.1, prefill=0.4, decode=0.01)
    recorder.steps.stepped(0.003, computed_tokens=7, sequences=1, iteration_tokens=8)
    recorder.steps.preempted()
    return a_model(recorder=recorder)


def test_every_name_of_vllm_is_there_under_its_own_kind() -> None:
    samples = {name for name, _ in samples_of(text_of(observed(a_busy_model())))}
    kinds = {
        family.name: family.type
        for family in text_string_to_metric_families(text_of(observed(a_busy_model())))
    }

    vllm = {name for name in samples if name.startswith("vllm:")}
    parts = {f"{name}_{part}" for name in VLLM_HISTOGRAMS for part in ("bucket", "sum", "count")}
    assert vllm == VLLM_GAUGES | VLLM_COUNTERS | parts
    assert {kinds[name] for name in VLLM_GAUGES} == {"gauge"}
    assert {kinds[name.removesuffix("_total")] for name in VLLM_COUNTERS} == {"counter"}
    assert {kinds[name] for name in VLLM_HISTOGRAMS} == {"histogram"}


def test_every_sample_of_a_model_says_which_and_whose() -> None:
    for (name, labels), _ in samples_of(text_of(observed(a_busy_model()))).items():
        if name.startswith("vllm:"):
            assert MODEL.items() <= dict(labels).items(), name


def test_the_numbers_are_where_their_names_say() -> None:
    text = text_of(observed(a_busy_model()))

    def told(name: str, **labels: str) -> float | None:
        return value(text, name, **MODEL, **labels)

    assert told("vllm:num_requests_running") == 2
    assert told("vllm:num_requests_waiting") == 4
    assert told("vllm:num_requests_waiting_by_reason", reason="capacity") == 3
    assert told("vllm:num_requests_waiting_by_reason", reason="deferred") == 1
    assert told("vllm:kv_cache_usage_perc") == 0.25
    assert told("vllm:cache_config_info", block_size="16", num_gpu_blocks="40") == 1
    assert told("vllm:prompt_tokens_total") == 7
    assert told("vllm:prompt_tokens_by_source_total", source="local_compute") == 3
    assert told("vllm:prompt_tokens_by_source_total", source="local_cache_hit") == 4
    assert told("vllm:generation_tokens_total") == 3
    assert told("vllm:request_success_total", finished_reason="stop") == 1
    assert told("vllm:request_success_total", finished_reason="abort") == 0
    assert told("vllm:num_preemptions_total") == 1
    assert told("vllm:prefix_cache_queries_total") == 7
    assert told("vllm:prefix_cache_hits_total") == 4
    assert told("vllm:iteration_tokens_total_sum") == 8
    assert told("vllm:request_params_n_sum") == 1
    assert told("vllm:request_decode_time_seconds_sum") == 0.01
    assert told("penstock_step_tokens_sum") == 7
    assert told("penstock_model_memory_bytes") == 1_000_000
    assert told("penstock_model_gpu_memory_bytes") == 400_000
    assert told("penstock_model_load_failures_total") == 2
    assert told("penstock_model_load_seconds_sum") == 3
    assert told("penstock_model_unloads_total", why="evicted") == 1


def test_a_bucket_counts_what_is_below_it_too() -> None:
    text = text_of(observed(a_busy_model()))

    def below(le: str) -> float | None:
        return value(text, "vllm:request_time_per_output_token_seconds_bucket", le=le)

    assert (below("0.0025"), below("0.005"), below("0.01"), below("+Inf")) == (0, 1, 1, 1)
    assert value(text, "vllm:request_time_per_output_token_seconds_count") == 1


def test_calls_engines_and_the_gateway_itself_are_told_under_our_own_names() -> None:
    calls = CallMetrics()
    calls.record(ended(call_of(policy_of())))
    sick = Health(ready=False, running=1)

    text = text_of(observed(calls=calls, health=sick, in_flight=[call_of(policy_of())]))

    where = {"endpoint": "openai.chat", "model": "chat-small", "engine": "gpu0"}
    assert value(text, "penstock_calls_total", **where, team="search", outcome="ok") == 1
    assert value(text, "penstock_call_seconds_sum", **where) == 2.0
    assert value(text, "penstock_first_output_seconds_sum", **where) == 0.5
    assert value(text, "penstock_calls_in_flight", endpoint="openai.chat") == 1
    assert value(text, "penstock_engine_ready", engine="gpu0", kind="paged") == 0
    assert value(text, "penstock_engine_running", engine="gpu0") == 1
    assert value(text, "penstock_ready") == 1
    assert value(text, "penstock_build_info", version="1.2.3") == 1
    assert value(text, "penstock_policy_info", digest="0123456789ab") == 1
    assert value(text, "penstock_event_loop_lag_seconds_count") == 0
    assert (value(text, "process_resident_memory_bytes") or 0) > 0


def test_a_name_with_quotes_and_line_breaks_is_read_back_whole() -> None:
    odd = 'a"b\\c\nd{}'

    text = text_of(observed(a_model(odd)))

    assert value(text, "vllm:num_requests_running", model_name=odd) == 2


def test_whoever_asks_for_openmetrics_gets_it() -> None:
    answer = expose(
        observed(a_busy_model()), "application/openmetrics-text; version=1.0.0; charset=utf-8"
    )

    assert answer.media_type.startswith("application/openmetrics-text")
    names = {family.name for family in openmetrics_families(answer.content.decode())}
    assert {"vllm:prompt_tokens", "penstock_step_seconds"} <= names


@pytest.mark.parametrize("accept", ["", "text/plain", "*/*", "nonsense;;;=,"])
def test_everybody_else_gets_the_plain_format(accept: str) -> None:
    answer = expose(observed(), accept)

    assert answer.media_type.startswith("text/plain")
    assert samples_of(answer.content.decode())


def test_the_docs_have_every_name_and_no_other() -> None:
    calls = CallMetrics()
    kinds = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in families(observed(a_busy_model(), calls=calls))
    }
    served = {name for name in kinds if name.startswith(("vllm:", "penstock_"))}

    described = set(re.findall(r"^\| `((?:vllm:|penstock_)\w+)", DOCS.read_text(), re.M))

    assert described == served
