"""The whole engine on its Triton kernels, under the interpreter where there is no GPU."""

import asyncio
import importlib
import pkgutil
from pathlib import Path

import numpy as np
import pytest

from engines.paged import kernels
from engines.paged.checkpoint import Checkpoint
from engines.paged.config import PagedConfig
from engines.paged.engine import PagedEngine
from engines.paged.kernels.triton_gate import is_interpreted
from tests.engines.paged import test_same_tokens
from tests.engines.paged.checkpoints import greedy, reference, write_checkpoint
from tests.engines.paged.test_same_tokens import answer, prompts_of

NUM_NEW = 4  # the interpreter is a thousand times slower


@pytest.fixture
def on_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every kernel run in Triton, wherever its tensors are."""
    pytest.importorskip("triton")
    if not is_interpreted():
        pytest.skip("there is a GPU: the kernels' own tests run on it")
    for module in pkgutil.iter_modules(kernels.__path__):
        loaded = importlib.import_module(f"{kernels.__name__}.{module.name}")
        if hasattr(loaded, "runs_triton"):
            monkeypatch.setattr(loaded, "runs_triton", lambda _: True)
    monkeypatch.setattr(test_same_tokens, "NUM_NEW", NUM_NEW)


@pytest.mark.slow
@pytest.mark.usefixtures("on_triton")
@pytest.mark.parametrize("family", ["llama-llama3", "gemma2"])
async def test_kernels_together_give_the_tokens_of_transformers(
    family: str, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / family, family)
    config = PagedConfig(model=str(folder), context_tokens=80, max_sequences=4, max_batch_tokens=23)
    engine = PagedEngine(folder.name, config)
    prompts = prompts_of(Checkpoint(folder).shape.vocab_size)[1:4]
    model = reference(folder)
    expected = [greedy(model, prompt, NUM_NEW) for prompt in prompts]
    await engine.start()

    with np.errstate(all="ignore"):
        together = await asyncio.gather(*(answer(engine, prompt) for prompt in prompts))

    await engine.close()
    assert [tokens for tokens, _ in together] == expected
