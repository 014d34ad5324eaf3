"""The engine on models in Ollama's layout: in place, under every spelling, with their recipes."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from engines.errors import ContextTooLong, ModelNotFound
from engines.gguf.config import GgufConfig
from engines.gguf.engine import GgufEngine
from engines.protocol import (
    Finished,
    FinishReason,
    GenerateRequest,
    Message,
    Sampling,
    Text,
    TextDelta,
)
from tests.engines.gguf.ollama_folder import everything, put_model
from tests.gguf_files import write_gguf

LIBRARY = "registry.ollama.ai/library"


@pytest.fixture(scope="module")
def ollama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ollama")
    weights = write_gguf(tmp_path_factory.mktemp("plain") / "m.gguf", layers=1).read_bytes()
    put_model(folder, f"{LIBRARY}/tiny/latest", {"model": weights})
    put_model(
        folder,
        f"{LIBRARY}/tiny/taught",
        {
            "model": weights,
            "system": b"be kind",
            "params": b'{"num_ctx":64,"num_predict":3,"temperature":0}',
        },
    )
    return folder


@pytest.fixture
async def engine(ollama: Path, tmp_path: Path) -> AsyncGenerator[GgufEngine, None]:
    config = GgufConfig(num_threads=1, ollama_models_dir=str(ollama))
    engine = GgufEngine("laptop", config, models_dir=tmp_path / "ours", data_dir=tmp_path)
    yield engine
    await engine.close()


def asking(model: str, text: str = "hello", **fields: object) -> GenerateRequest:
    message = Message(role="user", parts=(Text(text),))
    return GenerateRequest(id="1", model=model, messages=[message], **fields)  # type: ignore[arg-type]


async def answer(engine: GgufEngine, request: GenerateRequest) -> tuple[str, Finished]:
    text = ""
    async for event in engine.generate(request):
        if isinstance(event, TextDelta):
            text += event.text
        elif isinstance(event, Finished):
            return text, event
    raise AssertionError("not finished")


async def test_a_folder_of_ollamas_is_listed_and_served_without_a_byte_copied(
    engine: GgufEngine, ollama: Path, tmp_path: Path
) -> None:
    before = everything(ollama)

    infos = {info.name: info for info in await engine.models()}
    _, finished = await answer(engine, asking("tiny", max_tokens=4))

    assert {"tiny:latest", "tiny:taught"} <= infos.keys()
    digest = infos["tiny:latest"].digest
    assert digest is not None
    assert digest.startswith("sha256:")
    assert finished.usage.completion_tokens > 0
    assert everything(ollama) == before
    assert not any(path.suffix == ".gguf" for path in tmp_path.rglob("*"))
    assert {path.name for path in ollama.iterdir()} == {"blobs", "manifests"}


async def test_two_spellings_are_one_loaded_model(engine: GgufEngine) -> None:
    await engine.load("tiny")
    loaded = await engine.load("tiny:latest")

    assert engine.num_loads == 1
    assert (loaded.name, loaded.loaded) == ("tiny:latest", True)
    await engine.unload("tiny")
    assert not any(info.loaded for info in await engine.models())


@pytest.mark.parametrize("spelling", ["TINY:latest", "Tiny", "library/tiny", f"{LIBRARY}/tiny"])
async def test_what_is_denied_by_its_name_is_not_had_by_another_spelling(
    engine: GgufEngine, spelling: str
) -> None:
    with pytest.raises(ModelNotFound, match="listed as 'tiny:latest'"):
        await engine.load(spelling)
    with pytest.raises(ModelNotFound):
        await answer(engine, asking(spelling))
    with pytest.raises(ModelNotFound):
        await engine.show(spelling)


async def test_a_recipe_is_in_every_answer_of_its_model(engine: GgufEngine) -> None:
    greedy = Sampling(temperature=0.0)
    told = Message(role="system", parts=(Text("be kind"),))
    asked = asking("tiny", sampling=greedy, max_tokens=3)
    by_hand = GenerateRequest(
        id="1", model="tiny", messages=[told, *asked.messages], sampling=greedy, max_tokens=3
    )

    text, finished = await answer(engine, asking("tiny:taught"))
    expected, _ = await answer(engine, by_hand)

    assert text == expected
    assert finished.reason is FinishReason.LENGTH
    assert finished.usage.completion_tokens == 3
    assert await engine.count_tokens(asking("tiny:taught")) == await engine.count_tokens(by_hand)


async def test_num_ctx_is_the_context_of_its_model_alone(engine: GgufEngine) -> None:
    infos = {info.name: info.context_tokens for info in await engine.models()}
    long = asking("tiny:taught", "hello " * 70)

    assert (infos["tiny:taught"], infos["tiny:latest"]) == (64, 512)
    with pytest.raises(ContextTooLong, match="context is 64 tokens"):
        await answer(engine, long)


async def test_a_name_that_now_stands_for_something_else_is_loaded_anew(
    engine: GgufEngine, ollama: Path
) -> None:
    path = ollama / "manifests" / LIBRARY / "tiny" / "moving"
    path.write_bytes((path.parent / "latest").read_bytes())
    before = await engine.count_tokens(asking("tiny:moving"))

    staged = path.with_name("staged")
    staged.write_bytes((path.parent / "taught").read_bytes())
    staged.replace(path)

    assert await engine.count_tokens(asking("tiny:moving")) > before
    assert engine.num_loads == 2
    path.unlink()
