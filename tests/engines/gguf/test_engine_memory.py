"""Real models in a budget: what they take, which stay, and what is said where none can."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from engines.errors import Unavailable
from engines.gguf.config import GgufConfig, GgufModelConfig
from engines.gguf.engine import GgufEngine
from engines.gguf.loaded_model import LoadedModel
from engines.protocol import GenerateRequest, ModelInfo
from tests.engines.gguf.random_model import asking, events_of
from tests.fakes import text_of
from tests.gguf_files import write_gguf

SMALL = GgufConfig(num_threads=1, probe=False, num_slots=2, context_tokens=128)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    write_gguf(folder / "a.gguf", seed=1, heads=2, extra_tokens=5000)
    write_gguf(folder / "b.gguf", seed=2, heads=2, extra_tokens=5000)
    return folder


@asynccontextmanager
async def engine_of(folder: Path, **changes: object) -> AsyncGenerator[GgufEngine, None]:
    config = msgspec.structs.replace(SMALL, **changes)
    engine = GgufEngine("laptop", config, models_dir=folder, data_dir=folder)
    try:
        yield engine
    finally:
        await engine.close()


def of(model: str, **fields: object) -> GenerateRequest:
    return asking("hello", model=model, max_tokens=3, **fields)


async def info_of(engine: GgufEngine, name: str) -> ModelInfo:
    return next(info for info in await engine.models() if info.name == name)


async def loaded(engine: GgufEngine) -> set[str]:
    return {info.name for info in await engine.models() if info.loaded}


async def until_unloaded(engine: GgufEngine, name: str) -> None:
    async with asyncio.timeout(20):
        while (await info_of(engine, name)).loaded:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)


async def size_of_one(models: Path) -> int:
    async with engine_of(models) as engine:
        info = await engine.load("a")
        assert info.memory_bytes is not None
        return info.memory_bytes


async def test_two_models_in_a_budget_for_one_answer_in_turns(two: Path) -> None:
    size = await size_of_one(two)
    async with engine_of(two, max_memory_bytes=size * 3 // 2) as engine:
        for name in ("a", "b", "a"):
            assert text_of(await events_of(engine, of(name)))
            assert await loaded(engine) == {name}

        texts = await asyncio.gather(*(events_of(engine, of(name)) for name in "abab"))

        assert all(map(text_of, texts))
    async with engine_of(two, max_memory_bytes=size * 5 // 2) as engine:
        for name in ("a", "b"):
            await events_of(engine, of(name))
        assert await loaded(engine) == {"a", "b"}


async def test_a_model_that_can_never_fit_says_what_it_needs_and_what_there_is(two: Path) -> None:
    async with engine_of(two, max_memory_bytes=1 << 20, context_tokens=127) as engine:
        with pytest.raises(Unavailable, match=r"model 'a' needs .* MiB and all .* take 1.0 MiB"):
            await events_of(engine, of("a"))

        assert engine.num_loads == 0


async def test_the_estimate_is_near_what_is_measured_and_is_corrected_by_it(two: Path) -> None:
    async with engine_of(two, context_tokens=256, max_batch_tokens=64) as engine:
        (expected,) = await engine._loader.needs("a")
        measured = (await engine.load("a")).memory_bytes
        (corrected,) = await engine._loader.needs("a")

    assert measured is not None
    assert 0.8 * measured <= expected.room.main_bytes <= 2 * measured + (8 << 20)
    assert corrected.room.main_bytes == measured
    async with engine_of(two, context_tokens=256, max_batch_tokens=64) as engine:
        assert await engine._loader.needs("a") == [corrected]  # from the disk
    async with engine_of(two, context_tokens=255, max_batch_tokens=64) as engine:
        assert await engine._loader.needs("a") != [corrected]


async def test_what_is_measured_is_what_llama_cpp_allocated(two: Path) -> None:
    async with engine_of(two) as engine:
        before = await engine.load("a")
        weights = (two / "a.gguf").stat().st_size
        assert before.memory_bytes is not None
        assert before.memory_bytes > weights
        assert before.gpu_bytes == 0
        lease = await engine._pool.lease("a")
        model: LoadedModel = lease.model
        assert model.generation is not None
        cache = model.generation.pool_tokens * 2 * 2 * 2 * 64  # two layers, two heads of 32
        assert before.memory_bytes > weights + cache
        lease.release()


async def test_keep_alive_0_frees_the_model_after_the_answer_and_a_negative_one_never(
    two: Path,
) -> None:
    async with engine_of(two, keep_alive_seconds=0.0) as engine:
        stream = engine.generate(of("a", keep_alive_seconds=0.0))
        async with aclosing(stream):
            async for _ in stream:
                assert (await info_of(engine, "a")).loaded
        await until_unloaded(engine, "a")

        await events_of(engine, of("b", keep_alive_seconds=-1.0))
        info = await info_of(engine, "b")

        assert (info.loaded, info.expires_at) == (True, None)
        await events_of(engine, of("b"))  # says nothing, so nothing changes
        assert (await info_of(engine, "b")).loaded


async def test_a_loaded_model_says_when_it_goes(two: Path) -> None:
    async with engine_of(two, models={"a": GgufModelConfig(keep_alive_seconds=1000.0)}) as engine:
        for name in ("a", "b"):
            await events_of(engine, of(name))
        now = time.time()
        first, second = await info_of(engine, "a"), await info_of(engine, "b")
        await events_of(engine, of("b", keep_alive_seconds=5000.0))
        third = await info_of(engine, "b")

    assert first.expires_at is not None
    assert second.expires_at is not None
    assert third.expires_at is not None
    assert 700 < first.expires_at - now <= 1000
    assert 100 < second.expires_at - now <= 300
    assert 4700 < third.expires_at - now <= 5001


async def test_a_model_of_its_own_configuration_is_loaded_by_it(two: Path) -> None:
    own = GgufModelConfig(
        context_tokens=64, num_slots=3, cache_type_k="q8_0", cache_type_v="q8_0", mmap=True
    )
    async with engine_of(two, models={"A:latest": own}) as engine:
        await events_of(engine, of("a"))
        await engine.load("b")
        a, b = [(await engine._pool.lease(name)).model for name in ("a", "b")]

        assert a.generation is not None
        assert b.generation is not None
        assert (a.generation.num_slots, a.generation.context_tokens) == (3, 64)
        assert (a.generation.exact, b.generation.exact) == (False, True)
        assert (b.generation.num_slots, b.generation.context_tokens) == (2, 128)
        assert (await info_of(engine, "a")).context_tokens == 64


async def test_a_load_that_keeps_failing_is_told_at_once_and_tried_again_later(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    async def failing(name: str, *_: object) -> LoadedModel:
        tries.append(name)
        raise Unavailable("the disk is on fire")

    async with engine_of(two) as engine:
        with monkeypatch.context() as patches:
            patches.setattr(LoadedModel, "open", failing)
            for _ in range(4):
                with pytest.raises(Unavailable, match="the disk is on fire"):
                    await events_of(engine, of("a"))
        assert text_of(await events_of(engine, of("b")))

        write_gguf(two / "other", seed=1, heads=2, extra_tokens=5000).replace(
            two / "a.gguf"
        )  # another file: no grudge
        assert text_of(await events_of(engine, of("a")))

    assert tries == ["a", "a"]


async def test_what_loads_did_is_counted(two: Path) -> None:
    async with engine_of(two, max_loaded_models=1) as engine:
        for name in ("a", "b", "a"):
            await engine.load(name)
        told = {model.model: model for model in await engine.metrics()}

    a, b = told["a"], told["b"]
    assert a.loads is not None
    assert b.loads is not None
    assert (a.loads.seconds.count, a.loads.unloads) == (2, {"evicted": 1})
    assert (b.loads.seconds.count, b.loads.unloads) == (1, {"evicted": 1})
    assert a.loads.seconds.sum > 0
    assert (a.memory_bytes or 0) > 0
    assert b.memory_bytes is None
