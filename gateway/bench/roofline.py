"""The least time in which a machine could have produced a run's tokens.

A roofline (Williams, Waterman and Patterson, 2009): a step takes at least as
long as reading its bytes from memory, and at least as long as its arithmetic.
Bytes of a step are the weights once, and the keys and values of every running
sequence; the embedding table, activations, writes and logits are left out, so
nothing can be above 100 %. Prompt tokens found in a prefix cache cost nothing.
"""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct


class Machine(Struct, frozen=True, kw_only=True):
    """What the hardware can do; `source` says who says so."""

    bytes_per_second: float
    flops_per_second: float
    source: str


# Published peaks: memory bandwidth, and dense bf16 on the tensor cores (data sheets that
# give it with sparsity give twice as much). Measured copies reach about nine tenths.
_DATA_CENTER = "https://www.nvidia.com/en-us/data-center"
GPUS: Mapping[str, Machine] = {
    name: Machine(
        bytes_per_second=gigabytes * 1e9, flops_per_second=teraflops * 1e12, source=source
    )
    for name, gigabytes, teraflops, source in (
        ("NVIDIA H200", 4800, 989, f"{_DATA_CENTER}/h200/"),
        ("NVIDIA H100 80GB HBM3", 3350, 989, f"{_DATA_CENTER}/h100/"),
        ("NVIDIA H100 PCIe", 2000, 756, f"{_DATA_CENTER}/h100/"),
        ("NVIDIA A100-SXM4-80GB", 2039, 312, f"{_DATA_CENTER}/a100/"),
        ("NVIDIA A100 80GB PCIe", 1935, 312, f"{_DATA_CENTER}/a100/"),
        ("NVIDIA A100-SXM4-40GB", 1555, 312, f"{_DATA_CENTER}/a100/"),
        ("NVIDIA L40S", 864, 362, f"{_DATA_CENTER}/l40s/"),
        ("NVIDIA L4", 300, 121, f"{_DATA_CENTER}/l4/"),
    )
}


class RooflineUnknown(ValueError):
    """No bound can be computed; says what is missing."""


class ModelShape(Struct, frozen=True, kw_only=True):
    """What of a dense decoder decides its bytes and arithmetic."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    bytes_per_weight: int = 2
    window: int | None = None
    windowed_layers: int = 0

    @property
    def weights(self) -> int:
        """Parameters that every step reads: the layers and the output head."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate) + self.head

    @property
    def head(self) -> int:
        """Parameters of the output head, needed for sampled tokens only."""
        return self.hidden * self.vocab

    @property
    def kv_bytes_per_layer(self) -> int:
        """Bytes of one token's key and value in one layer."""
        return 2 * self.kv_heads * self.head_dim * self.bytes_per_weight


class Work(Struct, frozen=True):
    """One sequence: tokens of the prompt, those of them that were cached, tokens produced."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int


def shape_of(folder: Path) -> ModelShape:
    """The shape in a HuggingFace `config.json`. Raises `RooflineUnknown`."""
    path = folder / "config.json" if folder.is_dir() else folder
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
        return _shape(config.get("text_config") or config)
    except (OSError, ValueError) as error:
        raise RooflineUnknown(f"{path} cannot be read: {error}") from None
    except KeyError as error:
        raise RooflineUnknown(f"{path} has no {error}; it is no dense decoder's") from None


def ideal_seconds(
    works: Sequence[Work], shape: ModelShape, machine: Machine, *, at_once: int
) -> float:
    """The least time for these sequences, `at_once` of them at a time, in this order."""
    waiting = deque(works)
    running: list[tuple[int, int]] = []  # (context, tokens left)
    seconds = 0.0
    while waiting or running:
        step = _Step(shape)
        decoded: list[tuple[int, int]] = []
        for context, left in running:
            step.decode(context)
            decoded.append((context + 1, left - 1))
        while waiting and len(decoded) < at_once:
            work = waiting.popleft()
            step.prefill(work)
            decoded.append((work.prompt_tokens + 1, work.output_tokens - 1))
        seconds += step.seconds(machine)
        running = [sequence for sequence in decoded if sequence[1] > 0]
    return seconds


def decode_seconds(shape: ModelShape, machine: Machine, *, batch: int, context: int) -> float:
    """The least time of one step that decodes `batch` sequences of this context."""
    step = _Step(shape)
    for _ in range(batch):
        step.decode(context)
    return step.seconds(machine)


def prefill_seconds(shape: ModelShape, machine: Machine, *, prompt_tokens: int) -> float:
    """The least time in which one prompt gets its first token."""
    step = _Step(shape)
    step.prefill(Work(prompt_tokens, 0, 1))
    return step.seconds(machine)


class _Step:
    """Adds up one forward pass."""

    def __init__(self, shape: ModelShape) -> None:
        self._shape = shape
        self._bytes = shape.weights * shape.bytes_per_weight
        self._flops = 0

    def decode(self, context: int) -> None:
        """One more sequence that gets its next token after `context` others."""
        seen = self._seen(context)
        self._bytes += seen * self._shape.kv_bytes_per_layer
        self._flops += 2 * self._shape.weights + self._attention(seen)

    def prefill(self, work: Work) -> None:
        """A prompt whose cached beginning is not computed again."""
        shape = self._shape
        cached, new = work.cached_tokens, work.prompt_tokens - work.cached_tokens
        full = _sum_to(cached + new) - _sum_to(cached)  # each token sees those before and itself
        windowed = _sum_to(cached + new, shape.window) - _sum_to(cached, shape.window)
        seen = (shape.layers - shape.windowed_layers) * full + shape.windowed_layers * windowed
        self._bytes += self._seen(cached) * shape.kv_bytes_per_layer
        self._flops += 2 * (shape.weights - shape.head) * new + 2 * shape.head
        self._flops += self._attention(seen)

    def seconds(self, machine: Machine) -> float:
        return max(self._bytes / machine.bytes_per_second, self._flops / machine.flops_per_second)

    def _seen(self, context: int) -> int:
        """Tokens whose keys are read, summed over the layers."""
        shape = self._shape
        full = (shape.layers - shape.windowed_layers) * context
        return full + shape.windowed_layers * min(context, shape.window or context)

    def _attention(self, seen: int) -> int:
        return 4 * self._shape.heads * self._shape.head_dim * seen


def _sum_to(count: int, window: int | None = None) -> int:
    """The sum of min(i, window) for i from 1 to `count`."""
    within = min(count, window or count)
    return within * (within + 1) // 2 + (count - within) * within


def _shape(config: Mapping[str, Any]) -> ModelShape:
    if config.get("quantization_config"):
        raise RooflineUnknown("quantized weights: their bytes are not in the config's shapes")
    if config.get("num_experts") or config.get("num_local_experts"):
        raise RooflineUnknown("a mixture of experts: which weights a step reads is not known")
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    window, windowed_layers = _windows(config)
    return ModelShape(
        layers=config["num_hidden_layers"],
        hidden=hidden,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or hidden // heads,
        intermediate=config["intermediate_size"],
        vocab=config["vocab_size"],
        bytes_per_weight=4 if _dtype(config) == "float32" else 2,
        window=window,
        windowed_layers=windowed_layers,
    )


def _dtype(config: Mapping[str, Any]) -> str:
    return str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")


def _windows(config: Mapping[str, Any]) -> tuple[int | None, int]:
    """The window and how many layers have it; all, where the config does not say which."""
    window = config.get("sliding_window")
    if not window or config.get("use_sliding_window") is False:
        return None, 0
    kinds: Sequence[str] = config.get("layer_types") or ()
    if kinds:
        return window, sum(kind == "sliding_attention" for kind in kinds)
    return window, config["num_hidden_layers"]
