"""What one step hands the model: which tokens, where they sit, where their keys go.

A row is one sequence's tokens of this step: `query_starts` says where each row
begins, `context_lens` how long its sequence is once they are in. A decode is a row
of one token, and nothing here has another word for it.

Under CUDA graphs these tensors are fixed buffers that are refilled for every step,
so the model reads nothing else and never asks the device for a value.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from engines.checkpoint.model_shape import ModelShape


@dataclass(frozen=True, slots=True)
class StepInputs:
    """T tokens in S rows. A padding token has slot -1, a padding row a context length of 0."""

    token_ids: Tensor  # i64 [T]
    positions: Tensor  # i64 [T], of each token in its sequence
    slots: Tensor  # i64 [T], block * block_size + offset; -1 stores nothing
    block_tables: Tensor  # i32 [S, B]
    query_starts: Tensor  # i32 [S + 1]
    context_lens: Tensor  # i32 [S], after this step
    max_query_tokens: int
    max_context_tokens: int
    num_splits: int = 1
    rope_positions: Tensor | None = None
    """i64 [T]: rows of the rotary table, where they are not the positions; see
    layers/rotary.py. Only models with two sets of frequencies (Phi-3's longrope) need them."""


class KVCache:
    """The keys and values of all layers, in blocks; whoever made it owns the memory."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        """Both are [layers, blocks, block size, kv heads, head size]."""
        if keys.shape != values.shape or keys.dim() != 5:
            raise ValueError(
                "keys and values must both be [layers, blocks, block size, kv heads, head size]; "
                f"got {list(keys.shape)} and {list(values.shape)}"
            )
        self.keys = keys
        self.values = values

    @classmethod
    def allocate(
        cls,
        shape: ModelShape,
        *,
        num_blocks: int,
        block_size: int,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> "KVCache":
        """Make a cache of zeros, so that padding never meets somebody else's NaN."""
        sizes = (shape.num_layers, num_blocks, block_size, shape.num_kv_heads, shape.head_dim)
        keys = torch.zeros(sizes, device=device, dtype=dtype)
        return cls(keys, torch.zeros_like(keys))

    @property
    def block_size(self) -> int:
        """Tokens that one block holds."""
        return self.keys.shape[2]

    @property
    def num_blocks(self) -> int:
        """Blocks that each layer has."""
        return self.keys.shape[1]

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """The keys and values of one layer, each [blocks, block size, kv heads, head size]."""
        return self.keys[index], self.values[index]
