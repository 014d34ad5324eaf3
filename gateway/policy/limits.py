"""Which tables of limits.toml apply to a call, what is wrong with them, and how they read.

A table that a team names counts for that team as a whole. A table with `per`
applies by itself; `per` says whose allowance it is.
"""

from collections.abc import Iterator, Sequence
from typing import cast

from msgspec import Struct

from gateway.endpoints import matches
from gateway.policy.problems import Place, header, quoted, way_out
from gateway.policy.schema import LimitPolicy, LimitScope, Policy

# Field -> how it is said to people.
RATES = {
    "requests_per_minute": "requests",
    "input_tokens_per_minute": "input tokens",
    "output_tokens_per_minute": "output tokens",
    "tokens_per_minute": "tokens",
}
BUDGETS = {
    "tokens_per_day": "tokens a day",
    "tokens_per_month": "tokens a month",
    "cost_per_day": "of cost a day",
    "cost_per_month": "of cost a month",
}
COSTS = ("cost_per_day", "cost_per_month")
# What a plugin that admits calls must enforce; `defaults` sees to max_output_tokens.
ADMITTED = (*RATES, "concurrent_calls", *BUDGETS)
_FILTERS = ("teams", "models", "endpoints")


class AppliedLimit(Struct, frozen=True):
    """A table that applies to a call, and whose allowance it counts."""

    table: LimitPolicy
    scopes: Sequence[LimitScope]


def applied_limits(
    policy: Policy, *, team: str, model: str, endpoint: str, key_limits: str | None = None
) -> Sequence[AppliedLimit]:
    """The team's own table first, then the key's, then those with `per` in file order."""
    found: list[AppliedLimit] = []
    caller = policy.teams.get(team)
    own = policy.limits.get(caller.limits) if caller and caller.limits else None
    if own is not None:
        found.append(AppliedLimit(own, ("team",)))
    if key_limits is not None and (of_key := policy.limits.get(key_limits)) is not None:
        found.append(AppliedLimit(of_key, ("key",)))
    found.extend(
        AppliedLimit(table, table.per)
        for table in policy.limits.values()
        if table.per is not None
        and matches(team, table.teams)
        and matches(model, table.models)
        and matches(endpoint, table.endpoints)
    )
    return found


def limit_errors(policy: Policy) -> Iterator[str]:
    """What makes the tables unusable."""
    named = {team.limits: team.name for team in policy.teams.values()}
    for table in policy.limits.values():
        place = Place("limits.toml", table.name)
        if table.per is None:
            for field in _FILTERS:
                if tuple(getattr(table, field)) != ("*",):
                    yield place.key(field).problem(
                        "only a table with per chooses its calls; this one applies to the teams "
                        "that name it"
                    )
            continue
        if len(set(table.per)) < len(table.per):
            yield place.key("per").problem("names the same scope twice")
        if table.name in named:
            yield place.key("per").problem(
                f"this table applies by itself, so no team can name it in its limits, as "
                f"{header(named[table.name])} does"
            )
        if table.max_output_tokens is not None:
            yield place.key("max_output_tokens").problem(
                "belongs in a table that a team names in its limits"
            )


def limit_warnings(policy: Policy) -> Iterator[str]:
    """What the tables probably do not mean."""
    is_open = any("*" in model for model in policy.models)
    names = {"teams": policy.teams, "models": policy.models}
    for table in policy.limits.values():
        place = Place("limits.toml", table.name)
        if table.per is not None and not any(getattr(table, field) for field in ADMITTED):
            yield place.problem("limits nothing")
        for field, known in names.items():
            for index, pattern in enumerate(cast(Sequence[str], getattr(table, field))):
                name = pattern.removeprefix("!")
                if (field == "teams" or not is_open) and not any(
                    matches(each, [name]) for each in known
                ):
                    at = place.key(field).item(index)
                    yield at.problem(
                        f"{quoted(pattern)} matches no {field.removesuffix('s')}"
                        f"{way_out(name, known)}"
                    )
        yield from _free_models(policy, table, place)
    for name in policy.prices:
        if not is_open and not any(matches(model, [name]) for model in policy.models):
            yield Place("prices.toml", name).problem(
                f"is the price of no model{way_out(name, policy.models)}"
            )


def _free_models(policy: Policy, table: LimitPolicy, place: Place) -> Iterator[str]:
    field = next((field for field in COSTS if getattr(table, field) is not None), None)
    free = [model for model in policy.models if policy.price_of(model) is None]
    if field is not None and free:
        yield place.key(field).problem(
            f"{', '.join(header(model) for model in free[:6])} of models.toml has no price in "
            "prices.toml, so it costs nothing"
        )


def limit_in_words(table: LimitPolicy) -> str:
    """`600 requests and 200,000 tokens a minute, 32 at once`; nothing if nothing is limited."""
    rates = [
        f"{value:,} {noun}"
        for field, noun in RATES.items()
        if (value := getattr(table, field)) is not None
    ]
    said = [" and ".join(rates) + " a minute"] if rates else []
    if table.concurrent_calls is not None:
        said.append(f"{table.concurrent_calls} at once")
    said.extend(
        f"{value:,} {noun}"
        for field, noun in BUDGETS.items()
        if (value := getattr(table, field)) is not None
    )
    return ", ".join(said)


def manner_in_words(table: LimitPolicy) -> str:
    """What happens when the limit is reached, where it is not a plain 429."""
    said: list[str] = []
    if table.shadow:
        return ", counted and logged only"
    if table.clamp_output:
        said.append("answers are cut short to fit")
    if table.wait_seconds:
        said.append(f"waits up to {table.wait_seconds:g} s for room")
    return f", {', '.join(said)}" if said else ""
