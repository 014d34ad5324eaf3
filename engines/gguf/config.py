"""What a policy's engines.toml may say about an engine of kind `gguf`."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct


class AdapterFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A LoRA adapter in GGUF form."""

    path: str
    scale: float = 1.0
    """How much of its change is applied."""


class GgufConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """llama.cpp models on this machine, loaded on demand."""

    isolation: Literal["thread", "process"] = "thread"
    """Where it runs: in threads of the gateway's own process, or in a child process that may
    crash without it. See docs/engines.md#isolation."""

    models_dir: str | None = None
    """Folder of GGUF files; None: the gateway's own models folder."""

    ollama_models_dir: str | None = None
    """A models folder of Ollama's (`~/.ollama/models`), served as it stands."""

    ollama_models_writable: bool = False
    """Whether models of `ollama_models_dir` may be deleted and replaced."""

    hugging_face_cache_dir: str | None = None
    """A Hugging Face cache (`~/.cache/huggingface/hub`), whose GGUF files are used in place."""

    adapters: Mapping[str, list[AdapterFile]] = {}
    """LoRA adapters by model, beside those that the model's own name brings."""

    projectors: Mapping[str, str] = {}
    """Vision projectors (mmproj files) by model, in the place of what the model's own name
    brings."""

    max_images: int = 16
    """How many images one conversation may have."""

    max_image_pixels: int = 50_000_000
    """How large an image may be, before it is scaled to what the model takes."""

    keep_alive_seconds: float = 300.0
    """How long an idle model stays loaded; 0 unloads at once, a negative number never."""

    max_loaded_models: int = 2
    """How many models may be loaded at once; the one idle for longest makes room, a busy one
    never does."""

    num_slots: int = 16
    """How many sequences of one model are decoded together; more wait their turn."""

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
    """Tokens that the shared pool holds over all sequences; None: twice `context_tokens`."""

    max_batch_tokens: int = 512
    """Tokens computed in one step: one for each running answer, the rest for prompts."""

    max_embed_tokens: int = 2048
    """The longest input that `embed` takes; its memory is reserved with the first one."""

    num_threads: int | None = None
    """Threads that compute; None: as many as prove fastest while they compute, one for each
    core at most."""

    use_extra_buffers: bool | None = None
    """Whether weights are repacked for this CPU (AMX among it); None: the probe decides."""

    probe: bool = True
    """Load and step a file not seen before in a child process first. Some files end the process
    that loads them."""
