"""The engine's vectors: which texts it takes, and whose faults are whose."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engines.errors import ContextTooLong, EngineError, Unavailable
from engines.paged.config import PagedConfig
from engines.paged.engine import PagedEngine
from engines.protocol import EmbedRequest
from tests.engines.paged.checkpoints import write_checkpoint, write_tokenizer

LONG_EMBEDDER = {
    "architectures": ["Qwen3Model"],
    "model_type": "qwen3",
    "vocab_size": 203,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "eos_token_id": 2,
}


@asynccontextmanager
async def engine_of(folder: Path, **fields: object) -> AsyncGenerator[PagedEngine, None]:
    config = PagedConfig(model=str(folder), num_threads=1, **fields)  # type: ignore[arg-type]
    engine = PagedEngine("gpu0", config)
    await engine.start()
    yield engine
    await engine.close()


async def vector_of(engine: PagedEngine, tokens: list[int]) -> list[float] | EngineError:
    request = EmbedRequest(id="e1", model=str(engine._catalog.only), inputs=[tokens])
    try:
        return list((await engine.embed(request)).vectors[0])
    except EngineError as error:
        return error


async def test_a_model_that_only_embeds_takes_texts_as_long_as_it_says(tmp_path: Path) -> None:
    folder = tmp_path / "embedder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LONG_EMBEDDER))
    write_tokenizer(folder, 203)
    async with engine_of(folder, load_format="dummy", max_batch_tokens=600) as engine:
        (info,) = await engine.models()
        fits = await asyncio.gather(*(vector_of(engine, [5] * n) for n in (7, 4096, 601, 600)))
        too_long = await vector_of(engine, [5] * 4097)

    assert info.context_tokens == 4096
    assert all(isinstance(vector, list) for vector in fits)
    assert isinstance(too_long, ContextTooLong)
    assert "4097 tokens" in too_long.message
    assert "longer context" in too_long.message


async def test_a_model_that_answers_embeds_what_fits_a_step_and_says_what_to_change(
    tmp_path: Path,
) -> None:
    folder = write_checkpoint(tmp_path / "chat", "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1024}))
    async with engine_of(folder, max_batch_tokens=300, max_sequences=4) as engine:
        (info,) = await engine.models()
        assert isinstance(await vector_of(engine, [5] * 512), list)
        too_long = await vector_of(engine, [5] * 513)

    assert info.context_tokens == 1024  # of its answers
    assert isinstance(too_long, ContextTooLong)
    assert "at most 512 here: shorten it, or raise max_batch_tokens (it is 300)" in str(too_long)


async def test_an_input_that_has_no_vector_fails_nobody_else(tmp_path: Path) -> None:
    async with engine_of(write_checkpoint(tmp_path / "chat", "llama")) as engine:
        weight = engine._pool.loaded()[0].embedder._model.embedding.weight  # type: ignore[union-attr]
        weight.data[9] = float("nan")

        sick, well = await asyncio.gather(
            vector_of(engine, [9, 10]), vector_of(engine, [11, 12, 13])
        )

        assert isinstance(sick, Unavailable)
        assert "without a direction" in sick.message
        assert well == pytest.approx(await vector_of(engine, [11, 12, 13]), abs=1e-5)
