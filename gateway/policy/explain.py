"""Says what would happen to a call, and which line of which file decided it.

Reads a `Policy` only: it makes no call, asks no engine and knows no plugin's
insides. What a plugin would do is said only if the policy lists that plugin.
"""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from gateway.endpoints import deciding_pattern, needs_admin
from gateway.policy.explain_targets import targets_told
from gateway.policy.limits import applied_limits, limit_in_words, manner_in_words
from gateway.policy.problems import header, quoted, way_out
from gateway.policy.schema import (
    LimitPolicy,
    ModelPolicy,
    Policy,
    SamplingDefaults,
    TeamPolicy,
)


class Line(Struct, frozen=True):
    """One thing that would happen, and where it was decided."""

    text: str
    where: str
    refused: bool = False  # the call ends here


def explain(policy: Policy, *, team: str, endpoint: str, model: str | None) -> Sequence[Line]:
    """The fate of one call, in the order in which it would be decided.

    The last line of a refused call says why. `model` is None for endpoints that
    name no model.
    """
    lines: list[Line] = []
    for line in _fate(policy, team, endpoint, model):
        lines.append(line)
        if line.refused:
            break
    return lines


def _fate(policy: Policy, team: str, endpoint: str, model: str | None) -> Iterator[Line]:
    caller = policy.teams.get(team)
    found = policy.resolve(model) if model is not None else None
    if model is not None and found is not None:
        yield from _name(policy, model, found)
    yield from _access(policy, caller, team, endpoint)
    if model is None:
        return
    if found is None:
        hint = way_out(model, [*policy.models, *policy.aliases])
        yield Line(f"refused: there is no model {quoted(model)}{hint}", "models.toml", refused=True)
        return
    if caller is not None and "allow_lists" in policy.plugins:
        yield _permission(caller, "models", found.name)
    limits = policy.limits.get(caller.limits) if caller and caller.limits else None
    if "defaults" in policy.plugins:
        yield from _defaults(found, model_table(policy, found), limits)
    if "routing" in policy.plugins:
        table = model_table(policy, found)
        yield from (Line(text, f"{table} {key}") for text, key in targets_told(found, team))
        if caller is not None and caller.show_targets:
            where = f"teams.toml {header(caller.name)} show_targets"
            yield Line("answers say which targets were tried, in x-penstock-targets", where)
    yield from _limits(policy, team, found.name, endpoint)


def _access(policy: Policy, caller: TeamPolicy | None, team: str, endpoint: str) -> Iterator[Line]:
    """Whether the team may use the endpoint at all, and from where."""
    if "allow_lists" not in policy.plugins:
        yield Line("no plugin checks what a team may use", "gateway.toml plugins")
    elif caller is None:
        hint = way_out(team, policy.teams)
        yield Line(f"refused: {team} is not a team{hint}", "teams.toml", refused=True)
    else:
        yield _permission(caller, "endpoints", endpoint)
        if caller.networks is not None:
            listed = ", ".join(quoted(network) for network in caller.networks[:6])
            where = f"teams.toml {header(caller.name)} networks"
            yield Line(f"only from an address in {listed}", where)
    if endpoint.startswith("admin."):
        yield Line(f"only with the role admin, like every {quoted('admin.*')}", "the key or token")
    elif needs_admin(endpoint):
        yield Line("only with the role admin, like all that manages models", "the key or token")


def model_table(policy: Policy, model: ModelPolicy) -> str:
    """Where a model stands: `models.toml [chat-small]`; a glob's answer stands under the glob."""
    if model.name in policy.models:
        return f"models.toml {header(model.name)}"
    fitting = [glob for glob in policy.models if deciding_pattern(model.name, [glob])]
    return f"models.toml {header(max(fitting, key=len, default=model.name))}"


def _name(policy: Policy, asked: str, model: ModelPolicy) -> Iterator[Line]:
    where = model_table(policy, model)
    if asked in policy.aliases:
        yield Line(f"{asked} is an alias of {model.name}", f"{where} aliases")
    elif asked not in policy.models:
        yield Line(f"{asked} is not listed; it goes where {where.split(' ', 1)[1]} says", where)


def _permission(team: TeamPolicy, field: str, name: str) -> Line:
    """Whether the team may use an endpoint or a model, and the pattern that says so."""
    patterns = team.endpoints if field == "endpoints" else team.models
    where = f"teams.toml {header(team.name)} {field}"
    if (allowing := deciding_pattern(name, patterns)) is not None:
        return Line(f"{team.name} may use {name}", f"{where} {quoted(allowing)}")
    for pattern in patterns:
        if pattern.startswith("!") and deciding_pattern(name, [pattern[1:]]) is not None:
            return Line(
                f"refused: {team.name} may not use {name}",
                f"{where} {quoted(pattern)}",
                refused=True,
            )
    if not patterns:
        noun = field.removesuffix("s")
        return Line(f"refused: {team.name} may use no {noun} at all", where, refused=True)
    listed = ", ".join(quoted(pattern) for pattern in patterns[:6])
    return Line(
        f"refused: {team.name} may not use {name}", f"{where} has only {listed}", refused=True
    )


def _defaults(model: ModelPolicy, table: str, limits: LimitPolicy | None) -> Iterator[Line]:
    said: list[str] = []
    where: list[str] = []
    for field in SamplingDefaults.__struct_fields__:
        value = getattr(model.defaults, field)
        if value is not None:
            said.append(f"{field} defaults to {value}")
    if said:
        where.append(f"{table} defaults")
    if limits is not None and limits.max_output_tokens is not None:
        said.append(f"output is capped at {limits.max_output_tokens}")
        where.append(f"limits.toml {header(limits.name)}")
    if said:
        yield Line("; ".join(said), ", ".join(where))


def _limits(policy: Policy, team: str, model: str, endpoint: str) -> Iterator[Line]:
    for applied in applied_limits(policy, team=team, model=model, endpoint=endpoint):
        where = f"limits.toml {header(applied.table.name)}"
        own = applied.table.per is None
        whose = "" if own else _whose(applied.scopes)
        said = limit_in_words(applied.table)
        if not said:
            yield Line("calls are not limited", where)
        elif "rate_limits" in policy.plugins:
            yield Line(f"{said}{whose}{manner_in_words(applied.table)}", where)
        else:
            yield Line(
                f"{said}{whose}: not enforced, because rate_limits is not listed",
                f"{where}, gateway.toml plugins",
            )


def _whose(scopes: Sequence[str]) -> str:
    return f" for each {' and '.join(scopes)}" if scopes else " for all together"
