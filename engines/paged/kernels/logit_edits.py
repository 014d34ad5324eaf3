"""What changes logits before a token is drawn: biases, grammar masks and penalties.

All work in place on float32 logits [R, V], and only on the rows that ask for it.
"""

import torch
from torch import Tensor


def add_bias(logits: Tensor, token_ids: Tensor, values: Tensor) -> None:
    """Add `values` [R, N] to the logits of `token_ids` [R, N]; an id of -1 is padding.

    Torch has this in one kernel, so there is no other.
    """
    rows = torch.arange(logits.shape[0], device=logits.device)[:, None] * logits.shape[1]
    places = (rows + token_ids.clamp(min=0)).flatten()
    logits.view(-1).scatter_add_(0, places, values.masked_fill(token_ids < 0, 0.0).flatten())


def apply_bitmask(logits: Tensor, bits: Tensor, rows: Tensor | None = None) -> None:
    """Set to minus infinity what `bits` [M, ceil(V / 32)] int32 has no bit for, lowest bit first.

    Line m of `bits` is about row `rows[m]` of `logits`, or about row m.
    """
    bitmask_reference(logits, bits, rows)


def repeat_penalty(logits: Tensor, recent: Tensor, penalty: Tensor) -> None:
    """Divide positive logits of the `recent` tokens [R, W] by `penalty` [R], multiply others by it.

    Each token counts once, however often it is there; -1 is padding. A penalty of 1 does nothing.
    """
    repeat_reference(logits, recent, penalty)


def count_penalties(
    logits: Tensor, counts: Tensor, lines: Tensor, frequency: Tensor, presence: Tensor
) -> None:
    """Take `count * frequency`, and `presence` where the count is not 0, from every logit.

    Row r has its counts in line `lines[r]` of `counts` [N, V]; a line of -1 has none.
    """
    count_reference(logits, counts, lines, frequency, presence)


def bitmask_reference(logits: Tensor, bits: Tensor, rows: Tensor | None = None) -> None:
    """The same as `apply_bitmask`, in torch."""
    shifts = torch.arange(32, device=bits.device, dtype=torch.int32)
    banned = ((bits[:, :, None] >> shifts) & 1 == 0).flatten(1)[:, : logits.shape[1]]
    if rows is None:
        logits.masked_fill_(banned, float("-inf"))
    else:
        logits[rows] = logits[rows].masked_fill(banned, float("-inf"))


def repeat_reference(logits: Tensor, recent: Tensor, penalty: Tensor) -> None:
    """The same as `repeat_penalty`, in torch."""
    num_rows, vocab_size = logits.shape
    is_recent = logits.new_zeros((num_rows, vocab_size + 1), dtype=torch.bool)
    is_recent.scatter_(1, torch.where(recent >= 0, recent, vocab_size), True)
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

