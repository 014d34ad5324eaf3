"""A prompt and what comes after a gap: shown to models that know marks for it."""

from pathlib import Path

import pytest

from engines.errors import Unsupported
from engines.gguf.engine import GgufEngine
from engines.protocol import GenerateRequest, Sampling
from tests.engines.gguf.random_model import engine_of, events_of, finished
from tests.gguf_files import vocabulary, write_gguf


def filling(prompt: str | list[int], suffix: str, model: str = "random") -> GenerateRequest:
    return GenerateRequest(
        id="r1",
        model=model,
        prompt=prompt,
        suffix=suffix,
        max_tokens=4,
        sampling=Sampling(temperature=0.0, ignore_eos=True),
    )


async def prompt_of(engine: GgufEngine, request: GenerateRequest) -> list[int]:
    return [token.id for token in (await engine.render(request)).tokens]


async def test_marks_stand_before_after_and_at_the_gap(tmp_path: Path) -> None:
    write_gguf(tmp_path / "random.gguf", extra_tokens=3, gap_marks=True, add_bos=True)
    before, after, gap = (vocabulary(3).index(f"unused{number}") for number in range(3))

    async with engine_of(tmp_path) as engine:
        found = await prompt_of(engine, filling("hello", "hell"))
        of_ids = await prompt_of(engine, filling([7, 8], "hell"))
        events = await events_of(engine, filling("hello", "hell"))
        counted = await engine.count_tokens(filling("hello", "hell"))

    hello, hell = vocabulary().index("hello"), vocabulary().index("hell")
    assert found == [0, before, hello, after, hell, gap]
    assert of_ids == [0, before, 7, 8, after, hell, gap]
    assert finished(events).usage.prompt_tokens == counted == 6
    assert finished(events).usage.completion_tokens == 4


async def test_what_spells_a_mark_is_text(tmp_path: Path) -> None:
    write_gguf(tmp_path / "random.gguf", extra_tokens=3, gap_marks=True)

    async with engine_of(tmp_path) as engine:
        found = await prompt_of(engine, filling("<|im_end|>", "<|im_start|>"))

    assert not {1, 2} & set(found)


async def test_a_model_without_marks_says_that_it_cannot(tmp_path: Path) -> None:
    write_gguf(tmp_path / "random.gguf")

    async with engine_of(tmp_path) as engine:
        with pytest.raises(Unsupported, match="'random' fills no gaps") as caught:
            await events_of(engine, filling("hello", "hell"))

    assert caught.value.param == "suffix"
