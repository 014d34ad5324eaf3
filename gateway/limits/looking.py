"""How full the limits of a call are, for people: what `penstock policy explain` adds."""

from collections.abc import Sequence

from gateway.limits.headers import go_duration
from gateway.limits.refusals import fill_in_words
from gateway.limits.rules import Rule
from gateway.store import Demand, Fill, Store


async def look(store: Store, rules: Sequence[Rule]) -> list[str]:
    """One line for each rule. Raises `StoreUnavailable`.

    `tokens_per_minute of team "apps": 1,200 of 200,000 tokens used, clear in 360ms`
    """
    fills = await store.peek([Demand(bucket=rule.bucket, fixed=0) for rule in rules])
    return [_line(rule, fill) for rule, fill in zip(rules, fills, strict=True)]


def _line(rule: Rule, fill: Fill) -> str:
    if rule.counts == "calls":
        return f"{rule.field} of {rule.whose}: {fill.used} of {rule.bucket.capacity} running"
    clears = f", clear in {go_duration(fill.reset_ms)}" if fill.used else ""
    return f"{rule.field} of {rule.whose}: {fill_in_words(rule, fill.used)} used{clears}"
