"""Copies between host and device that nobody waits for.

A copy from or to memory that is not pinned waits until the device has done all that
was launched before it: at worst a whole step. Torch keeps pinned memory from being
used anew before the copy is over.
"""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Launch the copy of a host's tensor; what is launched after it has it."""
    if device.type != "cuda":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(tensor: Tensor) -> Tensor:
    """Launch the copy of a device's tensor, to be read after an event that is recorded later.

    A copy on a CPU, too: what is launched next may overwrite the tensor.
    """
    if tensor.device.type != "cuda":
        return tensor.clone()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
