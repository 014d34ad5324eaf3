"""What a paged model tells of itself in numbers, loaded or not. Reads, and changes nothing."""

from engines.metrics import ModelMetrics, ModelRecorder
from engines.paged.loaded_model import LoadedModel
from engines.pool import Pool


def metrics_of(
    recorder: ModelRecorder, model: LoadedModel | None, *, name: str, pool: Pool[LoadedModel]
) -> ModelMetrics:
    """One model as it is now; what it counted is kept while it is not loaded."""
    counted = {"requests": recorder.requests.snapshot(), "steps": recorder.steps.snapshot()}
    loads = pool.loads_of(name)
    loading = pool.num_waiting_for(name)
    if model is None:
        return ModelMetrics(model=name, loading=loading, loads=loads, **counted)
    return ModelMetrics(
        model=name,
        running=model.num_running,
        waiting=model.num_waiting,
        loading=loading,
        cache_used=model.cache_used or 0.0,
        cache=model.cache,
        memory_bytes=model.memory_bytes,
        gpu_bytes=model.room.gpu_bytes,
        loads=loads,
        **counted,
    )
