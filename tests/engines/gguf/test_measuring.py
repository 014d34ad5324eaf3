import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from engines.abilities import Measured
from engines.gguf.config import GgufConfig
from engines.gguf.engine import GgufEngine
from engines.metrics import ModelMetrics
from engines.process import EngineSpec, ProcessEngine
from engines.protocol import EmbedRequest, Event, Sampling
from tests.engines.gguf.random_model import asking, engine_of, events_of, finished
from tests.engines.process import children
from tests.engines.process.children import Script
from tests.gguf_files import SPECIAL_TOKENS


async def told_by(engine: Measured) -> ModelMetrics:
    [told] = await engine.metrics()
    return told


async def drained(stream: AsyncGenerator[Event, None]) -> None:
    async for _ in stream:
        pass


async def until_idle(engine: GgufEngine) -> ModelMetrics:
    async with asyncio.timeout(10):
        while (told := await told_by(engine)).running or told.cache_used:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    return told


async def test_ten_requests_add_up_token_for_token_as_at_vllm(models: Path) -> None:
    async with engine_of(models) as engine:
        answers = [await events_of(engine, asking("hello", max_tokens=10)) for _ in range(10)]
        told = await until_idle(engine)

    prompt = finished(answers[0]).usage.prompt_tokens
    assert {finished(events).usage.completion_tokens for events in answers} == {10}
    assert told.steps.iteration_tokens.sum == 10 * (prompt + 10)
    assert told.steps.iteration_tokens.count == 100
    assert sum(told.requests.ended.values()) == told.requests.ended["length"] == 10
    assert told.requests.prompt_tokens == told.requests.prefix_queries == 10 * prompt
    assert told.requests.generation_tokens == 100
    assert told.requests.first_token_seconds.count == 10
    assert told.requests.token_gap_seconds.count == 90
    assert told.requests.seconds_per_token.count == told.requests.request_seconds.count == 10
    assert told.requests.max_tokens.sum == 100
    assert told.requests.prefix_hits == sum(
        finished(events).usage.cached_tokens for events in answers
    )
    assert told.requests.prefix_hits > 0


async def test_a_reader_that_leaves_leaves_nothing_running_and_no_cache_in_use(
    models: Path,
) -> None:
    async with engine_of(models) as engine:
        async with aclosing(engine.generate(asking(max_tokens=800))) as stream:
            await anext(stream)
            await anext(stream)
            during = await told_by(engine)
        after = await until_idle(engine)
        kept = (await engine.health()).cache_used

    assert (during.running, during.waiting) == (1, 0)
    assert during.cache_used > 0
    assert (after.running, after.waiting, after.loading, after.cache_used) == (0, 0, 0, 0.0)
    assert after.requests.ended == {"stop": 0, "length": 0, "abort": 1, "error": 0}
    assert kept  # what the slot still holds is for later prompts


async def test_what_was_counted_is_not_lost_with_the_model(models: Path) -> None:
    async with engine_of(models) as engine:
        await events_of(engine, asking(max_tokens=3))
        loaded = await told_by(engine)
        await engine.unload("random")
        unloaded = await told_by(engine)
        await events_of(engine, asking(max_tokens=3))
        again = await told_by(engine)

    assert (loaded.requests.generation_tokens, loaded.memory_bytes is None) == (3, False)
    assert (unloaded.requests.generation_tokens, unloaded.memory_bytes) == (3, None)
    assert again.requests.generation_tokens == 6
    assert loaded.cache["block_size"] == "1"
    assert int(loaded.cache["num_gpu_blocks"]) >= 1024


async def test_whoever_loses_its_slot_is_counted_as_preempted(models: Path) -> None:
    async with engine_of(
        models, cache="shared", num_slots=4, context_tokens=256, pool_tokens=256
    ) as engine:
        await asyncio.gather(
            *(events_of(engine, asking("x" * 60 + str(at), max_tokens=80)) for at in range(4))
        )
        told = await until_idle(engine)

    assert told.steps.num_preemptions > 0
    assert told.requests.prompt_tokens == told.requests.prompt_lengths.sum  # and once only


async def test_an_engine_that_was_closed_has_failed_its_requests(models: Path) -> None:
    async with engine_of(models) as engine:
        stream = engine.generate(asking(max_tokens=800))
        await anext(stream)
        await engine.close()
        await asyncio.gather(drained(stream), return_exceptions=True)
        told = await told_by(engine)

    assert told.requests.ended["error"] == 1


async def test_embeddings_count_as_prompts(models: Path) -> None:
    async with engine_of(models) as engine:
        request = EmbedRequest(id="r1", model="random", inputs=["hello", "the"])
        usage = (await engine.embed(request)).usage
        told = await told_by(engine)

    assert told.requests.prompt_tokens == usage.prompt_tokens
    assert told.requests.ended["stop"] == 2


async def test_an_engine_that_loaded_nothing_tells_of_nothing(models: Path) -> None:
    async with engine_of(models) as engine:
        assert await engine.metrics() == []


async def test_a_child_process_tells_the_same(models: Path, tmp_path: Path) -> None:
    spec = EngineSpec.of(
        "engines.gguf.engine:GgufEngine",
        GgufConfig(num_threads=1),
        models_dir=models,
        data_dir=tmp_path,
    )
    engine = ProcessEngine("hosted", spec)
    await engine.start()
    try:
        async with aclosing(engine.generate(asking(max_tokens=5))) as stream:
            events = [event async for event in stream]
        told = await told_by(engine)
    finally:
        await engine.close()

    assert told.model == "random"
    assert told.requests.generation_tokens == finished(events).usage.completion_tokens == 5
    assert told.requests.token_gap_seconds.count == 4
    assert told.steps.iteration_tokens.count == 5


async def test_a_child_whose_engine_counts_nothing_tells_nothing() -> None:
    engine = ProcessEngine("hosted", EngineSpec.of(f"{children.HERE}:scripted", Script()))
    await engine.start()
    try:
        assert await engine.metrics() == []
    finally:
        await engine.close()


async def test_a_token_that_ends_an_answer_is_of_its_step_but_not_generated(models: Path) -> None:
    ends_at_once = Sampling(temperature=0.0, logit_bias={SPECIAL_TOKENS.index("<|im_end|>"): 100.0})
    async with engine_of(models) as engine:
        usage = finished(await events_of(engine, asking(sampling=ends_at_once))).usage
        told = await until_idle(engine)

    assert usage.completion_tokens == told.requests.generation_tokens == 0
    assert told.requests.ended["stop"] == 1
    assert told.requests.prompt_tokens == usage.prompt_tokens
    assert told.requests.first_token_seconds.count == 1
    assert told.steps.iteration_tokens.sum == usage.prompt_tokens + 1
