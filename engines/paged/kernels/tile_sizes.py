"""How the attention kernels cut their work, by head size and type.

Chosen by arithmetic for an H100 (228 KiB of shared memory, 64 K registers a multiprocessor) and
not measured yet: `make bench-gpu` is the judge. A tile's keys and values stand `num_stages` deep in
shared memory; decode wants bytes in flight from several programs a multiprocessor, prefill wants
large products from one.
"""

from typing import NamedTuple

import torch


class Tiling(NamedTuple):
    """Rows and keys of one tile, and how many warps and pipeline stages work on it."""

    rows: int
    keys: int
    num_warps: int
    num_stages: int


def decode_tiling(padded_size: int, dtype: torch.dtype, rows: int) -> Tiling:
    """How decode attention reads heads of `padded_size`; `rows` is the group's, at least 16."""
    if dtype == torch.float32:
        return Tiling(rows, 32 if padded_size <= 128 else 16, 4, 2)
    if padded_size <= 64:
        return Tiling(rows, 128, 4, 3)
    if padded_size <= 128:
        return Tiling(rows, 64, 4, 3)
    return Tiling(rows, 32, 4, 3)


def prefill_tiling(padded_size: int, dtype: torch.dtype) -> Tiling:
    """How prefill attention cuts queries and keys."""
    if dtype == torch.float32:
        return Tiling(32, 32, 4, 1) if padded_size <= 128 else Tiling(16, 16, 4, 1)
    if padded_size <= 64:
        return Tiling(128, 64, 4, 3)
    if padded_size <= 128:
        return Tiling(128, 64, 8, 3)
    return Tiling(64, 64, 8, 2)
