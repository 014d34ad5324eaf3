"""A KV cache with sequences in it, as the attention kernels meet them.

Blocks are handed out in a random order, and whatever no sequence may read is NaN: a kernel that
reads it shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tests.engines.paged.kernels.conftest import Draw


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The attention of one layer."""

    num_heads: int = 4
    num_kv_heads: int = 2
    size: int = 64
    block_size: int = 16
    window: int | None = None
    softcap: float | None = None
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Cached:
    """Keys and values of some sequences, and where they are."""

    keys: torch.Tensor
    values: torch.Tensor
    block_tables: torch.Tensor
    context_lens: torch.Tensor
    query_starts: torch.Tensor


def cached(
    draw: Draw, layer: Layer, contexts: Sequence[int], num_queries: Sequence[int] = ()
) -> Cached:
    """Fill a cache with sequences of these lengths, of which the last `num_queries` are new."""
    blocks_of = [-(-tokens // layer.block_size) for tokens in contexts]
    num_blocks = sum(blocks_of) + 2
    shape = (num_blocks, layer.block_size, layer.num_kv_heads, layer.size)
    keys, values = draw(*shape, dtype=layer.dtype), draw(*shape, dtype=layer.dtype)
    order = torch.randperm(num_blocks, generator=torch.Generator().manual_seed(2)).tolist()
    tables = torch.full((len(contexts), max([*blocks_of, 1]) + 1), order.pop(), dtype=torch.int32)
    unused = torch.ones(num_blocks * layer.block_size, dtype=torch.bool)
    for row, tokens in enumerate(contexts):
        mine = torch.tensor([order.pop() for _ in range(blocks_of[row])], dtype=torch.int32)
        tables[row, : len(mine)] = mine
        places = mine[:, None] * layer.block_size + torch.arange(layer.block_size)
        unused[places.flatten()[:tokens].long()] = False
    for cache in (keys, values):
        cache.flatten(0, 1)[unused.to(draw.device)] = float("nan")
    starts = torch.tensor([0, *(num_queries or [1] * len(contexts))]).cumsum(0)
    return Cached(
        keys,
        values,
        tables.to(draw.device),
        torch.tensor(contexts, dtype=torch.int32).to(draw.device),
        starts.to(draw.device, torch.int32),
    )
