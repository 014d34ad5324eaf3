"""How large the KV cache may be: measured where it can be, and said plainly where it cannot.

On a GPU a real step of the largest size is run first, so that what is left is
known and not guessed.
"""

import gc
from contextlib import suppress

import torch

from engines.errors import Unavailable
from engines.paged.checkpoint import Checkpoint
from engines.paged.config import PagedConfig

MAX_CPU_CACHE_BYTES = 1 << 30
_MIB = 1 << 20


def blocks_that_fit(
    config: PagedConfig,
    checkpoint: Checkpoint,
    *,
    context_tokens: int,
    dtype: torch.dtype,
    free_bytes: int,
) -> int:
    """Blocks of the KV cache, in `free_bytes` or in what the configuration says.

    At most as many as all sequences could fill. Raises `Unavailable`, with what to
    change, when one sequence of `context_tokens` would not fit.
    """
    block_bytes = config.block_size * checkpoint.kv_bytes_per_token(dtype)
    wanted = config.max_sequences * _blocks(context_tokens, config.block_size)
    room = config.kv_cache_bytes if config.kv_cache_bytes is not None else free_bytes
    num_blocks = min(wanted, room // block_bytes)
    needed = _blocks(context_tokens, config.block_size)
    if num_blocks >= needed:
        return num_blocks
    raise Unavailable(
        f"the KV cache has room for {max(0, room) // _MIB} MiB, and one sequence of "
        f"{context_tokens} tokens needs {needed * block_bytes / _MIB:.0f} MiB: "
        + _way_out(config, num_blocks * config.block_size)
    )


def free_bytes(config: PagedConfig, device: torch.device, peak_bytes: int) -> int:
    """Bytes that the cache may take; `peak_bytes` is what torch needed at most until now."""
    if device.type != "cuda":
        return MAX_CPU_CACHE_BYTES
    free, total = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device)
    others = total - free - held
    return int(total * config.memory_fraction) - others - peak_bytes


def give_back() -> None:
    """Return to the GPU what torch keeps of tensors that are gone.

    Or the next model's profiling step would count it as needed (`peak_bytes`).
    """
    gc.collect()  # of torch's own cycles; what the engine has needs no collector
    # Of a GPU that has failed nothing comes back before the process ends.
    with suppress(RuntimeError):
        torch.cuda.empty_cache()


def _blocks(tokens: int, block_size: int) -> int:
    return -(-tokens // block_size)


def _way_out(config: PagedConfig, fitting_tokens: int) -> str:
    ways = [f"set context_tokens to at most {fitting_tokens}"] if fitting_tokens > 0 else []
    if config.kv_cache_bytes is not None:
        ways.append("raise kv_cache_bytes")
    else:
        ways.append(f"raise memory_fraction (it is {config.memory_fraction})")
    ways.append(f"lower max_batch_tokens (it is {config.max_batch_tokens})")
    return ", or ".join(ways)
