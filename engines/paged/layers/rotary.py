"""The table of cosines and sines by which queries and keys are turned.

Row p holds the cosines and then the sines of position p, in float32 whatever the
weights are: at position 100,000 a half-precision angle is off by whole turns.

Longrope (Phi-3) has two sets of frequencies, and transformers turns *all* of a sequence
by the long ones as soon as it is longer than the model was first trained for. Such a
model's table holds the short set's rows and behind them the long set's: position p of a
long sequence is row `long_rope_offset + p`. Which set a sequence uses must not change
while its keys are in the cache; what is stored was turned by the other one.

Scalings: linear and dynamic (reddit u/kaiokendev, u/bloc97), yarn (arXiv 2309.00071),
llama3 (Llama 3.1), longrope (arXiv 2402.13753), as transformers computes them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.checkpoint.model_shape import RopeShape


@dataclass(frozen=True, slots=True)
class Rope:
    """One step's rotation: a table, and the row of it that each token is turned by."""

    cos_sin: Tensor  # [rows, rotary_dim] float32
    positions: Tensor  # i64 [T]


def rotary_table(rope: RopeShape, num_positions: int, device: torch.device) -> Tensor:
    """Cosines and sines, [rows, rotary_dim] float32; longrope has its rows twice."""
    if rope.kind != "longrope":
        return _rows(rope, _frequencies(rope), num_positions, device)
    short = _long_frequencies(rope, rope.short_factors)
    original = rope.original_context_tokens
    if num_positions <= original:
        return _rows(rope, short, num_positions, device)
    long = _rows(rope, _long_frequencies(rope, rope.long_factors), num_positions, device)
    return torch.cat((_rows(rope, short, original, device), long))


def long_rope_offset(ropes: tuple[RopeShape, ...], num_positions: int) -> int | None:
    """The row of a long sequence's first position; None where there is one set of frequencies."""
    for rope in ropes:
        if rope.kind == "longrope" and num_positions > rope.original_context_tokens:
            return rope.original_context_tokens
    return None


def _rows(rope: RopeShape, frequencies: Tensor, count: int, device: torch.device) -> Tensor:
    positions = torch.arange(count, device=device, dtype=torch.float32)
    angles = positions[:, None] * frequencies.to(device)
    return torch.cat((angles.cos(), angles.sin()), dim=-1) * rope.attention_factor


def _plain(rope: RopeShape) -> Tensor:
    return 1.0 / _periods(rope)


def _periods(rope: RopeShape) -> Tensor:
    exponents = torch.arange(0, rope.rotary_dim, 2, dtype=torch.int64).float() / rope.rotary_dim
    return rope.theta**exponents


def _frequencies(rope: RopeShape) -> Tensor:
    if rope.kind == "linear":
        return _plain(rope) / rope.factor
    if rope.kind == "llama3":
        return _llama3(rope)
    if rope.kind == "yarn":
        return _yarn(rope)
    # Dynamic scaling begins behind max_position_embeddings, which no sequence reaches here.
    return _plain(rope)


def _long_frequencies(rope: RopeShape, factors: tuple[float, ...]) -> Tensor:
    return 1.0 / (torch.tensor(factors, dtype=torch.float32) * _periods(rope))


def _llama3(rope: RopeShape) -> Tensor:
    """Keep the fast turns, slow the slow ones by `factor`, and blend in between."""
    plain = _plain(rope)
    turns = rope.original_context_tokens * plain / (2 * math.pi)  # within the first context
    low, high = rope.low_frequency_factor, rope.high_frequency_factor
    share = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - share) * plain / rope.factor + share * plain


def _yarn(rope: RopeShape) -> Tensor:
    """Keep what turns more than `beta_fast` times, stretch what turns less than `beta_slow`."""

    def dimension(turns: float) -> float:
        period = math.log(rope.original_context_tokens / (turns * 2 * math.pi))
        return rope.rotary_dim * period / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.rotary_dim - 1)
    width = high - low or 0.001  # the paper's ramp, where it is a step
    pairs = torch.arange(rope.rotary_dim // 2, dtype=torch.float32)
    stretched = ((pairs - low) / width).clamp(0.0, 1.0)
    plain = _plain(rope)
    return plain / rope.factor * stretched + plain * (1 - stretched)
