"""Triton where it is installed; where it is not, files that use it still import.

A machine without a GPU needs no Triton: it runs each kernel's `reference`. Nothing there calls a
kernel, so what stands in for Triton only has to survive `@triton.jit` and annotations.
"""

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    import triton.language as tl

    triton: Any = None  # whose own types know nothing of launch options
else:
    try:
        import triton
        import triton.language as tl
    except ImportError:

        class _Absent:
            constexpr = int

            def jit(self, function: Any) -> Any:
                return function

        triton = tl = _Absent()

__all__ = ["is_interpreted", "next_power_of_two", "runs_triton", "tl", "triton"]


def runs_triton(tensor: Tensor) -> bool:
    """Whether kernels, not references, work on this tensor."""
    return tensor.is_cuda


def is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, which cannot multiply bfloat16."""
    return not isinstance(_nothing, triton.JITFunction)


@triton.jit
def _nothing():
    pass


def next_power_of_two(number: int) -> int:
    """The smallest power of two that is not less than `number`."""
    return 1 << max(number - 1, 0).bit_length()
