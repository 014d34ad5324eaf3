"""Requests that ask for different things, of a vocabulary that no kernel is as wide as."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from engines.paged.config import PagedConfig
from engines.paged.engine import PagedEngine
from engines.protocol import GenerateRequest, Regex, Sampling, TextDelta
from tests.engines.paged.checkpoints import write_checkpoint

FREE = Sampling(temperature=0.0, ignore_eos=True)
WISHES = {
    "nothing": {"sampling": FREE},
    "a bias": {"sampling": Sampling(temperature=0.0, ignore_eos=True, logit_bias={202: 100.0})},
    "penalties": {
        "sampling": Sampling(
            temperature=0.0, ignore_eos=True, frequency_penalty=1.0, repeat_penalty=1.3
        )
    },
    "log-probabilities": {"sampling": FREE, "logprobs": 3, "prompt_logprobs": 2},
    "a constraint": {"sampling": FREE, "constraint": Regex("(t1[0-9]){8}")},
    "chance": {"sampling": Sampling(temperature=1.0, top_p=0.9, top_k=20, seed=3)},
}


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncGenerator[PagedEngine, None]:
    folder = write_checkpoint(tmp_path / "llama", "llama")  # 203 tokens
    config = PagedConfig(model=str(folder), max_sequences=8, max_batch_tokens=64, num_threads=1)
    engine = PagedEngine("gpu0", config)
    await engine.start()
    yield engine
    await engine.close()


async def text(engine: PagedEngine, wish: str) -> str:
    request = GenerateRequest(
        id=wish, model="llama", prompt=[5, 6, 7], max_tokens=8, **WISHES[wish]
    )
    return "".join(
        [event.text async for event in engine.generate(request) if isinstance(event, TextDelta)]
    )


async def test_they_are_answered_together_as_they_are_alone(engine: PagedEngine) -> None:
    alone = [await text(engine, wish) for wish in WISHES]

    together = await asyncio.gather(*(text(engine, wish) for wish in WISHES))

    assert together == alone
    assert dict(zip(WISHES, alone, strict=True))["a bias"] == "t202" * 8
