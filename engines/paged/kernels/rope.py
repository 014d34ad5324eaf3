"""Rotary positions, with the normalization before them and the KV store after them.

One launch does what every layer needs between its QKV product and its attention: normalize the
heads of q and k (where the model does), rotate them, and put k and v into their slots of the cache.
The rotation is the half-split one (GPT-NeoX): dimension i is paired with i + R/2.
"""

import torch
from torch import Tensor

from engines.paged.kernels import rms_norm
from engines.paged.kernels.triton_gate import next_power_of_two, runs_triton, tl, triton

# Heads that one program turns: enough work for its few warps, enough programs for one token.
_HEADS_OF_PROGRAM = 8


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
    run = launch if runs_triton(q) else reference
    return run(
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


def launch(
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
    """The same as `rope_and_store`, in Triton."""
    num_tokens, num_heads, size = q.shape
    num_kv_heads, half = k.shape[1], cos_sin.shape[1] // 2
    _check(q, k, v, key_cache, value_cache)
    out = torch.empty((num_tokens, num_heads, size), dtype=q.dtype, device=q.device)
    if not num_tokens:
        return out
    heads = min(_HEADS_OF_PROGRAM, next_power_of_two(max(num_heads, num_kv_heads)))
    q_parts, kv_parts = triton.cdiv(num_heads, heads), triton.cdiv(num_kv_heads, heads)
    _kernel[(num_tokens, q_parts + kv_parts)](
        q, k, v, out, positions, cos_sin, slots, key_cache, value_cache,
        q if q_weight is None else q_weight, k if k_weight is None else k_weight,
        q.stride(0), k.stride(0), v.stride(0), q.stride(1), k.stride(1), v.stride(1),
        num_heads, num_kv_heads, q_parts, eps, offset,
        Q_NORM=q_weight is not None, K_NORM=k_weight is not None,
        SIZE=size, HALF=half, REST=size - 2 * half, HEADS=heads,
        HALF_BLOCK=next_power_of_two(half), REST_BLOCK=next_power_of_two(max(size - 2 * half, 1)),
        SIZE_BLOCK=next_power_of_two(size), num_warps=2,
    )  # fmt: skip
    return out


def _check(q: Tensor, k: Tensor, v: Tensor, key_cache: Tensor, value_cache: Tensor) -> None:
    if any(x.stride(-1) != 1 for x in (q, k, v)):
        raise ValueError("the last dimension of q, k and v must be contiguous")
    if not (key_cache.is_contiguous() and value_cache.is_contiguous()):
        raise ValueError("each layer's key and value cache must be contiguous")


@triton.jit
def _kernel(
    q, k, v, out, positions, cos_sin, slots, key_cache, value_cache, q_weight, k_weight,
    q_stride, k_stride, v_stride, q_head_stride, k_head_stride, v_head_stride,
    num_heads, num_kv_heads, q_parts, eps, offset,
    Q_NORM: tl.constexpr, K_NORM: tl.constexpr,
    SIZE: tl.constexpr, HALF: tl.constexpr, REST: tl.constexpr, HEADS: tl.constexpr,
    HALF_BLOCK: tl.constexpr, REST_BLOCK: tl.constexpr, SIZE_BLOCK: tl.constexpr,
):  # fmt: skip
    """One program does `HEADS` heads of one token: of q, or of k and v."""
    token = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    turn = cos_sin + tl.load(positions + token) * (2 * HALF)
    if part < q_parts:
        head = part * HEADS + tl.arange(0, HEADS)
        _turn(
            q + token * q_stride, q_head_stride, out + token * num_heads * SIZE, q_weight, turn,
            head, num_heads, eps, offset,
            Q_NORM, SIZE, HALF, REST, HALF_BLOCK, REST_BLOCK,
        )  # fmt: skip
    else:
        slot = tl.load(slots + token)
        if slot >= 0:
            head = (part - q_parts) * HEADS + tl.arange(0, HEADS)
            place = slot * num_kv_heads * SIZE
            _turn(
                k + token * k_stride, k_head_stride, key_cache + place, k_weight, turn,
                head, num_kv_heads, eps, offset,
                K_NORM, SIZE, HALF, REST, HALF_BLOCK, REST_BLOCK,
            )  # fmt: skip
            dim = tl.arange(0, SIZE_BLOCK)
            inside = (head[:, None] < num_kv_heads) & (dim[None, :] < SIZE)
            source = v + token * v_stride + head[:, None] * v_head_stride + dim[None, :]
            value = tl.load(source, mask=inside, other=0.0).to(value_cache.dtype.element_ty)
            tl.store(value_cache + place + head[:, None] * SIZE + dim[None, :], value, mask=inside)


@triton.jit
def _turn(
    source, head_stride, target, weight, turn, head, num_heads, eps, offset,
    NORM: tl.constexpr, SIZE: tl.constexpr, HALF: tl.constexpr, REST: tl.constexpr,
    HALF_BLOCK: tl.constexpr, REST_BLOCK: tl.constexpr,
):  # fmt: skip
    """Normalize and rotate heads [HEADS, SIZE], which are read in three parts.

    Two halves are turned into each other; what is beyond them is only normalized.
    """
    dim = tl.arange(0, HALF_BLOCK)
    rest_dim = tl.arange(0, REST_BLOCK)
    is_head = head[:, None] < num_heads
    inside = is_head & (dim[None, :] < HALF)
    rest_inside = is_head & (rest_dim[None, :] < REST)
    first_source = source + head[:, None] * head_stride + dim[None, :]
    rest_source = source + head[:, None] * head_stride + 2 * HALF + rest_dim[None, :]
    first = tl.load(first_source, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(first_source + HALF, mask=inside, other=0.0).to(tl.float32)
    rest = tl.load(rest_source, mask=rest_inside, other=0.0).to(tl.float32)
    if NORM:
        squares = tl.sum(first * first + second * second, axis=1) + tl.sum(rest * rest, axis=1)
        scale = (1.0 / tl.sqrt(squares / SIZE + eps))[:, None]
        first *= scale * _factor(weight, dim, dim < HALF, offset)
        second *= scale * _factor(weight, HALF + dim, dim < HALF, offset)
        rest *= scale * _factor(weight, 2 * HALF + rest_dim, rest_dim < REST, offset)
    cos = tl.load(turn + dim, mask=dim < HALF, other=0.0)[None, :]
    sin = tl.load(turn + HALF + dim, mask=dim < HALF, other=0.0)[None, :]
    element = target.dtype.element_ty
    first_target = target + head[:, None] * SIZE + dim[None, :]
    tl.store(first_target, (first * cos - second * sin).to(element), mask=inside)
    tl.store(first_target + HALF, (second * cos + first * sin).to(element), mask=inside)
    rest_target = target + head[:, None] * SIZE + 2 * HALF + rest_dim[None, :]
    tl.store(rest_target, rest.to(element), mask=rest_inside)


@triton.jit
def _factor(weight, place, inside, offset):
    return (offset + tl.load(weight + place, mask=inside, other=0.0).to(tl.float32))[None, :]
