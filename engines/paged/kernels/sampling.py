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

from engines.paged.kernels.philox import gumbel_reference


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
    return reference(
        logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
        seeds=seeds, positions=positions,
    )  # fmt: skip


def keep_top_k(logits: Tensor, top_k: Tensor) -> None:
    """Set to minus infinity, in place, what is not among each row's `top_k` [R]; 0 keeps all."""
    keep_top_k_reference(logits, top_k)


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
        kept = chosen >= lowest_kept(chosen, top_k[hot], top_p[hot], min_p[hot])[:, None]
        scores = (chosen - chosen.amax(-1, keepdim=True)) / temperature[hot, None]
        scores += gumbel_reference(seeds[hot], positions[hot], logits.shape[1])
        tokens[hot] = scores.masked_fill(~kept, float("-inf")).argmax(-1)
    return tokens


def lowest_kept(logits: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
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
