"""Writes BERT classifiers with random weights, and what transformers calls their tensors."""

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np

WIDTH, HEADS, LAYERS, FEED_FORWARD, CONTEXT = 32, 4, 2, 64, 64
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = (*SPECIAL, "what", "is", "the", "sky", "blue", "green", "grass", "sea", "a", "cat", "##s")
_LAYER = {
    "attn_q": ("attention.self.query", WIDTH, WIDTH),
    "attn_k": ("attention.self.key", WIDTH, WIDTH),
    "attn_v": ("attention.self.value", WIDTH, WIDTH),
    "attn_output": ("attention.output.dense", WIDTH, WIDTH),
    "ffn_up": ("intermediate.dense", FEED_FORWARD, WIDTH),
    "ffn_down": ("output.dense", WIDTH, FEED_FORWARD),
}
_NORMS = {"attn_output_norm": "attention.output.LayerNorm", "layer_output_norm": "output.LayerNorm"}


def write_classifier(
    path: Path,
    *,
    seed: int = 4,
    labels: Sequence[str] = ("LABEL_0",),
    adds_eos: bool | None = None,
) -> dict[str, np.ndarray]:
    """Write the model; returns its weights by transformers' names."""
    weights: dict[str, np.ndarray] = {}
    writer = gguf.GGUFWriter(path, "bert")
    _write_metadata(writer, labels)
    if adds_eos is not None:  # old converters do not say
        writer.add_add_eos_token(adds_eos)
        writer.add_add_sep_token(not adds_eos)
    for name, theirs, tensor in _tensors(np.random.default_rng(seed), len(labels)):
        writer.add_tensor(name, tensor)
        weights[theirs] = tensor
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def _write_metadata(writer: gguf.GGUFWriter, labels: Sequence[str]) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_classifier_output_labels(labels)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    # llama.cpp spells a word's beginning, and the checkpoint what goes on with one.
    writer.add_token_list(
        [
            word if word in SPECIAL else word[2:] if word.startswith("##") else f"▁{word}"
            for word in WORDS
        ]
    )
    writer.add_token_types(
        [gguf.TokenType.CONTROL if word in SPECIAL else gguf.TokenType.NORMAL for word in WORDS]
    )
    writer.add_token_type_count(2)
    for add, mark in (
        (writer.add_pad_token_id, "[PAD]"),
        (writer.add_unk_token_id, "[UNK]"),
        (writer.add_bos_token_id, "[CLS]"),
        (writer.add_sep_token_id, "[SEP]"),
        (writer.add_eos_token_id, "[SEP]"),
    ):
        add(WORDS.index(mark))


def _tensors(random: np.random.Generator, num_labels: int):
    def normal(*shape: int) -> np.ndarray:
        return random.normal(0, 0.4, shape).astype(np.float32)

    def linear(ours: str, theirs: str, rows: int, columns: int):
        yield f"{ours}.weight", f"{theirs}.weight", normal(rows, columns)
        yield f"{ours}.bias", f"{theirs}.bias", normal(rows)

    def norm(ours: str, theirs: str):
        yield f"{ours}.weight", f"{theirs}.weight", 1 + normal(WIDTH)
        yield f"{ours}.bias", f"{theirs}.bias", normal(WIDTH)

    for ours, theirs, rows in (
        ("token_embd", "word_embeddings", len(WORDS)),
        ("position_embd", "position_embeddings", CONTEXT),
        ("token_types", "token_type_embeddings", 2),
    ):
        yield f"{ours}.weight", f"bert.embeddings.{theirs}.weight", normal(rows, WIDTH)
    yield from norm("token_embd_norm", "bert.embeddings.LayerNorm")
    for layer in range(LAYERS):
        prefix = f"bert.encoder.layer.{layer}"
        for ours, (theirs, rows, columns) in _LAYER.items():
            yield from linear(f"blk.{layer}.{ours}", f"{prefix}.{theirs}", rows, columns)
        for ours, theirs in _NORMS.items():
            yield from norm(f"blk.{layer}.{ours}", f"{prefix}.{theirs}")
    # Small enough that the tanh between these two does not lose what tells texts apart.
    yield "cls.weight", "bert.pooler.dense.weight", 0.2 * normal(WIDTH, WIDTH)
    yield "cls.bias", "bert.pooler.dense.bias", 0.2 * normal(WIDTH)
    yield "cls.output.weight", "classifier.weight", 3 * normal(num_labels, WIDTH)
    yield "cls.output.bias", "classifier.bias", normal(num_labels)
