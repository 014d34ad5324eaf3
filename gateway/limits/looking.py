"""How full the limits of a call are, for people: what explaining a policy adds."""

from collections.abc import Sequence

from gateway.limits.headers import go_duration
from gateway.limits.refusals import fill_in_words
from gateway.limits.rules import Rule, RuleBook, Rules
from gateway.policy import Policy
from gateway.policy.explain_key import CallersKey, Line
from gateway.policy.problems import header
from gateway.store import Demand, Fill, Store


def rules_to_look_at(
    policy: Policy, *, team: str, endpoint: str, model: str | None, key: CallersKey | None
) -> Rules:
    """What would limit such a call: nothing if nothing counts, or no model is named.

    Without a key, what each key has for itself is left out.
    """
    found = policy.resolve(model) if model is not None else None
    if found is None or "rate_limits" not in policy.plugins:
        return Rules()
    return RuleBook(policy).rules_for(
        team=team,
        key=key.id if key is not None else "",
        model=found.name,
        endpoint=endpoint,
        key_limits=key.limits if key is not None else None,
    )


async def look(store: Store, rules: Sequence[Rule]) -> list[Line]:
    """One line for each rule. Raises `StoreUnavailable`.

    `tokens_per_minute of team "apps": 1,200 of 200,000 tokens used, clear in 360ms`
    """
    if not rules:
        return []
    fills = await store.peek([Demand(bucket=rule.bucket, fixed=0) for rule in rules])
    return [
        Line(_said(rule, fill), f"limits.toml {header(rule.table)}")
        for rule, fill in zip(rules, fills, strict=True)
    ]


def _said(rule: Rule, fill: Fill) -> str:
    if rule.counts == "calls":
        return f"{rule.field} of {rule.whose}: {fill.used} of {rule.bucket.capacity} running"
    clears = f", clear in {go_duration(fill.reset_ms)}" if fill.used else ""
    return f"{rule.field} of {rule.whose}: {fill_in_words(rule, fill.used)} used{clears}"
