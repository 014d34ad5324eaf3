"""What there is to expose, made by hand, and the text of it read back as Prometheus reads it."""

from collections.abc import Iterable, Mapping

from prometheus_client.parser import text_string_to_metric_families

from engines.metrics import LoadMetrics, LoadRecorder, ModelMetrics, ModelRecorder
from engines.protocol import Health
from gateway import Call
from gateway.metrics import CallMetrics, EngineState, LoopLag
from gateway.metrics.exposition import Observed, expose
from gateway.targets import TargetsReport
from tests.gateway.metrics.targets import a_report

Sample = tuple[str, frozenset[tuple[str, str]]]


def a_model(model: str = "qwen", recorder: ModelRecorder | None = None) -> ModelMetrics:
    recorder = recorder or ModelRecorder(context_tokens=1000)
    return ModelMetrics(
        model=model,
        running=2,
        waiting=3,
        loading=1,
        cache_used=0.25,
        cache={"block_size": "16", "num_gpu_blocks": "40"},
        memory_bytes=1_000_000,
        gpu_bytes=400_000,
        loads=_loads(),
        requests=recorder.requests.snapshot(),
        steps=recorder.steps.snapshot(),
    )


def _loads() -> LoadMetrics:
    loads = LoadRecorder()
    loads.num_failed = 2
    loads.loaded(3.0)
    loads.unloaded("evicted")
    return loads.snapshot()


def observed(
    *models: ModelMetrics,
    calls: CallMetrics | None = None,
    in_flight: Iterable[Call] = (),
    names_teams: bool = True,
    targets: TargetsReport | None = None,
    health: Health = Health(ready=True, running=2, waiting=3),  # noqa: B008
) -> Observed:
    return Observed(
        calls=(calls or CallMetrics()).snapshot(in_flight, names_teams=names_teams),
        engines=[EngineState(name="gpu0", kind="paged", health=health, models=models)],
        targets=targets or a_report(),
        loop_lag=LoopLag().snapshot(),
        is_ready=True,
        version="1.2.3",
        policy_digest="0123456789ab",
    )


def text_of(given: Observed) -> str:
    return expose(given, "").content.decode()


def samples_of(text: str) -> Mapping[Sample, float]:
    """Every sample by its name and labels; two of the same are a fault."""
    samples: dict[Sample, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples, key
            samples[key] = sample.value
    return samples


def value(text: str, name: str, **labels: str) -> float | None:
    """The one sample of this name with these labels, among others; None if there is none."""
    wanted = labels.items()
    found = [
        number
        for (sample, all_labels), number in samples_of(text).items()
        if sample == name and wanted <= dict(all_labels).items()
    ]
    assert len(found) <= 1, f"{len(found)} samples of {name} {labels}"
    return found[0] if found else None
