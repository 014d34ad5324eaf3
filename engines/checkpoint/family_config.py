"""The parts of a config.json that families of models have in common.

architectures.py puts them together; a family overrides what it does differently.
"""

from collections.abc import Callable, Mapping
from typing import Any

from engines.checkpoint.checkpoint_errors import CheckpointUnsupported
from engines.checkpoint.json_fields import JsonFields
from engines.checkpoint.model_shape import Activation, LayerShape, ModelShape, RopeShape
from engines.checkpoint.rope_config import (
    MAX_CONTEXT_TOKENS,
    RopeSource,
    read_rope,
    rope_parameters,
)

MAX_LAYERS = 1024
ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
WINDOWED, FULL = "sliding_attention", "full_attention"


class Sizes:
    """What every family has under the same names."""

    def __init__(self, config: JsonFields, *, head_dim: int | None = None) -> None:
        """`head_dim` is the family's own, for files that do not say; None: it is divided."""
        self.hidden = config.integer("hidden_size")
        self.num_layers = config.integer("num_hidden_layers", high=MAX_LAYERS)
        self.heads = config.integer("num_attention_heads", high=2**14)
        self.kv_heads = config.integer(
            config.first("num_key_value_heads", "num_attention_heads"), high=2**14
        )
        if self.heads % self.kv_heads:
            config.fail("num_key_value_heads", f"a divisor of num_attention_heads {self.heads}")
        self.head_dim = self._head_dim(config, head_dim)
        self.context = config.integer("max_position_embeddings", high=MAX_CONTEXT_TOKENS)

    def _head_dim(self, config: JsonFields, default: int | None) -> int:
        if config.has("head_dim"):
            return config.integer("head_dim", high=512)
        if default is not None:
            return default
        if self.hidden % self.heads:
            config.fail("num_attention_heads", f"a divisor of hidden_size {self.hidden}")
        return self.hidden // self.heads


def decoder_shape(
    config: JsonFields,
    architecture: str,
    sizes: Sizes,
    ropes: tuple[RopeShape, ...],
    **features: Any,
) -> ModelShape:
    """A shape with what all decoders have in common; `features` replace it."""
    if "activation" not in features:
        features["activation"] = activation(config, "hidden_act", "silu")
    tied = features.pop("is_tied", False)
    common = {
        "architecture": architecture,
        "hidden_size": sizes.hidden,
        "intermediate_size": config.integer("intermediate_size"),
        "num_heads": sizes.heads,
        "num_kv_heads": sizes.kv_heads,
        "head_dim": sizes.head_dim,
        "vocab_size": config.integer("vocab_size", high=2**24),
        "context_tokens": _context_tokens(sizes, ropes),
        "layers": (LayerShape(),) * sizes.num_layers,
        "ropes": ropes,
        "norm_epsilon": config.number("rms_norm_eps", 1e-6),
        "attention_scale": sizes.head_dim**-0.5,
        "has_head": not architecture.endswith("Model"),
        "is_tied": config.flag("tie_word_embeddings", default=tied),
    }
    return ModelShape(**(common | features))


def activation(config: JsonFields, key: str, default: str) -> Activation:
    """The MLP's activation function. Raises `CheckpointUnsupported`."""
    named = config.text(key, default)
    if named in ACTIVATIONS:
        return ACTIVATIONS[named]
    raise CheckpointUnsupported(
        f"{config.file}: activation {named!r} is not supported; there are: "
        + ", ".join(sorted(ACTIVATIONS))
    )


def _context_tokens(sizes: Sizes, ropes: tuple[RopeShape, ...]) -> int:
    # Who adds yarn to a Qwen2.5 leaves max_position_embeddings as it was, and means the
    # longer context; in every other kind it is the context that the model was made for.
    longest = [
        int(rope.original_context_tokens * rope.factor) for rope in ropes if rope.kind == "yarn"
    ]
    return max([sizes.context, *longest])


def one_rope(config: JsonFields, sizes: Sizes) -> tuple[RopeShape, ...]:
    """The rope of a model that turns all its layers alike."""
    parameters = rope_parameters(config)
    for key in (FULL, WINDOWED):
        if parameters.has(key):
            parameters.fail(key, "no rope for one type of layer in this architecture")
    return (read_rope(RopeSource(config=config, parameters=parameters, head_dim=sizes.head_dim)),)


def windowed_layers(
    config: JsonFields, sizes: Sizes, is_windowed: Callable[[int], bool]
) -> list[bool]:
    """Which layers have a window, by the file's own list or else by the family's rule."""
    if not config.has("layer_types"):
        return [is_windowed(index) for index in range(sizes.num_layers)]
    types = config.texts("layer_types")
    if len(types) != sizes.num_layers or not set(types) <= {WINDOWED, FULL}:
        config.fail("layer_types", f"a list of {sizes.num_layers} of {WINDOWED!r} and {FULL!r}")
    return [kind == WINDOWED for kind in types]
