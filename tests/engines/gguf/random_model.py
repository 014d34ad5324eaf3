"""Asks an engine whose one model, `random`, has random weights."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec

from engines.gguf.config import GgufConfig
from engines.gguf.engine import GgufEngine
from engines.protocol import (
    Event,
    Finished,
    GenerateRequest,
    Message,
    Sampling,
    Text,
)


@asynccontextmanager
async def engine_of(models: Path, /, **fields: object) -> AsyncGenerator[GgufEngine, None]:
    # llama.cpp's threads wait spinning, which takes for ever on a machine full of tests.
    config = msgspec.structs.replace(GgufConfig(num_threads=1), **fields)
    engine = GgufEngine("laptop", config, models_dir=models, data_dir=models)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def asking(text: str = "hello", **fields: object) -> GenerateRequest:
    request = GenerateRequest(
        id="r1",
        model="random",
        messages=[Message(role="user", parts=[Text(text)])],
        sampling=Sampling(temperature=0.0, ignore_eos=True),
        max_tokens=40,
    )
    return msgspec.structs.replace(request, **fields)


async def events_of(engine: GgufEngine, request: GenerateRequest) -> list[Event]:
    async with aclosing(engine.generate(request)) as stream:
        return [event async for event in stream]


def finished(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]
