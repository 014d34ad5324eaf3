"""What a policy's engines.toml may say about an engine of kind `gguf`."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

_FILES = ("adapters", "projector")  # what only a single model can have
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]
Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]


class AdapterFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A LoRA adapter in GGUF form."""

    path: str
    scale: float = 1.0
    """How much of its change is applied."""


class GgufModelConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is different for one model; None: as for all of its engine."""

    keep_alive_seconds: float | None = None
    num_slots: Positive | None = None
    context_tokens: Positive | None = None
    cache: Literal["auto", "exact", "shared"] | None = None
    cache_type_k: CacheType | None = None
    cache_type_v: CacheType | None = None
    flash_attention: bool | None = None
    pool_tokens: Positive | None = None
    max_batch_tokens: Positive | None = None
    num_threads: Positive | None = None
    num_gpu_layers: Count | None = None
    mmap: bool | None = None

    adapters: list[AdapterFile] = []
    """LoRA adapters, beside those that the model's own name brings."""

    projector: str | None = None
    """A vision projector (mmproj file), in the place of what the model's own name brings."""


class GgufConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """llama.cpp models on this machine, loaded on demand."""

    isolation: Literal["thread", "process"] = "thread"
    """Where it runs: in threads of the gateway's own process, or in a child process that may
    crash without it. See docs/engines.md#isolation."""

    models_dir: str | None = None
    """Folder of GGUF files; None: the gateway's own models folder."""

    models_writable: bool = True
    """Whether models may be pulled into, made in and deleted from the models folder."""

    ollama_models_dir: str | None = None
    """A models folder of Ollama's (`~/.ollama/models`), served as it stands."""

    ollama_models_writable: bool = False
    """Whether models of `ollama_models_dir` may be deleted and replaced."""

    hugging_face_cache_dir: str | None = None
    """A Hugging Face cache (`~/.cache/huggingface/hub`), whose GGUF files are used in place."""

    registries: tuple[str, ...] | None = None
    """Hosts that models may be pulled from and pushed to, as names spell them (`hf.co`,
    `registry.example.com:5000`, `*.example.com`); None: any."""

    hugging_face_url: str | None = None
    """Where `hf.co/…` models are fetched; None: what `HF_ENDPOINT` says, or huggingface.co."""

    max_images: int = 16
    """How many images one conversation may have."""

    max_image_pixels: int = 50_000_000
    """How large an image may be, before it is scaled to what the model takes."""

    keep_alive_seconds: float = 300.0
    """How long an idle model stays loaded; 0 unloads at once, a negative number never."""

    max_loaded_models: Positive | None = None
    """How many models may be loaded at once; None: as many as there is memory for."""

    max_memory_bytes: Positive | None = None
    """Memory that all models may take together, apart from GPUs'; None: four fifths of what this
    machine, or its container, has."""

    max_gpu_memory_bytes: Positive | None = None
    """The same for GPUs; None: what they have."""

    min_residency_seconds: Annotated[float, Meta(ge=0)] = 10.0
    """How long a busy model stays before it makes way for one that waits for room. An idle one
    is evicted at once."""

    num_slots: Positive | None = None
    """How many sequences of one model are decoded together; more wait their turn. None: 16, or
    fewer where a shared pool is too small for so many."""

    max_waiting: int = 256
    """How many requests of one model may wait for a slot; one more is refused as overloaded."""

    context_tokens: int | None = None
    """Tokens of prompt and answer that one sequence may have; None: what the model was trained
    for, at most 8192."""

    cache: Literal["auto", "exact", "shared"] = "auto"
    """How the KV cache is kept. "exact" gives every slot a cache of its own: the answer to a
    request does not depend, to the last bit, on who else is decoding (measured for q8_0 weights;
    see docs/experiments.md). "shared" keeps one pool that all slots draw from, so that memory
    follows use. "auto" is "exact" where that takes at most
    `max_exact_cache_bytes`."""

    max_exact_cache_bytes: int = 512 * 1024 * 1024
    """The largest cache that `cache = "auto"` makes exact."""

    pool_tokens: int | None = None
    """Tokens that the shared pool holds over all sequences; None: `context_tokens` and as much
    again, of that at most 16,384."""

    max_saved_bytes: Count = 512 * 1024 * 1024
    """Memory for what slots held before another prompt took them or their model was unloaded, over
    all models; prompts that begin alike get it back. 0: none is saved."""

    max_batch_tokens: int = 512
    """Tokens computed in one step: one for each running answer, the rest for prompts."""

    max_embed_tokens: int = 2048
    """The longest input that `embed` takes; its memory is reserved with the first one."""

    num_threads: int | None = None
    """Threads that compute; None: as many as prove fastest while they compute, one for each
    core at most."""

    num_gpu_layers: Count | None = None
    """Layers that are computed on a GPU, where llama.cpp was built for one; None: as many as its
    memory has room for, 0: none."""

    cache_type_k: CacheType | None = None
    """In what the keys of a shared cache are kept; None: f16. Of q8_0 it takes half the memory."""

    cache_type_v: CacheType | None = None
    """The same for the values; quantized ones need flash attention."""

    flash_attention: bool | None = None
    """Whether attention is computed in blocks, which saves memory; None: where llama.cpp can."""

    mmap: bool = False
    """Whether weights are mapped from their file, not read. Loads are quicker then, and who cuts
    the file short or writes into it ends the process."""

    use_extra_buffers: bool | None = None
    """Whether weights are repacked for this CPU (AMX among it); None: the probe decides."""

    probe: bool = True
    """Load and step a file not seen before in a child process first. Some files end the process
    that loads them."""

    models: Mapping[str, GgufModelConfig] = {}
    """What is different for single models, by their names at this engine."""

    def __post_init__(self) -> None:
        _check(self)
        for name in self.models:
            try:
                self.for_model(name)
            except ValueError as error:
                raise ValueError(f"models.{name!r}: {error}") from None

    def for_model(self, name: str) -> "GgufConfig":
        """The configuration of one model; `models` is empty in it."""
        changes = msgspec.structs.asdict(self.own(name))
        changes = {
            field: value
            for field, value in changes.items()
            if value is not None and field not in _FILES
        }
        return msgspec.structs.replace(self, models={}, **changes)

    def own(self, name: str) -> GgufModelConfig:
        """What the policy says of one model alone."""
        own = self.models.get(name)
        if own is None:
            spelled = {_folded(key): model for key, model in self.models.items()}
            own = spelled.get(_folded(name))
        return own or GgufModelConfig()

    @property
    def is_cache_chosen(self) -> bool:
        """Whether types or flash attention are set, which an exact cache does not let be chosen."""
        chosen = (self.cache_type_k, self.cache_type_v, self.flash_attention)
        return any(choice is not None for choice in chosen)


def _folded(name: str) -> str:
    """The same for the spellings of a name that mean one model."""
    return name.lower().removesuffix(":latest")


def _check(config: GgufConfig) -> None:
    if config.cache == "exact" and config.is_cache_chosen:
        raise ValueError(
            'cache = "exact" has its own types and flash attention: leave cache_type_k, '
            'cache_type_v and flash_attention out, or set cache = "shared"'
        )
    quantized = (config.cache_type_v or "f16").startswith("q")
    if quantized and config.flash_attention is False:
        raise ValueError(
            f"cache_type_v = {config.cache_type_v!r} needs flash attention: leave "
            "flash_attention out"
        )
