"""A GPU that fails: what the engine gets over, and what it says of what it does not."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import torch

from engines.errors import Unavailable
from engines.paged import loaded_model
from engines.paged.config import PagedConfig
from engines.paged.embedder import Embedder
from engines.paged.engine import PagedEngine
from engines.paged.failures import DeviceFault
from engines.paged.runner import TorchRunner
from engines.protocol import EmbedRequest, GenerateRequest, Health, Sampling

STICKY = (
    "CUDA error: an illegal memory access was encountered\n"
    "CUDA kernel errors might be asynchronously reported at some other API call"
)
ACCELERATOR_ERROR = getattr(torch, "AcceleratorError", RuntimeError)  # torch has it since 2.8
SAID = "the GPU cannot be used by this process any more: CUDA error: an illegal memory access"


@pytest.fixture
async def engine() -> AsyncGenerator[PagedEngine, None]:
    engine = PagedEngine("gpu0", PagedConfig(max_sequences=4, max_batch_tokens=64, num_threads=1))
    yield engine
    await engine.close()


async def answer(engine: PagedEngine) -> None:
    request = GenerateRequest(
        id="r1", model="starter", prompt="hi", sampling=Sampling(temperature=0.0), max_tokens=2
    )
    async for _ in engine.generate(request):
        pass


async def embed(engine: PagedEngine) -> None:
    await engine.embed(EmbedRequest(id="e1", model="starter", inputs=["hi"]))


def failing(error: Exception) -> Any:
    def fail(*_given: Any, **_more: Any) -> Any:
        raise error

    return fail


async def health_when_unloaded(engine: PagedEngine) -> Health:
    async with asyncio.timeout(20):
        while any(info.loaded for info in await engine.models()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return await engine.health()


@pytest.mark.parametrize("error", [RuntimeError(STICKY), ACCELERATOR_ERROR(STICKY)])
async def test_after_a_step_that_broke_the_gpu_nothing_is_tried_again(
    engine: PagedEngine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    await answer(engine)
    with monkeypatch.context() as patch:
        patch.setattr(TorchRunner, "forward", failing(error))
        with pytest.raises(Unavailable, match="illegal memory access"):
            await answer(engine)

    health = await health_when_unloaded(engine)
    for call in (answer, embed):
        with pytest.raises(Unavailable, match=SAID):
            await call(engine)

    assert (health.ready, health.needs_new_process) == (False, True)
    assert health.detail == f"{SAID} was encountered"
    assert engine.num_loads == 1


@pytest.mark.parametrize("chained", [True, False])
async def test_a_load_that_finds_the_gpu_broken_is_the_last(
    engine: PagedEngine, monkeypatch: pytest.MonkeyPatch, chained: bool
) -> None:
    error: Exception = RuntimeError(STICKY)
    if chained:
        error, error.__cause__ = Unavailable("it could not be loaded"), error
    with monkeypatch.context() as patch:
        patch.setattr(loaded_model, "load_model", failing(error))
        with pytest.raises(Unavailable, match="could not be loaded"):
            await answer(engine)

    with pytest.raises(Unavailable, match=SAID):
        await answer(engine)
    assert (await engine.health()).needs_new_process


async def test_an_embedding_that_broke_the_gpu_is_the_last(
    engine: PagedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await embed(engine)
    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "embed", failing(RuntimeError(STICKY)))
        with pytest.raises(Unavailable, match="embedding failed: CUDA error: an illegal"):
            await embed(engine)

    with pytest.raises(Unavailable, match=SAID):
        await answer(engine)
    assert not (await engine.health()).ready


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("CUDA error: invalid argument"),
        RuntimeError("shape '[3]' is invalid for input of size 2"),
    ],
    ids=["memory", "argument", "shape"],
)
async def test_what_does_not_stay_with_the_process_is_got_over(
    engine: PagedEngine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    await answer(engine)
    for owner, name, call in ((TorchRunner, "forward", answer), (Embedder, "embed", embed)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, failing(error))
            with pytest.raises(Unavailable):
                await call(engine)

        await call(engine)

    health = await engine.health()
    assert (health.ready, health.needs_new_process) == (True, False)


@pytest.mark.parametrize(
    ("said", "is_sticky"),
    [
        ("Triton Error [CUDA]: device-side assert triggered", True),
        ("CUDA error: unspecified launch failure\nCompile with", True),
        ("CUDA error: uncorrectable ECC error encountered", True),
        ("CUDA error: out of memory", False),
        ("Triton Error [CUDA]: out of memory", False),
        ("CUDA error: no kernel image is available for execution on the device", False),
    ],
)
def test_which_errors_stay_is_told_by_what_cuda_calls_them(said: str, is_sticky: bool) -> None:
    fault = DeviceFault()

    assert fault.note(RuntimeError(said)) == is_sticky
    assert bool(fault.reason) == is_sticky
