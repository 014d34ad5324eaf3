"""Compiles every kernel for a GPU that need not be there, and prints what each takes as JSON.

Run as a program, because Triton decides at its import whether it interprets or compiles:

    python -m tests.engines.paged.kernels.compile_all 90 232448
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from engines.paged.kernels import (
    activation,
    decode_attention,
    prefill_attention,
    rms_norm,
    rope,
    tile_sizes,
)

BRAIN = torch.bfloat16
# Query heads, key heads, head size, window, softcap: Llama 8B, Gemma 2 9B, Qwen2 0.5B, Phi-3.
SHAPES = [
    (32, 8, 128, None, None),
    (16, 8, 256, 4096, 50.0),
    (14, 2, 64, None, None),
    (32, 32, 96, 2047, None),
]
PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"


class Absent:
    """A CUDA device of a given compute capability, as far as compiling goes."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


def meta(*shape: int, dtype: torch.dtype = BRAIN) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def launch_all(dtype: torch.dtype) -> None:
    for num_heads, num_kv_heads, size, window, softcap in SHAPES:
        cache = meta(9, 16, num_kv_heads, size, dtype=dtype)
        tables, contexts = meta(8, 64, dtype=torch.int32), meta(8, dtype=torch.int32)
        options: dict[str, Any] = {"scale": 0.1, "window": window, "softcap": softcap}
        q = meta(64, num_heads, size, dtype=dtype)
        decode_attention.launch(q[:8], cache, cache, tables, contexts, **options, num_splits=4)
        starts = meta(9, dtype=torch.int32)
        prefill_attention.launch(
            q, cache, cache, tables, starts, contexts, **options, max_query_tokens=9
        )
        k, line = meta(64, num_kv_heads, size, dtype=dtype), meta(64, dtype=torch.int64)
        turn, weight = meta(99, size, dtype=torch.float32), meta(size, dtype=dtype)
        rope.launch(q, k, k, line, turn, line, cache, cache, q_weight=weight, k_weight=weight)
    x, weight = meta(64, 4096, dtype=dtype), meta(4096, dtype=dtype)
    rms_norm.launch(x, weight, 1e-5)
    rms_norm.launch_add(x, x, weight, 1e-5)
    for kind in ("silu", "gelu", "gelu_tanh"):
        activation.launch(meta(64, 8192, dtype=dtype), activation=kind)


def spilled_bytes(ptx: str, capability: int) -> int:
    """What the assembler had to keep in memory for want of registers."""
    architecture = f"sm_{capability}{'a' if capability >= 90 else ''}"
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [str(PTXAS), "-v", f"--gpu-name={architecture}", file.name, "-o", "/dev/null"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return sum(int(found) for found in re.findall(r"(\d+) bytes spill stores", said))


def compiling(run: Callable[..., Any], capability: int, told: list[dict[str, Any]]) -> Any:
    """Instead of a launch, a compilation."""

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        told.append(
            {
                "kernel": f"{self.fn.__module__.rpartition('.')[2]}.{self.fn.__name__}",
                "shared_memory": kernel.metadata.shared,
                "spilled": spilled_bytes(kernel.asm["ptx"], capability),
                "tensor_cores": "mma.sync" in kernel.asm["ptx"] or "wgmma" in kernel.asm["ptx"],
            }
        )

    return compile_only


def main(capability: int, shared_memory: int) -> None:
    told: list[dict[str, Any]] = []
    triton.runtime.driver.set_active(Absent(capability))
    JITFunction.run = compiling(JITFunction.run, capability, told)
    tile_sizes._HOPPER_SHARED_MEMORY = shared_memory
    for dtype in (BRAIN, torch.float32):
        launch_all(dtype)
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
