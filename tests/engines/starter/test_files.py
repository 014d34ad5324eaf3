"""The files of the starter model hold one model, and little space."""

import json
from collections.abc import Iterator

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from engines.starter import GGUF_PATH, NAME, SAFETENSORS_DIR
from engines.starter.export import gguf_name
from engines.starter.template import CHAT_TEMPLATE
from tests.engines.starter.loaded_gguf import LoadedGguf

FILES = (
    "starter.gguf", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json",
    "generation_config.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def loaded() -> Iterator[LoadedGguf]:
    model = LoadedGguf(GGUF_PATH)
    yield model
    model.close()


def test_all_files_together_are_below_thirty_megabytes():
    assert sum((SAFETENSORS_DIR / name).stat().st_size for name in FILES) < 30_000_000


def test_both_files_hold_exactly_the_same_weights():
    reader = gguf.GGUFReader(GGUF_PATH)
    in_gguf = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    in_safetensors = load_file(SAFETENSORS_DIR / "model.safetensors")
    config = json.loads((SAFETENSORS_DIR / "config.json").read_text())

    assert {gguf_name(name) for name in in_safetensors} == set(in_gguf)
    for name, tensor in in_safetensors.items():
        weight = in_gguf[gguf_name(name)]
        if "q_proj" in name:
            weight = _halves(weight, config["num_attention_heads"])
        if "k_proj" in name:
            weight = _halves(weight, config["num_key_value_heads"])
        assert np.array_equal(tensor.float().numpy(), weight), name


def test_both_files_have_the_same_chat_template(loaded):
    config = json.loads((SAFETENSORS_DIR / "tokenizer_config.json").read_text())

    assert loaded.chat_template() == config["chat_template"] == CHAT_TEMPLATE


def test_llama_cpp_and_transformers_compute_the_same_logits(loaded):
    tokenizer = AutoTokenizer.from_pretrained(SAFETENSORS_DIR)
    model = AutoModelForCausalLM.from_pretrained(SAFETENSORS_DIR, dtype=torch.float32)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    tokens = tokenizer(prompt, add_special_tokens=False)["input_ids"]

    ours = loaded.decode(tokens)
    with torch.no_grad():
        theirs = model(torch.tensor([tokens])).logits[0, -1].numpy()

    # llama.cpp rounds activations to eight bits where it multiplies them with q8_0 weights.
    assert np.corrcoef(ours, theirs)[0, 1] > 0.999
    assert ours.argmax() == theirs.argmax()


def test_the_name_in_the_file_is_the_name_that_clients_ask_for():
    reader = gguf.GGUFReader(GGUF_PATH)

    assert reader.fields["general.name"].contents() == NAME


def _halves(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Undo the order of rows that llama.cpp wants: pairs side by side."""
    rows, columns = weight.shape
    pairs = weight.reshape(num_heads, rows // num_heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)
