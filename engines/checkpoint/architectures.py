"""config.json -> ModelShape: the one place that knows what families of models differ in.

A family is a few lines that say what its configuration leaves unsaid: which biases it
has, which layers see a window, what a missing value means. Defaults are those of the
family's configuration class in transformers, which is what left the values out.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from engines.checkpoint.checkpoint_errors import CheckpointUnsupported
from engines.checkpoint.family_config import (
    FULL,
    WINDOWED,
    Sizes,
    activation,
    decoder_shape,
    one_rope,
    windowed_layers,
)
from engines.checkpoint.json_fields import JsonFields, shown
from engines.checkpoint.model_shape import LayerShape, ModelShape, RopeShape
from engines.checkpoint.rope_config import RopeSource, read_rope, rope_parameters


def read_shape(config: JsonFields) -> ModelShape:
    """Read a config.json. Raises `CheckpointUnavailable` or `CheckpointUnsupported`."""
    _refuse_quantized(config)
    architecture = _architecture(config)
    text = config.fields("text_config") if config.has("text_config") else config
    _refuse_bidirectional(text)
    shape = FAMILIES[architecture](text, architecture)
    if "tie_word_embeddings" in config.values:  # of a multimodal model, it is out here
        shape = replace(shape, is_tied=config.flag("tie_word_embeddings", default=True))
    return replace(shape, dtype=_dtype(text) or _dtype(config))


def _architecture(config: JsonFields) -> str:
    if not config.has("architectures"):
        config.fail("architectures", "a list with one of: " + ", ".join(sorted(FAMILIES)))
    named = config.texts("architectures")
    for architecture in named:
        if architecture in FAMILIES:
            return architecture
    raise CheckpointUnsupported(
        f"{config.file}: architecture {shown(', '.join(named))} is not supported; there are: "
        + ", ".join(sorted(FAMILIES))
    )


def _refuse_quantized(config: JsonFields) -> None:
    for key in ("quantization_config", "compression_config"):
        if not config.has(key):
            continue
        quantization = config.fields(key)
        method = quantization.values.get("quant_method") or quantization.values.get("format")
        raise CheckpointUnsupported(
            f"{config.file}: the weights are quantized ({key} names the method "
            f"{shown(method)}), which this engine cannot read yet; use the model's unquantized "
            'safetensors, or its GGUF file with an engine of kind = "gguf"'
        )


def _refuse_bidirectional(config: JsonFields) -> None:
    looks_ahead = config.values.get("use_bidirectional_attention")
    if looks_ahead or config.values.get("is_causal") is False:
        key = "use_bidirectional_attention" if looks_ahead else "is_causal"
        raise CheckpointUnsupported(
            f"{config.file}: {key} is {shown(config.values[key])}; a decoder that looks ahead is "
            "not supported"
        )


def _dtype(config: JsonFields) -> str | None:
    key = config.first("dtype", "torch_dtype")
    return config.text(key).removeprefix("torch.") if config.has(key) else None


def _llama(config: JsonFields, architecture: str) -> ModelShape:
    sizes = Sizes(config)
    bias = config.flag("attention_bias", default=False)
    return decoder_shape(
        config,
        architecture,
        sizes,
        one_rope(config, sizes),
        has_qkv_bias=bias,
        has_output_bias=bias,
        has_mlp_bias=config.flag("mlp_bias", default=False),
    )


def _mistral(config: JsonFields, architecture: str) -> ModelShape:
    sizes = Sizes(config)
    window = config.optional_integer("sliding_window", 4096)
    ropes = one_rope(config, sizes)
    return decoder_shape(
        config, architecture, sizes, ropes, layers=(LayerShape(window=window),) * sizes.num_layers
    )


def _qwen_layers(config: JsonFields, sizes: Sizes) -> tuple[LayerShape, ...]:
    window = config.optional_integer("sliding_window", 4096)
    if not config.flag("use_sliding_window", default=False):
        window = None
    first = config.integer("max_window_layers", 28, low=0)
    windowed = windowed_layers(config, sizes, lambda index: window is not None and index >= first)
    return tuple(LayerShape(window=window if has else None) for has in windowed)


def _qwen2(config: JsonFields, architecture: str) -> ModelShape:
    sizes = Sizes(config)
    return decoder_shape(
        config,
        architecture,
        sizes,
        one_rope(config, sizes),
        layers=_qwen_layers(config, sizes),
        has_qkv_bias=True,
    )


def _qwen3(config: JsonFields, architecture: str) -> ModelShape:
    sizes = Sizes(config, head_dim=128)
    bias = config.flag("attention_bias", default=False)
    return decoder_shape(
        config,
        architecture,
        sizes,
        one_rope(config, sizes),
        layers=_qwen_layers(config, sizes),
        has_qk_norm=True,
        has_qkv_bias=bias,
        has_output_bias=bias,
    )


def _phi3(config: JsonFields, architecture: str) -> ModelShape:
    sizes = Sizes(config)
    source = RopeSource(
        config=config,
        parameters=rope_parameters(config),
        head_dim=sizes.head_dim,
        allows_partial=True,
        renamed=("su", "yarn"),
        original_context_tokens=config.optional_integer(
            "original_max_position_embeddings", 4096, low=2
        ),
    )
    window = config.optional_integer("sliding_window", None)
    return decoder_shape(
        config,
        architecture,
        sizes,
        (read_rope(source),),
        layers=(LayerShape(window=window),) * sizes.num_layers,
        norm_epsilon=config.number("rms_norm_eps", 1e-5),
    )


def _gemma(config: JsonFields, sizes: Sizes) -> dict[str, Any]:
    """What Gemma 2 and 3 share."""
    bias = config.flag("attention_bias", default=False)
    return {
        "activation": activation(config, "hidden_activation", "gelu_pytorch_tanh"),
        "norm_offset": 1.0,
        "has_post_norms": True,
        "has_qkv_bias": bias,
        "has_output_bias": bias,
        "attention_scale": config.number("query_pre_attn_scalar", 256.0) ** -0.5,
        "embedding_scale": math.sqrt(sizes.hidden),
        "is_tied": True,
    }


def _gemma2(config: JsonFields, architecture: str) -> ModelShape:
    sizes = Sizes(config, head_dim=256)
    window = config.optional_integer("sliding_window", 4096)
    windowed = windowed_layers(config, sizes, lambda index: index % 2 == 0)
    return decoder_shape(
        config,
        architecture,
        sizes,
        one_rope(config, sizes),
        layers=tuple(LayerShape(window=window if has else None) for has in windowed),
        attention_softcap=config.optional_number("attn_logit_softcapping", 50.0),
        logit_softcap=config.optional_number("final_logit_softcapping", 30.0),
        **_gemma(config, sizes),
    )


def _gemma3(config: JsonFields, architecture: str) -> ModelShape:
    sizes = Sizes(config, head_dim=256)
    window = config.optional_integer("sliding_window", 4096)
    pattern = config.integer("sliding_window_pattern", 6)
    windowed = windowed_layers(config, sizes, lambda index: bool((index + 1) % pattern))
    return decoder_shape(
        config,
        architecture,
        sizes,
        _gemma3_ropes(config, sizes),
        layers=tuple(
            LayerShape(window=window, rope=1) if has else LayerShape() for has in windowed
        ),
        has_qk_norm=True,
        # transformers hands no softcap to Gemma 3's attention, whatever the file says.
        logit_softcap=config.optional_number("final_logit_softcapping"),
        **_gemma(config, sizes),
    )


def _gemma3_ropes(config: JsonFields, sizes: Sizes) -> tuple[RopeShape, RopeShape]:
    """The rope of full layers, which alone is scaled, and that of windowed ones."""
    nested = config.fields("rope_parameters")
    scaling = config.fields("rope_scaling")
    full = nested.fields(FULL)
    if config.has("rope_scaling"):
        full = JsonFields(config.file, dict(full.values) | dict(scaling.values), "rope_scaling.")
    windowed = nested.fields(WINDOWED)
    without_theta = JsonFields(
        config.file, {key: value for key, value in config.values.items() if key != "rope_theta"}
    )
    local_theta = (
        config.number("rope_local_base_freq", above=1.0)
        if config.has("rope_local_base_freq")
        else 10_000.0
    )
    return (
        read_rope(
            RopeSource(config=config, parameters=full, head_dim=sizes.head_dim, theta=1_000_000.0)
        ),
        read_rope(
            RopeSource(
                config=without_theta,
                parameters=windowed,
                head_dim=sizes.head_dim,
                theta=local_theta,
            )
        ),
    )


def _bert(config: JsonFields, architecture: str) -> ModelShape:
    sizes = Sizes(config)
    if config.text("position_embedding_type", "absolute") != "absolute":
        config.fail("position_embedding_type", "'absolute', the only kind that is supported")
    if config.flag("is_decoder", default=False):
        config.fail("is_decoder", "false; a BERT that decodes is not supported")
    return ModelShape(
        architecture=architecture,
        is_encoder=True,
        hidden_size=sizes.hidden,
        intermediate_size=config.integer("intermediate_size"),
        num_heads=sizes.heads,
        num_kv_heads=sizes.heads,
        head_dim=sizes.head_dim,
        vocab_size=config.integer("vocab_size", high=2**24),
        context_tokens=sizes.context,
        layers=(LayerShape(),) * sizes.num_layers,
        norm_epsilon=config.number("layer_norm_eps", 1e-12),
        activation=activation(config, "hidden_act", "gelu"),
        attention_scale=sizes.head_dim**-0.5,
        has_head=False,
        num_token_types=config.integer("type_vocab_size", 2),
    )


FAMILIES: Mapping[str, Callable[[JsonFields, str], ModelShape]] = {
    "LlamaForCausalLM": _llama,
    "LlamaModel": _llama,
    "MistralForCausalLM": _mistral,
    "MistralModel": _mistral,
    "Qwen2ForCausalLM": _qwen2,
    "Qwen2Model": _qwen2,
    "Qwen3ForCausalLM": _qwen3,
    "Qwen3Model": _qwen3,
    "Gemma2ForCausalLM": _gemma2,
    "Gemma2Model": _gemma2,
    "Gemma3ForCausalLM": _gemma3,
    "Gemma3TextModel": _gemma3,
    "Gemma3ForConditionalGeneration": _gemma3,
    "Phi3ForCausalLM": _phi3,
    "Phi3Model": _phi3,
    "BertModel": _bert,
    "BertForMaskedLM": _bert,
}
