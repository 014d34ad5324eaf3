"""What changes logits before a token is drawn: biases, grammar masks and penalties.

All work in place on float32 logits [R, V], and only on the rows that ask for it. A row may
be a part of a longer one: a head is as wide as its kernel likes, and not as its vocabulary.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from engines.paged.kernels.triton_gate import next_power_of_two, runs_triton, tl, triton

_BLOCK = 1024
_WORDS = 128  # of a bitmask, 32 logits each, in one program


def add_bias(logits: Tensor, token_ids: Tensor, values: Tensor) -> None:
    """Add `values` [R, N] to the logits of `token_ids` [R, N]; an id of -1 is padding.

    Torch has this in one kernel, so there is no other.
    """
    logits.scatter_add_(1, token_ids.clamp(min=0), values.masked_fill(token_ids < 0, 0.0))


def apply_bitmask(logits: Tensor, bits: Tensor, rows: Tensor | None = None) -> None:
    """Set to minus infinity what `bits` [M, ceil(V / 32)] int32 has no bit for, lowest bit first.

    Line m of `bits` is about row `rows[m]` of `logits`, or about row m. What the mask is too short
    for is banned: a model may have more logits than its tokenizer has tokens.
    """
    run = launch_bitmask if runs_triton(logits) else bitmask_reference
    run(logits, bits, rows)


def repeat_penalty(logits: Tensor, recent: Tensor, penalty: Tensor) -> None:
    """Divide positive logits of the `recent` tokens [R, W] by `penalty` [R], multiply others by it.

    Each token counts once, however often it is there; -1 is padding. A penalty of 1 does nothing.
    """
    run = launch_repeat if runs_triton(logits) else repeat_reference
    run(logits, recent, penalty)


def count_penalties(
    logits: Tensor, counts: Tensor, lines: Tensor, frequency: Tensor, presence: Tensor
) -> None:
    """Take `count * frequency`, and `presence` where the count is not 0, from every logit.

    Row r has its counts in line `lines[r]` of `counts` [N, V]; a line of -1 has none.
    """
    run = launch_count if runs_triton(logits) else count_reference
    run(logits, counts, lines, frequency, presence)


def bitmask_reference(logits: Tensor, bits: Tensor, rows: Tensor | None = None) -> None:
    """The same as `apply_bitmask`, in torch."""
    shifts = torch.arange(32, device=bits.device, dtype=torch.int32)
    banned = ((bits[:, :, None] >> shifts) & 1 == 0).flatten(1)[:, : logits.shape[1]]
    banned = pad(banned, (0, logits.shape[1] - banned.shape[1]), value=True)
    if rows is None:
        logits.masked_fill_(banned, float("-inf"))
    else:
        logits[rows] = logits[rows].masked_fill(banned, float("-inf"))


def repeat_reference(logits: Tensor, recent: Tensor, penalty: Tensor) -> None:
    """The same as `repeat_penalty`, in torch."""
    num_rows, vocab_size = logits.shape
    is_recent = logits.new_zeros((num_rows, vocab_size + 1), dtype=torch.bool)
    is_recent.scatter_(1, torch.where(recent >= 0, recent, vocab_size), value=True)
    penalty = penalty[:, None]
    penalized = torch.where(logits <= 0, logits * penalty, logits / penalty)
    logits.copy_(torch.where(is_recent[:, :vocab_size], penalized, logits))


def count_reference(
    logits: Tensor, counts: Tensor, lines: Tensor, frequency: Tensor, presence: Tensor
) -> None:
    """The same as `count_penalties`, in torch."""
    rows = (lines >= 0).nonzero().flatten()
    count = counts[lines[rows]]
    logits[rows] -= count * frequency[rows, None] + (count > 0) * presence[rows, None]


def launch_bitmask(logits: Tensor, bits: Tensor, rows: Tensor | None = None) -> None:
    """The same as `apply_bitmask`, in Triton."""
    num_lines, num_words = bits.shape
    vocab_size = logits.shape[1]
    if num_lines:
        _bitmask_kernel[(num_lines, triton.cdiv(vocab_size, _WORDS * 32))](
            logits, bits, bits if rows is None else rows, logits.stride(0), bits.stride(0),
            num_words, vocab_size, HAS_ROWS=rows is not None, WORDS=_WORDS, num_warps=8,
        )  # fmt: skip


def launch_repeat(logits: Tensor, recent: Tensor, penalty: Tensor) -> None:
    """The same as `repeat_penalty`, in Triton."""
    num_rows, window = recent.shape
    if num_rows:
        _repeat_kernel[(num_rows,)](
            logits, recent, penalty, logits.stride(0), recent.stride(0), window,
            WINDOW=next_power_of_two(window), num_warps=4,
        )  # fmt: skip


def launch_count(
    logits: Tensor, counts: Tensor, lines: Tensor, frequency: Tensor, presence: Tensor
) -> None:
    """The same as `count_penalties`, in Triton."""
    num_rows, vocab_size = logits.shape
    if num_rows:
        _count_kernel[(num_rows, triton.cdiv(vocab_size, _BLOCK))](
            logits, counts, lines, frequency, presence, logits.stride(0), counts.stride(0),
            vocab_size, BLOCK=_BLOCK, num_warps=4,
        )  # fmt: skip


@triton.jit
def _bitmask_kernel(
    logits, bits, rows, row_stride, bits_stride, num_words, vocab_size,
    HAS_ROWS: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """One program does `WORDS` words of one line of the mask."""
    line = tl.program_id(0).to(tl.int64)
    row = line
    if HAS_ROWS:
        row = tl.load(rows + line).to(tl.int64)
    token = tl.program_id(1) * WORDS * 32 + tl.arange(0, WORDS * 32)
    inside = token < vocab_size
    word = tl.load(bits + line * bits_stride + token // 32, mask=token // 32 < num_words, other=0)
    is_banned = ((word >> (token % 32)) & 1) == 0
    tl.store(logits + row * row_stride + token, float("-inf"), mask=inside & is_banned)


@triton.jit
def _repeat_kernel(
    logits, recent, penalty, row_stride, recent_stride, window, WINDOW: tl.constexpr
):  # fmt: skip
    """One program does one row."""
    row = tl.program_id(0).to(tl.int64)
    factor = tl.load(penalty + row)
    if factor == 1.0:
        return
    place = tl.arange(0, WINDOW)
    recent += row * recent_stride
    token = tl.load(recent + place, mask=place < window, other=-1)
    other = tl.load(recent + place, mask=place < window, other=-1)
    # Only a token's last place acts, so that nobody reads what another thread wrote.
    comes_again = (token[:, None] == other[None, :]) & (place[:, None] < place[None, :])
    acts = (token >= 0) & (tl.sum(comes_again.to(tl.int32), axis=1) == 0)
    x = tl.load(logits + row * row_stride + token, mask=acts, other=0.0)
    penalized = tl.where(x <= 0.0, x * factor, x / factor)
    tl.store(logits + row * row_stride + token, penalized, mask=acts)


@triton.jit
def _count_kernel(
    logits, counts, lines, frequency, presence, row_stride, counts_stride, vocab_size,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One program does `BLOCK` logits of one row."""
    row = tl.program_id(0).to(tl.int64)
    line = tl.load(lines + row).to(tl.int64)
    if line < 0:
        return
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = token < vocab_size
    count = tl.load(counts + line * counts_stride + token, mask=inside, other=0)
    x = tl.load(logits + row * row_stride + token, mask=inside, other=0.0)
    once = tl.where(count > 0, tl.load(presence + row), 0.0)
    x -= count.to(tl.float32) * tl.load(frequency + row) + once
    tl.store(logits + row * row_stride + token, x, mask=inside & (count > 0))
