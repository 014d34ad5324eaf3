"""Attention of several new tokens a sequence, over its cached prefix and themselves."""

import torch
from torch import Tensor

from engines.paged.kernels.paged_cache import attend, gather


def prefill_attention(
    q: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    query_starts: Tensor,
    context_lens: Tensor,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    max_query_tokens: int,
) -> Tensor:
    """Attend causally from the new tokens of all sequences, q [T, Hq, D], to their contexts.

    Sequence s has the rows from `query_starts[s]` to `query_starts[s + 1]`, the last tokens of its
    `context_lens[s]`; keys and values are in the cache already. Rows of no sequence are zeros.
    `max_query_tokens` is at least the most rows of one sequence.
    """
    return reference(
        q, key_cache, value_cache, block_tables, query_starts, context_lens,
        scale=scale, window=window, softcap=softcap, max_query_tokens=max_query_tokens,
    )  # fmt: skip


def reference(
    q: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    query_starts: Tensor,
    context_lens: Tensor,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    max_query_tokens: int,
) -> Tensor:
    """The same as `prefill_attention`, in torch."""
    out = torch.zeros_like(q)
    starts = query_starts.tolist()
    for row, num_tokens in enumerate(context_lens.tolist()):
        start, end = starts[row], starts[row + 1]
        if end > start:
            keys = gather(key_cache, block_tables[row], num_tokens)
            values = gather(value_cache, block_tables[row], num_tokens)
            out[start:end] = attend(
                q[start:end], keys, values, scale=scale, window=window, softcap=softcap
            )
    return out
