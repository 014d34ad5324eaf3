"""How the attention kernels cut their work, by head size, type and what a multiprocessor has.

Chosen from what the compiler says about each (registers, spills, shared memory) and by arithmetic
for an H100; not measured yet: `make bench-gpu` is to be the judge. Decode wants bytes in flight
from several programs a multiprocessor, prefill wants large products from one.

Keys are found through the block table, so a pipeline needs two stages for each tile it holds: with
5, two tiles are on their way while one is used, and 3 or 4 only hold one.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# What one program may have at most, in bytes; all that is not a data center's has 99 KiB.
_HOPPER_SHARED_MEMORY = 227 * 1024
_LARGE_SHARED_MEMORY = 160 * 1024


class Tiling(NamedTuple):
    """Rows and keys of one tile, and how many warps and pipeline stages work on it."""

    rows: int
    keys: int
    num_warps: int
    num_stages: int


def decode_tiling(padded_size: int, dtype: torch.dtype, rows: int) -> Tiling:
    """How decode attention reads heads of `padded_size`; `rows` is the group's, at least 16."""
    if dtype == torch.float32:
        return Tiling(rows, 32 if padded_size <= 64 else 16, 4, 2)
    if padded_size <= 64:
        return Tiling(rows, 128, 4, 5)
    if padded_size <= 128:
        return Tiling(rows, 64, 4, 5)
    return Tiling(rows, 32, 4, 5)


def prefill_tiling(padded_size: int, dtype: torch.dtype, shared_memory_bytes: int) -> Tiling:
    """How prefill attention cuts queries and keys."""
    if dtype == torch.float32:
        if padded_size <= 64:
            return Tiling(32, 32, 4, 1)
        return Tiling(16, 32, 8, 1) if padded_size <= 128 else Tiling(16, 16, 4, 1)
    if padded_size <= 128:
        return Tiling(128, 64, 8, 3)
    if shared_memory_bytes >= _LARGE_SHARED_MEMORY:
        return Tiling(64, 64, 8, 2)
    return Tiling(64, 32, 8, 2)


def shared_memory_bytes(tensor: Tensor) -> int:
    """The most shared memory that one program may have where `tensor` is."""
    if not tensor.is_cuda:
        return _HOPPER_SHARED_MEMORY
    return torch.cuda.get_device_properties(tensor.device).shared_memory_per_block_optin
