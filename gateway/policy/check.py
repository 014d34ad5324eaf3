"""Rules that span tables and files: names that are nowhere, lines that do nothing.

An error makes a policy unusable. A warning is about a line that is probably not
what its author meant; `penstock policy check` prints it and is content.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import cast

from gateway.endpoints import matches
from gateway.networks import network_problem
from gateway.policy.check_models import model_errors, model_warnings, reference
from gateway.policy.files import Files
from gateway.policy.limits import ADMITTED, limit_errors, limit_warnings
from gateway.policy.problems import Place, bare, quoted, there_are, way_out
from gateway.policy.schema import ModelPolicy, Policy, TeamPolicy

Hooks = Mapping[str, Collection[str]]


def errors_of(
    policy: Policy,
    files: Files,
    *,
    installed: Collection[str],
    hooks_of: Hooks | None = None,
) -> Sequence[str]:
    """What makes the policy unusable.

    `policy` may lack tables that could not be converted; `files` still has their
    names, so that one mistake is reported once.
    """
    return [
        *_plugin_errors(policy, files, installed),
        *(_hook_errors(policy, hooks_of) if hooks_of is not None else ()),
        *model_errors(policy, files),
        *_team_errors(policy, files),
        *limit_errors(policy),
    ]


def warnings_of(
    policy: Policy,
    *,
    hooks_of: Hooks | None = None,
    endpoint_names: Collection[str] | None = None,
) -> Sequence[str]:
    """What a policy that can be used probably does not mean."""
    return [
        *_unenforced(policy, hooks_of),
        *_idle_tables(policy),
        *model_warnings(policy),
        *_idle_patterns(policy, endpoint_names),
        *limit_warnings(policy),
    ]


def _plugin_errors(policy: Policy, files: Files, installed: Collection[str]) -> Iterator[str]:
    place = Place("gateway.toml", None, "plugins")
    if not policy.plugins and files.trees["gateway.toml"].get("plugins") == []:
        yield place.problem(f"no plugin is listed, so nobody could call ({there_are(installed)})")
    seen: set[str] = set()
    for index, plugin in enumerate(policy.plugins):
        if plugin not in installed:
            yield place.item(index).problem(
                f"{quoted(plugin)} is not an installed plugin{way_out(plugin, installed)}"
            )
        elif plugin in seen:
            yield place.item(index).problem(f"{quoted(plugin)} is listed twice")
        seen.add(plugin)
    for name, table in policy.tables.items():
        if policy.plugins and name not in seen:
            yield Place("gateway.toml", name).problem(
                f"does nothing, because plugins does not list {quoted(name)}"
            )
        team = getattr(table, "team", None)
        if isinstance(team, str):
            yield from reference(Place("gateway.toml", name, "team"), team, "teams.toml", files)
        # A plugin whose teams stand deeper in its table lists them itself.
        named_teams = cast("Callable[[], Mapping[str, str]]", getattr(table, "named_teams", dict))
        for path, named in named_teams().items():
            yield from reference(Place("gateway.toml", name, path), named, "teams.toml", files)


def _hook_errors(policy: Policy, hooks_of: Hooks) -> Iterator[str]:
    place = Place("gateway.toml", None, "plugins")
    needed = {
        "identify": "no plugin says who is calling, so every call would be refused",
        "route": "no plugin chooses a target, so no call could be answered",
    }
    for hook, statement in needed.items():
        offering = sorted(plugin for plugin, hooks in hooks_of.items() if hook in hooks)
        if policy.plugins and not set(offering) & set(policy.plugins):
            yield place.problem(f"{statement}; add one of: {', '.join(offering)}")


def _team_errors(policy: Policy, files: Files) -> Iterator[str]:
    for team in policy.teams.values():
        place = Place("teams.toml", team.name)
        if team.limits is not None:
            yield from reference(place.key("limits"), team.limits, "limits.toml", files)
        for at, pattern in _patterns(team, "models"):
            name = pattern.removeprefix("!")
            if not name:
                yield at.problem('"!" denies nothing: write what it denies, "!name"')
            elif name in policy.aliases and "*" not in name:
                model = policy.aliases[name]
                mark = "!" if pattern.startswith("!") else ""
                yield at.problem(
                    f"{quoted(pattern)} never matches: {quoted(name)} is an alias, and a team's "
                    f"models are names of models.toml; write {quoted(mark + model)}"
                )
        for at, pattern in _patterns(team, "endpoints"):
            if pattern == "!":
                yield at.problem('"!" denies nothing: write what it denies, "!name"')
        yield from _network_errors(team)


def _network_errors(team: TeamPolicy) -> Iterator[str]:
    if team.networks is None:
        return
    for at, pattern in _patterns(team, "networks"):
        if problem := network_problem(pattern):
            yield at.problem(f"{quoted(pattern)} {problem}")
    if all(pattern.startswith("!") for pattern in team.networks):
        yield Place("teams.toml", team.name, "networks").problem(
            'only denies, so no address is allowed; add what is, such as "*"'
        )


def _unenforced(policy: Policy, hooks_of: Hooks | None) -> Iterator[str]:
    """Tables that nobody would act on, because no plugin that does is listed."""
    if hooks_of is None:
        return

    def nobody(hook: str) -> bool:
        return not any(hook in hooks_of.get(plugin, ()) for plugin in policy.plugins)

    place = Place("gateway.toml", None, "plugins")
    if policy.teams and nobody("authorize"):
        yield place.problem(
            "no listed plugin enforces the models and endpoints of teams.toml; add allow_lists"
        )
    if nobody("admit"):
        for limits in policy.limits.values():
            for field in ADMITTED:
                if getattr(limits, field) is not None:
                    yield Place("limits.toml", limits.name, field).problem(
                        "no listed plugin enforces it; add rate_limits"
                    )


def _idle_tables(policy: Policy) -> Iterator[str]:
    used_engines = {
        target.engine
        for model in policy.models.values()
        for target in (*model.targets, *model.fallbacks, *([model.mirror] if model.mirror else ()))
    }
    for name in policy.engines:
        if name not in used_engines:
            yield Place("engines.toml", name).problem("no model of models.toml uses this engine")
    used_limits = {team.limits for team in policy.teams.values()}
    for name, limits in policy.limits.items():
        if limits.per is None and name not in used_limits:
            yield Place("limits.toml", name).problem("no team of teams.toml has these limits")
    if not policy.models:
        yield "models.toml: names no model, so there is nothing to call"
    if not policy.teams:
        yield "teams.toml: names no team, so nobody may call anything"
    for team in policy.teams.values():
        for field in ("models", "endpoints"):
            if not getattr(team, field):
                yield Place("teams.toml", team.name, field).problem(
                    f"is empty, so this team may use no {field.removesuffix('s')}"
                )


def _idle_patterns(policy: Policy, endpoint_names: Collection[str] | None) -> Iterator[str]:
    is_open = any("*" in model for model in policy.models)
    for team in policy.teams.values():
        for at, pattern in _patterns(team, "models"):
            name = pattern.removeprefix("!")
            if not is_open and not _fits_any(name, policy.models):
                yield at.problem(
                    f"{quoted(pattern)} matches no model{way_out(name, policy.models)}"
                    f"{_matching_aliases(name, policy.models.values())}"
                )
        for at, pattern in _patterns(team, "endpoints"):
            name = pattern.removeprefix("!")
            if endpoint_names is not None and not _fits_any(name, endpoint_names):
                yield at.problem(
                    f"{quoted(pattern)} matches no endpoint{way_out(name, endpoint_names)}"
                )


def _matching_aliases(glob: str, models: Iterable[ModelPolicy]) -> str:
    """Models that a glob would match by an alias, which does not count."""
    meant = [model.name for model in models if _fits_any(glob, model.aliases)]
    if not meant:
        return ""
    return f"; aliases do not count: write {', '.join(bare(name) for name in meant)}"


def _patterns(team: TeamPolicy, field: str) -> Iterator[tuple[Place, str]]:
    for index, pattern in enumerate(getattr(team, field)):
        yield Place("teams.toml", team.name).key(field).item(index), pattern


def _fits_any(glob: str, names: Iterable[str]) -> bool:
    return any(matches(name, [glob]) for name in names)
