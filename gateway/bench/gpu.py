"""Which GPU this machine has, asked of the driver and not of torch."""

import shutil
import subprocess

from gateway.bench.roofline import GPUS, Machine

_SECONDS = 10.0


def gpu_name() -> str | None:
    """The first GPU's name, as nvidia-smi tells it; None where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        told = subprocess.run(
            [program, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(told.splitlines()), "").strip() or None


def machine_here() -> Machine | None:
    """This machine's GPU, if its published figures are known."""
    name = gpu_name()
    return GPUS.get(name) if name else None
