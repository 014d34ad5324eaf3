import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch

pytest.importorskip("triton")


@pytest.fixture(scope="session")
def device() -> str:
    """Where kernels can run here: a GPU, or the CPU under Triton's interpreter."""
    if torch.cuda.is_available():
        return "cuda"
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("a GPU is there, but torch does not see it")
    return "cpu"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tests share the machine; the tensors here are too small to gain from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def overflow_is_no_news() -> Iterator[None]:
    """Let exp(100) be infinity under the interpreter, without a warning, as it is on a GPU."""
    with np.errstate(all="ignore"):
        yield


@pytest.fixture
def draw(device: str) -> "Draw":
    """Draws random tensors, the same in each run."""
    return Draw(device)


class Draw:
    """Normal random tensors on the device of the test."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator).to(self.device, dtype)
