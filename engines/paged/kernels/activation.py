"""The gate of a feed-forward layer: an activation of one half times the other half."""

from typing import Literal

from torch import Tensor
from torch.nn import functional

Activation = Literal["silu", "gelu_tanh", "gelu"]


def gated(gate_up: Tensor, *, activation: Activation) -> Tensor:
    """Return `activation(gate) * up` [T, I] of `gate_up` [T, 2I], computed in float32."""
    return reference(gate_up, activation=activation)


def reference(gate_up: Tensor, *, activation: Activation) -> Tensor:
    """The same as `gated`, in torch."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    if activation == "silu":
        gate = functional.silu(gate)
    else:
        gate = functional.gelu(gate, approximate="tanh" if activation == "gelu_tanh" else "none")
    return (gate * up).to(gate_up.dtype)
