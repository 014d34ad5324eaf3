"""Pictures reach the model: other pixels, other answers; counted, bounded, shared as prefixes."""

import asyncio
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from engines.errors import ContextTooLong, RequestRefused, Unavailable, Unsupported
from engines.gguf.config import GgufModelConfig
from engines.gguf.engine import GgufEngine
from engines.gguf.native import has_mtmd
from engines.protocol import (
    Capability,
    GenerateRequest,
    Image,
    Message,
    Started,
    Text,
    TextDelta,
)
from tests.engines.gguf.ollama_folder import put_model
from tests.engines.gguf.projector_files import NUM_TOKENS, picture, write_projector
from tests.engines.gguf.random_model import asking, engine_of, events_of, finished
from tests.gguf_files import write_gguf

pytestmark = pytest.mark.skipif(not has_mtmd(), reason="llama.cpp was built without vision")

RED, BLUE = picture(250), picture(10)


def write_llava(folder: Path) -> Path:
    # In a shared cache the last bits depend on the company; of these weights they do not matter.
    write_gguf(folder / "random.gguf", quantization="f32")
    write_projector(folder / "projector")
    return folder


def write_qwen2vl(folder: Path) -> Path:
    """A model with M-RoPE: its images take fewer positions than they have tokens."""
    sections = [2, 3, 3, 0]
    write_gguf(
        folder / "random.gguf", quantization="f32", architecture="qwen2vl", rope_sections=sections
    )
    write_projector(folder / "projector", **{"clip.projector_type": "qwen2vl_merger"})
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def mrope_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen2vl(tmp_path_factory.mktemp("qwen2vl"))


@pytest.fixture(params=["exact", "shared"])
async def engine(files: Path, request: pytest.FixtureRequest) -> AsyncGenerator[GgufEngine, None]:
    own = {"random": GgufModelConfig(projector=str(files / "projector"))}
    async with engine_of(
        files, models=own, cache=request.param, num_slots=4, max_images=3
    ) as engine:
        yield engine


def showing(*parts: bytes | str, **fields: object) -> GenerateRequest:
    content = [Text(part) if isinstance(part, str) else Image(part, "image/png") for part in parts]
    given = {"messages": [Message(role="user", parts=content)], "max_tokens": 12} | fields
    return asking(**given)


async def told(engine: GgufEngine, request: GenerateRequest) -> tuple[str, int, int]:
    """The answer's text, the prompt's tokens and those of them that were cached."""
    events = await events_of(engine, request)
    started = next(event for event in events if isinstance(event, Started))
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert finished(events).usage.prompt_tokens == started.prompt_tokens
    return text, started.prompt_tokens or 0, started.cached_tokens


async def test_the_same_picture_gives_the_same_answer_and_another_one_another(
    engine: GgufEngine,
) -> None:
    [info] = [info for info in await engine.models() if info.name == "random"]
    assert Capability.VISION in info.capabilities

    red, num_tokens, _ = await told(engine, showing("what is ", RED, " this?", cache_salt="a"))
    again, _, cached = await told(engine, showing("what is ", RED, " this?", cache_salt="b"))
    blue, _, _ = await told(engine, showing("what is ", BLUE, " this?"))
    none, without, _ = await told(engine, showing("what is ", " this?"))

    assert red == again
    assert cached == 0  # of another team's
    assert len({red, blue, none}) == 3
    assert num_tokens == without + NUM_TOKENS


async def test_a_pictures_tokens_are_counted_before_anything_runs(engine: GgufEngine) -> None:
    request = showing("look: ", RED, " and ", BLUE, "!")

    count = await engine.count_tokens(request)

    assert count == (await told(engine, request))[1]
    assert count == await engine.count_tokens(showing("look: ", " and ", "!")) + 2 * NUM_TOKENS


async def test_a_prompt_goes_on_from_the_picture_that_it_shares(engine: GgufEngine) -> None:
    request = showing("see ", RED, " well, what is it that you can see here, my dear friend?")
    first, num_tokens, nothing = await told(engine, request)
    second, _, cached = await told(engine, request)

    assert (first, nothing) == (second, 0)
    assert cached == num_tokens - 1

    other = showing("see ", BLUE, " well, what is it that you can see here, my dear friend?")
    alone = await told(engine, msg_with_salt(other))
    beside = await told(engine, other)
    assert beside[0] == alone[0]
    assert beside[2] < num_tokens - NUM_TOKENS  # the text before the picture at most


def msg_with_salt(request: GenerateRequest) -> GenerateRequest:
    return GenerateRequest(
        id="r2",
        model=request.model,
        messages=request.messages,
        sampling=request.sampling,
        max_tokens=request.max_tokens,
        cache_salt="another team",
    )


async def test_pictures_and_texts_are_answered_side_by_side_as_alone(engine: GgufEngine) -> None:
    requests = [
        showing("what is ", RED, " this?"),
        showing("tell me a story about the sea and all that is in it"),
        showing(BLUE, RED, "compare these"),
        showing("and ", BLUE, " this?"),
    ]
    alone = [(await told(engine, request))[0] for request in requests]

    together = await asyncio.gather(*(told(engine, msg_with_salt(request)) for request in requests))

    assert [text for text, _, _ in together] == alone


async def test_a_preempted_conversation_sees_its_picture_again(files: Path) -> None:
    request = showing("what is ", RED, " this?", max_tokens=70)
    own = {"random": GgufModelConfig(projector=str(files / "projector"))}
    small = {"cache": "shared", "pool_tokens": 256, "context_tokens": 256, "num_slots": 3}
    async with engine_of(files, models=own, **small) as engine:
        alone = (await told(engine, request))[0]
        together = await asyncio.gather(*(told(engine, request) for _ in range(3)))

        [metrics] = await engine.metrics()

    assert metrics.steps.num_preemptions > 0
    assert {text for text, _, _ in together} == {alone}


@pytest.mark.parametrize("cache", ["exact", "shared"])
async def test_with_m_rope_a_prompt_goes_on_from_anywhere_beside_a_picture(
    mrope_files: Path, cache: str
) -> None:
    wide = picture(250, size=(200, 60))
    words = "and this is a long text of many words that comes before the picture, "
    begin = showing(words, wide, " what is it?")
    turn = showing(words, wide, " what is it? And who made it, what do you think, my friend?")
    other = showing(words, wide, BLUE, " which one is it?")
    own = {"random": GgufModelConfig(projector=str(mrope_files / "projector"))}
    async with engine_of(mrope_files, models=own, cache=cache, num_slots=3) as engine:
        fresh = [await told(engine, msg_with_salt(one)) for one in (turn, other)]
        again = [await told(engine, msg_with_salt(one)) for one in (turn, other)]
        await told(engine, begin)
        shared = [await told(engine, one) for one in (turn, other)]
        num_image_tokens = fresh[0][1] - (await told(engine, showing(words, turn_text(turn))))[1]

    assert num_image_tokens > 20
    assert [text for text, _, _ in shared] == [text for text, _, _ in fresh]
    assert [text for text, _, _ in again] == [text for text, _, _ in fresh]
    assert all(cached > num_image_tokens for _, _, cached in shared)


@pytest.mark.parametrize("kind", ["files", "mrope_files"])
async def test_what_was_saved_of_a_picture_is_found_again_after_the_model_was_unloaded(
    request: pytest.FixtureRequest, kind: str
) -> None:
    folder: Path = request.getfixturevalue(kind)
    wide = picture(250, size=(200, 60))
    text = "and this is a long text of many words that comes before the picture, "
    first, second = showing(text, wide, " what is it?"), showing(text, wide, " and who made it?")
    own = {"random": GgufModelConfig(projector=str(folder / "projector"))}
    async with engine_of(folder, models=own, num_slots=3) as engine:
        fresh = await told(engine, msg_with_salt(second))
        await told(engine, first)
        await engine.unload("random")
        again = await told(engine, second)
        blue = await told(engine, showing(text, BLUE, " and who made it?"))

    assert engine.num_loads == 2
    assert again[0] == fresh[0] != blue[0]
    after = 40  # tokens at most that come after the picture
    assert again[2] > fresh[1] - after > blue[2]


def turn_text(request: GenerateRequest) -> str:
    last = request.messages[0].parts[-1]
    assert isinstance(last, Text)
    return last.text


async def test_what_is_no_picture_or_too_many_is_refused_by_field(engine: GgufEngine) -> None:
    for parts, reason in (
        ((b"no picture", "what?"), "an image is none of PNG"),
        ((RED[: len(RED) // 2], "what?"), "an image cannot be read"),
        ((RED, RED, RED, RED, "what?"), "more than 3 images"),
    ):
        with pytest.raises(RequestRefused, match=reason) as caught:
            await told(engine, showing(*parts))
        assert caught.value.param == "messages"


async def test_pictures_count_against_the_context(files: Path) -> None:
    own = {"random": GgufModelConfig(projector=str(files / "projector"))}
    async with engine_of(files, models=own, context_tokens=32) as engine:
        with pytest.raises(ContextTooLong) as caught:
            await told(engine, showing(RED, BLUE, "?"))

    assert caught.value.prompt_tokens > 2 * NUM_TOKENS


async def test_a_model_without_a_projector_says_that_it_reads_no_images(files: Path) -> None:
    async with engine_of(files) as engine:
        with pytest.raises(Unsupported, match="this model cannot read images") as caught:
            await told(engine, showing(RED, "what?"))
        [info] = [info for info in await engine.models() if info.name == "random"]

    assert caught.value.param == "messages"
    assert Capability.VISION not in info.capabilities


async def test_a_name_with_a_projector_layer_sees(files: Path, tmp_path: Path) -> None:
    layers = {
        "model": (files / "random.gguf").read_bytes(),
        "projector": (files / "projector").read_bytes(),
    }
    put_model(tmp_path, "registry.ollama.ai/library/seeing/latest", layers)

    async with engine_of(tmp_path) as engine:
        red = await told(engine, showing(RED, "what?", model="seeing"))
        blue = await told(engine, showing(BLUE, "what?", model="seeing"))

    assert red[0] != blue[0]


async def test_a_projector_of_another_model_is_refused_with_the_reason(
    files: Path, tmp_path: Path
) -> None:
    shutil.copy(files / "random.gguf", tmp_path / "random.gguf")
    wrong = write_projector(tmp_path / "projector", model_width=128)

    async with engine_of(
        tmp_path, models={"random": GgufModelConfig(projector=str(wrong))}
    ) as engine:
        with pytest.raises(Unavailable, match="projector"):
            await told(engine, showing(RED, "what?"))
