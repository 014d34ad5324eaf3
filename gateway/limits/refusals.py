"""What a caller is told whose call does not fit: which limit, how full, when it clears."""

from collections.abc import Sequence

from gateway.errors import BudgetSpent, RateLimited, Refusal
from gateway.limits.estimates import Estimate
from gateway.limits.headers import go_duration
from gateway.limits.prices import MICRO
from gateway.limits.rules import Rule
from gateway.store import Decision, Demand, Fill

_NOUNS = {
    "requests": "requests",
    "input": "input tokens",
    "output": "output tokens",
    "tokens": "tokens",
    "cost": "of cost",
}


def never_fits(
    rules: Sequence[Rule], demands: Sequence[Demand], estimate: Estimate, *, least_output: int
) -> Refusal | None:
    """Why a call could not even be admitted if nobody else called; None if it could.

    It is a 429, as at OpenAI, but one that says not to try again.
    """
    for rule, demand in zip(rules, demands, strict=True):
        bucket = rule.bucket
        if not bucket.enforced:
            continue
        need = demand.cost(least_output if bucket.clamps else estimate.output_tokens)
        if need > bucket.capacity:
            is_prompt = demand.cost(0) >= rule.bucket.capacity or not demand.per_output
            way_out = "shorten the prompt" if is_prompt else "ask for a smaller max_tokens"
            refusal = RateLimited(
                f"this request is too large for {_named(rule)}: it needs {in_words(rule, need)} "
                f"and at most {in_words(rule, rule.bucket.capacity)} fit at once; {way_out}",
                param="messages" if is_prompt else "max_tokens",
            )
            return _by(rule, refusal)
    return None


def why_refused(rules: Sequence[Rule], decision: Decision) -> list[int]:
    """The places of the rules that refused."""
    return [
        index
        for index, (rule, fill) in enumerate(zip(rules, decision.fills, strict=True))
        if rule.bucket.enforced and not fill.fits
    ]


def refusal_of(rules: Sequence[Rule], demands: Sequence[Demand], decision: Decision) -> Refusal:
    """The answer to a call that was refused; a budget comes first, then the longest wait."""
    refusing = why_refused(rules, decision)
    index = max(refusing, key=lambda i: (rules[i].is_budget, decision.fills[i].retry_ms))
    need = demands[index].cost(decision.output)
    return _by(rules[index], _refusal(rules[index], decision.fills[index], need))


def _refusal(rule: Rule, fill: Fill, need: int) -> Refusal:
    if rule.counts == "calls":
        return RateLimited(
            f"{_named(rule)} is reached: {fill.used} of {rule.bucket.limit} calls are running; "
            "there is room as soon as one of them ends",
            retry_after=fill.retry_ms / 1000,
        )
    state = (
        f"{fill_in_words(rule, fill.used)} are used or reserved and this request "
        f"needs {in_words(rule, need)}"
    )
    clears = go_duration(fill.retry_ms if fill.retry_ms >= 0 else fill.reset_ms)
    if rule.is_budget:
        return BudgetSpent(f"{_named(rule)} is spent: {state}; it begins anew in {clears}")
    retry = fill.retry_ms if fill.retry_ms >= 0 else fill.reset_ms
    return RateLimited(
        f"{_named(rule)} is reached: {state}; there is room in {clears}", retry_after=retry / 1000
    )


def _by(rule: Rule, refusal: Refusal) -> Refusal:
    """The refusal with a header that says which limit it is of, for programs."""
    refusal.headers["x-penstock-refused-by"] = rule.label
    return refusal


def _named(rule: Rule) -> str:
    return f"{rule.field} of {rule.whose} (limits.toml [{rule.table}])"


def in_words(rule: Rule, units: int) -> str:
    """`1,200 tokens`, `1 request`, `0.25 of cost`."""
    noun = _NOUNS[rule.counts]
    return f"{_number(rule, units)} {noun.removesuffix('s') if units == 1 else noun}"


def fill_in_words(rule: Rule, used: int) -> str:
    """`1,200 of 200,000 tokens`."""
    return f"{_number(rule, used)} of {in_words(rule, rule.bucket.capacity)}"


def _number(rule: Rule, units: int) -> str:
    if rule.counts == "cost":
        return f"{units / MICRO:,.6f}".rstrip("0").rstrip(".")
    return f"{units:,}"
