import asyncio
from pathlib import Path

import pytest

from engines.errors import (
    Unavailable,
)
from engines.gguf.config import GgufConfig
from engines.gguf.engine import GgufEngine
from engines.gguf.runner import Runner
from tests.engines.gguf.random_model import asking, engine_of, events_of
from tests.fakes import text_of
from tests.gguf_files import write_gguf


async def test_a_corrupt_file_is_listed_nowhere_and_its_load_says_why(tmp_path: Path) -> None:
    write_gguf(tmp_path / "good.gguf")
    (tmp_path / "bad.gguf").write_bytes((tmp_path / "good.gguf").read_bytes()[:2000])
    async with engine_of(tmp_path) as engine:
        listed = {model.name for model in await engine.models()}
        with pytest.raises(Unavailable, match="bad"):
            await events_of(engine, asking(model="bad"))
        after = await events_of(engine, asking(model="good"))

    assert "good" in listed
    assert "bad" not in listed
    assert text_of(after)


async def test_a_file_that_is_replaced_is_loaded_anew(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "random.gguf", seed=1)
    async with engine_of(tmp_path) as engine:
        before = text_of(await events_of(engine, asking()))
        write_gguf(tmp_path / "other", seed=2).replace(path)
        after = text_of(await events_of(engine, asking()))

        assert engine.num_loads == 2
    assert before != after


async def test_closing_during_a_load_ends_those_who_wait(models: Path) -> None:
    async with engine_of(models) as engine:
        loading = asyncio.create_task(engine.load("random"))
        await asyncio.sleep(0)

        await engine.close()

        with pytest.raises(Unavailable):
            await loading


async def test_a_thread_that_dies_ends_its_streams_and_the_model_is_loaded_anew(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Runner, *given: object) -> None:
        raise RuntimeError("the roof is on fire")

    async with engine_of(models) as engine:
        await engine.load("random")
        with monkeypatch.context() as patches:
            patches.setattr(Runner, "decode", broken)
            with pytest.raises(Unavailable, match="the roof is on fire"):
                await events_of(engine, asking())

        events = await events_of(engine, asking())

        assert engine.num_loads == 2
    assert text_of(events)


async def test_a_step_that_fails_ends_what_runs_and_the_model_stays(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Runner, *given: object) -> None:
        raise Unavailable("llama.cpp failed to decode a batch (code -3)")

    async with engine_of(models) as engine:
        before = text_of(await events_of(engine, asking()))
        with monkeypatch.context() as patches:
            patches.setattr(Runner, "decode", failing)
            with pytest.raises(Unavailable, match="code -3"):
                await events_of(engine, asking())

        after = text_of(await events_of(engine, asking()))

        assert engine.num_loads == 1
    assert after == before


async def test_a_load_under_way_says_how_far_it_is(models: Path, tmp_path: Path) -> None:
    engine = GgufEngine("laptop", GgufConfig(num_threads=1), models_dir=models, data_dir=tmp_path)
    loading = asyncio.create_task(engine.load("random"))
    seen: list[float | None] = []
    while not loading.done():
        seen += [info.loading for info in await engine.models() if info.name == "random"]
    await loading
    after = [info for info in await engine.models() if info.name == "random"]
    await engine.close()

    fractions = [fraction for fraction in seen if fraction is not None]
    assert fractions
    assert all(0.0 <= fraction <= 1.0 for fraction in fractions)
    assert [(info.loaded, info.loading) for info in after] == [(True, None)]
