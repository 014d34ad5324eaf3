"""Where and in what a model is computed."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engines.paged.config import PagedConfig
from engines.paged.loading import device_of, dtype_of

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")


@pytest.mark.parametrize(
    ("asked", "stored", "device", "computed"),
    [
        ("auto", "float16", GPU, torch.float16),
        ("auto", "bfloat16", GPU, torch.bfloat16),
        ("auto", "float32", GPU, torch.bfloat16),
        ("auto", "bfloat16", CPU, torch.float32),
        ("float32", "bfloat16", GPU, torch.float32),
        ("bfloat16", "float32", CPU, torch.bfloat16),
    ],
)
def test_dtype_is_the_checkpoint_s_within_reason(
    asked: Any, stored: str, device: torch.device, computed: torch.dtype
) -> None:
    checkpoint: Any = SimpleNamespace(dtype=stored)

    assert dtype_of(PagedConfig(dtype=asked), checkpoint, device) is computed


@pytest.mark.parametrize(
    ("named", "meant"), [("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")]
)
def test_a_gpu_without_a_number_is_the_first(
    named: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    assert device_of(PagedConfig(device=named)) == torch.device(meant)
