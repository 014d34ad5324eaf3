"""Writes small GGUF files with random weights: real files for llama.cpp, without a download.

The vocabulary is byte-level (256 bytes, a few merges, ChatML's marks), the
architecture is llama, and the weights follow from a seed. Nothing such a model
says means anything; what it says is repeatable, and tests need no more.
"""

from pathlib import Path
from typing import Any

import gguf
import numpy as np

CHATML = (
    "{%- if tools %}{{- '<|im_start|>system\\n' }}{%- for tool in tools %}{{- tool | tojson }}"
    "{%- endfor %}{{- '<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>")
MERGED_WORDS = ("he", "ll", "hell", "hello", "th", "the", "Ġthe", "in", "Ġa", "an", "Ġan", "er")


def write_gguf(path: Path, **changes: Any) -> Path:
    """Write a valid random model to `path`; see `parameters` for what can be changed."""
    chosen = parameters(**changes)
    writer = gguf.GGUFWriter(path, chosen["architecture"])
    _write_metadata(writer, chosen)
    _write_vocabulary(writer, chosen)
    _write_tensors(writer, chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def parameters(**changes: Any) -> dict[str, Any]:
    """The shape of the model, with `changes` made to it."""
    chosen: dict[str, Any] = {
        "name": "random",
        "architecture": "llama",
        "rope_sections": None,  # of M-RoPE, for "qwen2vl"
        "layers": 2,
        "width": 64,
        "heads": 4,
        "kv_heads": 2,
        "feed_forward": 160,
        "context_tokens": 512,
        "extra_tokens": 0,  # plain tokens that make the vocabulary larger
        "silent_tokens": 0,  # so many first tokens are never said
        "quantization": "q8_0",  # or "f16" or "f32"
        "chat_template": CHATML,
        "add_bos": False,
        "pooling": None,  # gguf.PoolingType, for models made to embed
        "seed": 1,
        "eos": "<|im_end|>",
        "added": {},  # what is added to tensors, by name: a LoRA's change merged into the weights
        "gap_marks": False,  # three of the extra tokens stand around gaps
    }
    unknown = changes.keys() - chosen.keys()
    if unknown:
        raise TypeError(f"no such parameters: {sorted(unknown)}")
    return chosen | changes


def _write_metadata(writer: gguf.GGUFWriter, chosen: dict[str, Any]) -> None:
    writer.add_name(chosen["name"])
    writer.add_context_length(chosen["context_tokens"])
    writer.add_embedding_length(chosen["width"])
    writer.add_block_count(chosen["layers"])
    writer.add_feed_forward_length(chosen["feed_forward"])
    writer.add_head_count(chosen["heads"])
    writer.add_head_count_kv(chosen["kv_heads"])
    writer.add_rope_dimension_count(chosen["width"] // chosen["heads"])
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(
        {"q8_0": gguf.LlamaFileType.MOSTLY_Q8_0, "f16": gguf.LlamaFileType.MOSTLY_F16}.get(
            chosen["quantization"], gguf.LlamaFileType.ALL_F32
        )
    )
    if chosen["rope_sections"] is not None:
        writer.add_rope_dimension_sections(chosen["rope_sections"])
    if chosen["pooling"] is not None:
        writer.add_pooling_type(chosen["pooling"])


def _write_vocabulary(writer: gguf.GGUFWriter, chosen: dict[str, Any]) -> None:
    tokens = vocabulary(chosen["extra_tokens"])
    num_special = len(SPECIAL_TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL] * 3
        + [gguf.TokenType.USER_DEFINED] * (num_special - 3)
        + [gguf.TokenType.NORMAL] * (len(tokens) - num_special)
    )
    writer.add_token_merges(_merges(tokens))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(tokens.index(chosen["eos"]))
    writer.add_add_bos_token(chosen["add_bos"])
    if chosen["gap_marks"]:
        for number, place in enumerate(("pre", "suf", "mid")):
            mark = tokens.index(f"unused{number}")
            writer.add_uint32(f"tokenizer.ggml.fim_{place}_token_id", mark)
    if chosen["chat_template"] is not None:
        writer.add_chat_template(chosen["chat_template"])


def vocabulary(extra_tokens: int = 0) -> list[str]:
    """Every token as GPT-2 spells it, special ones first."""
    words = list(MERGED_WORDS)
    return [
        *SPECIAL_TOKENS,
        *byte_spellings(),
        *words,
        *(f"unused{number}" for number in range(extra_tokens)),
    ]


def byte_spellings() -> list[str]:
    """The character by which a byte-level vocabulary spells each byte, byte 0 first."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spellings: list[str] = []
    shifted = 256
    for byte in range(256):
        if byte in printable:
            spellings.append(chr(byte))
        else:
            spellings.append(chr(shifted))
            shifted += 1
    return spellings


def _merges(tokens: list[str]) -> list[str]:
    known = set(tokens)
    merges: list[str] = []
    for word in MERGED_WORDS:
        cut = next(at for at in range(len(word) - 1, 0, -1) if {word[:at], word[at:]} <= known)
        merges.append(f"{word[:cut]} {word[cut:]}")
    return merges


def _write_tensors(writer: gguf.GGUFWriter, chosen: dict[str, Any]) -> None:
    random = np.random.default_rng(chosen["seed"])
    width, feed_forward = chosen["width"], chosen["feed_forward"]
    kv_width = width // chosen["heads"] * chosen["kv_heads"]
    num_tokens = len(vocabulary(chosen["extra_tokens"]))

    def add(name: str, rows: int, columns: int, scale: float, *, num_zero: int = 0) -> None:
        weights = random.normal(0.0, scale, (rows, columns)).astype(np.float32)
        weights += chosen["added"].get(name, np.float32(0.0))
        weights[:num_zero] = 0.0
        if chosen["quantization"] == "q8_0":
            quantized = gguf.quants.quantize(weights, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            dtype = np.float16 if chosen["quantization"] == "f16" else np.float32
            writer.add_tensor(name, weights.astype(dtype))

    def add_ones(name: str) -> None:
        writer.add_tensor(name, np.ones(width, dtype=np.float32))

    add("token_embd.weight", num_tokens, width, 1.0)
    spread = width**-0.5
    for layer in range(chosen["layers"]):
        add_ones(f"blk.{layer}.attn_norm.weight")
        add(f"blk.{layer}.attn_q.weight", width, width, 2 * spread)
        add(f"blk.{layer}.attn_k.weight", kv_width, width, 2 * spread)
        add(f"blk.{layer}.attn_v.weight", kv_width, width, spread)
        add(f"blk.{layer}.attn_output.weight", width, width, spread)
        add_ones(f"blk.{layer}.ffn_norm.weight")
        add(f"blk.{layer}.ffn_gate.weight", feed_forward, width, spread)
        add(f"blk.{layer}.ffn_up.weight", feed_forward, width, spread)
        add(f"blk.{layer}.ffn_down.weight", width, feed_forward, feed_forward**-0.5)
    add_ones("output_norm.weight")
    add("output.weight", num_tokens, width, 2 * spread, num_zero=chosen["silent_tokens"])
