"""What a folder says about its model before any weight is read."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from engines.errors import Unavailable, Unsupported
from engines.paged.checkpoint import Checkpoint, CheckpointUnavailable, CheckpointUnsupported
from engines.protocol import Capability, Sampling
from engines.starter import SAFETENSORS_DIR

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 64,
    "dtype": "bfloat16",
}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


def opened(folder: Path, config: Any = None, **files: Any) -> Checkpoint:
    """A folder with a small Llama's config.json, changed, and these JSON files beside it."""
    (folder / "config.json").write_text(json.dumps({**LLAMA, **(config or {})}))
    for name, content in files.items():
        path = folder / (name.replace("__", "/") + ".json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return Checkpoint(folder)


def test_the_starter_models_folder_is_read_whole():
    checkpoint = Checkpoint(SAFETENSORS_DIR)

    assert checkpoint.family == "llama"
    assert checkpoint.dtype == "bfloat16"
    assert checkpoint.context_tokens == 2048
    assert checkpoint.eos_token_ids == {2}
    assert checkpoint.num_parameters == 5_508_352
    assert checkpoint.weight_bytes() == 2 * checkpoint.num_parameters
    assert checkpoint.weight_bytes(torch.float32) == 4 * checkpoint.num_parameters
    assert checkpoint.kv_bytes_per_token(torch.bfloat16) == 2 * 6 * 2 * 64 * 2
    assert checkpoint.size_bytes == (SAFETENSORS_DIR / "model.safetensors").stat().st_size
    assert Capability.CHAT in checkpoint.capabilities
    assert Capability.EMBED not in checkpoint.capabilities
    assert checkpoint.default_sampling == Sampling(temperature=0.0)


def test_what_is_wrong_with_a_checkpoint_is_an_engines_error():
    assert issubclass(CheckpointUnavailable, Unavailable)
    assert issubclass(CheckpointUnsupported, Unsupported)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{broken", "config.json is not valid JSON"),
        (b"\xff\xfe", "config.json is not valid JSON"),
        (b"[" * 200_000, "config.json is not valid JSON"),
        (b"[]", r"config.json is \[\]; expected an object"),
        (b"", "config.json is not valid JSON"),
    ],
)
def test_a_configuration_that_is_no_json_object_is_refused(
    tmp_path: Path, content: bytes, message: str
):
    (tmp_path / "config.json").write_bytes(content)

    with pytest.raises(CheckpointUnavailable, match=message):
        Checkpoint(tmp_path)


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointUnavailable, match=r"config\.json is missing"):
        Checkpoint(tmp_path)
    with pytest.raises(CheckpointUnavailable, match="'nowhere' is not a folder"):
        Checkpoint(tmp_path / "nowhere")


def test_a_model_without_a_chat_template_completes_only(tmp_path: Path):
    checkpoint = opened(tmp_path)

    assert Capability.COMPLETE in checkpoint.capabilities
    assert Capability.CHAT not in checkpoint.capabilities


def test_a_chat_template_may_be_in_the_tokenizers_configuration_or_a_file(tmp_path: Path):
    inside = opened(tmp_path, tokenizer_config={"chat_template": "old", "eos_token": "</s>"})
    assert Capability.CHAT in inside.capabilities

    (tmp_path / "chat_template.jinja").write_text("new")

    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.tokenizer_config == {"chat_template": "new", "eos_token": "</s>"}
    assert Capability.CHAT in checkpoint.capabilities


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        ({"eos_token_id": 2}, {}, {2}),
        ({"eos_token_id": [2, 3]}, {}, {2, 3}),
        ({"eos_token_id": 2}, {"eos_token_id": [5, 6]}, {5, 6}),
        ({"eos_token_id": 2}, {"eos_token_id": None}, {2}),
        ({"eos_token_id": 32000}, {}, set()),
        ({}, {}, set()),
    ],
)
def test_the_tokens_that_end_an_answer(tmp_path: Path, config: Any, generation: Any, expected: Any):
    assert opened(tmp_path, config, generation_config=generation).eos_token_ids == expected


def test_an_end_that_is_no_token_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointUnavailable, match="eos_token_id is '</s>'; expected a token id"):
        _ = opened(tmp_path, {"eos_token_id": "</s>"}).eos_token_ids


def test_sampling_defaults_are_those_of_its_makers(tmp_path: Path):
    generation = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20}

    checkpoint = opened(tmp_path, generation_config={**generation, "repetition_penalty": 1.05})

    assert checkpoint.default_sampling == Sampling(
        temperature=0.6, top_p=0.95, top_k=20, repeat_penalty=1.05
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "bfloat16"),
        ({"dtype": None, "torch_dtype": "float16"}, "float16"),
        ({"dtype": "torch.float32"}, "float32"),
    ],
)
def test_the_type_of_its_numbers(tmp_path: Path, config: Any, expected: str):
    assert opened(tmp_path, config).dtype == expected


def test_a_type_that_the_configuration_leaves_out_is_that_of_most_weights(tmp_path: Path):
    weights = {"a": torch.zeros(4), "b": torch.zeros(64, dtype=torch.float16)}
    save_file(weights, tmp_path / "model.safetensors")

    assert opened(tmp_path, {"dtype": None}).dtype == "float16"


def test_a_type_that_is_not_computed_in_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointUnsupported, match="dtype 'float8_e4m3fn' is not supported"):
        _ = opened(tmp_path, {"dtype": "float8_e4m3fn"}).dtype


def test_a_model_with_pooling_files_embeds_and_does_nothing_else(tmp_path: Path):
    pooling = {"pooling_mode_lasttoken": True, "word_embedding_dimension": 64}

    checkpoint = opened(tmp_path, modules=MODULES, **{"1_Pooling__config": pooling})

    assert checkpoint.capabilities == {Capability.EMBED}
    assert checkpoint.pooling is not None and checkpoint.pooling.kind == "last"
    assert not checkpoint.shape.has_head


def test_a_base_model_embeds_by_its_last_token_and_a_bert_by_the_mean(tmp_path: Path):
    base = opened(tmp_path, {"architectures": ["LlamaModel"]})
    assert base.pooling is not None and base.pooling.kind == "last"

    bert = opened(tmp_path, {"architectures": ["BertModel"]})

    assert bert.pooling is not None and bert.pooling.kind == "mean"
    assert bert.kv_bytes_per_token(torch.float32) == 0


def test_the_longest_input_is_what_its_makers_meant(tmp_path: Path):
    pooling = {"pooling_mode_mean_tokens": True}
    files = {"1_Pooling__config": pooling, "sentence_bert_config": {"max_seq_length": 32}}

    assert opened(tmp_path, modules=MODULES, **files).context_tokens == 32
