"""What a GGUF file says of a model's shape, and what llama.cpp cannot be told.

Each architecture of llama.cpp fixes something that config.json could say otherwise. What it
would compute differently is refused here by name: a model that answers, and wrongly, is
worse than none. A window over all layers is the exception. llama.cpp has none for most
architectures, and up to the window's length there is no difference, so that is
the context that the model gets.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from engines.checkpoint.checkpoint_errors import CheckpointUnsupported
from engines.checkpoint.model_shape import ModelShape, RopeShape
from engines.gguf.conversion.tensors import NewTensor

# By the name in config.json: llama.cpp's, and what its code takes for granted.
ARCHITECTURES: Mapping[str, str] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3",
    "Gemma3ForConditionalGeneration": "gemma3",
    "Phi3ForCausalLM": "phi3",
}
_WINDOWED = ("gemma2", "gemma3")
# Of how many layers the models are whose queries llama.cpp scales otherwise.
_LARGEST = {"gemma2": 46, "gemma3": 62}


def architecture_of(shape: ModelShape) -> str:
    """llama.cpp's name for a model's architecture. Raises `CheckpointUnsupported`."""
    name = ARCHITECTURES.get(shape.architecture)
    if name is None:
        raise CheckpointUnsupported(
            f"architecture {shape.architecture} cannot be made a GGUF file; there are: "
            + ", ".join(ARCHITECTURES)
        )
    _check(shape, name)
    return name


def context_tokens(shape: ModelShape, architecture: str) -> int:
    """The longest sequence that llama.cpp computes as the model was trained."""
    if architecture in _WINDOWED:
        return shape.context_tokens
    windows = [layer.window for layer in shape.layers if layer.window is not None]
    return min([shape.context_tokens, *windows])


def metadata(shape: ModelShape, architecture: str) -> Iterator[tuple[str, Any]]:
    """Methods of `GGUFWriter` to call, without `add_`, and what with."""
    yield "context_length", context_tokens(shape, architecture)
    yield "embedding_length", shape.hidden_size
    yield "block_count", shape.num_layers
    yield "feed_forward_length", shape.intermediate_size
    yield "head_count", shape.num_heads
    yield "head_count_kv", shape.num_kv_heads
    yield "key_length", shape.head_dim
    yield "value_length", shape.head_dim
    yield "layer_norm_rms_eps", shape.norm_epsilon
    yield "vocab_size", shape.vocab_size
    if shape.attention_softcap is not None:
        yield "attn_logit_softcapping", shape.attention_softcap
    if shape.logit_softcap is not None:
        yield "final_logit_softcapping", shape.logit_softcap
    if architecture in _WINDOWED:
        yield from _windows(shape)
    yield from _rope(shape.ropes[0])
    if len(shape.ropes) > 1:
        yield "rope_freq_base_swa", shape.ropes[1].theta


def rope_tensors(shape: ModelShape) -> list[NewTensor]:
    """The tensors that some kinds of rope need."""
    rope = shape.ropes[0]
    if rope.kind == "llama3":
        return [_factors("rope_freqs.weight", _llama3_factors(rope))]
    if rope.kind == "longrope":
        return [
            _factors("rope_factors_long.weight", rope.long_factors),
            _factors("rope_factors_short.weight", rope.short_factors),
        ]
    return []


def _windows(shape: ModelShape) -> Iterator[tuple[str, Any]]:
    windows = {layer.window for layer in shape.layers} - {None}
    if len(windows) > 1:
        raise CheckpointUnsupported(f"its layers have windows of {sorted(map(str, windows))}")
    if windows:
        yield "sliding_window", windows.pop()
        yield "sliding_window_pattern", [layer.window is not None for layer in shape.layers]


def _rope(rope: RopeShape) -> Iterator[tuple[str, Any]]:
    yield "rope_dimension_count", rope.rotary_dim
    yield "rope_freq_base", rope.theta
    if rope.kind == "linear":
        yield "rope_scaling_type", "linear"
        yield "rope_scaling_factor", rope.factor
    elif rope.kind == "yarn":
        yield "rope_scaling_type", "yarn"
        yield "rope_scaling_factor", rope.factor
        yield "rope_scaling_orig_ctx_len", rope.original_context_tokens
        yield "rope_scaling_yarn_beta_fast", rope.beta_fast
        yield "rope_scaling_yarn_beta_slow", rope.beta_slow
        # What llama.cpp multiplies by itself, undone.
        usual = 0.1 * math.log(rope.factor) + 1.0 if rope.factor > 1 else 1.0
        yield "rope_scaling_attn_factors", rope.attention_factor / usual
    elif rope.kind == "longrope":
        yield "rope_scaling_type", "longrope"
        yield "rope_scaling_orig_ctx_len", rope.original_context_tokens
        yield "rope_scaling_attn_factors", rope.attention_factor


def _factors(name: str, factors: tuple[float, ...]) -> NewTensor:
    return NewTensor(name, (len(factors),), "F32", lambda: np.array(factors, dtype=np.float32))


def _llama3_factors(rope: RopeShape) -> tuple[float, ...]:
    """By what each frequency is divided: not at all, by `factor`, or by something between."""
    factors: list[float] = []
    for place in range(0, rope.rotary_dim, 2):
        wavelength = 2 * math.pi * rope.theta ** (place / rope.rotary_dim)
        turns = rope.original_context_tokens / wavelength
        if turns > rope.high_frequency_factor:
            factors.append(1.0)
        elif turns < rope.low_frequency_factor:
            factors.append(rope.factor)
        else:
            span = rope.high_frequency_factor - rope.low_frequency_factor
            share = (turns - rope.low_frequency_factor) / span
            factors.append(1.0 / ((1 - share) / rope.factor + share))
    return tuple(factors)


def _check(shape: ModelShape, architecture: str) -> None:
    """Raise `CheckpointUnsupported` for what llama.cpp's architecture has no place for."""
    is_gemma = architecture.startswith("gemma")
    heads_width = shape.num_heads * shape.head_dim
    rules: list[tuple[bool, Callable[[], str]]] = [
        (
            shape.activation == ("gelu_tanh" if is_gemma else "silu"),
            lambda: f"the activation {shape.activation}",
        ),
        (
            math.isclose(shape.attention_scale, _attention_scale(shape, architecture)),
            lambda: f"scores scaled by {shape.attention_scale:g} (query_pre_attn_scalar)",
        ),
        (
            (shape.attention_softcap is not None) == (architecture == "gemma2"),
            lambda: f"attn_logit_softcapping {shape.attention_softcap}",
        ),
        (
            architecture != "gemma2" or shape.logit_softcap is not None,
            lambda: "no final_logit_softcapping",
        ),
        (architecture != "gemma2" or shape.is_tied, lambda: "a head of its own"),
        (
            shape.has_qkv_bias == (architecture == "qwen2") or architecture == "llama",
            lambda: f"attention with{'' if shape.has_qkv_bias else 'out'} biases",
        ),
        (
            not (shape.has_output_bias or shape.has_mlp_bias) or architecture == "llama",
            lambda: "biases",
        ),
        (
            architecture not in ("phi3", "qwen2") or heads_width == shape.hidden_size,
            lambda: f"{shape.num_heads} heads of {shape.head_dim} beside {shape.hidden_size}",
        ),
        (all(_is_rope_known(rope) for rope in shape.ropes), lambda: _odd_rope(shape)),
        (
            all(rope.kind == "default" for rope in shape.ropes[1:]),
            lambda: f"rope type {shape.ropes[1].kind} in windowed layers",
        ),
        (
            shape.ropes[0].kind != "longrope" or architecture == "phi3",
            lambda: "rope type longrope",
        ),
    ]
    for holds, what in rules:
        if not holds:
            raise CheckpointUnsupported(
                f"{shape.architecture} with {what()} has no counterpart in llama.cpp"
            )


def _attention_scale(shape: ModelShape, architecture: str) -> float:
    if _LARGEST.get(architecture) == shape.num_layers:
        return float(shape.hidden_size // shape.num_heads) ** -0.5
    return float(shape.head_dim) ** -0.5


def _is_rope_known(rope: RopeShape) -> bool:
    return rope.kind != "dynamic" and (rope.kind != "yarn" or rope.truncate)


def _odd_rope(shape: ModelShape) -> str:
    kind = next(rope.kind for rope in shape.ropes if not _is_rope_known(rope))
    return f"rope type {kind}" + (" that is not truncated" if kind == "yarn" else "")
