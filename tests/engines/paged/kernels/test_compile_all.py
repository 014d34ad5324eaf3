"""The interpreter takes more than the compiler does, and has registers without end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[4]
# Compute capability, and shared memory of one program in bytes: H100 and RTX 4090.
DEVICES = {"H100": (90, 227 * 1024), "RTX 4090": (89, 99 * 1024)}


def compiled(capability: int, shared_memory: int, cache: Path) -> list[dict[str, Any]]:
    environment = os.environ | {"TRITON_CACHE_DIR": str(cache), "TRITON_INTERPRET": "0"}
    program = [sys.executable, "-m", "tests.engines.paged.kernels.compile_all"]
    done = subprocess.run(
        [*program, str(capability), str(shared_memory)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("device", DEVICES)
def test_every_kernel_compiles_for_a_gpu_and_fits_it(device: str, tmp_path: Path) -> None:
    capability, shared_memory = DEVICES[device]

    kernels = compiled(capability, shared_memory, tmp_path)

    names = {kernel["kernel"] for kernel in kernels}
    assert {"decode_attention._kernel", "prefill_attention._kernel"} <= names
    assert device != "H100" or len(names) >= 11
    assert [kernel for kernel in kernels if kernel["shared_memory"] > shared_memory] == []
    assert [kernel for kernel in kernels if kernel["spilled"]] == []
    # Attention without tensor cores would be right, and ten times slower. Float32 has none here.
    attention = [kernel for kernel in kernels if kernel["kernel"].endswith("attention._kernel")]
    with_tensor_cores = [kernel["tensor_cores"] for kernel in attention]
    assert with_tensor_cores == [True] * 2 + ([True] * 2 + [False] * 2) * (device == "H100")
