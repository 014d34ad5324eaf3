"""Draws each row's next token from its logits.

The order is the gguf engine's, so that one request means the same on both: top-k, top-p, min-p,
temperature, draw. What each step keeps is decided by value alone, so equal logits share their fate:

- top-k keeps what is at least the k-th largest logit;
- top-p keeps a token if what is strictly likelier, of what top-k kept, has less than p together;
- min-p keeps what is at least min_p times as likely as the likeliest;
- the likeliest is always kept.

top_k 0, top_p 1 and min_p 0 keep everything. The draw adds Gumbel noise, which depends on the row's
seed and position and on the token (philox.py), and takes the largest. A temperature of 0 takes the
largest without noise; of several, the lowest id. NaN counts as minus infinity.
"""

import torch
from torch import Tensor

from engines.paged.kernels.philox import gumbel, gumbel_reference, lanes, words_at
from engines.paged.kernels.threshold_search import (
    first_largest,
    load_logits,
    lowest_kept,
    scan,
)
from engines.paged.kernels.triton_gate import runs_triton, tl, triton

# Logits that a program looks at together, and candidates that it keeps in registers.
_TILE = 4096
_ROOM = 4096
_NUM_WARPS = 16


def sample(
    logits: Tensor,
    *,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    seeds: Tensor,
    positions: Tensor,
) -> Tensor:
    """One token [R] int64 for each row of `logits` [R, V], which is float32 and not changed."""
    run = launch if runs_triton(logits) else reference
    return run(
        logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
        seeds=seeds, positions=positions,
    )  # fmt: skip


def keep_top_k(logits: Tensor, top_k: Tensor) -> None:
    """Set to minus infinity, in place, what is not among each row's `top_k` [R]; 0 keeps all."""
    run = launch_keep_top_k if runs_triton(logits) else keep_top_k_reference
    run(logits, top_k)


def reference(
    logits: Tensor,
    *,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    seeds: Tensor,
    positions: Tensor,
) -> Tensor:
    """The same as `sample`, in torch, with a sort."""
    logits = _clean(logits)
    tokens = logits.argmax(-1)
    hot = (temperature > 0).nonzero().flatten()
    if len(hot):
        chosen = logits[hot]
        kept = chosen >= lowest_kept_reference(chosen, top_k[hot], top_p[hot], min_p[hot])[:, None]
        scores = (chosen - chosen.amax(-1, keepdim=True)) / temperature[hot, None]
        scores += gumbel_reference(seeds[hot], positions[hot], logits.shape[1])
        tokens[hot] = scores.masked_fill(~kept, float("-inf")).argmax(-1)
    return tokens


def lowest_kept_reference(logits: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """The lowest logit [R] that each row's top-k, top-p and min-p keep, in torch."""
    ordered = logits.sort(-1, descending=True).values
    rank = torch.arange(ordered.shape[1], device=logits.device)
    limit = _at(ordered, torch.where(top_k > 0, top_k, ordered.shape[1]))
    survivors = ordered.masked_fill(ordered < limit[:, None], float("-inf"))
    likelihood = survivors.double().softmax(-1)
    likelier = likelihood.cumsum(-1) - likelihood
    num_kept = torch.where(top_p < 1, ((likelier < top_p[:, None]) | (rank == 0)).sum(-1), 2**31)
    limit = torch.maximum(limit, _at(ordered, num_kept))
    share = torch.where(min_p > 0, ordered[:, 0] + min_p.clamp(max=1).log(), float("-inf"))
    return torch.maximum(limit, share)


def keep_top_k_reference(logits: Tensor, top_k: Tensor) -> None:
    """The same as `keep_top_k`, in torch, with a sort."""
    cleaned = _clean(logits)
    ordered = cleaned.sort(-1, descending=True).values
    limit = _at(ordered, torch.where(top_k > 0, top_k, ordered.shape[1]))
    logits.masked_fill_(cleaned < limit[:, None], float("-inf"))


def _at(ordered: Tensor, count: Tensor) -> Tensor:
    """Each row's `count`-th value, or its last."""
    index = count.clamp(max=ordered.shape[1]).long() - 1
    return ordered.gather(1, index[:, None])[:, 0]


def _clean(logits: Tensor) -> Tensor:
    largest = torch.finfo(torch.float32).max
    return logits.nan_to_num(float("-inf"), posinf=largest, neginf=float("-inf"))


def launch(
    logits: Tensor,
    *,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    seeds: Tensor,
    positions: Tensor,
    tile: int = _TILE,
    room: int = _ROOM,
) -> Tensor:
    """The same as `sample`, in Triton; tests make `tile` and `room` small."""
    num_rows, vocab_size = logits.shape
    out = torch.empty(num_rows, dtype=torch.int64, device=logits.device)
    if num_rows:
        _kernel[(num_rows,)](
            logits, temperature, top_k, top_p, min_p, seeds, positions, out,
            *_room_for_candidates(logits, room),
            logits.stride(0), vocab_size, lanes(vocab_size),
            TILE=tile, ROOM=room, num_warps=_NUM_WARPS,
        )  # fmt: skip
    return out


def launch_keep_top_k(
    logits: Tensor, top_k: Tensor, *, tile: int = _TILE, room: int = _ROOM
) -> None:
    """The same as `keep_top_k`, in Triton."""
    num_rows, vocab_size = logits.shape
    if num_rows:
        _keep_top_k_kernel[(num_rows,)](
            logits, top_k, *_room_for_candidates(logits, room), logits.stride(0), vocab_size,
            TILE=tile, ROOM=room, num_warps=_NUM_WARPS,
        )  # fmt: skip


def _room_for_candidates(logits: Tensor, room: int) -> tuple[Tensor, Tensor]:
    shape = (logits.shape[0], room)
    values = torch.empty(shape, dtype=torch.float32, device=logits.device)
    return values, torch.empty(shape, dtype=torch.int32, device=logits.device)


@triton.jit
def _kernel(
    logits, temperature, top_k, top_p, min_p, seeds, positions, out, values, tokens,
    row_stride, vocab_size, num_lanes, TILE: tl.constexpr, ROOM: tl.constexpr,
):  # fmt: skip
    """One program draws one row's token."""
    place = tl.program_id(0)
    row = logits + place.to(tl.int64) * row_stride
    best, token = scan(row, vocab_size, TILE)
    highest, greedy = first_largest(best, token)
    heat = tl.load(temperature + place)
    if (heat <= 0.0) | (highest == float("-inf")):
        tl.store(out + place, greedy.to(tl.int64))
        return
    values += place.to(tl.int64) * ROOM
    tokens += place.to(tl.int64) * ROOM
    k = tl.load(top_k + place)
    p = tl.load(top_p + place)
    share = tl.load(min_p + place)
    seed = tl.load(seeds + place)
    position = tl.load(positions + place)
    limit = float("-inf")
    num_candidates = ROOM + 1
    if ((k > 0) & (k < vocab_size)) | (p < 1.0):
        limit, num_candidates = lowest_kept(
            row, vocab_size, best, highest, k, p, values, tokens, TILE, ROOM
        )
    if share > 0.0:
        limit = tl.maximum(limit, highest + tl.log(tl.minimum(share, 1.0)))
    if num_candidates <= ROOM:
        drawn = _draw_candidate(
            values, tokens, num_candidates, limit, highest, heat, seed, position, num_lanes, ROOM
        )
    else:
        drawn = _draw_of_row(row, vocab_size, limit, highest, heat, seed, position, num_lanes, TILE)
    tl.store(out + place, tl.where(drawn < vocab_size, drawn, greedy).to(tl.int64))


@triton.jit
def _draw_candidate(
    values, tokens, num_candidates, limit, highest, heat, seed, position, num_lanes,
    ROOM: tl.constexpr,
):  # fmt: skip
    slot = tl.arange(0, ROOM)
    x = tl.load(values + slot, mask=slot < num_candidates, other=float("-inf"))
    token = tl.load(tokens + slot, mask=slot < num_candidates, other=0)
    a, b, c, d = words_at((token % num_lanes).to(tl.uint32), seed, position)
    which = token // num_lanes
    word = tl.where(which == 0, a, tl.where(which == 1, b, tl.where(which == 2, c, d)))
    score = (x - highest) / heat + gumbel(word)
    score = tl.where((x >= limit) & (slot < num_candidates), score, float("-inf"))
    best = tl.max(score, axis=0)
    return tl.min(tl.where(score == best, token, 2147483647), axis=0)


@triton.jit
def _draw_of_row(
    row, vocab_size, limit, highest, heat, seed, position, num_lanes, TILE: tl.constexpr
):  # fmt: skip
    place = tl.arange(0, TILE)
    best = tl.full([TILE], float("-inf"), tl.float32)
    best_token = tl.full([TILE], 2147483647, tl.int32)
    for start in range(0, num_lanes, TILE):
        lane = start + place
        words = words_at(lane.to(tl.uint32), seed, position)
        for which in tl.static_range(4):  # pyright: ignore
            token = lane + which * num_lanes
            x = load_logits(row, token, (lane < num_lanes) & (token < vocab_size))
            score = (x - highest) / heat + gumbel(words[which])
            is_better = (x >= limit) & (score > best)
            best = tl.where(is_better, score, best)
            best_token = tl.where(is_better, token, best_token)
    highest_score = tl.max(best, axis=0)
    return tl.min(tl.where(best == highest_score, best_token, 2147483647), axis=0)


@triton.jit
def _keep_top_k_kernel(
    logits, top_k, values, tokens, row_stride, vocab_size, TILE: tl.constexpr, ROOM: tl.constexpr
):  # fmt: skip
    """One program does one row."""
    place = tl.program_id(0)
    k = tl.load(top_k + place)
    if (k <= 0) | (k >= vocab_size):
        return
    row = logits + place.to(tl.int64) * row_stride
    best, _ = scan(row, vocab_size, TILE)
    highest = tl.max(best, axis=0)
    limit, _ = lowest_kept(
        row, vocab_size, best, highest, k, 1.0,
        values + place.to(tl.int64) * ROOM, tokens + place.to(tl.int64) * ROOM, TILE, ROOM,
    )  # fmt: skip
    # The row has been read by every thread before any changes it.
    tl.debug_barrier()
    lane = tl.arange(0, TILE)
    for start in range(0, vocab_size, TILE):
        x = load_logits(row, start + lane, start + lane < vocab_size)
        tl.store(row + start + lane, float("-inf"), mask=(x < limit) & (start + lane < vocab_size))
