"""Whatever the scheduler does to a request, its tokens are those of transformers."""

import asyncio
import random
from contextlib import aclosing
from pathlib import Path

import pytest
import torch

from engines.paged.checkpoint import Checkpoint
from engines.paged.config import PagedConfig
from engines.paged.engine import PagedEngine
from engines.protocol import Finished, GenerateRequest, Sampling, Started, TextDelta
from tests.engines.paged.checkpoints import greedy, reference, write_checkpoint

NUM_NEW = 14
FAMILIES = [
    "llama-llama3",
    "qwen2-tied-windowed",
    "qwen3-tied-biased-odd-heads",
    "mistral-windowed",
    "gemma2",
    "gemma3",
    "phi3-longrope",
]


async def answer(
    engine: PagedEngine, prompt: list[int], *, salt: str = ""
) -> tuple[list[int], int]:
    """The tokens of a greedy answer, and how many of its prompt's were cached."""
    request = GenerateRequest(
        id="r",
        model=engine.name,
        prompt=prompt,
        max_tokens=NUM_NEW,
        sampling=Sampling(temperature=0.0, repeat_penalty=1.0, ignore_eos=True),
        logprobs=0,
        cache_salt=salt,
    )
    tokens: list[int] = []
    cached = 0
    async with aclosing(engine.generate(request)) as events:
        async for event in events:
            if isinstance(event, Started):
                cached = event.cached_tokens
            elif isinstance(event, TextDelta):
                tokens += [entry.id for entry in event.logprobs]
            elif isinstance(event, Finished):
                assert event.usage.completion_tokens == NUM_NEW
    return tokens, cached


def prompts_of(vocab_size: int) -> list[list[int]]:
    """Prompts of many lengths; half of them begin alike."""
    source = random.Random(4)
    word = lambda: source.randrange(3, vocab_size)  # noqa: E731
    shared = [word() for _ in range(34)]
    alone = [[word() for _ in range(length)] for length in (1, 5, 17, 41)]
    alike = [shared + [word() for _ in range(length)] for length in (1, 9, 14)]
    return [*alone, *alike, shared[:32]]


@pytest.mark.parametrize("family", FAMILIES)
async def test_chunks_company_prefixes_and_preemption_change_no_token(
    family: str, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    folder = write_checkpoint(tmp_path / family, family)
    checkpoint = Checkpoint(folder)
    context = 80
    config = PagedConfig(
        model=str(folder),
        context_tokens=context,
        max_sequences=6,
        max_batch_tokens=23,
        # Room for seven blocks: two of the longest, and six that run together need more.
        kv_cache_bytes=7 * 16 * checkpoint.kv_bytes_per_token(torch.float32),
    )
    engine = PagedEngine(folder.name, config)
    prompts = prompts_of(checkpoint.shape.vocab_size)
    model = reference(folder)
    expected = [greedy(model, prompt, NUM_NEW) for prompt in prompts]
    await engine.start()

    together = await asyncio.gather(*(answer(engine, prompt) for prompt in prompts))
    again = [await answer(engine, prompt) for prompt in prompts]
    salted = await answer(engine, prompts[-1], salt="another team's")

    assert [tokens for tokens, _ in together] == expected
    assert [tokens for tokens, _ in again] == expected
    assert any(cached >= 32 for _, cached in again)
    assert salted == (expected[-1], 0)
    await engine.close()
