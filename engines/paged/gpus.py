"""What threads that share GPUs owe each other.

Kernels, events and streams belong to the thread's current GPU, whatever tensors they
are given; without a choice that is the first one.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

WHOLE = threading.Lock()
"""Held while a graph is recorded, and by who waits for a whole GPU or frees its memory.

The one would break off the other. It is the process's, as the restriction is CUDA's.
"""


def work_on(device: torch.device) -> None:
    """Make a GPU the calling thread's own, for good; nothing to do for a CPU."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


@contextmanager
def working_on(device: torch.device) -> Iterator[None]:
    """Make a GPU the calling thread's own for a while: for threads of a pool."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        yield
