"""How large a model's caches are and how they are divided, by its configuration.

Asked twice: before a model is loaded, for an estimate of its memory, and of the
loaded model, for the caches themselves.
"""

from typing import Protocol

import structlog

from engines.gguf.config import GgufConfig
from engines.gguf.runner import Shape

log = structlog.get_logger()

MAX_DEFAULT_CONTEXT_TOKENS = 8192
# From here on more rows in a step cost as much each, and every answer gets slower
# (docs/experiments.md).
DEFAULT_SLOTS = 16
OTHERS_TOKENS = 1024  # that each slot of a shared pool counts for, besides the longest
MIN_SLOT_TOKENS = 256  # of a shared pool, below which slots would only wait for each other


class Sized(Protocol):
    """What decides how large a cache is: a `Runner`, or an estimate before there is one."""

    @property
    def trained_tokens(self) -> int:
        """Tokens of context that the model was trained for."""
        ...

    @property
    def cache_bytes_per_token(self) -> int:
        """Of a shared cache, over all blocks."""
        ...


def generation_shape(model: Sized, config: GgufConfig) -> Shape:
    """How large the KV cache is and how it is divided; see `GgufConfig.cache`."""
    context_tokens = _context_tokens(model, config)
    num_slots = config.num_slots or DEFAULT_SLOTS
    exact_bytes = context_tokens * num_slots * model.cache_bytes_per_token
    exact = config.cache == "exact" or (
        config.cache == "auto"
        and not config.is_cache_chosen
        and exact_bytes <= config.max_exact_cache_bytes
    )
    if exact:
        pool_tokens = context_tokens * num_slots
    else:
        pool_tokens = max(config.pool_tokens or _pool(context_tokens, num_slots), context_tokens)
        if config.num_slots is None:
            num_slots = max(1, min(num_slots, pool_tokens // MIN_SLOT_TOKENS))
    return Shape(
        num_slots=num_slots,
        context_tokens=context_tokens,
        pool_tokens=pool_tokens,
        exact=exact,
        max_batch_tokens=max(config.max_batch_tokens, num_slots),
    )


def _pool(context_tokens: int, num_slots: int) -> int:
    """Room for one sequence as long as may be, and for others of which few are."""
    if num_slots == 1:
        return context_tokens
    return context_tokens + min(context_tokens, max(8192, num_slots * OTHERS_TOKENS))


def embedding_shape(model: Sized, config: GgufConfig) -> Shape:
    """How much the embedding context takes at once: one longest input, or several shorter."""
    tokens = min(_context_tokens(model, config), config.max_embed_tokens)
    return Shape(
        num_slots=config.num_slots or DEFAULT_SLOTS,
        context_tokens=tokens,
        pool_tokens=tokens,
        exact=False,
        max_batch_tokens=tokens,
    )


def _context_tokens(model: Sized, config: GgufConfig) -> int:
    trained = max(1, model.trained_tokens)
    if config.context_tokens is None:
        return min(trained, MAX_DEFAULT_CONTEXT_TOKENS)
    if config.context_tokens > trained:
        log.warning("context_capped", asked=config.context_tokens, trained=trained)
    return min(config.context_tokens, trained)


def cache_bytes(model: Sized, shape: Shape | None) -> int:
    """Bytes of the KV cache of a model that writes text."""
    return 0 if shape is None else shape.pool_tokens * model.cache_bytes_per_token
