"""What this GPU can do, measured: the roofline's two sides."""

from collections.abc import Callable

from gateway.bench.roofline import Machine

COPY_BYTES = 2 * 1024**3
MATRIX = 8192
REPEATS = 20


def measured_machine() -> Machine:
    """Copy bandwidth, bytes read and written, and dense bf16 arithmetic."""
    import torch

    return Machine(
        bytes_per_second=2 * COPY_BYTES / _copy_seconds(),
        flops_per_second=2 * MATRIX**3 / _product_seconds(),
        source=f"measured on {torch.cuda.get_device_name()}, torch {torch.__version__}",
    )


def _copy_seconds() -> float:
    import torch

    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return _seconds(lambda: target.copy_(source))


def _product_seconds() -> float:
    import torch

    # Random numbers: the power that a product of zeros does not draw is speed that no model sees.
    a, b = (torch.randn(MATRIX, MATRIX, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    product = torch.empty_like(a)
    return _seconds(lambda: torch.mm(a, b, out=product))


def _seconds(work: Callable[[], object]) -> float:
    """The mean of many, after a few, between two events on the GPU."""
    import torch

    for _ in range(3):
        work()
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    for _ in range(REPEATS):
        work()
    ended.record()
    torch.cuda.synchronize()
    return began.elapsed_time(ended) / 1000 / REPEATS
