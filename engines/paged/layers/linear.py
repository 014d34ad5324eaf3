"""Linear layers, and the one place where they are made.

Every matrix of every model comes from `make_linear`. What is to be special about
matrices later (quantized weights, LoRA, a shard of them on each device) replaces what
that function returns and touches no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model's weights live and what their numbers are."""

    device: torch.device
    dtype: torch.dtype

    def empty(self, *sizes: int) -> nn.Parameter:
        """Memory for one weight, not yet filled."""
        values = torch.empty(sizes, device=self.device, dtype=self.dtype)
        return nn.Parameter(values, requires_grad=False)


class Linear(nn.Module):
    """y = x W' + b. Several matrices over one input are one, with their outputs side by side."""

    def __init__(
        self, inputs: int, outputs: Sequence[int], *, has_bias: bool, placement: Placement
    ) -> None:
        super().__init__()
        self.output_sizes = tuple(outputs)
        self.weight = placement.empty(sum(outputs), inputs)
        self.bias = placement.empty(sum(outputs)) if has_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to [..., inputs]."""
        return F.linear(x, self.weight, self.bias)


def make_linear(
    inputs: int, outputs: Sequence[int], *, has_bias: bool = False, placement: Placement
) -> Linear:
    """Make the layer that computes all of `outputs` from one input."""
    return Linear(inputs, outputs, has_bias=has_bias, placement=placement)
