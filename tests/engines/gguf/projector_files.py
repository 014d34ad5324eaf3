"""Writes small vision projectors with random weights, as LLaVA 1.5 has them, and pictures."""

import io
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from PIL import Image

WIDTH, HEADS, LAYERS, FEED_FORWARD = 32, 4, 2, 64
IMAGE_SIZE, PATCH_SIZE = 32, 8
NUM_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2
MODEL_WIDTH = 64  # of the models that `write_gguf` writes


def write_projector(path: Path, *, model_width: int = MODEL_WIDTH, **changes: Any) -> Path:
    """Write a projector; `changes` are made to its metadata."""
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    numbers: dict[str, Any] = {
        "clip.has_vision_encoder": True,
        "clip.has_llava_projector": True,
        "clip.use_gelu": True,
        "clip.projector_type": "mlp",
        "clip.vision.image_size": IMAGE_SIZE,
        "clip.vision.patch_size": PATCH_SIZE,
        "clip.vision.embedding_length": WIDTH,
        "clip.vision.feed_forward_length": FEED_FORWARD,
        "clip.vision.block_count": LAYERS,
        "clip.vision.attention.head_count": HEADS,
        "clip.vision.projection_dim": model_width,
        "clip.vision.attention.layer_norm_epsilon": 1e-5,
        **changes,
    }
    for key, value in numbers.items():
        _add(writer, key, value)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    merges = numbers["clip.projector_type"] == "qwen2vl_merger"
    tensors = _merger_tensors if merges else _tensors
    for name, tensor in tensors(np.random.default_rng(7), model_width):
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: object) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case _:
            writer.add_string(key, str(value))


def _normal(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.normal(0, shape[-1] ** -0.5, shape).astype(np.float32)


def _linear(random: np.random.Generator, name: str, rows: int, columns: int):
    yield f"{name}.weight", _normal(random, rows, columns)
    yield f"{name}.bias", 0.1 * _normal(random, rows)


def _norm(name: str):
    yield f"{name}.weight", np.ones(WIDTH, np.float32)
    yield f"{name}.bias", np.zeros(WIDTH, np.float32)


def _tensors(random: np.random.Generator, model_width: int):
    """A CLIP encoder and two layers, as LLaVA 1.5 has them."""
    yield "v.class_embd", _normal(random, WIDTH)
    yield "v.patch_embd.weight", _normal(random, WIDTH, 3, PATCH_SIZE, PATCH_SIZE)
    yield "v.position_embd.weight", _normal(random, NUM_TOKENS + 1, WIDTH)
    yield from _norm("v.pre_ln")
    yield from _layers(random)
    yield from _linear(random, "mm.0", model_width, WIDTH)
    yield from _linear(random, "mm.2", model_width, model_width)


def _merger_tensors(random: np.random.Generator, model_width: int):
    """Qwen2-VL's encoder, which makes one token of four patches."""
    yield "v.patch_embd.weight", _normal(random, WIDTH, 3, PATCH_SIZE, PATCH_SIZE)
    yield "v.patch_embd.weight.1", _normal(random, WIDTH, 3, PATCH_SIZE, PATCH_SIZE)
    yield from _layers(random)
    yield from _linear(random, "mm.0", 4 * WIDTH, 4 * WIDTH)
    yield from _linear(random, "mm.2", model_width, 4 * WIDTH)


def _layers(random: np.random.Generator):
    yield from _norm("v.post_ln")
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            yield from _linear(random, f"v.blk.{layer}.{name}", WIDTH, WIDTH)
        yield from _linear(random, f"v.blk.{layer}.ffn_up", FEED_FORWARD, WIDTH)
        yield from _linear(random, f"v.blk.{layer}.ffn_down", WIDTH, FEED_FORWARD)
        yield from _norm(f"v.blk.{layer}.ln1")
        yield from _norm(f"v.blk.{layer}.ln2")


def picture(color: int, *, kind: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    """A picture with something on it, as a file."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[: size[1] // 2] = (color, 255 - color, color // 2)
    pixels[size[1] // 2 :, ::2] = (0, color, 200)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, kind)
    return written.getvalue()
