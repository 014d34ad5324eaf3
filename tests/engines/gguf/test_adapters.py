"""An adapter does what its merged weights do."""

from pathlib import Path

import numpy as np
import pytest

from engines.errors import Unavailable
from engines.gguf.adapter_file import Adapter, check_adapter
from engines.gguf.config import AdapterFile, GgufModelConfig
from engines.gguf.engine import GgufEngine
from engines.gguf.file_format import read_file
from engines.gguf.runner import Row, Runner, Shape
from engines.protocol import TextDelta
from tests.engines.gguf.lora_files import TARGETS, halves, merged, write_adapter
from tests.engines.gguf.ollama_folder import put_model
from tests.engines.gguf.random_model import asking, engine_of, events_of
from tests.gguf_files import vocabulary, write_gguf

SHAPE = Shape(num_slots=2, context_tokens=128, pool_tokens=256, exact=True, max_batch_tokens=64)
PROMPT = [7 + at % 200 for at in range(40)]


def logits(path: Path, *adapters: Adapter) -> np.ndarray:
    runner = Runner(path, adapters=adapters)
    runner.open_cache(SHAPE)
    last = len(PROMPT) - 1
    runner.decode([Row(token, at, 0, at == last) for at, token in enumerate(PROMPT)])
    found = runner.logits(last).copy()
    runner.close()
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("models") / "base.gguf", quantization="f32")


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_an_adapter_gives_the_logits_of_its_merged_weights(
    base: Path, tmp_path: Path, scale: float
) -> None:
    num_tokens = len(vocabulary())
    tensors = halves(targets={**TARGETS, "output.weight": (num_tokens, 64)})
    adapter = write_adapter(tmp_path / "lora.gguf", tensors)
    check_adapter(adapter, read_file(base))
    added = merged(tensors, scale)
    path = write_gguf(tmp_path / "merged.gguf", quantization="f32", added=added)

    adapted, expected, without = logits(base, Adapter(adapter, scale)), logits(path), logits(base)

    np.testing.assert_allclose(adapted, expected, rtol=1e-3, atol=1e-3)
    assert np.abs(adapted - without).max() > 0.1


def test_two_adapters_add_up(base: Path, tmp_path: Path) -> None:
    first, second = halves(1), halves(2)
    adapters = [
        Adapter(write_adapter(tmp_path / f"{at}.gguf", tensors))
        for at, tensors in enumerate((first, second))
    ]
    added = {name: merged(first)[name] + merged(second)[name] for name in TARGETS}
    path = write_gguf(tmp_path / "merged.gguf", quantization="f32", added=added)

    np.testing.assert_allclose(logits(base, *adapters), logits(path), rtol=1e-3, atol=1e-3)


async def said(engine: GgufEngine, model: str) -> str:
    events = await events_of(engine, asking(model=model, max_tokens=16))
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_a_name_with_an_adapter_answers_as_the_merged_model_and_the_base_as_before(
    base: Path, tmp_path: Path
) -> None:
    tensors = halves()
    weights = base.read_bytes()
    adapter = write_adapter(tmp_path / "lora.gguf", tensors)
    models = tmp_path / "models"
    put_model(models, "registry.ollama.ai/library/plain/latest", {"model": weights})
    put_model(
        models,
        "registry.ollama.ai/library/adapted/latest",
        {"model": weights, "adapter": adapter.read_bytes()},
    )
    write_gguf(models / "merged.gguf", quantization="f32", added=merged(tensors))

    async with engine_of(models, max_loaded_models=3) as engine:
        plain, adapted = await said(engine, "plain"), await said(engine, "adapted")
        assert adapted == await said(engine, "merged")
        assert adapted != plain
        assert plain == await said(engine, "plain")


async def test_a_policys_adapter_belongs_to_its_model_and_a_new_file_is_loaded_anew(
    base: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    put_model(models, "registry.ollama.ai/library/m/latest", {"model": base.read_bytes()})
    path = write_adapter(tmp_path / "lora.gguf", halves(1))
    own = {"m": GgufModelConfig(adapters=[AdapterFile(path=str(path))])}

    async with engine_of(models, models=own) as engine:
        before = await said(engine, "m")
        write_adapter(path, halves(2, {"blk.1.ffn_down.weight": (64, 160)}))
        assert await said(engine, "m:latest") != before
        assert engine.num_loads == 2


async def test_a_model_whose_adapter_is_another_models_is_refused_and_the_others_are_listed(
    base: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    layers = {"model": base.read_bytes()}
    for name in ("good", "bad"):
        put_model(models, f"registry.ollama.ai/library/{name}/latest", layers)
    wrong = write_adapter(tmp_path / "lora.gguf", halves(), architecture="gemma3")
    own = {"bad": GgufModelConfig(adapters=[AdapterFile(path=str(wrong))])}

    async with engine_of(models, models=own) as engine:
        with pytest.raises(Unavailable, match=r"'bad:latest' cannot be loaded: lora\.gguf: was"):
            await events_of(engine, asking(model="bad"))
        assert "good:latest" in [info.name for info in await engine.models()]
        assert "bad:latest" not in [info.name for info in await engine.models()]
