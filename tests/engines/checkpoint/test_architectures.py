"""config.json is read as transformers reads it, and what cannot be run is refused by name."""

import json
import subprocess
import sys
from typing import Any

import pytest
import transformers

from engines.checkpoint.architectures import FAMILIES, read_shape
from engines.checkpoint.checkpoint_errors import CheckpointUnavailable, CheckpointUnsupported
from engines.checkpoint.json_fields import JsonFields
from tests.engines.paged.random_checkpoints import DECODERS, make

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "max_position_embeddings": 64,
}


def fields(**changes: Any) -> JsonFields:
    """A small Llama's config.json with these changes; `...` takes a key out."""
    values = {key: value for key, value in {**LLAMA, **changes}.items() if value is not ...}
    return JsonFields("config.json", values)


@pytest.mark.parametrize("name", DECODERS)
def test_the_count_of_parameters_is_that_of_transformers(name: str):
    model = make(DECODERS[name])
    config = json.loads(json.dumps(model.config.to_dict()))
    config["architectures"] = [type(model).__name__]

    shape = read_shape(JsonFields("config.json", config))

    assert shape.num_parameters == sum(weight.numel() for weight in model.parameters())


def test_an_encoders_parameters_are_counted_without_its_pooler():
    config = transformers.BertConfig(num_hidden_layers=2, hidden_size=48, num_attention_heads=4)
    model = transformers.BertModel(config, add_pooling_layer=False)

    shape = read_shape(
        JsonFields("config.json", {**config.to_dict(), "architectures": ["BertModel"]})
    )

    assert shape.num_parameters == sum(weight.numel() for weight in model.parameters())


def test_an_unknown_architecture_is_refused_with_the_list_of_what_there_is():
    with pytest.raises(CheckpointUnsupported) as refused:
        read_shape(fields(architectures=["MambaForCausalLM"]))

    assert "MambaForCausalLM" in refused.value.message
    assert all(name in refused.value.message for name in FAMILIES)


@pytest.mark.parametrize(
    ("quantization", "method"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "compressed-tensors", "format": "float-quantized"}, "compressed-tensors"),
    ],
)
def test_a_quantized_checkpoint_is_refused_by_its_method(quantization: Any, method: str):
    with pytest.raises(CheckpointUnsupported, match=f"quantized.*{method}.*unquantized"):
        read_shape(fields(quantization_config=quantization))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": ...}, "hidden_size is missing; expected a whole number"),
        ({"hidden_size": "64"}, "hidden_size is '64'; expected a whole number"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": 66}, "num_attention_heads is 4; expected a divisor of hidden_size 66"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; expected a whole number from 1 to"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"num_key_value_heads": 3}, "num_key_value_heads is 3; expected a divisor of"),
        ({"rms_norm_eps": "tiny"}, "rms_norm_eps is 'tiny'; expected a number"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps is inf; expected a finite number"),
        ({"architectures": ...}, "architectures is missing; expected a list with one of"),
        ({"architectures": "LlamaForCausalLM"}, "expected a list of strings"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'; expected true or false"),
        ({"rope_parameters": [1]}, "rope_parameters is .1.; expected an object"),
        ({"rope_theta": -1.0}, "rope_theta is -1.0"),
    ],
)
def test_a_broken_configuration_is_refused_with_its_key_and_value(changes: Any, message: str):
    with pytest.raises(CheckpointUnavailable, match=message):
        read_shape(fields(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "relu"}, "activation 'relu' is not supported; there are: gelu"),
        ({"use_bidirectional_attention": True}, "a decoder that looks ahead"),
        ({"is_causal": False}, "is_causal is False"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is supported for Phi3"),
    ],
)
def test_a_feature_that_is_not_there_is_refused_by_name(changes: Any, message: str):
    with pytest.raises(CheckpointUnsupported, match=message):
        read_shape(fields(**changes))


def test_null_and_missing_are_two_things():
    mistral = {"architectures": ["MistralForCausalLM"]}

    assert read_shape(fields(**mistral)).layers[0].window == 4096
    assert read_shape(fields(**mistral, sliding_window=None)).layers[0].window is None


def test_a_layer_list_of_the_wrong_length_or_kind_is_refused():
    for types in (["full_attention"], ["full_attention", "chunked_attention"]):
        with pytest.raises(CheckpointUnavailable, match="layer_types"):
            read_shape(fields(architectures=["Qwen2ForCausalLM"], layer_types=types))


def test_yarn_reaches_as_far_as_its_factor_says():
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}

    assert read_shape(fields(rope_scaling=scaling)).context_tokens == 256


def test_reading_a_shape_needs_no_torch():
    code = "import sys, engines.paged.checkpoint; sys.exit('torch' in sys.modules)"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
