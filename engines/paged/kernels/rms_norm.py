"""Root-mean-square normalization, alone and with the residual added before it.

Everything is computed in float32 and rounded once. `offset` is added to the weight: Gemma's
checkpoints keep `weight - 1`.
"""

import torch
from torch import Tensor

from engines.paged.kernels.triton_gate import next_power_of_two, runs_triton, tl, triton


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0) -> Tensor:
    """Return `x` over its root mean square along the last dimension, times `offset + weight`."""
    run = launch if runs_triton(x) else reference
    return run(x, weight, eps, offset=offset)


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the normalized sum of `x` and `residual`, and the sum, which is the next residual."""
    run = launch_add if runs_triton(x) else add_reference
    return run(x, residual, weight, eps, offset=offset)


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


def launch(x: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0) -> Tensor:
    """The same as `rms_norm`, in Triton."""
    rows = x.reshape(-1, x.shape[-1])
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _launch(rows, None, weight, out, None, eps, offset)
    return out


def launch_add(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The same as `add_rms_norm`, in Triton."""
    size = x.shape[-1]
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    total = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _launch(x.reshape(-1, size), residual.reshape(-1, size), weight, out, total, eps, offset)
    return out, total


def _launch(
    rows: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    out: Tensor,
    total: Tensor | None,
    eps: float,
    offset: float,
) -> None:
    num_rows, size = rows.shape
    if not num_rows:
        return
    block = next_power_of_two(size)
    _kernel[(num_rows,)](
        rows, rows if residual is None else residual, weight, out, out if total is None else total,
        rows.stride(0), rows.stride(0) if residual is None else residual.stride(0),
        size, eps, offset,
        HAS_RESIDUAL=residual is not None,
        BLOCK=block,
        num_warps=min(16, max(1, block // 512)),
    )  # fmt: skip


@triton.jit
def _kernel(
    x, residual, weight, out, total,
    x_stride, residual_stride, size, eps, offset,
    HAS_RESIDUAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program normalizes one row, which it holds whole."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    inside = place < size
    wide = tl.load(x + row * x_stride + place, mask=inside, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        old = tl.load(residual + row * residual_stride + place, mask=inside, other=0.0)
        rounded = (wide + old.to(tl.float32)).to(total.dtype.element_ty)
        tl.store(total + row * size + place, rounded, mask=inside)
        wide = rounded.to(tl.float32)
    mean = tl.sum(wide * wide, axis=0) / size
    scale = 1.0 / tl.sqrt(mean + eps)
    factor = offset + tl.load(weight + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(
        out + row * size + place, (wide * scale * factor).to(out.dtype.element_ty), mask=inside
    )
