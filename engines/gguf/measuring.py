"""What a gguf model tells of itself in numbers, loaded or not. Reads, and changes nothing."""

from engines.gguf.loaded_model import LoadedModel
from engines.metrics import ModelMetrics, ModelRecorder
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
        cache_used=model.cache_busy,
        cache=_cache_of(model),
        memory_bytes=model.memory_bytes,
        gpu_bytes=model.room.gpu_bytes,
        loads=loads,
        **counted,
    )


def _cache_of(model: LoadedModel) -> dict[str, str]:
    shape = model.generation
    if shape is None:
        return {}
    # llama.cpp's cache is kept by the token: whoever multiplies the two has its size.
    return {
        "block_size": "1",
        "num_gpu_blocks": str(shape.pool_tokens),
        "enable_prefix_caching": "True",
        "num_slots": str(shape.num_slots),
        "exact": str(shape.exact),
    }
