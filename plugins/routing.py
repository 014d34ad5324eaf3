"""Chooses the targets of a call: who is asked first, who next, then the fallbacks.

The order is made anew for each call, of the policy's lines and of what the gateway
knows of its targets (gateway/targets). Whether a target takes calls at this moment is
not looked at here, but where that choice is relative to others: dispatch skips those
that do not, so weights and stickiness hold among the rest as they stand.
"""

import hashlib
import math
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol

import msgspec
from msgspec import Meta, Struct

from engines.abilities import Lists
from engines.protocol import Engine, Text
from gateway import Call, Route, Target, hookimpl
from gateway.endpoints import matches
from gateway.policy import CanaryPolicy, FallbackPolicy, ModelPolicy, TargetPolicy
from gateway.targets import HealthWatch, Targets

if TYPE_CHECKING:
    from gateway.gateway import Gateway

# A hot prefix may have so many times its share of what runs, before it spills over; with
# few calls running nothing spills, as any engine takes a few at once.
MOST_OF_SHARE = 2.0
ALWAYS_ROOM_FOR = 16


class RoutingTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[routing]` table of gateway.toml."""

    health_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0


class HasTargets(Protocol):
    """What is needed of a gateway."""

    @property
    def engines(self) -> Mapping[str, Engine]: ...
    @property
    def targets(self) -> Targets: ...


class Routing:
    """Reads the targets of models.toml, and keeps an eye on the engines' health.

    `draw` gives numbers from 0 up to 1.
    """

    table: ClassVar[type[Struct] | None] = RoutingTable

    def __init__(self, gateway: HasTargets, *, draw: Callable[[], float] = random.random) -> None:
        self._gateway = gateway
        self._targets = gateway.targets
        self._draw = draw
        # Of models that leave nothing to choose, as most do: the model that it was made for.
        self._fixed: dict[str, tuple[ModelPolicy, Route]] = {}

    @hookimpl
    @asynccontextmanager
    async def lifespan(self, gateway: "Gateway") -> AsyncGenerator[None, None]:
        """While the gateway runs, ask its engines how they are."""
        every_seconds = gateway.policy.table("routing", RoutingTable).health_seconds
        watch = HealthWatch(gateway.targets, lambda: gateway.engines, every_seconds)
        async with watch.running():
            yield

    @hookimpl
    async def route(self, call: Call) -> Route | None:
        """Every target in the order of its turn; None for a call that names no model."""
        model = call.model
        if model is None:
            return None
        fixed = self._fixed.get(model.name)
        if fixed is not None and fixed[0] is model:
            return fixed[1]
        chosen = _only_target(model)
        if chosen is not None:
            route = _route(model, chosen)
            if route is not None and call.policy.models.get(model.name) is model:
                self._fixed[model.name] = model, route
            return route
        ordered = [*self._canaries(call, model), *self._by_priority(call, model)]
        if call.policy.models.get(model.name) is not model:
            return _route(model, ordered, self._unlisted(model, ordered))
        return _route(model, ordered)

    def _unlisted(
        self, model: ModelPolicy, targets: Sequence[TargetPolicy]
    ) -> Sequence[TargetPolicy]:
        """Those that surely lack a name that a glob stands for; none if all of them do."""
        engines = self._gateway.engines
        lacking = [
            target
            for target in targets
            if target.model is None
            and isinstance(engine := engines.get(target.engine), Lists)
            and engine.lacks(model.name)
        ]
        return lacking if len(lacking) < len(targets) else ()

    def _canaries(self, call: Call, model: ModelPolicy) -> Sequence[TargetPolicy]:
        """The canary that this call is for, if it is for one."""
        meant: list[TargetPolicy] = []
        for target in model.targets:
            canary = target.canary
            if canary is None or not _takes_calls(target) or not _is_meant(call, canary):
                continue
            if self._lot(call, model, target) * 100 < canary.percent:
                meant.append(target)
        return self._ordered(call, model, meant)[:1]

    def _lot(self, call: Call, model: ModelPolicy, target: TargetPolicy) -> float:
        """A number from 0 up to 1 that decides about a canary: chance, or always the same."""
        if model.sticky is None:
            return self._draw()
        return _fraction("canary", _stuck_by(call, model), model.name, _place(target))

    def _by_priority(self, call: Call, model: ModelPolicy) -> list[TargetPolicy]:
        groups: dict[int, list[TargetPolicy]] = {}
        for target in model.targets:
            if target.canary is None and _takes_calls(target):
                groups.setdefault(target.priority, []).append(target)
        return [
            target
            for priority in sorted(groups)
            for target in self._ordered(call, model, groups[priority])
        ]

    def _ordered(
        self, call: Call, model: ModelPolicy, targets: Sequence[TargetPolicy]
    ) -> Sequence[TargetPolicy]:
        """Targets of the same standing in the order of their turns."""
        if len(targets) < 2:
            return targets
        if model.sticky is not None:
            return self._sticky(call, model, targets)
        if model.choice == "least_busy":
            return self._least_busy(model, targets)
        if model.choice == "latency":
            return self._fastest(model, targets)
        return self._weighted(targets)

    def _weighted(self, targets: Sequence[TargetPolicy]) -> list[TargetPolicy]:
        """Drawn one after the other, each as likely as its share of the weights that are left."""
        left = list(targets)
        ordered: list[TargetPolicy] = []
        while len(left) > 1:
            ordered.append(left.pop(_drawn(left, self._draw())))
        return [*ordered, *left]

    def _least_busy(
        self, model: ModelPolicy, targets: Sequence[TargetPolicy]
    ) -> list[TargetPolicy]:
        """Fewest running calls first, for its weight; chance among equals."""

        def busy(target: TargetPolicy) -> tuple[float, float]:
            state = self._targets.state(*_names(target, model))
            return (state.in_flight + 1) / target.weight, self._draw()

        return sorted(targets, key=busy)

    def _fastest(self, model: ModelPolicy, targets: Sequence[TargetPolicy]) -> list[TargetPolicy]:
        """The better of two that are drawn, then the rest by chance.

        Two choices are nearly as good as all, and unlike all of them they do not send every
        call to the same target between two answers (Mitzenmacher, 2001).
        """
        usable = [one for one in targets if not self._targets.why_not(*_names(one, model))]
        drawn = usable if len(usable) > 1 else list(targets)
        first = drawn.pop(int(self._draw() * len(drawn)))
        second = drawn.pop(int(self._draw() * len(drawn)))
        now = self._targets.clock()

        def cost(target: TargetPolicy) -> float:
            state = self._targets.state(*_names(target, model))
            return state.latency.cost(state.in_flight, now) / target.weight

        if cost(second) < cost(first):
            first, second = second, first
        rest = [target for target in targets if target is not first and target is not second]
        return [first, second, *self._weighted(rest)]

    def _sticky(
        self, call: Call, model: ModelPolicy, targets: Sequence[TargetPolicy]
    ) -> list[TargetPolicy]:
        """The same order for the same key, as often over many keys as the weights say.

        Weighted rendezvous hashing: each target has a score of its own, so a change of
        weight, a new target or one that is down moves only the keys that it must. It needs
        no memory, so it is the same after a reload, a restart and in another process.
        """
        key = _stuck_by(call, model)

        def score(target: TargetPolicy) -> float:
            return target.weight / -math.log(_fraction(key, model.name, _place(target)))

        ordered = sorted(targets, key=score, reverse=True)
        return self._with_room_first(model, ordered) if model.sticky == "prefix" else ordered

    def _with_room_first(
        self, model: ModelPolicy, ordered: list[TargetPolicy]
    ) -> list[TargetPolicy]:
        """Put the first target that is not overrun in front: every chat may begin alike.

        Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2016).
        """
        busy = [self._targets.state(*_names(target, model)).in_flight for target in ordered]
        share = MOST_OF_SHARE * (sum(busy) + 1) / sum(target.weight for target in ordered)
        for index, target in enumerate(ordered):
            if busy[index] < max(ALWAYS_ROOM_FOR, share * target.weight):
                return [target, *ordered[:index], *ordered[index + 1 :]]
        return ordered


def _route(
    model: ModelPolicy, chosen: Sequence[TargetPolicy], unlisted: Sequence[TargetPolicy] = ()
) -> Route | None:
    targets = [_target(entry, model) for entry in chosen if entry not in unlisted]
    targets += [
        msgspec.structs.replace(_target(entry, model), is_unlisted=True) for entry in unlisted
    ]
    targets += [_target(entry, model) for entry in model.fallbacks if not entry.drain]
    return Route(tuple(targets)) if targets else None


def _only_target(model: ModelPolicy) -> Sequence[TargetPolicy] | None:
    """The targets of a model that leaves nothing to choose, which most do."""
    if len(model.targets) > 1:
        return None
    (target,) = model.targets
    return (target,) if target.canary is None and _takes_calls(target) else None


def _takes_calls(target: TargetPolicy) -> bool:
    return target.weight > 0 and not target.drain


def _names(entry: TargetPolicy | FallbackPolicy, model: ModelPolicy) -> tuple[str, str]:
    return entry.engine, entry.model or model.name


def _target(entry: TargetPolicy | FallbackPolicy, model: ModelPolicy) -> Target:
    engine, name = _names(entry, model)
    if isinstance(entry, FallbackPolicy):
        return Target(engine, name, on=frozenset(entry.on))
    return Target(engine, name, weight=entry.weight)


def _drawn(targets: Sequence[TargetPolicy], drawn: float) -> int:
    """The target that `drawn` falls on when each is as wide as its weight."""
    left = drawn * sum(target.weight for target in targets)
    for index, target in enumerate(targets[:-1]):
        left -= target.weight
        if left < 0:
            return index
    return len(targets) - 1


def _is_meant(call: Call, canary: CanaryPolicy) -> bool:
    """Is the call of one of the canary's teams, keys or headers? All are, if it names none."""
    if not canary.is_for_some:
        return True
    principal = call.principal
    return (
        principal.team in canary.teams
        or (principal.key_id is not None and matches(principal.key_id, canary.keys))
        or _has_header(call.headers, canary.headers)
    )


def _has_header(headers: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    found = ((headers.get(name.lower()), glob) for name, glob in wanted.items())
    return any(value is not None and matches(value, [glob]) for value, glob in found)


def _stuck_by(call: Call, model: ModelPolicy) -> str:
    """What a sticky call keeps its target by."""
    principal = call.principal
    key = principal.key_id or f"{principal.team} {principal.name}"
    if model.sticky == "session":
        session = call.headers.get(model.session_header.lower()) or call.session
        return f"{principal.team}\0{session}" if session else key
    if model.sticky == "prefix":
        return _prefix(call, model.prefix_characters) or key
    return key


def _prefix(call: Call, characters: int) -> str:
    """The beginning of the prompt, as far as the first thing that the user says.

    What comes later grows with the conversation, and would move it from target to target.
    The salt is in it, because engines share cached prompts only within one.
    """
    if not call.requests:
        return ""
    request = call.requests[0]
    if request.prompt is not None:
        return f"{request.cache_salt}\0{request.prompt[:characters]}"
    said: list[str] = [request.cache_salt]
    left = characters
    for message in request.messages:
        text = "".join(part.text for part in message.parts if isinstance(part, Text))
        said.append(f"{message.role}\0{text[:left]}")
        left -= len(text)
        if left <= 0 or message.role == "user":
            break
    return "\0".join(said)


def _place(target: TargetPolicy) -> str:
    return f"{target.engine}\0{target.model or ''}"


def _fraction(*parts: str) -> float:
    """A number between 0 and 1, never either, that is the same for the same parts."""
    text = "\0".join(parts)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return ((int.from_bytes(digest, "big") >> 12) + 0.5) / 2**52
