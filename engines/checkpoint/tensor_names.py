"""Which tensors of a checkpoint fill which weight of a model.

Names in checkpoints are those of transformers' modules; ours are those of models/ and
layers/. Query, key and value are one matrix here, and so are gate and up: a checkpoint
may have them apart (Llama) or together (Phi-3), and either is read for every model.
"""

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from engines.checkpoint.checkpoint_errors import CheckpointUnavailable
from engines.checkpoint.model_shape import ModelShape

_LAYER = re.compile(r"(layers\.\d+)\.(.+)\.(weight|bias)")
_DECODER_PREFIXES = ("model.", "", "model.language_model.", "language_model.model.")
_ENCODER_PREFIXES = ("", "bert.")
_HEADS = ("lm_head.weight", "language_model.lm_head.weight")
# Ours to theirs; where theirs are several, the first is them together, the rest them apart.
_DECODER: Mapping[str, tuple[str, ...]] = {
    "input_norm": ("input_layernorm",),
    "attention.qkv": (
        "self_attn.qkv_proj",
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
    ),
    "attention.out": ("self_attn.o_proj",),
    "attention.query_norm": ("self_attn.q_norm",),
    "attention.key_norm": ("self_attn.k_norm",),
    "mlp_norm": ("post_attention_layernorm",),
    "mlp.gate_up": ("mlp.gate_up_proj", "mlp.gate_proj", "mlp.up_proj"),
    "mlp.down": ("mlp.down_proj",),
}
_POST_NORMS: Mapping[str, tuple[str, ...]] = {
    "post_attention_norm": ("post_attention_layernorm",),
    "mlp_norm": ("pre_feedforward_layernorm",),
    "post_mlp_norm": ("post_feedforward_layernorm",),
}
_ENCODER: Mapping[str, tuple[str, ...]] = {
    "qkv": (
        "attention.self.qkv",
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
    ),
    "out": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "up": ("intermediate.dense",),
    "down": ("output.dense",),
    "mlp_norm": ("output.LayerNorm",),
}
_ENCODER_TABLES: Mapping[str, str] = {
    "tokens": "embeddings.word_embeddings.weight",
    "positions": "embeddings.position_embeddings.weight",
    "token_types": "embeddings.token_type_embeddings.weight",
    "norm.weight": "embeddings.LayerNorm.weight",
    "norm.bias": "embeddings.LayerNorm.bias",
}
# Tensors that a file may have and no model here needs: tables that are computed, a
# multimodal model's other parts, heads for tasks that are not served.
_NEEDLESS = re.compile(
    r".*\.inv_freq|.*\.position_ids|(model\.)?(vision_tower|multi_modal_projector)\..*"
    r"|(bert\.)?pooler\..*|cls\..*"
)


@dataclass(frozen=True, slots=True)
class Source:
    """The names that one weight may have: whole, or in parts from top to bottom."""

    whole: str
    parts: tuple[str, ...] = ()


class TensorNames:
    """The names in one checkpoint, whose tensors may all carry a prefix."""

    def __init__(self, shape: ModelShape, present: Container[str]) -> None:
        self._shape = shape
        self._layer = _ENCODER if shape.is_encoder else _DECODER
        if shape.has_post_norms:
            self._layer = {**self._layer, **_POST_NORMS}
        prefixes = _ENCODER_PREFIXES if shape.is_encoder else _DECODER_PREFIXES
        table = _ENCODER_TABLES["tokens"] if shape.is_encoder else "embed_tokens.weight"
        found = [prefix for prefix in prefixes if prefix + table in present]
        self._prefix = found[0] if found else prefixes[0]
        self.head = next((name for name in _HEADS if name in present), _HEADS[0])
        # A tied table may be stored under either of its names.
        has_table = self._prefix + table in present
        self._table = self.head if shape.is_tied and not has_table else self._prefix + table

    def source(self, weight: str) -> Source:
        """Where `weight`, a parameter's own name, comes from."""
        if weight == "head.weight":
            return Source(self.head)
        if weight in ("embedding.weight", "tokens"):
            return Source(self._table)
        if weight in _ENCODER_TABLES and self._shape.is_encoder:
            return Source(self._prefix + _ENCODER_TABLES[weight])
        match = _LAYER.fullmatch(weight)
        if match is None:
            return Source(self._prefix + weight)
        layer, module, kind = match.groups()
        layers = "encoder.layer" if self._shape.is_encoder else "layers"
        start = f"{self._prefix}{layers}{layer.removeprefix('layers')}"
        whole, *parts = (f"{start}.{theirs}.{kind}" for theirs in self._layer[module])
        return Source(whole, tuple(parts))

    def is_needless(self, name: str) -> bool:
        """May the checkpoint have this tensor though nothing is filled from it?"""
        is_spare_head = name == self.head and (self._shape.is_tied or not self._shape.has_head)
        return is_spare_head or _NEEDLESS.fullmatch(name) is not None


def check_names(needed: Iterable[str], present: Iterable[str], names: TensorNames) -> None:
    """Refuse a checkpoint that lacks a tensor, or has one that no weight takes."""
    wanted, there = set(needed), set(present)
    if missing := sorted(wanted - there):
        raise CheckpointUnavailable(
            f"the weights lack {_listed(missing)}; config.json does not fit them, or a file is "
            "not there"
        )
    extra = sorted(name for name in there - wanted if not names.is_needless(name))
    if extra:
        raise CheckpointUnavailable(
            f"the weights have {_listed(extra)}, for which the model that config.json describes "
            "has no place"
        )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
