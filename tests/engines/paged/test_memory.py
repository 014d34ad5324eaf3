"""What is said of memory that is not enough: settings that help, and none that cannot."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engines.errors import Unavailable
from engines.paged import loading
from engines.paged.checkpoint import Checkpoint
from engines.paged.config import PagedConfig
from engines.paged.engine import PagedEngine
from engines.paged.memory import blocks_that_fit, cache_room
from engines.paged.step_inputs import KVCache
from tests.engines.paged.checkpoints import write_checkpoint

GIB = 1 << 30


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """One of 80 GiB, of which others have 20 and torch 10."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (50 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 10 * GIB)
    return torch.device("cuda:0")


def test_a_gpus_room_is_its_fraction_without_what_others_have_and_torch_needs(
    gpu: torch.device,
) -> None:
    room = cache_room(PagedConfig(memory_fraction=0.75), gpu, peak_bytes=15 * GIB)

    assert room.num_bytes == (60 - 20 - 15) * GIB


@pytest.mark.parametrize(
    ("device", "config", "ways"),
    [
        ("cuda", {}, "raise memory_fraction (it is 0.9), or lower max_batch_tokens (it is 2048)"),
        ("cuda", {"memory_fraction": 1.0}, "lower max_batch_tokens (it is 2048)"),
        ("cuda", {"kv_cache_bytes": 1}, "raise kv_cache_bytes"),
        ("cpu", {"kv_cache_bytes": 1}, "raise kv_cache_bytes"),
        ("cpu", {}, "set kv_cache_bytes (unset, it is 1073741824 on a CPU)"),
    ],
)
def test_a_cache_that_is_too_small_names_what_makes_it_larger(
    gpu: torch.device, tmp_path: Path, device: str, config: dict[str, Any], ways: str
) -> None:
    checkpoint = Checkpoint(write_checkpoint(tmp_path / "llama"))
    paged = PagedConfig(**config)
    room = cache_room(paged, gpu if device == "cuda" else torch.device("cpu"), 10 * GIB)
    huge = 1 << 40

    with pytest.raises(Unavailable) as failure:
        blocks_that_fit(paged, checkpoint, context_tokens=huge, dtype=torch.float32, room=room)

    assert failure.value.message.endswith((f" MiB: {ways}", f", or {ways}"))
    assert ("set context_tokens to at most " in failure.value.message) == (room.num_bytes > 1)


@pytest.mark.parametrize(
    ("config", "way"),
    [
        ({}, "set kv_cache_bytes to less than 1073741824"),
        ({"kv_cache_bytes": 90_000_000}, "lower kv_cache_bytes (it is 90000000)"),
    ],
)
async def test_a_cache_that_turns_out_to_be_too_large_names_what_makes_it_smaller(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], way: str
) -> None:
    def allocate(*_given: Any, **_more: Any) -> KVCache:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(KVCache, "allocate", allocate)
    engine = PagedEngine("cpu0", PagedConfig(model="starter", num_threads=1, **config))

    with pytest.raises(Unavailable) as failure:
        await engine.start()

    assert failure.value.message.endswith(f"tokens does not fit the memory: {way}")
    await engine.close()


@pytest.mark.parametrize(
    ("dtype", "last"), [(torch.float32, ', or set dtype to "bfloat16"'), (torch.bfloat16, "")]
)
def test_a_step_that_does_not_fit_names_what_makes_it_smaller(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, last: str
) -> None:
    def profile(*_: Any) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40 GiB")

    monkeypatch.setattr(loading, "_profile", profile)
    nothing: Any = None

    with pytest.raises(Unavailable) as failure:
        loading._peak(nothing, PagedConfig(), nothing, dtype)

    assert failure.value.message == (
        "a step of the largest size does not fit the memory: lower max_batch_tokens (it is 2048), "
        "or lower max_sequences (it is 256)" + last
    )


def test_another_error_of_the_profiling_step_is_not_said_to_be_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def profile(*_: Any) -> int:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(loading, "_profile", profile)
    nothing: Any = None

    with pytest.raises(RuntimeError, match="illegal memory access"):
        loading._peak(nothing, PagedConfig(), nothing, torch.float32)
