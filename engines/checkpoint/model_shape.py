"""What a model is made of: every size and feature that the weights do not carry.

A `ModelShape` comes from a checkpoint's config.json (architectures.py) and is all that
models/decoder.py and models/encoder.py know; neither has a word for a family of
models. Nothing here imports torch, so that models can be listed without it.
"""

from dataclasses import dataclass, field
from typing import Literal

Activation = Literal["silu", "gelu", "gelu_tanh"]
RopeKind = Literal["default", "linear", "dynamic", "yarn", "llama3", "longrope"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeShape:
    """How positions become angles. The names are those of config.json's `rope_parameters`."""

    kind: RopeKind
    theta: float
    rotary_dim: int  # the first so many numbers of a head are turned, the rest pass
    factor: float = 1.0
    attention_factor: float = 1.0  # cosines and sines are multiplied by it
    original_context_tokens: int = 0
    low_frequency_factor: float = 1.0  # llama3
    high_frequency_factor: float = 4.0
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0
    truncate: bool = True
    short_factors: tuple[float, ...] = ()  # longrope, one for each pair of numbers
    long_factors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one layer does differently from its neighbours."""

    window: int | None = None  # how many tokens back it sees, itself included; None: all
    rope: int = 0  # which of the model's ropes


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A decoder, or with `is_encoder` a BERT."""

    architecture: str
    is_encoder: bool = False
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    context_tokens: int
    layers: tuple[LayerShape, ...]
    ropes: tuple[RopeShape, ...] = ()
    dtype: str | None = None  # as config.json names it: "bfloat16"

    norm_epsilon: float = 1e-6
    norm_offset: float = 0.0  # Gemma multiplies by 1 + weight
    has_post_norms: bool = False  # Gemma normalizes what attention and MLP return, too
    has_qk_norm: bool = False
    has_qkv_bias: bool = False
    has_output_bias: bool = False
    has_mlp_bias: bool = False
    activation: Activation = "silu"
    attention_scale: float = field(default=1.0)  # scores are multiplied by it
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    embedding_scale: float = 1.0
    has_head: bool = True  # False: a base model, which can only embed
    is_tied: bool = False  # the head's weights are the embedding's
    num_token_types: int = 0  # encoders

    @property
    def num_layers(self) -> int:
        """Layers, each with keys and values of its own."""
        return len(self.layers)

    @property
    def query_size(self) -> int:
        """Numbers in the queries of one token."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Numbers in the keys, and in the values, of one token in one layer."""
        return self.num_kv_heads * self.head_dim

    @property
    def short_rope_tokens(self) -> int | None:
        """The longest sequence whose rotation uses the short factors; None: there is one set."""
        lengths = [rope.original_context_tokens for rope in self.ropes if rope.kind == "longrope"]
        return min(lengths, default=None)

    @property
    def num_parameters(self) -> int:
        """Numbers in all weights, each counted once."""
        return _encoder_parameters(self) if self.is_encoder else _decoder_parameters(self)


def _decoder_parameters(shape: ModelShape) -> int:
    hidden, inner = shape.hidden_size, shape.intermediate_size
    qkv = shape.query_size + 2 * shape.kv_size
    layer = hidden * qkv + shape.query_size * hidden + 3 * hidden * inner
    layer += hidden * (4 if shape.has_post_norms else 2)
    layer += 2 * shape.head_dim if shape.has_qk_norm else 0
    layer += qkv if shape.has_qkv_bias else 0
    layer += hidden if shape.has_output_bias else 0
    layer += 2 * inner + hidden if shape.has_mlp_bias else 0
    tables = 2 if shape.has_head and not shape.is_tied else 1
    return tables * shape.vocab_size * hidden + shape.num_layers * layer + hidden


def _encoder_parameters(shape: ModelShape) -> int:
    hidden, inner = shape.hidden_size, shape.intermediate_size
    tables = shape.vocab_size + shape.context_tokens + shape.num_token_types
    attention = 4 * (hidden * hidden + hidden) + 2 * hidden
    mlp = 2 * hidden * inner + inner + hidden + 2 * hidden
    return tables * hidden + 2 * hidden + shape.num_layers * (attention + mlp)
