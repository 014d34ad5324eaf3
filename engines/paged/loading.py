"""Brings a model onto its device: weights, the KV cache that fits, the runner over both."""

import time
from collections.abc import Callable
from typing import NamedTuple

import structlog
import torch

from engines.errors import Unavailable
from engines.paged.catalog import context_tokens
from engines.paged.checkpoint import Checkpoint
from engines.paged.config import PagedConfig
from engines.paged.cuda_recorder import CudaRecorder
from engines.paged.embedder import Embedder
from engines.paged.failures import is_out_of_memory
from engines.paged.gpus import WHOLE, working_on
from engines.paged.graphs import Recorder
from engines.paged.memory import (
    blocks_that_fit,
    cache_room,
    fits,
    give_back,
    too_large,
    too_large_steps,
)
from engines.paged.models.decoder import Decoder
from engines.paged.pooling import Pooling
from engines.paged.runner import TorchRunner
from engines.paged.sampler import Sampler
from engines.paged.sequence import Turning
from engines.paged.step_inputs import KVCache, StepInputs
from engines.paged.tokenizer import Tokenizer
from engines.paged.weights import load

log = structlog.get_logger()

CHAT_POOLING = Pooling(kind="mean")
"""How a model that was made to answer embeds, as in the gguf engine."""


class Loaded(NamedTuple):
    """A model on its device; `runner` is None for one that only embeds."""

    embedder: Embedder
    runner: TorchRunner | None
    context_tokens: int
    num_blocks: int
    memory_bytes: int
    turning: Turning | None = None


def load_model(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    config: PagedConfig,
    report: Callable[[float], None],
) -> Loaded:
    """Load it; blocks for as long as that takes. Raises `EngineError`."""
    device = device_of(config)
    with working_on(device):
        return _load(checkpoint, tokenizer, config, report, device)


def _load(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    config: PagedConfig,
    report: Callable[[float], None],
    device: torch.device,
) -> Loaded:
    dtype = dtype_of(config, checkpoint, device)
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)  # for the whole process
    began = time.monotonic()
    context = context_tokens(checkpoint, config)
    if config.model is not None and config.context_tokens not in (None, context):
        raise Unavailable(
            f"context_tokens is {config.context_tokens}; this model goes to {context}: set it to "
            "at most that, or leave it out"
        )
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    is_decoder = not checkpoint.shape.is_encoder
    model = load(
        checkpoint,
        device,
        dtype,
        config.load_format,
        context_tokens=context if is_decoder else None,
        report=report,
    )
    model.eval()
    pooling = checkpoint.pooling or CHAT_POOLING
    max_batch_tokens = max(config.max_batch_tokens, 512)
    embedder = Embedder(model, pooling, max_batch_tokens=max_batch_tokens)
    weight_bytes = checkpoint.weight_bytes(dtype)
    loaded_at = time.monotonic()
    if not isinstance(model, Decoder) or not checkpoint.shape.has_head:
        if device.type == "cuda":
            bound_to_memory(embedder, give_back)
        return Loaded(embedder, None, context, 0, weight_bytes)
    # Its texts are embedded between steps of answers, which they must not hold up for long.
    embedder.bound(max_batch_tokens, f"raise max_batch_tokens (it is {config.max_batch_tokens})")
    peak = _peak(model, config, checkpoint, dtype) if device.type == "cuda" else 0
    profiled_at = time.monotonic()
    num_blocks = blocks_that_fit(
        config,
        checkpoint,
        context_tokens=context,
        dtype=dtype,
        room=cache_room(config, device, peak),
    )
    with fits(f"a KV cache of {num_blocks * config.block_size} tokens", too_large(config, device)):
        cache = _cache(checkpoint, config, num_blocks, device=device, dtype=dtype)
    runner = _runner(model, cache, config, tokenizer, end_ids=sorted(checkpoint.eos_token_ids))
    log.info(
        "model_on_device",
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        weight_seconds=round(loaded_at - began, 3),
        profile_seconds=round(profiled_at - loaded_at, 3),
        cache_seconds=round(time.monotonic() - profiled_at, 3),
        cache_tokens=num_blocks * config.block_size,
    )
    cache_bytes = num_blocks * config.block_size * checkpoint.kv_bytes_per_token(dtype)
    return Loaded(
        embedder, runner, context, num_blocks, weight_bytes + cache_bytes, _turning(model)
    )


def bound_to_memory(embedder: Embedder, make_room: Callable[[], None]) -> None:
    """Try the longest text, and shorter ones until one fits; longer ones are refused from now on.

    What that took stays torch's own, so that nobody else has it when such a text comes.
    """
    tokens = embedder.max_tokens
    while True:
        try:
            embedder.embed([[0] * tokens])
        except RuntimeError as error:
            if not is_out_of_memory(error) or tokens == 1:
                raise
        else:
            return embedder.bound(tokens, "free memory of the GPU")
        make_room()
        tokens = -(-tokens // 2)


def device_of(config: PagedConfig) -> torch.device:
    """Where to compute. Raises `Unavailable` for a device that is not here."""
    if config.device is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(config.device)
    except RuntimeError as error:
        raise Unavailable(f'device "{config.device}" is none: write "cuda:0" or "cpu"') from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise Unavailable(
            f'device "{config.device}" is not here: torch {torch.__version__} sees '
            f"{torch.cuda.device_count()} GPUs"
        )
    if device.type not in ("cuda", "cpu"):
        raise Unavailable(f'device "{config.device}" is not supported: write "cuda:0" or "cpu"')
    # A GPU without a number is the first, and not whichever a thread is on.
    return torch.device("cuda:0") if device == torch.device("cuda") else device


def dtype_of(config: PagedConfig, checkpoint: Checkpoint, device: torch.device) -> torch.dtype:
    """What to keep and compute in; a CPU is fastest, and most exact, in float32."""
    if config.dtype != "auto":
        return getattr(torch, config.dtype)
    if device.type == "cpu":
        return torch.float32
    named = getattr(torch, checkpoint.dtype)
    return torch.bfloat16 if named is torch.float32 else named


def _peak(model: Decoder, config: PagedConfig, checkpoint: Checkpoint, dtype: torch.dtype) -> int:
    """What `_profile` says. Raises `Unavailable`, with what to change, where it cannot be run."""
    with fits("a step of the largest size", too_large_steps(config, dtype)):
        return _profile(model, config, checkpoint, dtype)


def _profile(
    model: Decoder, config: PagedConfig, checkpoint: Checkpoint, dtype: torch.dtype
) -> int:
    """Run the largest step there can be on a cache of its own; the bytes torch held at most."""
    tokens = min(config.max_batch_tokens, model.context_tokens)
    num_blocks = -(-tokens // config.block_size)
    device = next(model.parameters()).device
    cache = _cache(checkpoint, config, num_blocks, device=device, dtype=dtype)
    positions = torch.arange(tokens, device=device)
    starts = torch.tensor([0, tokens], dtype=torch.int32, device=device)
    inputs = StepInputs(
        token_ids=positions % model.shape.vocab_size,
        positions=positions,
        slots=positions,
        block_tables=torch.arange(num_blocks, dtype=torch.int32, device=device)[None],
        query_starts=starts,
        context_lens=starts[1:],
        max_query_tokens=tokens,
        max_context_tokens=tokens,
    )
    with torch.inference_mode():
        hidden = model(inputs, cache)
        logits = model.logits(hidden[: min(tokens, config.max_sequences)])
        # Sampling holds about three copies of the logits at its worst.
        logits.softmax(-1).sort(-1)
    with WHOLE:
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_reserved(device)
        del hidden, logits, cache
        torch.cuda.empty_cache()
    return peak


def _cache(
    checkpoint: Checkpoint,
    config: PagedConfig,
    num_blocks: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> KVCache:
    return KVCache.allocate(
        checkpoint.shape,
        num_blocks=num_blocks,
        block_size=config.block_size,
        device=device,
        dtype=dtype,
    )


def _turning(model: Decoder) -> Turning | None:
    offset, length = model.long_rope_offset, model.shape.short_rope_tokens
    return None if offset is None or length is None else Turning(length, offset)


def _runner(
    model: Decoder,
    cache: KVCache,
    config: PagedConfig,
    tokenizer: Tokenizer,
    *,
    end_ids: list[int],
) -> TorchRunner:
    pieces = tokenizer.pieces + [b""] * max(0, model.shape.vocab_size - len(tokenizer.pieces))
    device = cache.keys.device
    sampler = Sampler(
        config.max_sequences + 1,  # one for padding
        model.shape.vocab_size,
        device,
        end_ids=end_ids,
        pieces=pieces,
    )
    return TorchRunner(
        model,
        cache,
        sampler,
        max_batch_tokens=max(config.max_batch_tokens, config.max_sequences),
        recorder=recorder_of(config, device),
    )


def recorder_of(config: PagedConfig, device: torch.device) -> Recorder | None:
    """What records steps on this device; None where they are run plainly."""
    return CudaRecorder(device) if config.graphs and device.type == "cuda" else None
