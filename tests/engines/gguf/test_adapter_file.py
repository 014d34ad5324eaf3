"""An adapter that does not fit its model never reaches llama.cpp."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engines.gguf.adapter_file import check_adapter
from engines.gguf.byte_reader import MalformedGguf
from engines.gguf.file_format import read_file
from tests.engines.gguf.lora_files import halves, write_adapter
from tests.gguf_files import write_gguf


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("models") / "base.gguf")


def renamed(name: str) -> dict[str, np.ndarray]:
    return {key.replace("blk.0.attn_q", name): value for key, value in halves().items()}


NO_FIT: dict[str, tuple[Callable[[Path], Path], str]] = {
    "another architecture": (
        lambda path: write_adapter(path, halves(), architecture="qwen3"),
        r"architecture 'qwen3', and base\.gguf is of 'llama'",
    ),
    "a model": (
        lambda path: write_adapter(path, halves(), kind="model"),
        "is no LoRA adapter in GGUF form",
    ),
    "more layers": (
        lambda path: write_adapter(path, renamed("blk.9.attn_q")),
        r"'blk\.9\.attn_q\.weight', which base\.gguf does not have: it was made for another model",
    ),
    "wider": (
        lambda path: write_adapter(path, halves(targets={"blk.0.attn_q.weight": (128, 128)})),
        r"do not fit: it was made for another model",
    ),
    "half of a pair": (
        lambda path: write_adapter(
            path, {name: half for name, half in halves().items() if name.endswith("a")}
        ),
        "has one of its two halves",
    ),
    "a whole tensor": (
        lambda path: write_adapter(path, {"blk.0.attn_q.weight": np.ones((64, 64), np.float32)}),
        "is no part of a LoRA",
    ),
    "integers": (
        lambda path: write_adapter(
            path, {name: half.astype(np.int32) for name, half in halves().items()}
        ),
        "is of type i32",
    ),
    "activated": (
        lambda path: write_adapter(
            path, halves(), more={"adapter.alora.invocation_tokens": [1, 2]}
        ),
        "is an activated LoRA",
    ),
    "empty": (lambda path: write_adapter(path, {}), "changes no tensor"),
    "not there": (lambda path: path, "cannot be opened"),
}


@pytest.mark.parametrize("case", NO_FIT)
def test_an_adapter_that_does_not_fit_is_refused_with_the_reason(
    base: Path, tmp_path: Path, case: str
) -> None:
    write, reason = NO_FIT[case]

    with pytest.raises(MalformedGguf, match=reason):
        check_adapter(write(tmp_path / "lora.gguf"), read_file(base))
