"""Writes LoRA adapters, and the change that each of them makes when it is merged instead."""

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

RANK, ALPHA = 4, 8.0
WIDTH, FEED_FORWARD = 64, 160  # of the models that `write_gguf` writes
TARGETS = {  # tensor: rows, columns
    "blk.0.attn_q.weight": (WIDTH, WIDTH),
    "blk.1.ffn_down.weight": (WIDTH, FEED_FORWARD),
}


def halves(
    seed: int = 5, targets: Mapping[str, tuple[int, int]] = TARGETS
) -> dict[str, np.ndarray]:
    """A and B of each tensor, as an adapter's file has them."""
    random = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for name, (rows, columns) in targets.items():
        found[f"{name}.lora_a"] = random.normal(0, 0.2, (RANK, columns)).astype(np.float32)
        found[f"{name}.lora_b"] = random.normal(0, 0.2, (rows, RANK)).astype(np.float32)
    return found


def merged(tensors: Mapping[str, np.ndarray], scale: float = 1.0) -> dict[str, np.ndarray]:
    """What the adapter adds to each tensor of its model: B·A, times alpha / rank."""
    names = {name.removesuffix(".lora_a") for name in tensors if name.endswith(".lora_a")}
    factor = np.float32(scale * ALPHA / RANK)
    return {
        name: factor * (tensors[f"{name}.lora_b"] @ tensors[f"{name}.lora_a"]) for name in names
    }


def write_adapter(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    *,
    architecture: str = "llama",
    kind: str = "adapter",
    more: Mapping[str, list[int]] | None = None,
) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(kind)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    for key, numbers in (more or {}).items():
        writer.add_array(key, numbers)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
