"""LoRA adapters as PEFT writes them: llama.cpp computes what the merged weights would."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from engines.errors import RequestRefused
from engines.gguf.conversion.adapter import write_adapter
from engines.gguf.file_format import read_file
from tests.engines.gguf.conversion.exact_logits import exact_logits
from tests.engines.gguf.conversion.test_writing import checkpoint, converted
from tests.engines.paged.random_checkpoints import reference

SPLIT = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
         "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip
FUSED = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
TOKENS = [5, 17, 80, 3, 99, 41, 6, 7]


def put_adapter(
    folder: Path, model: torch.nn.Module, modules: tuple[str, ...], **said: Any
) -> None:
    """Random matrices of rank 2 for these modules of every layer."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(3)
    tensors: dict[str, np.ndarray] = {}
    for name, weight in model.named_parameters():
        layer, _, module = name.removesuffix(".weight").removeprefix("model.layers.").partition(".")
        if module in modules:
            start = f"base_model.model.model.layers.{layer}.{module}"
            rows, columns = weight.shape
            tensors[f"{start}.lora_A.weight"] = random.normal(0, 0.3, (2, columns))
            tensors[f"{start}.lora_B.weight"] = random.normal(0, 0.3, (rows, 2))
    save_file(
        {k: v.astype(np.float32) for k, v in tensors.items()}, folder / "adapter_model.safetensors"
    )
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "bias": "none", **said}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def merge(model: torch.nn.Module, folder: Path, scale: float) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    weights = dict(model.named_parameters())
    for name, a in tensors.items():
        if ".lora_A." in name:
            b = tensors[name.replace(".lora_A.", ".lora_B.")]
            own = name.removeprefix("base_model.model.").replace(".lora_A", "")
            with torch.no_grad():
                weights[own] += torch.from_numpy(scale * (b @ a))


@pytest.mark.parametrize("by_root", [False, True])
@pytest.mark.parametrize(
    ("name", "modules"), [("llama", SPLIT), ("qwen2", SPLIT), ("phi3-partial-tied", FUSED)]
)
def test_llama_cpp_computes_what_the_merged_weights_would(
    tmp_path: Path, name: str, modules: tuple[str, ...], by_root: bool
) -> None:
    folder = checkpoint(name, tmp_path / "checkpoint")
    base, model = converted(folder), reference(folder)
    put_adapter(tmp_path / "lora", model, modules, use_rslora=by_root)

    write_adapter(tmp_path / "lora", base, tmp_path / "lora.gguf", lambda far: None)

    without = exact_logits(base, TOKENS)
    found = exact_logits(base, TOKENS, adapter=tmp_path / "lora.gguf")
    merge(model, tmp_path / "lora", 6 / (2**0.5 if by_root else 2))
    with torch.no_grad():
        expected = model(torch.tensor([TOKENS])).logits[0].numpy()
    most = np.abs(expected).max()
    assert np.abs(found - expected).max() < 2e-4 * most
    assert np.abs(without - expected).max() > 0.1 * most
    assert read_file(tmp_path / "lora.gguf").scalars["general.type"] == "adapter"


def change(folder: Path, **said: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | said))


def retensored(edit: Callable[[dict[str, np.ndarray]], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        tensors = load_file(path)
        edit(tensors)
        save_file(tensors, path)

    return spoil


START = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "adapter_config.json").unlink(), "adapter_config.json is missing"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "adapter_model.safetensors is"),
        (lambda f: change(f, peft_type="IA3"), "peft_type 'IA3'"),
        (lambda f: change(f, use_dora=True), "use_dora has no counterpart"),
        (lambda f: change(f, rank_pattern={"q": 4}), "rank_pattern has no counterpart"),
        (lambda f: change(f, modules_to_save=["lm_head"]), "modules_to_save has no counterpart"),
        (lambda f: change(f, bias="all"), "biases have no counterpart"),
        (lambda f: change(f, r=4), "says rank 4, the weights have 2"),
        (lambda f: change(f, lora_alpha="x"), "expected a number"),
        (retensored(lambda t: t.pop(f"{START}.lora_A.weight")), "one of the two matrices"),
        (
            retensored(lambda t: t.update({f"{START}.lora_A.weight": np.ones((2, 47), "f4")})),
            "the adapter belongs to another one",
        ),
        (
            retensored(lambda t: t.update({"base_model.model.lm_head.lora_A.weight": np.ones(2)})),
            "changes what adapters here cannot",
        ),
        (lambda f: save_file({}, f / "adapter_model.safetensors"), "has no tensors"),
    ],
)
def test_an_adapter_that_cannot_be_converted_is_refused_by_name(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    folder = checkpoint("llama", tmp_path / "checkpoint")
    base = converted(folder)
    put_adapter(tmp_path / "lora", reference(folder), SPLIT)
    spoil(tmp_path / "lora")

    with pytest.raises(RequestRefused, match="the adapter cannot be converted: ") as refused:
        write_adapter(tmp_path / "lora", base, tmp_path / "lora.gguf", lambda far: None)

    assert said in refused.value.message
