"""Compiles every kernel for a GPU that need not be there, and prints what each takes as JSON.

Run as a program, because Triton decides at its import whether it interprets or compiles. The
arguments are a compute capability and the bytes of shared memory that a program may have there:

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
    logit_edits,
    prefill_attention,
    rms_norm,
    rope,
    sampling,
)

BRAIN = torch.bfloat16
# Query heads, key heads, head size, window, softcap.
LLAMA_8B = (32, 8, 128, None, None)
GEMMA_9B = (16, 8, 256, 4096, 50.0)
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


def launch_attention(shape: tuple[int, int, int, Any, Any], dtype: torch.dtype) -> None:
    num_heads, num_kv_heads, size, window, softcap = shape
    cache = meta(9, 16, num_kv_heads, size, dtype=dtype)
    tables, contexts = meta(8, 64, dtype=torch.int32), meta(8, dtype=torch.int32)
    options: dict[str, Any] = {"scale": 0.1, "window": window, "softcap": softcap}
    q = meta(64, num_heads, size, dtype=dtype)
    decode_attention.launch(q[:8], cache, cache, tables, contexts, **options, num_splits=4)
    starts = meta(9, dtype=torch.int32)
    prefill_attention.launch(
        q, cache, cache, tables, starts, contexts, **options, max_query_tokens=9
    )


def launch_the_rest() -> None:
    x, weight = meta(64, 4096), meta(4096)
    rms_norm.launch(x, weight, 1e-5)
    rms_norm.launch_add(x, x, weight, 1e-5)
    for kind in ("silu", "gelu", "gelu_tanh"):
        activation.launch(x, activation=kind)
    q, k, weight = meta(64, 32, 128), meta(64, 8, 128), meta(128)
    line, turn = meta(64, dtype=torch.int64), meta(99, 128, dtype=torch.float32)
    cache = meta(9, 16, 8, 128)
    rope.launch(q, k, k, line, turn, line, cache, cache, q_weight=weight, k_weight=weight)
    logits, share = meta(64, 128256, dtype=torch.float32), meta(64, dtype=torch.float32)
    sampling.launch(
        logits, temperature=share, top_k=line, top_p=share, min_p=share, seeds=line, positions=line
    )
    sampling.launch_keep_top_k(logits, line)
    logit_edits.launch_bitmask(logits, meta(64, 4008, dtype=torch.int32), line)
    logit_edits.launch_repeat(logits, meta(64, 64, dtype=torch.int64), share)
    logit_edits.launch_count(logits, logits.int(), line, share, share)


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
    prefill_attention.shared_memory_bytes = lambda _: shared_memory
    launch_attention(GEMMA_9B, BRAIN)
    if capability >= 90:
        launch_attention(LLAMA_8B, BRAIN)
        launch_attention(LLAMA_8B, torch.float32)
        launch_the_rest()
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
