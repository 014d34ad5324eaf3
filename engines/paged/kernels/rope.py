"""Rotary positions, with the normalization before them and the KV store after them.

One launch does what every layer needs between its QKV product and its attention: normalize the
heads of q and k (where the model does), rotate them, and put k and v into their slots of the cache.
The rotation is the half-split one (GPT-NeoX): dimension i is paired with i + R/2.
"""

import torch
from torch import Tensor

from engines.paged.kernels import rms_norm


def rope_and_store(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    cos_sin: Tensor,
    slots: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    *,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> Tensor:
    """Return q [T, Hq, D], normalized and rotated; store k, the same, and v [T, Hkv, D].

    `cos_sin` [P, R] is float32, R/2 cosines, then R/2 sines, for each position; where R is less
    than D, the other dimensions pass unturned. A slot of -1 stores nothing. The caches are
    [blocks, block size, Hkv, D]. The arguments' last dimensions must be contiguous.
    """
    return reference(
        q, k, v, positions, cos_sin, slots, key_cache, value_cache,
        q_weight=q_weight, k_weight=k_weight, eps=eps, offset=offset,
    )  # fmt: skip


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    cos_sin: Tensor,
    slots: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    *,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> Tensor:
    """The same as `rope_and_store`, in torch."""
    wide_q, wide_k = q.float(), k.float()
    if q_weight is not None:
        wide_q = rms_norm.reference(wide_q, q_weight, eps, offset=offset)
    if k_weight is not None:
        wide_k = rms_norm.reference(wide_k, k_weight, eps, offset=offset)
    cos, sin = cos_sin[positions].unsqueeze(1).chunk(2, dim=-1)
    turned = _rotate(wide_k, cos, sin).to(key_cache.dtype)
    stored = slots >= 0
    key_cache.flatten(0, 1)[slots[stored]] = turned[stored]
    value_cache.flatten(0, 1)[slots[stored]] = v[stored].to(value_cache.dtype)
    return _rotate(wide_q, cos, sin).to(q.dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)
