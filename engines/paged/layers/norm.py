"""Root-mean-square normalization, alone or together with the addition before it."""

from torch import Tensor, nn

from engines.checkpoint.model_shape import ModelShape
from engines.paged.kernels.rms_norm import add_rms_norm, rms_norm
from engines.paged.layers.linear import Placement


class RmsNorm(nn.Module):
    """x / rms(x) * (offset + weight)."""

    def __init__(self, shape: ModelShape, placement: Placement, size: int | None = None) -> None:
        super().__init__()
        self.weight = placement.empty(size or shape.hidden_size)
        self.epsilon = shape.norm_epsilon
        self.offset = shape.norm_offset

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        return rms_norm(x, self.weight, self.epsilon, offset=self.offset)

    def add(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Return the norm of x + residual, and x + residual itself."""
        return add_rms_norm(x, residual, self.weight, self.epsilon, offset=self.offset)
