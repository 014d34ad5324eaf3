"""Which targets of a model take no calls at the moment, or are asked last, in words."""

from collections.abc import Iterator

from engines.abilities import Lists
from gateway.gateway import Gateway
from gateway.policy import FallbackPolicy, ModelPolicy, TargetPolicy
from gateway.policy.explain import Line

_WHERE = "GET /admin/targets"


def targets_now(gateway: Gateway, model: ModelPolicy) -> Iterator[Line]:
    """A line for each target that calls pass over now, whatever the policy says of it."""
    for entry in (*model.targets, *model.fallbacks):
        own_name = entry.model or model.name
        if why_not := _why_not(gateway, entry, own_name):
            yield Line(f"at the moment {entry.engine} {own_name} {why_not}", _WHERE)


def _why_not(gateway: Gateway, entry: TargetPolicy | FallbackPolicy, own_name: str) -> str:
    targets = gateway.targets
    match targets.why_not(entry.engine, own_name):
        case "drained":
            return "is drained: no new calls"
        case "not_ready":
            return f"takes no calls: not ready{_because(targets.detail(entry.engine))}"
        case "breaker_open":
            left = targets.state(entry.engine, own_name).breaker.seconds_left(targets.clock())
            if not left:
                return "is left alone until the one call that it got has ended: breaker half open"
            return f"is left alone for {_seconds(left)}: breaker open"
        case "resting":
            left = targets.state(entry.engine, own_name).rest.seconds_left(targets.clock())
            return f"is asked last for {_seconds(left)}: it said that it is overloaded"
        case _:
            pass
    engine = gateway.engines.get(entry.engine)
    if entry.model is None and isinstance(engine, Lists) and engine.lacks(own_name):
        return "is not on its upstream's list"
    return ""


def _seconds(seconds: float) -> str:
    return f"{max(1, round(seconds))} s"


def _because(detail: str) -> str:
    return f", {detail}" if detail else ""
