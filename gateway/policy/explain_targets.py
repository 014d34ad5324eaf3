"""Says in words where a model's calls go, who is next, and why a target is left."""

from collections.abc import Iterator, Sequence

from gateway.endpoints import deciding_pattern
from gateway.policy.schema import (
    BreakerPolicy,
    CanaryPolicy,
    FallbackPolicy,
    MirrorPolicy,
    ModelPolicy,
    TargetPolicy,
)

_STICKY_NOUNS = {"key": "keys", "session": "sessions", "prefix": "beginnings of prompts"}

Told = tuple[str, str]  # what happens, and the key of the model that decided it


def targets_told(model: ModelPolicy, team: str, key: str | None = None) -> Iterator[Told]:
    """The targets of a call of this team, and key if there is one, in the order of their turns."""
    for target in model.targets:
        if target.drain:
            yield f"{named(target, model)} is drained: no new calls", "targets"
        elif target.canary is not None and target.weight:
            yield from _canary(target, target.canary, model, (team, key))
    groups = _by_priority(model)
    for index, group in enumerate(groups):
        text = _shared_out(group, model)
        yield (text if index == 0 else f"when none of these takes calls: {text}"), "targets"
    yield from _reasons(model, num_targets=sum(len(group) for group in groups))
    for fallback in model.fallbacks:
        if fallback.drain:
            yield f"{named(fallback, model)} is drained: no new calls", "fallbacks"
        else:
            yield f"if {' or '.join(fallback.on)}: {named(fallback, model)}", "fallbacks"
    if model.mirror is not None:
        yield _mirrored(model.mirror, model), "mirror"


def named(entry: TargetPolicy | FallbackPolicy | MirrorPolicy, model: ModelPolicy) -> str:
    """A target as the log writes it, but for the slash."""
    return f"{entry.engine} {entry.model or model.name}"


def _by_priority(model: ModelPolicy) -> Sequence[Sequence[TargetPolicy]]:
    live = [one for one in model.targets if one.weight > 0 and not one.drain and not one.canary]
    return [
        [target for target in live if target.priority == priority]
        for priority in sorted({target.priority for target in live})
    ]


def _shared_out(group: Sequence[TargetPolicy], model: ModelPolicy) -> str:
    names = [named(target, model) for target in group]
    if len(group) == 1:
        return f"goes to {names[0]}"
    if model.sticky is None and model.choice == "least_busy":
        return f"goes to the least busy of {', '.join(names)}"
    if model.sticky is None and model.choice == "latency":
        return f"goes to the faster of two drawn from {', '.join(names)}"
    total = sum(target.weight for target in group)
    shares = [
        f"{100 * target.weight / total:.3g} to {name}"
        for target, name in zip(group, names, strict=True)
    ]
    return f"of 100 {_noun(model)}, {', '.join(shares)}"


def _noun(model: ModelPolicy) -> str:
    return _STICKY_NOUNS[model.sticky] if model.sticky else "calls"


def _canary(
    target: TargetPolicy, canary: CanaryPolicy, model: ModelPolicy, caller: tuple[str, str | None]
) -> Iterator[Told]:
    """The calls of this team, and of its key if one was named, that would go to a canary."""
    team, key = caller
    share = f"{canary.percent:g} of 100 {_noun(model)}"
    what = f"first to {named(target, model)}, as its canary"
    if not canary.is_for_some or team in canary.teams:
        whose = f" of {team}" if canary.is_for_some else ""
        yield f"{share}{whose} go {what}", "targets canary"
        return
    if key is not None and deciding_pattern(key, canary.keys) is not None:
        yield f"{share} of key {key} go {what}", "targets canary"
        return
    for pattern in canary.keys if key is None else ():
        yield f"with a key {pattern}: {share} go {what}", "targets canary"
    for header, value in canary.headers.items():
        yield f"with a header {header}: {value}, {share} go {what}", "targets canary"


def _reasons(model: ModelPolicy, *, num_targets: int) -> Iterator[Told]:
    """Why a target is left before its first output, and what comes then."""
    if model.first_output_timeout_seconds is not None:
        seconds = model.first_output_timeout_seconds
        yield f"left as unavailable: no output in {seconds:g} s", "first_output_timeout_seconds"
    if model.hedge is not None and num_targets > 1:
        seconds = model.hedge.after_seconds
        yield f"a second target is asked too after {seconds:g} s without output", "hedge"
    if num_targets > 1:
        yield "if overloaded or unavailable: the next of these, at once", "targets"
    retry = model.retry
    if retry.times and retry.budget_percent:
        times = "once more" if retry.times == 1 else f"up to {retry.times} times more"
        yield (
            f"then {times}, after {retry.wait_seconds:g} s and longer each time, or as long as "
            f"Retry-After says, at most {retry.max_wait_seconds:g} s",
            "retry",
        )
    if num_targets > 1 or retry.times:
        yield (
            f"at most {retry.budget_percent:g} such attempts on 100 calls, full queues aside",
            "retry",
        )
    breaker = model.breaker
    is_plain = num_targets == 1 and not model.fallbacks and breaker == BreakerPolicy()
    if breaker.failures and not is_plain:
        yield (
            f"left alone for {breaker.open_seconds:g} s or more: a target that fails "
            f"{breaker.failures} times in a row",
            "breaker",
        )


def _mirrored(mirror: MirrorPolicy, model: ModelPolicy) -> str:
    share = "" if mirror.percent == 100 else f" of {mirror.percent:g} of 100 calls"
    return f"a copy{share} goes to {named(mirror, model)}; its answer is thrown away"
