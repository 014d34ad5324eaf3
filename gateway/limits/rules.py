"""From the tables of limits.toml to the buckets of one call, and to what it wants of them."""

import hashlib
from collections.abc import Sequence
from typing import Literal
from urllib.parse import quote

import msgspec
from msgspec import Struct

from engines.protocol import Usage
from gateway.call import Call, Principal
from gateway.limits.estimates import Estimate
from gateway.limits.prices import PICO_PER_MICRO, cost_in_micro_units, in_micro_units, pico_price
from gateway.policy import LimitPolicy, Policy, PricePolicy
from gateway.policy.limits import AppliedLimit, applied_limits
from gateway.store import Bucket, Demand
from gateway.store.protocol import Period

Counts = Literal["requests", "input", "output", "tokens", "calls", "cost"]

# Field of a table -> what it counts, and in which period.
_FIELDS: dict[str, tuple[Counts, Period]] = {
    "requests_per_minute": ("requests", "minute"),
    "input_tokens_per_minute": ("input", "minute"),
    "output_tokens_per_minute": ("output", "minute"),
    "tokens_per_minute": ("tokens", "minute"),
    "concurrent_calls": ("calls", "minute"),
    "tokens_per_day": ("tokens", "day"),
    "tokens_per_month": ("tokens", "month"),
    "cost_per_day": ("cost", "day"),
    "cost_per_month": ("cost", "month"),
}
# What a rule counts -> which triplet of headers tells of it.
_NOUNS = {"requests": "requests", "tokens": "tokens", "input": "tokens", "output": "tokens"}
_MAX_KEY = 200  # characters; what is longer is hashed: model names are the client's words
_MAX_KNOWN = 10_000  # callers whose rules are remembered


class Rule(Struct, frozen=True, kw_only=True):
    """One field of one table, for one subject."""

    table: str
    field: str
    whose: str  # for people: `team "search"`
    counts: Counts
    bucket: Bucket
    wait_seconds: float = 0.0
    shown_as: str = ""  # follows from the others: which headers tell of it, if any do

    def __post_init__(self) -> None:
        """Decide once what `limit_headers` would ask of every call."""
        is_shown = self.bucket.kind == "rate" and self.bucket.enforced
        noun = _NOUNS.get(self.counts, "") if is_shown else ""
        msgspec.structs.force_setattr(self, "shown_as", noun)

    @property
    def is_budget(self) -> bool:
        """Is it a day's or a month's allowance?"""
        return self.bucket.kind == "window"

    @property
    def needs_prompt(self) -> bool:
        """Must the prompt be counted for it?"""
        return self.counts in ("input", "tokens", "cost")


class RuleBook:
    """The rules of one policy, by caller; remembers those it has made."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._by_key = any("key" in (table.per or ()) for table in policy.limits.values())
        self._known: dict[tuple[str, str, str, str, str | None], tuple[Rule, ...]] = {}

    def rules_of(self, call: Call) -> tuple[Rule, ...]:
        """What limits this call, the team's own table first; nothing if nothing does."""
        return self.rules_for(
            team=call.principal.team,
            key=key_of(call.principal),
            model=call.model.name if call.model is not None else "-",
            endpoint=call.endpoint,
            key_limits=call.principal.narrowing.limits,
        )

    def rules_for(
        self, *, team: str, key: str, model: str, endpoint: str, key_limits: str | None = None
    ) -> tuple[Rule, ...]:
        """The same for a call that nobody makes. `key_limits`: the table that the key names."""
        counts_by_key = self._by_key or key_limits is not None
        caller = (team, key if counts_by_key else "", model, endpoint, key_limits)
        rules = self._known.get(caller)
        if rules is None:
            rules = self._made(*caller)
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[caller] = rules
        return rules

    def _made(
        self, team: str, key: str, model: str, endpoint: str, key_limits: str | None
    ) -> tuple[Rule, ...]:
        values = {"team": team, "key": key, "model": model, "endpoint": endpoint}
        applied = applied_limits(
            self.policy, team=team, model=model, endpoint=endpoint, key_limits=key_limits
        )
        return tuple(
            _rule(each, field, {scope: values[scope] for scope in each.scopes})
            for each in applied
            for field in _FIELDS
            if getattr(each.table, field) is not None
        )


def key_of(principal: Principal) -> str:
    """What stands for a caller's key; a caller without one is known by name."""
    return principal.key_id or f"{principal.team}/{principal.name}"


def demands_of(
    rules: Sequence[Rule], estimate: Estimate, price: PricePolicy | None
) -> list[Demand]:
    """What the call wants of each rule's bucket."""
    prompt, sequences = estimate.prompt_tokens, estimate.num_sequences
    demands: list[Demand] = []
    for rule in rules:
        counts = rule.counts
        if counts in ("requests", "calls"):
            demands.append(Demand(rule.bucket))
        elif counts == "tokens":
            demands.append(Demand(rule.bucket, prompt, sequences))
        elif counts == "input":
            demands.append(Demand(rule.bucket, prompt))
        elif counts == "output":
            demands.append(Demand(rule.bucket, 0, sequences))
        else:
            fixed = prompt * pico_price(price.input) if price else 0
            per_output = sequences * pico_price(price.output) if price else 0
            demands.append(Demand(rule.bucket, fixed, per_output))
    return demands


def capped_estimate(demands: Sequence[Demand], estimate: Estimate) -> Estimate:
    """An output that was only guessed, no larger than what a bucket can ever hold.

    Without this, a small limit would refuse every call that names no `max_tokens`.
    """
    if estimate.is_explicit:
        return estimate
    output = estimate.output_tokens
    for demand in demands:
        bucket = demand.bucket
        if demand.per_output and bucket.enforced:
            room = bucket.capacity * bucket.scale - demand.fixed
            output = min(output, max(1, room // demand.per_output))
    if output == estimate.output_tokens:
        return estimate
    return msgspec.structs.replace(estimate, output_tokens=output)


def used_of(
    rules: Sequence[Rule], usage: Usage, price: PricePolicy | None, *, requests: int
) -> list[int]:
    """What the call has used of each rule's bucket."""
    amounts = {
        "requests": requests,
        "input": usage.prompt_tokens,
        "output": usage.completion_tokens,
        "tokens": usage.prompt_tokens + usage.completion_tokens,
        "calls": 0,
        "cost": cost_in_micro_units(price, usage),
    }
    return [amounts[rule.counts] for rule in rules]


def _rule(applied: AppliedLimit, field: str, subject: dict[str, str]) -> Rule:
    table = applied.table
    counts, period = _FIELDS[field]
    limit = getattr(table, field)
    if counts == "cost":
        limit = max(1, in_micro_units(limit))
    words = [f'{scope} "{value}"' for scope, value in subject.items()]
    return Rule(
        table=table.name,
        field=field,
        whose=" and ".join(words) or "all calls together",
        counts=counts,
        wait_seconds=table.wait_seconds,
        bucket=Bucket(
            kind="leases" if counts == "calls" else "rate" if period == "minute" else "window",
            key=_bucket_key(table, field, subject),
            limit=limit,
            burst=max(1, int(limit * table.burst_seconds / 60)) if period == "minute" else 0,
            period=period,
            scale=PICO_PER_MICRO if counts == "cost" else 1,
            enforced=not table.shadow,
            clamps=table.clamp_output,
        ),
    )


def _bucket_key(table: LimitPolicy, field: str, subject: dict[str, str]) -> str:
    parts = [table.name, field, *(f"{scope}={value}" for scope, value in subject.items())]
    key = ":".join(quote(part, safe="=") for part in parts)
    if len(key) <= _MAX_KEY:
        return key
    digest = hashlib.blake2b(key.encode(), digest_size=20).hexdigest()
    return f"{key[:80]}:{digest}"
