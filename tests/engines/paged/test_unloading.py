"""Whether an unloaded model's memory is free at once, however little the collector does."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from engines.errors import EngineError
from engines.paged.config import PagedConfig
from engines.paged.engine import PagedEngine
from engines.paged.runner import TorchRunner
from engines.paged.step_inputs import KVCache
from engines.protocol import EmbedRequest, GenerateRequest, Sampling


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    """What is only free once somebody looks for cycles is not free in time for the next load."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


class Tensors:
    """Those that were noted and are not freed yet."""

    def __init__(self) -> None:
        self._noted: list[weakref.ref[torch.Tensor]] = []
        self.alive_at_loads: list[int] = []

    def add(self, tensor: torch.Tensor) -> None:
        self._noted.append(weakref.ref(tensor))

    @property
    def num_noted(self) -> int:
        return len(self._noted)

    def __len__(self) -> int:
        return sum(noted() is not None for noted in self._noted)


class NoGraphs:
    """Knows its runner, as the recordings on a GPU do, and has none."""

    def __init__(self, runner: TorchRunner) -> None:
        self.runner = runner

    def bucket(self, num_rows: int) -> int:
        return num_rows

    def replay(self, *_args: Any, **_more: Any) -> None:
        return None

    run = replay


@pytest.fixture
def tensors(monkeypatch: pytest.MonkeyPatch) -> Tensors:
    """The cache and the weights of every model that is loaded."""
    found = Tensors()
    init = TorchRunner.__init__

    def noting(self: TorchRunner, model: Any, cache: KVCache, *args: Any, **more: Any) -> None:
        found.alive_at_loads.append(len(found))
        for tensor in (cache.keys, cache.values, *model.parameters()):
            found.add(tensor)
        init(self, model, cache, *args, **more)
        self._graphs = NoGraphs(self)

    monkeypatch.setattr(TorchRunner, "__init__", noting)
    return found


def engine() -> PagedEngine:
    return PagedEngine("gpu0", PagedConfig(max_sequences=4, max_batch_tokens=64, num_threads=1))


async def answered(engine: PagedEngine) -> str:
    request = GenerateRequest(
        id="r1",
        model="starter",
        prompt="hello there",
        sampling=Sampling(temperature=0.0),
        max_tokens=4,
    )
    try:
        async for _ in engine.generate(request):
            pass
    except EngineError as error:
        return error.code
    return "done"


async def embedded(engine: PagedEngine) -> str:
    try:
        await engine.embed(EmbedRequest(id="e1", model="starter", inputs=["hello"]))
    except EngineError as error:
        return error.code
    return "done"


async def test_an_unloaded_model_is_freed(tensors: Tensors) -> None:
    gpu0 = engine()
    for _ in range(2):
        await gpu0.load("starter")
        assert await answered(gpu0) == "done"
        assert await embedded(gpu0) == "done"
        assert len(tensors) > 2
        model = weakref.ref(gpu0._pool.loaded()[0])

        await gpu0.unload("starter")

        assert len(tensors) == 0
        assert model() is None  # its tokenizer and its grammars are not small, either
    await gpu0.close()


async def test_a_model_that_failed_is_freed_before_it_is_loaded_anew(
    tensors: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu0 = engine()
    await gpu0.load("starter")
    forward = TorchRunner.forward

    def failing(self: TorchRunner, plan: Any) -> Any:
        raise RuntimeError("CUDA error: invalid argument")

    monkeypatch.setattr(TorchRunner, "forward", failing)
    assert await asyncio.gather(answered(gpu0), answered(gpu0)) == ["unavailable"] * 2
    monkeypatch.setattr(TorchRunner, "forward", forward)

    assert await answered(gpu0) == "done"

    assert tensors.alive_at_loads == [0, 0]
    await gpu0.close()
    assert len(tensors) == 0


async def test_what_a_load_that_failed_had_loaded_is_freed(
    tensors: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu0 = engine()
    monkeypatch.setattr(NoGraphs, "__init__", NoGraphs.bucket)  # fails: it has no such argument

    assert await answered(gpu0) == "unavailable"

    assert tensors.num_noted > 2
    assert len(tensors) == 0
    await gpu0.close()
