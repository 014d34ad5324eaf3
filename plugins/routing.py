"""Chooses the targets of a call: one by weight, then the fallbacks in order."""

import hashlib
import math
import random
from collections.abc import Callable, Sequence

from gateway import Call, Principal, Route, Target, hookimpl
from gateway.policy import FallbackPolicy, ModelPolicy, TargetPolicy


class Routing:
    """Reads `targets`, `fallbacks` and `sticky` of models.toml.

    `draw` gives numbers from 0 up to 1; it is asked once for each call that is
    not sticky.
    """

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw

    @hookimpl
    async def route(self, call: Call) -> Route | None:
        """The chosen target and what to try after it; None for a call that names no model."""
        if call.model is None:
            return None
        model = call.model
        live = [target for target in model.targets if target.weight > 0]
        if not live:
            return None
        if model.sticky == "key":
            chosen = _sticky(live, model.name, call.principal)
        else:
            chosen = _weighted(live, self._draw())
        targets = [_target(chosen, model), *(_target(each, model) for each in model.fallbacks)]
        return Route(tuple(targets))


def _target(entry: TargetPolicy | FallbackPolicy, model: ModelPolicy) -> Target:
    name = entry.model or model.name
    if isinstance(entry, FallbackPolicy):
        return Target(entry.engine, name, on=frozenset(entry.on))
    return Target(entry.engine, name, weight=entry.weight)


def _weighted(targets: Sequence[TargetPolicy], drawn: float) -> TargetPolicy:
    """The target that `drawn` falls on when each is as wide as its weight."""
    left = drawn * sum(target.weight for target in targets)
    for target in targets[:-1]:
        left -= target.weight
        if left < 0:
            return target
    return targets[-1]


def _sticky(targets: Sequence[TargetPolicy], model: str, principal: Principal) -> TargetPolicy:
    """The same target for the same key, as often over many keys as the weights say.

    Weighted rendezvous hashing: each target has a score of its own, so a change of
    weight or a new target moves only the keys that it must.
    """
    key = principal.key_id or f"{principal.team} {principal.name}"
    return max(targets, key=lambda target: _score(target, model, key))


def _score(target: TargetPolicy, model: str, key: str) -> float:
    place = "\0".join((key, model, target.engine, target.model or ""))
    digest = hashlib.blake2b(place.encode(), digest_size=8).digest()
    # Never 0 and never 1, whose logarithms have no use.
    fraction = ((int.from_bytes(digest, "big") >> 12) + 0.5) / 2**52
    return target.weight / -math.log(fraction)
