"""From the tables of limits.toml to the buckets of one call, and to what it wants of them."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
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
_OF_CALLS = ("requests", "calls")
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

    @property
    def is_budget(self) -> bool:
        """Is it a day's or a month's allowance?"""
        return self.bucket.kind == "window"

    @property
    def shown_as(self) -> str:
        """Which triplet of headers tells of it; nothing if none does."""
        is_shown = self.bucket.kind == "rate" and self.bucket.enforced
        return _NOUNS.get(self.counts, "") if is_shown else ""

    @property
    def label(self) -> str:
        """Its name in headers: ASCII, whatever the table's is."""
        return f"{quote(self.table)}.{self.field}"


class Rules(tuple[Rule, ...]):
    """The rules of one caller, and what follows from them alone: found once, not in every call."""

    @cached_property
    def needs_prompt(self) -> bool:
        """Must the prompt be counted?"""
        return any(rule.counts in ("input", "tokens", "cost") for rule in self)

    @cached_property
    def needs_price(self) -> bool:
        """Does something count money?"""
        return any(rule.counts == "cost" for rule in self)

    @cached_property
    def clamping(self) -> Sequence[int]:
        """The places of those because of which a call may get less output than it wants."""
        return [
            place for place, rule in enumerate(self) if rule.bucket.clamps and rule.bucket.enforced
        ]

    @cached_property
    def waiting(self) -> Sequence[Rule]:
        """Those with a line to wait in."""
        return [rule for rule in self if rule.wait_seconds]

    @cached_property
    def shadows(self) -> Sequence[int]:
        """The places of those that refuse nothing."""
        return [place for place, rule in enumerate(self) if not rule.bucket.enforced]

    @cached_property
    def shown(self) -> Sequence[tuple[str, Sequence[tuple[int, int]]]]:
        """For each noun that headers tell of, the places of its rules and their bursts."""
        nouns = dict.fromkeys(rule.shown_as for rule in self if rule.shown_as)
        return [
            (
                noun,
                [(at, rule.bucket.burst) for at, rule in enumerate(self) if rule.shown_as == noun],
            )
            for noun in nouns
        ]

    @cached_property
    def constant_headers(self) -> Sequence[dict[str, str]]:
        """What headers say of each rule, if any do, however full its bucket is."""
        return [
            {
                f"x-ratelimit-limit-{rule.shown_as}": str(rule.bucket.limit),
                f"x-penstock-limit-{rule.shown_as}": rule.label,
            }
            for rule in self
        ]

    @cached_property
    def counts(self) -> Sequence[Counts]:
        """What each rule counts."""
        return [rule.counts for rule in self]

    @cached_property
    def single(self) -> Sequence[Demand]:
        """One of each bucket: all that a call wants of those that count calls."""
        return [Demand(rule.bucket) for rule in self]

    @cached_property
    def sized(self) -> Sequence[tuple[int, Rule]]:
        """Those of which a call wants more the larger it is, and their places."""
        return [(at, rule) for at, rule in enumerate(self) if rule.counts not in _OF_CALLS]

    @cached_property
    def tightest(self) -> Sequence[tuple[int, int]]:
        """The places of those that a long answer may not fit, and what they hold at most.

        Of those that count the same the one that holds least, as a call wants as much of each.
        """
        least: dict[Counts, tuple[int, int]] = {}
        for at, rule in self.sized:
            most = rule.bucket.capacity * rule.bucket.scale
            if rule.counts != "input" and rule.bucket.enforced:
                least[rule.counts] = min(least.get(rule.counts, (most, at)), (most, at))
        return [(at, most) for most, at in least.values()]


class RuleBook:
    """The rules of one policy, by caller; remembers those it has made."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._by_key = any("key" in (table.per or ()) for table in policy.limits.values())
        self._known: dict[tuple[str, str, str, str, str | None], Rules] = {}

    def rules_of(self, call: Call) -> Rules:
        """What limits this call, the team's own table first; nothing if nothing does."""
        principal = call.principal
        return self.rules_for(
            team=principal.team,
            key=key_of(principal),
            model=call.model.name if call.model is not None else "-",
            endpoint=call.endpoint,
            key_limits=principal.narrowing.limits,
        )

    def rules_for(
        self, *, team: str, key: str, model: str, endpoint: str, key_limits: str | None = None
    ) -> Rules:
        """The same for a call that nobody makes. `key_limits`: the table that the key names.

        With "" for the key, what each key has for itself is left out.
        """
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
    ) -> Rules:
        values = {"team": team, "key": key, "model": model, "endpoint": endpoint}
        applied = applied_limits(
            self.policy, team=team, model=model, endpoint=endpoint, key_limits=key_limits
        )
        return Rules(
            _rule(each, field, {scope: values[scope] for scope in each.scopes})
            for each in applied
            if key or "key" not in each.scopes
            for field in _FIELDS
            if getattr(each.table, field) is not None
        )


def key_of(principal: Principal) -> str:
    """What stands for a caller's key; a caller without one is known by name."""
    return principal.key_id or f"{principal.team}/{principal.name}"


def demands_of(rules: Rules, estimate: Estimate, price: PricePolicy | None) -> list[Demand]:
    """What the call wants of each rule's bucket."""
    prompt, sequences = estimate.prompt_tokens, estimate.num_sequences
    demands = list(rules.single)
    for place, rule in rules.sized:
        counts = rule.counts
        if counts == "tokens":
            demands[place] = Demand(rule.bucket, prompt, sequences)
        elif counts == "input":
            demands[place] = Demand(rule.bucket, prompt)
        elif counts == "output":
            demands[place] = Demand(rule.bucket, 0, sequences)
        else:
            fixed = prompt * pico_price(price.input) if price else 0
            per_output = sequences * pico_price(price.output) if price else 0
            demands[place] = Demand(rule.bucket, fixed, per_output)
    return demands


def capped_estimate(rules: Rules, demands: Sequence[Demand], estimate: Estimate) -> Estimate:
    """An output that was only guessed, no larger than what a bucket can ever hold.

    Without this, a small limit would refuse every call that names no `max_tokens`.
    """
    if estimate.is_explicit:
        return estimate
    output = estimate.output_tokens
    for place, most in rules.tightest:
        demand = demands[place]
        if demand.per_output and demand.fixed + demand.per_output * output > most:
            output = min(output, max(1, (most - demand.fixed) // demand.per_output))
    if output == estimate.output_tokens:
        return estimate
    return msgspec.structs.replace(estimate, output_tokens=output)


def used_of(rules: Rules, usage: Usage, price: PricePolicy | None, *, requests: int) -> list[int]:
    """What the call has used of each rule's bucket."""
    amounts = {
        "requests": requests,
        "input": usage.prompt_tokens,
        "output": usage.completion_tokens,
        "tokens": usage.prompt_tokens + usage.completion_tokens,
        "calls": 0,
        "cost": cost_in_micro_units(price, usage),
    }
    return list(map(amounts.__getitem__, rules.counts))


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
