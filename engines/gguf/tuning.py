"""How llama.cpp is to hold a model, as far as a policy has a say."""

from typing import NamedTuple

from engines.gguf.config import GgufConfig


class Tuning(NamedTuple):
    """What goes to llama.cpp as it is."""

    gpu_layers: int = -1  # -1: all that fit
    mmap: bool = False
    cache_type_k: str = "f16"  # of a shared cache
    cache_type_v: str = "f16"
    flash_attention: bool | None = None  # None: where llama.cpp can


AS_IT_LIKES = Tuning()


def tuning_of(config: GgufConfig, gpu_layers: int) -> Tuning:
    """What the configuration says of how llama.cpp holds a model."""
    return Tuning(
        gpu_layers=gpu_layers,
        mmap=config.mmap,
        cache_type_k=config.cache_type_k or "f16",
        cache_type_v=config.cache_type_v or "f16",
        flash_attention=config.flash_attention,
    )
