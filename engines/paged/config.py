"""What a policy's engines.toml may say about an engine of kind `paged`."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Positive = Annotated[int, Meta(ge=1)]


class PagedConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """HuggingFace safetensors models, batched continuously over a paged KV cache."""

    model: str | None = None
    """The one model of this engine, loaded at start: a folder, a name below `models_dir`, or a
    name in the HuggingFace cache. None: models are loaded when they are first asked for."""

    models_dir: str | None = None
    """Folder of model folders; None: the gateway's own models folder."""

    max_loaded_models: Positive = 1
    """How many models may be loaded at once; an idle one makes room, a busy one never does."""

    keep_alive_seconds: float = -1.0
    """How long an idle model stays loaded; a negative number: until another needs its place."""

    device: str | None = None
    """Where to compute: "cuda:0", "cpu"; None: the first GPU, or the CPU if there is none."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """What weights and cache are kept and computed in. "auto": as the checkpoint says, but
    bfloat16 where it says float32; on a CPU always float32."""

    load_format: Literal["auto", "dummy"] = "auto"
    """"dummy" fills weights with noise at the shapes of config.json, to measure speed."""

    context_tokens: Positive | None = None
    """Tokens of prompt and answer that one sequence may have; None: what the model was made
    for."""

    block_size: Literal[16, 32, 64] = 16
    """Tokens in one block of the KV cache."""

    max_sequences: Positive = 256
    """How many sequences run together; more wait their turn."""

    max_batch_tokens: Positive = 2048
    """Tokens computed in one step: one for each running answer, the rest for prompts."""

    max_waiting: int = 1024
    """How many requests may wait; one more is refused as overloaded."""

    memory_fraction: Annotated[float, Meta(gt=0, le=1)] = 0.9
    """How much of a GPU's memory weights, cache and working room may take together."""

    kv_cache_bytes: Positive | None = None
    """Memory of the KV cache; None: what `memory_fraction` leaves on a GPU, or what all sequences
    could use where that is less; on a CPU at most 1 GiB."""

    prefix_caching: bool = True
    """Whether prompts that begin alike share what was computed for them."""

    graphs: bool = True
    """Whether steps of answers alone are recorded and replayed as CUDA graphs."""

    isolation: Literal["thread", "process"] = "thread"
    """Where it computes: in a thread of the gateway, or in a child process, which may fail, as
    after a CUDA error, without taking the gateway with it."""

    num_threads: Positive | None = None
    """Threads that compute on a CPU; None: as torch chooses."""
