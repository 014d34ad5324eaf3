"""Says what would happen to a call, and which line of which file decided it.

Reads a `Policy` only: it makes no call, asks no engine and knows no plugin's
insides. What a plugin would do is said only if the policy lists that plugin.
"""

from collections.abc import Iterator, Sequence

from gateway.endpoints import deciding_pattern, needs_admin
from gateway.policy.explain_key import (
    CallersKey,
    Line,
    key_told,
    networks_told,
    permission_told,
)
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


def explain(
    policy: Policy, *, team: str, endpoint: str, model: str | None, key: CallersKey | None = None
) -> Sequence[Line]:
    """The fate of one call, in the order in which it would be decided.

    The last line of a refused call says why. `model` is None for endpoints that
    name no model; `key` is one of the team's, to be told what it takes away.
    """
    lines: list[Line] = []
    for line in _fate(policy, team, endpoint, model, key):
        lines.append(line)
        if line.refused:
            break
    return lines


def _fate(
    policy: Policy, team: str, endpoint: str, model: str | None, key: CallersKey | None
) -> Iterator[Line]:
    caller = policy.teams.get(team)
    found = policy.resolve(model) if model is not None else None
    if model is not None and found is not None:
        yield from _name(policy, model, found)
    yield from _access(policy, caller, team, endpoint, key)
    if model is None:
        return
    if found is None:
        hint = way_out(model, [*policy.models, *policy.aliases])
        yield Line(f"refused: there is no model {quoted(model)}{hint}", "models.toml", refused=True)
        return
    if caller is not None and "allow_lists" in policy.plugins:
        yield _of_team(caller, "models", found.name)
        if key is not None and key.models is not None:
            where = f"key {key.id}"
            yield permission_told(where, "models", key.models, found.name, where)
    limits = policy.limits.get(caller.limits) if caller and caller.limits else None
    if "defaults" in policy.plugins:
        yield from _defaults(found, model_table(policy, found), limits)
    if "routing" in policy.plugins:
        table = model_table(policy, found)
        key_id = key.id if key is not None else None
        yield from (
            Line(text, f"{table} {field}") for text, field in targets_told(found, team, key_id)
        )
        if caller is not None and caller.show_targets:
            where = f"teams.toml {header(caller.name)} show_targets"
            yield Line("answers say which targets were tried, in x-penstock-targets", where)
    yield from _limits(policy, team, found.name, endpoint, key)


def _access(
    policy: Policy, caller: TeamPolicy | None, team: str, endpoint: str, key: CallersKey | None
) -> Iterator[Line]:
    """Whether the team and its key may use the endpoint at all, and from where."""
    if "allow_lists" not in policy.plugins:
        yield Line("no plugin checks what a team may use", "gateway.toml plugins")
    elif caller is None:
        hint = way_out(team, policy.teams)
        yield Line(f"refused: {team} is not a team{hint}", "teams.toml", refused=True)
    else:
        yield _of_team(caller, "endpoints", endpoint)
        if caller.networks is not None:
            yield networks_told(caller.networks, f"teams.toml {header(caller.name)} networks")
    if key is not None:
        yield from key_told(policy, key, endpoint=endpoint)
    if endpoint.startswith("admin."):
        yield _role_told(f"like every {quoted('admin.*')}", key)
    elif needs_admin(endpoint):
        yield _role_told("like all that manages models", key)


def _role_told(why: str, key: CallersKey | None) -> Line:
    is_refused = key is not None and key.role != "admin"
    said = f"only with the role admin, {why}"
    return Line(f"{'refused: ' * is_refused}{said}", "the key or token", refused=is_refused)


def _of_team(team: TeamPolicy, field: str, name: str) -> Line:
    patterns = team.endpoints if field == "endpoints" else team.models
    return permission_told(team.name, field, patterns, name, f"teams.toml {header(team.name)}")


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


def _limits(
    policy: Policy, team: str, model: str, endpoint: str, key: CallersKey | None
) -> Iterator[Line]:
    of_key = key.limits if key is not None else None
    for applied in applied_limits(
        policy, team=team, model=model, endpoint=endpoint, key_limits=of_key
    ):
        where = f"limits.toml {header(applied.table.name)}"
        is_teams = applied.table.per is None and applied.scopes == ("team",)
        whose = "" if is_teams else _whose(applied.scopes)
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
