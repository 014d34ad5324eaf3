"""What one forward pass is about (tmp: the models helper owns this file)."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class StepInputs:
    """The rows of one step, on the device."""

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    block_tables: Tensor
    query_starts: Tensor
    context_lens: Tensor
    max_query_tokens: int
    max_context_tokens: int
    num_splits: int = 1
