"""Writes the trained weights twice: `starter.gguf` and the files that transformers reads.

Both hold exactly the same numbers. The matrices are rounded to q8_0 with every block's
scale a power of two, so that each weight is an eight-bit integer times that scale, which
bfloat16 holds without rounding: `model.safetensors` is the GGUF file, dequantized.
"""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from engines.starter.network import Shape
from engines.starter.template import CHAT_TEMPLATE, SPECIAL_TOKENS, TEXT_END, TURN_END

BLOCK = 32


def export(weights: dict[str, Tensor], shape: Shape, directory: Path) -> None:
    """Write every file of the model but the tokenizer's, which has to be there already."""
    rounded = {name: _rounded(weight.float()) for name, weight in weights.items()}
    as_bfloat16 = {name: weight.bfloat16().contiguous() for name, weight in rounded.items()}
    save_file(as_bfloat16, str(directory / "model.safetensors"), metadata={"format": "pt"})
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    special = {
        "bos_token_id": tokenizer.token_to_id(TEXT_END),
        "eos_token_id": tokenizer.token_to_id(TURN_END),
        "pad_token_id": tokenizer.token_to_id(TEXT_END),
    }
    _write_json(directory / "config.json", {**shape.to_config(), **special})
    _write_json(directory / "generation_config.json", {**special, "do_sample": False})
    _write_gguf(directory / "starter.gguf", rounded, shape, tokenizer)


def _rounded(weight: Tensor) -> Tensor:
    """Matrices to eight bits and a power of two for each block, vectors to bfloat16."""
    if weight.dim() < 2:
        return weight.bfloat16().float()
    blocks = weight.reshape(-1, BLOCK)
    scale = _scale_of(blocks)
    return ((blocks / scale).round().clamp(-127, 127) * scale).reshape(weight.shape)


def _scale_of(blocks: Tensor) -> Tensor:
    largest = blocks.abs().amax(dim=1, keepdim=True).clamp_min(2.0**-14)
    return torch.exp2(torch.ceil(torch.log2(largest / 127)))


def _as_q8_0(weight: Tensor) -> np.ndarray:
    """Rounded weights as rows of q8_0 blocks: a float16 scale and 32 integers each.

    Not `gguf.quants`, which would choose scales of its own."""
    blocks = weight.reshape(-1, BLOCK)
    scale = _scale_of(blocks)
    integers = (blocks / scale).round().to(torch.int8).numpy().view(np.uint8)
    packed = np.concatenate([scale.half().numpy().view(np.uint8), integers], axis=1)
    return packed.reshape(weight.shape[0], -1)


def _write_gguf(path: Path, weights: dict[str, Tensor], shape: Shape, tokenizer: Tokenizer) -> None:
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("starter")
    writer.add_description("The starter model of Penstock")
    writer.add_license("apache-2.0")
    writer.add_size_label("5.5M")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
    writer.add_vocab_size(shape.vocab_size)
    _add_tokenizer(writer, tokenizer)
    for name, weight in weights.items():
        _add_tensor(writer, name, weight, shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    types = [
        gguf.TokenType.CONTROL if token in SPECIAL_TOKENS else gguf.TokenType.NORMAL
        for token in tokens
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(tokens.index(TEXT_END))
    writer.add_eos_token_id(tokens.index(TURN_END))
    writer.add_pad_token_id(tokens.index(TEXT_END))
    writer.add_add_bos_token(value=False)
    writer.add_add_eos_token(value=False)
    writer.add_add_space_prefix(value=False)
    writer.add_chat_template(CHAT_TEMPLATE)


_GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _add_tensor(writer: gguf.GGUFWriter, name: str, weight: Tensor, shape: Shape) -> None:
    if "q_proj" in name:
        weight = _interleaved(weight, shape.num_attention_heads)
    if "k_proj" in name:
        weight = _interleaved(weight, shape.num_key_value_heads)
    name = gguf_name(name)
    if weight.dim() < 2:
        writer.add_tensor(name, weight.numpy())
        return
    writer.add_tensor(name, _as_q8_0(weight), raw_dtype=gguf.GGMLQuantizationType.Q8_0)


def gguf_name(name: str) -> str:
    """`model.layers.3.mlp.up_proj.weight` is `blk.3.ffn_up.weight` in a GGUF file."""
    stem, _, suffix = name.rpartition(".")
    if not stem.startswith("model.layers."):
        return f"{_GGUF_NAMES[stem]}.{suffix}"
    layer, _, part = stem.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{_GGUF_NAMES[part]}.{suffix}"


def _interleaved(weight: Tensor, num_heads: int) -> Tensor:
    """The rows of a head as llama.cpp rotates them: pairs side by side, not half and half."""
    rows, columns = weight.shape
    halves = weight.reshape(num_heads, 2, rows // num_heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
