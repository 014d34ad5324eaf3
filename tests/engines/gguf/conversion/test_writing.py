"""Checkpoints as transformers writes them, converted: llama.cpp computes what transformers does."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines.errors import RequestRefused
from engines.gguf.child_work import Far
from engines.gguf.conversion.metadata import ARCHITECTURES
from engines.gguf.conversion.writing import write_gguf
from engines.gguf.file_format import read_file
from engines.gguf.header import read_header
from tests.engines.gguf.conversion.exact_logits import exact_logits
from tests.engines.paged.random_checkpoints import DECODERS, Case, reference, write
from tests.engines.starter.loaded_gguf import LoadedGguf
from tests.gguf_files import byte_spellings

# Which case, and for how many tokens llama.cpp and transformers agree: a window's length where
# llama.cpp has none.
LENGTHS = {
    "llama": 30,
    "llama-tied-biased": 30,
    "llama-one-kv-head-wide-heads": 30,
    "llama-llama3": 60,
    "llama-llama3-old-form": 60,
    "llama-linear-older-form": 30,
    "llama-yarn": 60,
    "llama-yarn-attention-factor": 60,
    "qwen2": 30,
    "qwen2-tied-windowed": 7,
    "qwen3": 30,
    "qwen3-windowed-layers-listed": 5,
    "mistral-windowed": 9,
    "mistral-no-window-wide-heads": 30,
    "gemma2": 30,
    "gemma3": 30,
    "gemma3-old-form": 30,
    "gemma3-default-pattern": 30,
    "phi3": 10,
    "phi3-partial-tied": 30,
    "phi3-longrope": 60,
    "phi3-su-old-form": 60,
}
REFUSED = {
    "llama-dynamic": "rope type dynamic",
    "llama-yarn-untruncated-mscale": "rope type yarn that is not truncated",
    "qwen2-yarn": "4 heads of 24 beside 48",
    "qwen3-tied-biased-odd-heads": "attention with biases",
    "gemma2-untied-uncapped-biased": "attn_logit_softcapping None",
}


def checkpoint(name: str, folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    case = DECODERS[name]
    if case.model.startswith("Gemma"):  # llama.cpp scales by the size of a head
        config = {**case.config, "query_pre_attn_scalar": case.config["head_dim"]}
        case = replace(case, config=config)
    return written(case, folder, dtype=dtype)


def written(case: Case, folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    write(case, folder, dtype=dtype)
    num_tokens = json.loads((folder / "config.json").read_text())["vocab_size"]
    texts = [*byte_spellings()[: num_tokens - 1], "th"]
    tokenizer = {
        "pre_tokenizer": {"type": "ByteLevel", "use_regex": True},
        "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(texts)}, "merges": ["t h"]},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def converted(folder: Path, name: str = "mine") -> Path:
    target = folder.with_name(f"{folder.name}.gguf")
    write_gguf(folder, target, name, lambda far: None)
    return target


@contextmanager
def refused() -> Iterator[Any]:
    with pytest.raises(RequestRefused, match="the checkpoint cannot be converted: ") as error:
        yield error


@pytest.mark.parametrize("name", LENGTHS)
def test_llama_cpp_computes_what_transformers_does(tmp_path: Path, name: str) -> None:
    folder = checkpoint(name, tmp_path / "checkpoint")
    random = np.random.default_rng(1)
    tokens = [int(token) for token in random.integers(0, 120, LENGTHS[name])]

    found = exact_logits(converted(folder), tokens)

    with torch.no_grad():
        expected = reference(folder)(torch.tensor([tokens])).logits[0].float().numpy()
    # llama.cpp looks GELU up in a table of 16-bit numbers.
    tolerance = 2e-3 if "gemma" in name else 2e-5
    assert np.abs(found - expected[:, : found.shape[1]]).max() < tolerance * np.abs(expected).max()


def test_every_case_is_converted_or_refused() -> None:
    assert {*LENGTHS, *REFUSED, "mistral-window-of-one"} == set(DECODERS)


@pytest.mark.parametrize("name", REFUSED)
def test_what_llama_cpp_would_compute_otherwise_is_refused_by_name(
    tmp_path: Path, name: str
) -> None:
    folder = checkpoint(name, tmp_path / "checkpoint")

    with refused() as error:
        converted(folder)

    assert f"{REFUSED[name]} has no counterpart in llama.cpp" in error.value.message


@pytest.mark.parametrize(
    ("name", "tokens"), [("mistral-windowed", 9), ("qwen2-tied-windowed", 7), ("gemma2", 128)]
)
def test_a_window_that_llama_cpp_does_not_have_bounds_the_context(
    tmp_path: Path, name: str, tokens: int
) -> None:
    path = converted(checkpoint(name, tmp_path / "checkpoint"))

    assert read_header(path).context_tokens == tokens


@pytest.mark.parametrize(
    ("dtype", "quantization"),
    [(torch.float32, "f32"), (torch.float16, "f16"), (torch.bfloat16, "bf16")],
)
def test_weights_keep_their_precision(
    tmp_path: Path, dtype: torch.dtype, quantization: str
) -> None:
    folder = checkpoint("llama", tmp_path / "checkpoint", dtype=dtype)

    path = converted(folder)

    assert read_header(path).quantization == quantization
    types = {tensor.type.name for tensor in read_file(path).tensors if len(tensor.shape) == 2}
    assert types == {quantization}
    found = exact_logits(path, [5, 6, 7, 8])
    with torch.no_grad():
        expected = reference(folder)(torch.tensor([[5, 6, 7, 8]])).logits[0].numpy()
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_how_far_it_is_is_told_up_to_the_end(tmp_path: Path) -> None:
    folder = checkpoint("llama", tmp_path / "checkpoint")
    told: list[Far] = []

    write_gguf(folder, tmp_path / "out.gguf", "mine", told.append)

    assert len(told) == 3 + 9 * 3
    assert [far.done_bytes for far in told] == sorted(far.done_bytes for far in told)
    assert told[-1].done_bytes == told[-1].total_bytes
    assert read_header(tmp_path / "out.gguf").name == "mine"


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("MambaForCausalLM", "'MambaForCausalLM' is not supported"),
        ("BertModel", "BertModel cannot be made a GGUF file"),
        ("Qwen3Model", "Qwen3Model cannot be made a GGUF file"),
    ],
)
def test_an_architecture_that_is_not_there_is_answered_with_the_list(
    tmp_path: Path, architecture: str, said: str
) -> None:
    folder = checkpoint("llama", tmp_path / "checkpoint")
    change(folder / "config.json", architectures=[architecture])

    with refused() as error:
        converted(folder)

    assert said in error.value.message
    for there_is in ARCHITECTURES:
        assert there_is in error.value.message


def change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing, and so is"),
        (lambda f: change(f / "config.json", hidden_size=40), "config.json says"),
        (lambda f: change(f / "config.json", num_hidden_layers=4), "the weights lack"),
        (lambda f: change(f / "config.json", num_hidden_layers=2), "for which the model"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 99), "is cut short"),
        (lambda f: (f / "config.json").write_text("{"), "is not valid JSON"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused_by_name(
    tmp_path: Path, spoil: Any, said: str
) -> None:
    folder = checkpoint("llama", tmp_path / "checkpoint")
    spoil(folder)

    with refused() as error:
        converted(folder)

    assert said in error.value.message


def test_a_name_that_llama_cpp_takes_for_phi_3_is_written_otherwise(tmp_path: Path) -> None:
    """It looks for Phi-3's own tokens then, and ends if they are not there."""
    folder = checkpoint("llama", tmp_path / "checkpoint")

    path = converted(folder, "team/my-phi-3:v1")

    assert read_header(path).name == "team/my-Phi 3:v1"
    assert exact_logits(path, [1, 2]).shape == (2, 203)


STARTER = Path(__file__).parents[4] / "engines" / "starter"
QWEN_RULE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def test_the_starter_model_converted_is_the_one_that_ships(tmp_path: Path) -> None:
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        shutil.copy(STARTER / name, tmp_path / name)
    shutil.copy(STARTER / "model.safetensors", tmp_path / "model.safetensors")
    tokenizer = json.loads((STARTER / "tokenizer.json").read_text())
    # It has Qwen's rule, with letters left out that llama.cpp's Unicode does not know yet.
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = QWEN_RULE
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))

    write_gguf(tmp_path, tmp_path / "out.gguf", "starter", lambda far: None)

    ours, theirs = LoadedGguf(tmp_path / "out.gguf"), LoadedGguf(STARTER / "starter.gguf")
    try:
        assert ours.chat_template() == theirs.chat_template()
        prompt = "<|im_start|>user\nHello! What is 2 + 3?<|im_end|>\n<|im_start|>assistant\n"
        assert ours.tokenize(prompt, special=True) == theirs.tokenize(prompt, special=True)
        answer = ours.answer(prompt)
        assert answer
        assert answer == theirs.answer(prompt)
    finally:
        ours.close()
        theirs.close()
