"""Puts GGUF files together byte by byte, so that every field of one can lie."""

import struct
from typing import Any

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 5, 6, 7, 8, 9, 10
LAYOUTS = {0: "<B", 1: "<b", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 12: "<d"}


def packed(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def value(value_type: int, content: Any) -> bytes:
    """A metadata value as bytes, its type first."""
    if value_type == STRING:
        return struct.pack("<I", STRING) + packed(content)
    return struct.pack("<I", value_type) + struct.pack(LAYOUTS[value_type], content)


def array(item_type: int, items: list[Any], length: int | None = None) -> bytes:
    head = struct.pack("<IIQ", ARRAY, item_type, len(items) if length is None else length)
    if item_type == STRING:
        return head + b"".join(packed(item) for item in items)
    return head + b"".join(struct.pack(LAYOUTS[item_type], item) for item in items)


def tensor(
    name: str | bytes, shape: tuple[int, ...] = (32, 4), kind: int = 0, offset: int = 0
) -> bytes:
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    return packed(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, offset)


def sound_metadata() -> dict[str, bytes]:
    return {
        "general.architecture": value(STRING, "llama"),
        "general.name": value(STRING, "Tiny"),
        "llama.block_count": value(UINT32, 2),
        "llama.embedding_length": value(UINT32, 32),
        "llama.context_length": value(UINT32, 128),
        "llama.attention.head_count": value(UINT32, 4),
        "llama.attention.head_count_kv": value(UINT32, 2),
        "llama.attention.layer_norm_rms_epsilon": value(FLOAT32, 1e-5),
        "tokenizer.ggml.model": value(STRING, "gpt2"),
        "tokenizer.ggml.tokens": array(STRING, ["a", "b", "c", "d"]),
        "tokenizer.ggml.token_type": array(INT32, [1, 1, 1, 1]),
        "tokenizer.ggml.scores": array(FLOAT32, [0.0] * 4),
    }


def gguf_bytes(
    metadata: dict[str, bytes] | None = None,
    tensors: list[bytes] | None = None,
    *,
    version: int = 3,
    num_tensors: int | None = None,
    num_keys: int | None = None,
    data: bytes = bytes(512),
    alignment: int = 32,
) -> bytes:
    metadata = sound_metadata() if metadata is None else metadata
    tensors = [tensor("token_embd.weight")] if tensors is None else tensors
    head = b"GGUF" + struct.pack(
        "<IQQ",
        version,
        len(tensors) if num_tensors is None else num_tensors,
        len(metadata) if num_keys is None else num_keys,
    )
    head += b"".join(packed(key) + body for key, body in metadata.items()) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data
