"""What a long prompt costs those who are being answered, counted in steps and not in seconds."""

import asyncio
from collections import Counter
from contextlib import aclosing
from pathlib import Path

import pytest

from engines.gguf.engine import GgufEngine
from engines.protocol import GenerateRequest, TextDelta
from tests.engines.gguf.random_model import asking, engine_of, events_of, finished
from tests.gguf_files import write_gguf

NUM_STREAMS = 8
LONG = [300 + at % 700 for at in range(4000)]
CHUNK = 512


@pytest.fixture(scope="module")
def long_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    # It says whole words alone: half a character is no event until the other half comes.
    write_gguf(
        folder / "random.gguf", layers=1, context_tokens=8192, extra_tokens=740, silent_tokens=261
    )
    return folder


class Room:
    """Streams of one engine, and who got how many tokens."""

    def __init__(self, engine: GgufEngine) -> None:
        self.counts: Counter[str] = Counter()
        self._engine = engine
        self._changed = asyncio.Event()

    async def read(self, name: str, request: GenerateRequest) -> None:
        async with aclosing(self._engine.generate(request)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    # Tokens that came faster than they were read are one event.
                    self.counts[name] += len(event.logprobs)
                    self._changed.set()

    async def until_all_have(self, names: list[str], count: int) -> None:
        while any(self.counts[name] < count for name in names):
            self._changed.clear()
            await self._changed.wait()


@pytest.mark.parametrize("cache", ["exact", "shared"])
async def test_answers_go_on_while_a_long_prompt_is_computed(long_models: Path, cache: str) -> None:
    async with engine_of(long_models, cache=cache, num_slots=9, max_batch_tokens=CHUNK) as engine:
        room = Room(engine)
        names = [f"stream {at}" for at in range(NUM_STREAMS)]
        reading = [
            asyncio.create_task(
                room.read(name, asking(f"{name} hello", max_tokens=4000, logprobs=0))
            )
            for name in names
        ]
        await room.until_all_have(names, 1)
        before = room.counts.copy()

        long = asking(prompt=LONG, messages=[], max_tokens=1, logprobs=0)
        await room.read("long", long)
        gained = [room.counts[name] - before[name] for name in names]
        for task in reading:
            task.cancel()
        ends = await asyncio.gather(*reading, return_exceptions=True)

    assert all(isinstance(end, asyncio.CancelledError) for end in ends)
    assert room.counts["long"] == 1
    # One token for each in every step, and a step for every chunk; the last may not be read yet.
    assert min(gained) >= len(LONG) // CHUNK - 2


async def test_a_long_prompt_is_computed_once(long_models: Path) -> None:
    request = asking(prompt=LONG, messages=[], max_tokens=2)
    async with engine_of(long_models) as engine:
        first = finished(await events_of(engine, request)).usage
        again = finished(await events_of(engine, request)).usage
        await engine.unload("random")
        restored = finished(await events_of(engine, request)).usage

    assert first.cached_tokens == 0
    assert again.cached_tokens == restored.cached_tokens == len(LONG) - 1
