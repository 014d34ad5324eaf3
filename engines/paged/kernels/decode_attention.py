"""Attention of one new token for each sequence: what a decode step spends its time on.

Reading keys and values is all the cost, so they are read once: a program takes one key head and all
query heads that share it, packed to at least 16 rows, the least that tensor cores take. Few
sequences do not fill a GPU with that, so a context can be split between programs; each leaves its
part and the logarithm of its weight, and a second kernel merges them. Grids depend on tensor shapes
alone, so a CUDA graph can hold them.
"""

import torch
from torch import Tensor

from engines.paged.kernels.online_softmax import LOG2_E, fold, load_tile, scores_of
from engines.paged.kernels.paged_cache import attend, gather
from engines.paged.kernels.tile_sizes import decode_tiling
from engines.paged.kernels.triton_gate import (
    is_interpreted,
    next_power_of_two,
    runs_triton,
    tl,
    triton,
)

MAX_SPLITS = 64
# A program with fewer keys than this would cost more to start and merge than it saves.
_MIN_KEYS_OF_SPLIT = 128
_MIN_ROWS = 16


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
    """Attend from each sequence's last token, q [S, Hq, D], to its context.

    A context of 0 is a padding row and gives zeros. The token itself is part of the context, its
    key and value in the cache already. `num_splits` is how many programs share one sequence's
    context; it changes no result but in rounding.
    """
    run = launch if runs_triton(q) else reference
    return run(
        q, key_cache, value_cache, block_tables, context_lens,
        scale=scale, window=window, softcap=softcap, num_splits=num_splits,
    )  # fmt: skip


def choose_num_splits(
    num_sequences: int, num_kv_heads: int, max_context_tokens: int, num_multiprocessors: int
) -> int:
    """How many programs should share a context, for a batch of this size: a power of two.

    Two programs a multiprocessor keep its memory busy. Ask once for each graph bucket, with the
    longest context that the bucket may see.
    """
    wanted = 2 * num_multiprocessors // max(1, num_sequences * num_kv_heads)
    useful = max_context_tokens // _MIN_KEYS_OF_SPLIT
    limit = max(1, min(wanted, useful, MAX_SPLITS))
    return 1 << (limit.bit_length() - 1)


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


def launch(
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
    """The same as `decode_attention`, in Triton."""
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    launch_rows(
        q, key_cache, value_cache, block_tables, context_lens, None, out,
        scale=scale, window=window, softcap=softcap, num_splits=num_splits,
    )  # fmt: skip
    return out


def launch_rows(
    q: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_starts: Tensor | None,
    out: Tensor,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    num_splits: int,
) -> None:
    """Fill `out` for each sequence; with `query_starts`, only for those that have one query.

    The others' rows are left alone: prefill attention fills them in the same step.
    """
    num_sequences = context_lens.shape[0]
    num_heads, size = q.shape[1], q.shape[2]
    block_size, num_kv_heads = key_cache.shape[1], key_cache.shape[2]
    if not num_sequences:
        return
    group = num_heads // num_kv_heads
    padded = next_power_of_two(size)
    tiling = decode_tiling(padded, q.dtype, max(_MIN_ROWS, next_power_of_two(group)))
    partial, weights = out, out
    if num_splits > 1:
        shape = (num_sequences, num_heads, num_splits)
        partial = torch.empty((*shape, size), dtype=torch.float32, device=q.device)
        weights = torch.empty(shape, dtype=torch.float32, device=q.device)
    starts = context_lens if query_starts is None else query_starts
    _kernel[(num_sequences, num_kv_heads, num_splits)](
        q, key_cache, value_cache, block_tables, context_lens, starts, out, partial, weights,
        q.stride(0), q.stride(1), key_cache.stride(0), value_cache.stride(0),
        block_tables.stride(0), scale * LOG2_E, softcap or 1.0,
        GROUP=group, NUM_KV_HEADS=num_kv_heads, SIZE=size, PADDED=padded,
        BLOCK_SIZE=block_size, ROWS=tiling.rows, KEYS=tiling.keys, NUM_SPLITS=num_splits,
        WINDOW=window or 0, HAS_SOFTCAP=softcap is not None, IS_MIXED=query_starts is not None,
        IN_FLOAT32=is_interpreted() or q.dtype == torch.float32,
        num_warps=tiling.num_warps, num_stages=tiling.num_stages,
    )  # fmt: skip
    if num_splits > 1:
        _merge[(num_sequences, num_heads)](
            partial, weights, starts, out,
            NUM_HEADS=num_heads, SIZE=size, PADDED=padded, NUM_SPLITS=num_splits,
            SPLITS=next_power_of_two(num_splits), IS_MIXED=query_starts is not None, num_warps=2,
        )  # fmt: skip


@triton.jit
def _kernel(
    q, key_cache, value_cache, block_tables, context_lens, query_starts, out, partial, weights,
    q_stride, q_head_stride, key_block_stride, value_block_stride, table_stride, scale, softcap,
    GROUP: tl.constexpr, NUM_KV_HEADS: tl.constexpr, SIZE: tl.constexpr, PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, NUM_SPLITS: tl.constexpr,
    WINDOW: tl.constexpr, HAS_SOFTCAP: tl.constexpr, IS_MIXED: tl.constexpr,
    IN_FLOAT32: tl.constexpr,
):  # fmt: skip
    """One program: one sequence, one key head, one split of the context."""
    sequence = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    token = sequence.to(tl.int64)
    if IS_MIXED:
        token = tl.load(query_starts + sequence).to(tl.int64)
        if tl.load(query_starts + sequence + 1) - token != 1:
            return
    context = tl.load(context_lens + sequence)

    row = tl.arange(0, ROWS)
    dim = tl.arange(0, PADDED)
    head = kv_head * GROUP + row
    is_row = (row < GROUP)[:, None] & (dim < SIZE)[None, :]
    q_place = token * q_stride + head[:, None] * q_head_stride + dim[None, :]
    queries = tl.load(q + q_place, mask=is_row, other=0.0)
    if IN_FLOAT32:
        queries = queries.to(tl.float32)

    first_key = 0
    if WINDOW > 0:
        first_key = tl.maximum(context - WINDOW, 0)
    first_tile = first_key // KEYS
    num_tiles = tl.cdiv(context, KEYS) - first_tile
    tiles_of_split = tl.cdiv(num_tiles, NUM_SPLITS)
    begin = first_tile + split * tiles_of_split
    end = tl.minimum(begin + tiles_of_split, first_tile + num_tiles)

    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, PADDED], tl.float32)
    table = block_tables + sequence.to(tl.int64) * table_stride
    for tile in range(begin, end):
        key = tile * KEYS + tl.arange(0, KEYS)
        is_key = key < context
        keys, values = load_tile(
            key_cache, value_cache, table, key, is_key, kv_head,
            key_block_stride, value_block_stride,
            NUM_KV_HEADS, SIZE, PADDED, BLOCK_SIZE, IN_FLOAT32,
        )  # fmt: skip
        scores = scores_of(queries, keys, scale, softcap, HAS_SOFTCAP, IN_FLOAT32)
        visible = is_key & (key >= first_key)
        scores = tl.where(visible[None, :], scores, float("-inf"))
        highest, total, mixed = fold(scores, values, highest, total, mixed, IN_FLOAT32)

    mixed = mixed / tl.where(total > 0.0, total, 1.0)[:, None]
    if NUM_SPLITS == 1:
        place = (token * (NUM_KV_HEADS * GROUP) + head)[:, None] * SIZE + dim[None, :]
        tl.store(out + place, mixed.to(out.dtype.element_ty), mask=is_row)
    else:
        line = (sequence.to(tl.int64) * (NUM_KV_HEADS * GROUP) + head) * NUM_SPLITS + split
        tl.store(partial + line[:, None] * SIZE + dim[None, :], mixed, mask=is_row)
        log_weight = tl.where(total > 0.0, highest + tl.log2(total), float("-inf"))
        tl.store(weights + line, log_weight, mask=row < GROUP)


@triton.jit
def _merge(
    partial, weights, query_starts, out,
    NUM_HEADS: tl.constexpr, SIZE: tl.constexpr, PADDED: tl.constexpr, NUM_SPLITS: tl.constexpr,
    SPLITS: tl.constexpr, IS_MIXED: tl.constexpr,
):  # fmt: skip
    """One program mixes the splits of one head of one sequence by their weights."""
    sequence = tl.program_id(0)
    token = sequence.to(tl.int64)
    if IS_MIXED:
        token = tl.load(query_starts + sequence).to(tl.int64)
        if tl.load(query_starts + sequence + 1) - token != 1:
            return
    head = tl.program_id(1)
    split = tl.arange(0, SPLITS)
    dim = tl.arange(0, PADDED)
    line = (sequence.to(tl.int64) * NUM_HEADS + head) * NUM_SPLITS + split
    log_weight = tl.load(weights + line, mask=split < NUM_SPLITS, other=float("-inf"))
    highest = tl.max(log_weight, axis=0)
    highest = tl.where(highest > float("-inf"), highest, 0.0)
    weight = tl.exp2(log_weight - highest)
    # A split without keys has a weight of 0, and nothing of it need be read.
    is_part = (log_weight > float("-inf"))[:, None] & (dim < SIZE)[None, :]
    parts = tl.load(partial + line[:, None] * SIZE + dim[None, :], mask=is_part, other=0.0)
    total = tl.sum(weight, axis=0)
    mixed = tl.sum(parts * weight[:, None], axis=0) / tl.where(total > 0.0, total, 1.0)
    place = (token * NUM_HEADS + head) * SIZE + dim
    tl.store(out + place, mixed.to(out.dtype.element_ty), mask=dim < SIZE)
