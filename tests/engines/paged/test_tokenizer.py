"""What the tokenizer does beside the event loop, and what it refuses to begin."""

import asyncio
from pathlib import Path

import pytest

import engines.starter
from engines.errors import ContextTooLong
from engines.paged.config import PagedConfig
from engines.paged.engine import PagedEngine
from engines.paged.tokenizer import Tokenizer
from engines.protocol import EmbedRequest, GenerateRequest

STARTER = Path(engines.starter.__file__).parent


async def test_the_event_loop_turns_while_a_long_text_is_tokenized() -> None:
    tokenizer = Tokenizer(STARTER, {})
    is_encoding = False

    def encode() -> list[int]:
        nonlocal is_encoding
        is_encoding = True
        tokens = tokenizer.encode("word and " * 50_000, parse_special=False)
        is_encoding = False
        return tokens

    encoding = asyncio.ensure_future(asyncio.to_thread(encode))
    turns = 0
    while not encoding.done():
        await asyncio.sleep(0.001)
        turns += is_encoding

    assert len(await encoding) > 50_000
    # Hundreds; if the tokenizer let nobody run meanwhile, one before it began and one after.
    assert turns > 10


async def test_a_text_that_cannot_fit_is_refused_and_not_tokenized(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: object, **kwargs: object) -> list[int]:
        raise AssertionError("a text was tokenized that cannot fit")

    engine = PagedEngine("gpu0", PagedConfig(model="starter", num_threads=1))
    await engine.start()
    try:
        info = await engine.load("starter")
        assert info.context_tokens is not None
        text = "x" * (1024 * info.context_tokens + 1)
        asked = GenerateRequest(id="1", model="starter", prompt=text)
        monkeypatch.setattr(Tokenizer, "encode", refuse)
        with pytest.raises(ContextTooLong, match="more than 1024 for each"):
            await anext(engine.generate(asked))
        with pytest.raises(ContextTooLong, match="more than 1024 for each"):
            await engine.render(asked)
        with pytest.raises(ContextTooLong, match="more than 1024 for each"):
            await engine.embed(EmbedRequest(id="1", model="starter", inputs=["hello", text]))
    finally:
        await engine.close()
