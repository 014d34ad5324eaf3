"""How far a kernel may be from its reference."""

import torch

# Results are rounded once to their type, after sums of another order; Triton's interpreter cuts off
# where a GPU rounds.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Fail where the two differ by more than the rounding of their type, or in their type."""
    tolerance = TOLERANCE[expected.dtype]
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
