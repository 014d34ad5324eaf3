"""What a prompt finds of earlier ones when its model was unloaded, or its slot taken."""

import asyncio
from pathlib import Path

import pytest

from engines.gguf.engine import GgufEngine
from engines.protocol import GenerateRequest
from tests.engines.gguf.random_model import asking, engine_of, events_of, finished
from tests.fakes import text_of
from tests.gguf_files import write_gguf

SHARED_BEGINNING = "You are a lighthouse keeper who answers in rhymes. " * 6


async def cached_tokens(engine: GgufEngine, request: GenerateRequest) -> int:
    return finished(await events_of(engine, request)).usage.cached_tokens


@pytest.mark.parametrize("cache", ["exact", "shared"])
async def test_a_prompt_is_not_computed_again_after_its_model_was_unloaded(
    models: Path, cache: str
) -> None:
    async with engine_of(models, cache=cache) as engine:
        fresh = await events_of(engine, asking(SHARED_BEGINNING))
        await engine.unload("random")
        restored = await events_of(engine, asking(SHARED_BEGINNING))
        usage = finished(restored).usage

    assert engine.num_loads == 2
    assert usage.cached_tokens == usage.prompt_tokens - 1
    if cache == "exact":
        assert text_of(restored) == text_of(fresh)


async def test_a_model_that_is_unloaded_after_each_request_keeps_its_prompts(models: Path) -> None:
    async with engine_of(models, keep_alive_seconds=0.0) as engine:
        await events_of(engine, asking(SHARED_BEGINNING))

        assert await cached_tokens(engine, asking(SHARED_BEGINNING)) > len(SHARED_BEGINNING) / 2
        assert engine.num_loads == 2


async def test_another_salt_gets_nothing_of_what_was_saved(models: Path) -> None:
    async with engine_of(models) as engine:
        await events_of(engine, asking(SHARED_BEGINNING, cache_salt="blue"))
        await engine.unload("random")

        assert await cached_tokens(engine, asking(SHARED_BEGINNING, cache_salt="red")) == 0
        assert await cached_tokens(engine, asking(SHARED_BEGINNING, cache_salt="blue")) > 0


async def test_a_file_that_was_replaced_gets_nothing_of_what_was_saved(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "random.gguf")
    async with engine_of(tmp_path) as engine:
        await events_of(engine, asking("hello " * 20))
        await engine.unload("random")
        write_gguf(tmp_path / "other", seed=2).replace(path)

        assert await cached_tokens(engine, asking("hello " * 20)) == 0


async def test_nothing_is_saved_where_no_memory_is_given_to_it(models: Path) -> None:
    async with engine_of(models, max_saved_bytes=0) as engine:
        await events_of(engine, asking(SHARED_BEGINNING))
        await engine.unload("random")

        assert await cached_tokens(engine, asking(SHARED_BEGINNING)) == 0


async def test_more_conversations_than_slots_are_each_computed_once(models: Path) -> None:
    async with engine_of(models, num_slots=2) as engine:
        talks = [f"{at} {SHARED_BEGINNING}" for at in range(6)]
        first = [text_of(await events_of(engine, asking(talk))) for talk in talks]
        again = [await events_of(engine, asking(talk)) for talk in talks]

    for events in again:
        usage = finished(events).usage
        assert usage.cached_tokens == usage.prompt_tokens - 1
    assert [text_of(events) for events in again] == first


async def test_all_at_once_in_a_small_pool_still_say_what_they_say(models: Path) -> None:
    async with engine_of(
        models, cache="shared", num_slots=3, context_tokens=512, pool_tokens=512
    ) as engine:
        talks = [f"{at} {SHARED_BEGINNING}"[:150] for at in range(8)]
        answers = await asyncio.gather(
            *(events_of(engine, asking(talk, max_tokens=60)) for talk in talks * 2)
        )

    assert [finished(events).usage.completion_tokens for events in answers] == [60] * 16
