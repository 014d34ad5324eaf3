"""Muon for the matrices and AdamW for everything else.

Muon (Keller Jordan, 2024) moves a weight matrix along the nearest orthogonal matrix to its
momentum, so that no direction of the matrix learns much slower than the others. On a few
minutes of CPU time that is worth more than a larger network.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

# The quintic Newton-Schulz iteration published with Muon: it does not converge to exactly
# orthogonal, it brings every singular value near one in five steps.
_QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized, on two-dimensional weights.

    The processes of a run share the work: each makes its part of the updates, and a sum
    over the processes gives all of them to each.
    """

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": 0.1})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            weights = group["params"]
            for weight, update in zip(weights, self._updates(group), strict=True):
                # The size of an AdamW update, so that one learning rate suits every shape.
                scale = 0.2 * max(weight.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-group["lr"] * scale)

    def _updates(self, group: dict) -> list[Tensor]:
        mine, num_processes = dist.get_rank(), dist.get_world_size()
        updates = []
        for at, weight in enumerate(group["params"]):
            state = self.state[weight]
            velocity = state.setdefault("velocity", torch.zeros_like(weight))
            velocity.lerp_(weight.grad, 1 - group["momentum"])
            ahead = weight.grad.lerp(velocity, group["momentum"])
            is_mine = at % num_processes == mine
            updates.append(orthogonalized(ahead) if is_mine else torch.zeros_like(weight))
        flat = torch.cat([update.reshape(-1) for update in updates])
        dist.all_reduce(flat)
        parts = flat.split([update.numel() for update in updates])
        return [part.view_as(update) for part, update in zip(parts, updates, strict=True)]


def orthogonalized(matrix: Tensor) -> Tensor:
    a, b, c = _QUINTIC
    x = matrix.bfloat16()
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.T).to(matrix.dtype)


def optimizers_for(network: nn.Module) -> list[torch.optim.Optimizer]:
    """One for the layers' matrices, one for the embedding and the norms. Rates are set later."""
    matrices, rest = [], []
    for name, weight in network.named_parameters():
        (matrices if weight.dim() == 2 and "embed" not in name else rest).append(weight)
    return [
        Muon(matrices, lr=0.0),
        torch.optim.AdamW(rest, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0),
    ]
