"""The gate of a feed-forward layer: an activation of one half times the other half."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from engines.paged.kernels.triton_gate import next_power_of_two, runs_triton, tl, triton

Activation = Literal["silu", "gelu_tanh", "gelu"]

_MAX_BLOCK = 1024


def gated(gate_up: Tensor, *, activation: Activation) -> Tensor:
    """Return `activation(gate) * up` [T, I] of `gate_up` [T, 2I], computed in float32."""
    run = launch if runs_triton(gate_up) else reference
    return run(gate_up, activation=activation)


def reference(gate_up: Tensor, *, activation: Activation) -> Tensor:
    """The same as `gated`, in torch."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    if activation == "silu":
        gate = functional.silu(gate)
    else:
        gate = functional.gelu(gate, approximate="tanh" if activation == "gelu_tanh" else "none")
    return (gate * up).to(gate_up.dtype)


def launch(gate_up: Tensor, *, activation: Activation) -> Tensor:
    """The same as `gated`, in Triton."""
    num_rows, size = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((num_rows, size), dtype=gate_up.dtype, device=gate_up.device)
    if num_rows:
        block = min(_MAX_BLOCK, next_power_of_two(size))
        _kernel[(num_rows, triton.cdiv(size, block))](
            gate_up, out, gate_up.stride(0), size, ACTIVATION=activation, BLOCK=block, num_warps=4
        )
    return out


@triton.jit
def _kernel(gate_up, out, row_stride, size, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    """One program makes `BLOCK` values of one row."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    gate = tl.load(gate_up + row * row_stride + place, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * row_stride + size + place, mask=inside, other=0.0).to(tl.float32)
    if ACTIVATION == "silu":
        gate = gate * tl.sigmoid(gate)
    elif ACTIVATION == "gelu":
        gate = 0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476))
    else:
        # 0.5 * (1 + tanh(x)) is sigmoid(2x).
        inner = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)
        gate = gate * tl.sigmoid(2.0 * inner)
    tl.store(out + row * size + place, (gate * up).to(out.dtype.element_ty), mask=inside)
