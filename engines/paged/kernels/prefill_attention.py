"""Attention of several new tokens a sequence, over its cached prefix and themselves.

FlashAttention-2 (Dao 2023) over blocks of the KV cache: a program takes a tile of a sequence's
queries and one key head, with all query heads that share it, and walks the keys that any of them
sees. Which sequence a tile belongs to is found on the device, and the grid is an upper bound that
follows from tensor shapes; so nothing waits for the lengths.
"""

import torch
from torch import Tensor

from engines.paged.kernels.online_softmax import LOG2_E, fold, load_tile, scores_of
from engines.paged.kernels.paged_cache import attend, gather
from engines.paged.kernels.tile_sizes import prefill_tiling, shared_memory_bytes
from engines.paged.kernels.triton_gate import (
    is_interpreted,
    next_power_of_two,
    runs_triton,
    tl,
    triton,
)


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
    run = launch if runs_triton(q) else reference
    return run(
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
        if end > start and num_tokens:
            keys = gather(key_cache, block_tables[row], num_tokens)
            values = gather(value_cache, block_tables[row], num_tokens)
            out[start:end] = attend(
                q[start:end], keys, values, scale=scale, window=window, softcap=softcap
            )
    return out


def launch(
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
    """The same as `prefill_attention`, in Triton."""
    out = torch.zeros(q.shape, dtype=q.dtype, device=q.device)
    launch_rows(
        q, key_cache, value_cache, block_tables, query_starts, context_lens, out,
        scale=scale, window=window, softcap=softcap, min_query_tokens=1,
    )  # fmt: skip
    return out


def launch_rows(
    q: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    query_starts: Tensor,
    context_lens: Tensor,
    out: Tensor,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    min_query_tokens: int,
) -> None:
    """Fill `out` for the sequences that have at least `min_query_tokens` queries."""
    num_tokens, num_heads, size = q.shape
    block_size, num_kv_heads = key_cache.shape[1], key_cache.shape[2]
    num_sequences = context_lens.shape[0]
    if not num_tokens or not num_sequences:
        return
    group = num_heads // num_kv_heads
    padded = next_power_of_two(size)
    tiling = prefill_tiling(padded, q.dtype, shared_memory_bytes(q))
    rows = max(tiling.rows, next_power_of_two(group))
    queries = rows // group
    _kernel[(num_tokens // queries + num_sequences, num_kv_heads)](
        q, key_cache, value_cache, block_tables, query_starts, context_lens, out,
        q.stride(0), q.stride(1), key_cache.stride(0), value_cache.stride(0),
        block_tables.stride(0), num_sequences, scale * LOG2_E, softcap or 1.0, min_query_tokens,
        GROUP=group, NUM_KV_HEADS=num_kv_heads, SIZE=size, PADDED=padded,
        BLOCK_SIZE=block_size, ROWS=rows, QUERIES=queries, KEYS=tiling.keys,
        WINDOW=window or 0, HAS_SOFTCAP=softcap is not None,
        IN_FLOAT32=is_interpreted() or q.dtype == torch.float32,
        num_warps=tiling.num_warps, num_stages=tiling.num_stages,
    )  # fmt: skip


@triton.jit
def _kernel(
    q, key_cache, value_cache, block_tables, query_starts, context_lens, out,
    q_stride, q_head_stride, key_block_stride, value_block_stride, table_stride,
    num_sequences, scale, softcap, min_query_tokens,
    GROUP: tl.constexpr, NUM_KV_HEADS: tl.constexpr, SIZE: tl.constexpr, PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, ROWS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    WINDOW: tl.constexpr, HAS_SOFTCAP: tl.constexpr, IN_FLOAT32: tl.constexpr,
):  # fmt: skip
    """One program: `QUERIES` tokens of one sequence, with the query heads of one key head."""
    tile = tl.program_id(0)
    kv_head = tl.program_id(1)
    sequence = _sequence_of(query_starts, tile, num_sequences, QUERIES)
    start = tl.load(query_starts + sequence)
    num_queries = tl.load(query_starts + sequence + 1) - start
    first_query = (tile - start // QUERIES - sequence) * QUERIES
    if (first_query >= num_queries) | (num_queries < min_query_tokens):
        return
    context = tl.load(context_lens + sequence)

    # Row r is head r % GROUP of the group, at query r // GROUP of the tile.
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, PADDED)
    query = first_query + row // GROUP
    head = kv_head * GROUP + row % GROUP
    position = context - num_queries + query
    is_row = ((row < QUERIES * GROUP) & (query < num_queries))[:, None] & (dim < SIZE)[None, :]
    token = (start + query).to(tl.int64)
    q_place = (token * q_stride + head * q_head_stride)[:, None] + dim[None, :]
    queries = tl.load(q + q_place, mask=is_row, other=0.0)
    if IN_FLOAT32:
        queries = queries.to(tl.float32)

    # Keys from `begin` are seen by some row, those before `clear` by every row of the tile, those
    # from `end` by none.
    first_position = context - num_queries + first_query
    end = tl.minimum(first_position + QUERIES, context)
    begin, clear = 0, (first_position + 1) // KEYS * KEYS
    if WINDOW > 0:
        begin = tl.maximum(first_position - WINDOW + 1, 0) // KEYS * KEYS
        clear = begin
    table = block_tables + sequence.to(tl.int64) * table_stride
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, PADDED], tl.float32)
    for first_key in range(begin, clear, KEYS):
        key = first_key + tl.arange(0, KEYS)
        keys, values = load_tile(
            key_cache, value_cache, table, key, key < clear, kv_head,
            key_block_stride, value_block_stride,
            NUM_KV_HEADS, SIZE, PADDED, BLOCK_SIZE, IN_FLOAT32,
        )  # fmt: skip
        scores = scores_of(queries, keys, scale, softcap, HAS_SOFTCAP, IN_FLOAT32)
        highest, total, mixed = fold(scores, values, highest, total, mixed, IN_FLOAT32)
    for first_key in range(clear, end, KEYS):
        key = first_key + tl.arange(0, KEYS)
        keys, values = load_tile(
            key_cache, value_cache, table, key, key < end, kv_head,
            key_block_stride, value_block_stride,
            NUM_KV_HEADS, SIZE, PADDED, BLOCK_SIZE, IN_FLOAT32,
        )  # fmt: skip
        scores = scores_of(queries, keys, scale, softcap, HAS_SOFTCAP, IN_FLOAT32)
        distance = position[:, None] - key[None, :]
        visible = (distance >= 0) & (key < end)[None, :]
        if WINDOW > 0:
            visible = visible & (distance < WINDOW)
        scores = tl.where(visible, scores, float("-inf"))
        highest, total, mixed = fold(scores, values, highest, total, mixed, IN_FLOAT32)

    mixed = mixed / tl.where(total > 0.0, total, 1.0)[:, None]
    place = (token * (NUM_KV_HEADS * GROUP) + head)[:, None] * SIZE + dim[None, :]
    tl.store(out + place, mixed.to(out.dtype.element_ty), mask=is_row)


@triton.jit
def _sequence_of(query_starts, tile, num_sequences, QUERIES: tl.constexpr):
    """The sequence that `tile` belongs to, by binary search.

    Sequence s has tiles from query_starts[s] // QUERIES + s, which leaves room for the unfinished
    tile of each sequence before it.
    """
    low, high = 0, num_sequences - 1
    while low < high:
        middle = (low + high + 1) // 2
        if tl.load(query_starts + middle) // QUERIES + middle <= tile:
            low = middle
        else:
            high = middle - 1
    return low
