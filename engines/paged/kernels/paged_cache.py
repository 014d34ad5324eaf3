"""One sequence's attention over its blocks of the KV cache, in torch.

Both attention kernels have their reference here. It also serves CPUs, so it works through the
queries in chunks: the scores of a long prompt would not fit at once.
"""

import torch
from torch import Tensor

_QUERY_CHUNK = 256


def gather(cache: Tensor, blocks: Tensor, num_tokens: int) -> Tensor:
    """The first `num_tokens` of a sequence [tokens, Hkv, D] out of `cache`."""
    num_blocks = -(-num_tokens // cache.shape[1])
    return cache[blocks[:num_blocks].long()].flatten(0, 1)[:num_tokens]


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, window: int | None, softcap: float | None
) -> Tensor:
    """Attend causally from the last tokens of a sequence [n, Hq, D] to all of it [c, Hkv, D]."""
    num_queries, num_context = q.shape[0], k.shape[0]
    out = torch.empty_like(q)
    keys, values = k.float().permute(1, 2, 0), v.float().transpose(0, 1)  # [Hkv, D, c], [Hkv, c, D]
    for start in range(0, num_queries, _QUERY_CHUNK):
        end = min(start + _QUERY_CHUNK, num_queries)
        first, last = num_context - num_queries + start, num_context - num_queries + end
        low = 0 if window is None else max(0, first - window + 1)
        out[start:end] = _attend_chunk(
            q[start:end], keys[..., low:last], values[:, low:last], first - low,
            scale=scale, window=window, softcap=softcap,
        )  # fmt: skip
    return out


def _attend_chunk(
    q: Tensor, keys: Tensor, values: Tensor, first: int,
    *, scale: float, window: int | None, softcap: float | None,
) -> Tensor:  # fmt: skip
    """The same for a few queries, of which the first stands at key `first`."""
    num_queries, num_heads, size = q.shape
    num_kv_heads, _, num_keys = keys.shape
    group = num_heads // num_kv_heads
    rows = q.float().view(num_queries, num_kv_heads, group, size).permute(1, 2, 0, 3)
    scores = rows.reshape(num_kv_heads, group * num_queries, size) @ keys * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    distance = torch.arange(first, first + num_queries, device=q.device)[:, None] - torch.arange(
        num_keys, device=q.device
    )
    hidden = distance < 0
    if window is not None:
        hidden |= distance >= window
    scores = scores.view(num_kv_heads, group, num_queries, num_keys)
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    mixed = weights.view(num_kv_heads, group * num_queries, num_keys) @ values
    mixed = mixed.view(num_kv_heads, group, num_queries, size).permute(2, 0, 1, 3)
    return mixed.reshape(num_queries, num_heads, size).to(q.dtype)
