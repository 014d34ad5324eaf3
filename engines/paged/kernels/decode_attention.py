"""Attention of one new token for each sequence: what a decode step spends its time on."""

import torch
from torch import Tensor

from engines.paged.kernels.paged_cache import attend, gather


def decode_attention(
    q: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    num_splits: int = 1,
) -> Tensor:
    """Attend from each sequence's last token, q [S, Hq, D], to its context; a context of 0 is zeros.

    The token itself is part of the context, its key and value in the cache already. `num_splits`
    is how many programs share one sequence's context; it changes no result but in rounding.
    """
    return reference(
        q, key_cache, value_cache, block_tables, context_lens,
        scale=scale, window=window, softcap=softcap, num_splits=num_splits,
    )  # fmt: skip


def reference(
    q: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    num_splits: int = 1,
) -> Tensor:
    """The same as `decode_attention`, in torch."""
    out = torch.zeros_like(q)
    for row, num_tokens in enumerate(context_lens.tolist()):
        if num_tokens:
            keys = gather(key_cache, block_tables[row], num_tokens)
            values = gather(value_cache, block_tables[row], num_tokens)
            out[row] = attend(
                q[row : row + 1], keys, values, scale=scale, window=window, softcap=softcap
            )[0]
    return out
