"""The gated feed-forward layer: down(activation(gate(x)) * up(x))."""

from torch import Tensor, nn

from engines.checkpoint.model_shape import Activation, ModelShape
from engines.paged.kernels.activation import gated
from engines.paged.layers.linear import Placement, make_linear


class GatedMlp(nn.Module):
    """Gate and up are one matrix, so that one product reads the input once."""

    def __init__(self, shape: ModelShape, placement: Placement) -> None:
        super().__init__()
        inner, hidden, has_bias = shape.intermediate_size, shape.hidden_size, shape.has_mlp_bias
        self.gate_up = make_linear(hidden, [inner, inner], has_bias=has_bias, placement=placement)
        self.down = make_linear(inner, [hidden], has_bias=has_bias, placement=placement)
        self.activation: Activation = shape.activation

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to [T, hidden]."""
        return self.down(gated(self.gate_up(x), activation=self.activation))
