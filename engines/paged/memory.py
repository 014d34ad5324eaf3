"""How large the KV cache may be: measured where it can be, and said plainly where it cannot.

On a GPU a real step of the largest size is run first, so that what is left is
known and not guessed.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import torch

from engines.errors import Unavailable
from engines.paged.checkpoint import Checkpoint
from engines.paged.config import PagedConfig
from engines.paged.failures import is_out_of_memory
from engines.paged.gpus import WHOLE

MAX_CPU_CACHE_BYTES = 1 << 30
_MIB = 1 << 20
_OF_STEPS = ("max_batch_tokens", "max_sequences")


class CacheRoom(NamedTuple):
    """Bytes that the cache may take, and what would make them more."""

    num_bytes: int
    ways: tuple[str, ...]


def blocks_that_fit(
    config: PagedConfig,
    checkpoint: Checkpoint,
    *,
    context_tokens: int,
    dtype: torch.dtype,
    room: CacheRoom,
) -> int:
    """Blocks of the KV cache that `room` is enough for.

    At most as many as all sequences could fill. Raises `Unavailable`, with what to
    change, when one sequence of `context_tokens` would not fit.
    """
    block_bytes = config.block_size * checkpoint.kv_bytes_per_token(dtype)
    wanted = config.max_sequences * _blocks(context_tokens, config.block_size)
    num_blocks = min(wanted, room.num_bytes // block_bytes)
    needed = _blocks(context_tokens, config.block_size)
    if num_blocks >= needed:
        return num_blocks
    ways = room.ways
    if num_blocks > 0:
        ways = (f"set context_tokens to at most {num_blocks * config.block_size}", *ways)
    raise Unavailable(
        f"the KV cache has room for {max(0, room.num_bytes) // _MIB} MiB, and one sequence of "
        f"{context_tokens} tokens needs {needed * block_bytes / _MIB:.0f} MiB: "
        + ", or ".join(ways)
    )


def cache_room(config: PagedConfig, device: torch.device, peak_bytes: int) -> CacheRoom:
    """What the policy says, or else what there is: `peak_bytes` torch needed at most until now."""
    if config.kv_cache_bytes is not None:
        return CacheRoom(config.kv_cache_bytes, ("raise kv_cache_bytes",))
    if device.type != "cuda":
        unsaid = f"set kv_cache_bytes (unset, it is {MAX_CPU_CACHE_BYTES} on a CPU)"
        return CacheRoom(MAX_CPU_CACHE_BYTES, (unsaid,))
    free, total = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device)
    others = total - free - held
    ways = [f"lower max_batch_tokens (it is {config.max_batch_tokens})"]
    if config.memory_fraction < 1:
        ways.insert(0, f"raise memory_fraction (it is {config.memory_fraction})")
    return CacheRoom(int(total * config.memory_fraction) - others - peak_bytes, tuple(ways))


def too_large(config: PagedConfig, device: torch.device) -> str:
    """What to change where the cache that was to fit does not."""
    if config.kv_cache_bytes is not None:
        return f"lower kv_cache_bytes (it is {config.kv_cache_bytes})"
    if device.type != "cuda":
        return f"set kv_cache_bytes to less than {MAX_CPU_CACHE_BYTES}"
    return f"lower memory_fraction (it is {config.memory_fraction}), or set kv_cache_bytes"


def too_large_steps(config: PagedConfig, dtype: torch.dtype) -> str:
    """What to change where the largest step does not fit beside the weights."""
    ways = [f"lower {name} (it is {getattr(config, name)})" for name in _OF_STEPS]
    if dtype is torch.float32:
        ways.append('set dtype to "bfloat16"')
    return ", or ".join(ways)


@contextmanager
def fits(what: str, way_out: str) -> Iterator[None]:
    """Raise `Unavailable`, with what to change, where memory runs out within."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise Unavailable(f"{what} does not fit the memory: {way_out}") from error


def give_back() -> None:
    """Return to the GPU what torch keeps of tensors that are gone.

    Or the next model's profiling step would count it as needed (`peak_bytes`).
    """
    gc.collect()  # of torch's own cycles; what the engine has needs no collector
    # Of a GPU that has failed nothing comes back before the process ends.
    with WHOLE, suppress(RuntimeError):
        torch.cuda.empty_cache()


def _blocks(tokens: int, block_size: int) -> int:
    return -(-tokens // block_size)
