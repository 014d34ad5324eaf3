"""The text that Prometheus reads, made of snapshots; may run on any thread.

The only part that knows prometheus_client's writers. What it is given does not
change any more, so it needs nothing of the event loop.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from engines.metrics import Buckets
from gateway.metrics.calls import CallCounts
from gateway.metrics.engines import EngineState
from gateway.metrics.families import counter, gauge, histogram
from gateway.metrics.models import model_families
from gateway.metrics.targets import target_families
from gateway.targets import TargetsReport

Value = TypeVar("Value", float, int, Buckets)

WHERE = ("endpoint", "model", "engine")
WHOSE = ("model", "engine", "team")


class Observed(Struct, frozen=True, kw_only=True):
    """Everything at one moment."""

    calls: CallCounts
    engines: Sequence[EngineState]
    targets: TargetsReport
    loop_lag: Buckets
    is_ready: bool
    version: str
    policy_digest: str


class Exposition(Struct, frozen=True):
    """The bytes of an answer, and what they are."""

    content: bytes
    media_type: str


def expose(observed: Observed, accept: str) -> Exposition:
    """`observed` in the format that the reader asks for."""
    encode, media_type = choose_encoder(accept)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(observed))
    return Exposition(encode(registry), media_type)


class _Once(Collector):
    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def collect(self) -> Iterator[Metric]:
        yield from (family for family in families(self._observed) if family.samples)
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            yield from collector.collect()


def families(observed: Observed) -> Iterator[Metric]:
    """All of ours, and vLLM's."""
    yield from _call_families(observed.calls)
    yield from _engine_families(observed.engines)
    yield from model_families(observed.engines)
    yield from target_families(observed.targets)
    yield histogram(
        "penstock_event_loop_lag_seconds",
        "How late the event loop was.",
        [({}, observed.loop_lag)],
    )
    yield gauge("penstock_ready", "Whether it takes traffic.", [({}, observed.is_ready)])
    build = {"version": observed.version}
    yield gauge("penstock_build_info", "The version that runs.", [(build, 1)])
    policy = {"digest": observed.policy_digest}
    yield gauge("penstock_policy_info", "The policy that is in force.", [(policy, 1)])


def _call_families(counts: CallCounts) -> Iterator[Metric]:
    yield counter(
        "penstock_calls",
        "Calls that ended, by how.",
        _labelled((*WHERE, "team", "outcome"), counts.calls),
    )
    yield histogram(
        "penstock_call_seconds", "First byte in to last byte out.", _labelled(WHERE, counts.seconds)
    )
    yield histogram(
        "penstock_first_output_seconds",
        "First byte in to the engine's first output.",
        _labelled(WHERE, counts.first_output_seconds),
    )
    yield histogram(
        "penstock_admission_seconds",
        "What the plugins took from authorize to admit, limits among it.",
        _labelled(("endpoint",), counts.admission_seconds),
    )
    yield counter(
        "penstock_tokens",
        "Tokens of calls: direction prompt or completion.",
        _labelled(("direction", *WHOSE), counts.tokens),
    )
    yield counter(
        "penstock_cached_tokens",
        "Prompt tokens that were not computed again.",
        _labelled(WHOSE, counts.cached_tokens),
    )
    yield counter(
        "penstock_reasoning_tokens",
        "Completion tokens that were thinking.",
        _labelled(WHOSE, counts.reasoning_tokens),
    )
    yield counter(
        "penstock_retried_calls",
        "Calls that their client says are retries.",
        _labelled(("endpoint",), counts.retries),
    )
    yield counter(
        "penstock_targets_left",
        "Targets whose turn it was and that did not answer, by why.",
        _labelled(("engine", "why"), counts.targets_left),
    )
    yield gauge(
        "penstock_calls_in_flight",
        "Calls that run now.",
        _labelled(("endpoint",), counts.in_flight),
    )


def _engine_families(engines: Sequence[EngineState]) -> Iterator[Metric]:
    labelled = [({"engine": engine.name}, engine.health) for engine in engines]
    yield gauge(
        "penstock_engine_ready",
        "Whether an engine takes requests.",
        [({"engine": engine.name, "kind": engine.kind}, engine.health.ready) for engine in engines],
    )
    yield gauge(
        "penstock_engine_running",
        "Requests that an engine runs.",
        [(labels, health.running) for labels, health in labelled],
    )
    yield gauge(
        "penstock_engine_waiting",
        "Requests that wait in an engine.",
        [(labels, health.waiting) for labels, health in labelled],
    )


def _labelled(
    names: Sequence[str], series: Mapping[tuple[str, ...], Value]
) -> list[tuple[dict[str, str], Value]]:
    return [(dict(zip(names, labels, strict=True)), value) for labels, value in series.items()]
