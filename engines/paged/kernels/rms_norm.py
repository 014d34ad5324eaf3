"""Root-mean-square normalization, alone and with the residual added before it.

Everything is computed in float32 and rounded once. `offset` is added to the weight: Gemma's
checkpoints keep `weight - 1`.
"""

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0) -> Tensor:
    """Return `x` over its root mean square along the last dimension, times `offset + weight`."""
    return reference(x, weight, eps, offset=offset)


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the normalized sum of `x` and `residual`, and the sum, which is the next residual."""
    return add_reference(x, residual, weight, eps, offset=offset)


def reference(x: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0) -> Tensor:
    """The same as `rms_norm`, in torch."""
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale * (offset + weight.float())).to(x.dtype)


def add_reference(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The same as `add_rms_norm`, in torch."""
    total = x + residual
    return reference(total, weight, eps, offset=offset), total
