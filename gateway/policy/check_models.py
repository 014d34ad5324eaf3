"""Rules of models.toml: targets that are nowhere, lines that contradict or do nothing."""

from collections.abc import Iterator
from typing import Any

from msgspec.structs import fields

from gateway.policy.files import Files
from gateway.policy.problems import Place, header, quoted, way_out
from gateway.policy.schema import (
    FALLBACK_CODES,
    CanaryPolicy,
    FallbackPolicy,
    ModelPolicy,
    Policy,
    TargetPolicy,
)

# A policy is no place for credentials, not even to compare one with.
_SECRET_HEADERS = frozenset(
    {"api-key", "authorization", "cookie", "proxy-authorization", "x-api-key"}
)


def model_errors(policy: Policy, files: Files) -> Iterator[str]:
    """What makes the policy unusable."""
    for model in policy.models.values():
        place = Place("models.toml", model.name)
        for index, target in enumerate(model.targets):
            at = place.key("targets").item(index)
            yield from reference(at.key("engine"), target.engine, "engines.toml", files)
            if target.canary is not None:
                yield from _canary_errors(at.key("canary"), target.canary, files)
        yield from _nobody_left(model, place.key("targets"))
        for index, fallback in enumerate(model.fallbacks):
            at = place.key("fallbacks").item(index)
            yield from reference(at.key("engine"), fallback.engine, "engines.toml", files)
            yield from _code_errors(at.key("on"), fallback)
        if model.mirror is not None:
            at = place.key("mirror").key("engine")
            yield from reference(at, model.mirror.engine, "engines.toml", files)
    yield from _alias_errors(policy, files)


def model_warnings(policy: Policy) -> Iterator[str]:
    """Lines that do nothing."""
    for model in policy.models.values():
        place = Place("models.toml", model.name)
        seen: set[tuple[Any, ...]] = set()
        for index, target in enumerate(model.targets):
            at = place.key("targets").item(index)
            # One for everybody and one as a canary is a way to write a share for some.
            key = (target.engine, target.model, target.canary is None)
            if key in seen:
                yield at.problem("is the same engine and model as a target before it")
            seen.add(key)
            if target.canary is not None and (target.drain or not target.weight):
                yield at.key("canary").problem("has no effect: the target takes no calls")
            elif target.canary is not None and not target.canary.percent:
                yield at.key("canary").problem("has no effect with percent = 0")
        yield from _idle_keys(model, place)


def reference(at: Place, name: str, file: str, files: Files) -> Iterator[str]:
    """A problem if `name` is no table of `file`."""
    if name in files.trees[file] or file in files.broken:
        return
    if file in files.missing:
        yield at.problem(
            f"{quoted(name)} would be a table of {file}, which is missing from {files.directory}"
        )
    else:
        yield at.problem(f"{quoted(name)} is not in {file}{way_out(name, files.trees[file])}")


def _nobody_left(model: ModelPolicy, at: Place) -> Iterator[str]:
    """Whether there is a target for a call that is nobody's canary."""
    open_to_all = [target for target in model.targets if target.canary is None]
    if not open_to_all:
        yield at.problem(
            "every target is a canary, so other calls would have none; add one without canary"
        )
    elif not any(target.weight for target in open_to_all):
        yield at.problem(
            "every weight is 0, so none would ever be chosen; give one a weight above 0"
        )
    elif all(target.drain or not target.weight for target in open_to_all):
        yield at.problem("every target is drained, so no call could be answered; leave one")


def _canary_errors(at: Place, canary: CanaryPolicy, files: Files) -> Iterator[str]:
    for index, team in enumerate(canary.teams):
        yield from reference(at.key("teams").item(index), team, "teams.toml", files)
    for name in canary.headers:
        if name.lower() in _SECRET_HEADERS:
            yield (
                at.key("headers")
                .key(name)
                .problem(
                    "this header holds a credential, and a policy holds none; "
                    "name the key in keys, or the team in teams"
                )
            )
        elif not name.isascii() or not name or any(mark in name for mark in " :,;"):
            yield at.key("headers").problem(f"{quoted(name)} is not the name of a header")
    if not canary.is_for_some and canary.percent == 100:
        yield at.problem(
            "says neither for whom the target is nor for what share of the calls: "
            "give teams, keys, headers or percent"
        )


def _code_errors(at: Place, fallback: FallbackPolicy) -> Iterator[str]:
    for position, code in enumerate(fallback.on):
        if code not in FALLBACK_CODES:
            yield at.item(position).problem(
                f"{quoted(code)} is not an engine's error{way_out(code, FALLBACK_CODES)}"
            )


def _idle_keys(model: ModelPolicy, place: Place) -> Iterator[str]:
    """Keys that decide nothing, given the others."""
    live = [one for one in model.targets if one.weight and not one.drain and one.canary is None]
    alone = len(live) < 2
    has_canary = any(target.canary is not None for target in model.targets)
    if model.sticky and alone and not has_canary:
        yield place.key("sticky").problem("has no effect with a single target")
    if model.choice != "weight" and alone:
        yield place.key("choice").problem("has no effect with a single target")
    elif model.choice != "weight" and model.sticky:
        yield place.key("choice").problem("has no effect beside sticky, which decides before it")
    if model.hedge is not None and alone and not has_canary:
        yield place.key("hedge").problem("has no effect with a single target")
    for key, stickiness in ("session_header", "session"), ("prefix_characters", "prefix"):
        if _is_set(model, key) and model.sticky != stickiness:
            yield place.key(key).problem(f'has no effect without sticky = "{stickiness}"')
    if model.mirror is not None and not model.mirror.percent:
        yield place.key("mirror").problem("has no effect with percent = 0")
    if model.retry.times and not model.retry.budget_percent:
        yield place.key("retry").key("times").problem("has no effect with budget_percent = 0")
    if len({target.priority for target in live}) > 1:
        yield from _lonely_weights(live, place)


def _lonely_weights(live: list[TargetPolicy], place: Place) -> Iterator[str]:
    """Weights of targets that have no other of their priority to share with."""
    for target in live:
        rivals = [other for other in live if other.priority == target.priority]
        if len(rivals) == 1 and target.weight != 1:
            yield place.key("targets").problem(
                f"weight {target.weight:g} has no effect: no other target has "
                f"priority {target.priority}"
            )


def _is_set(model: ModelPolicy, key: str) -> bool:
    """Is the key's value another than its default? One that repeats the default says nothing."""
    return any(
        field.name == key and getattr(model, key) != field.default for field in fields(ModelPolicy)
    )


def _alias_errors(policy: Policy, files: Files) -> Iterator[str]:
    models = files.trees["models.toml"]
    first: dict[str, str] = {}
    for model in policy.models.values():
        for index, alias in enumerate(model.aliases):
            at = Place("models.toml", model.name).key("aliases").item(index)
            if "*" in model.name:
                yield at.problem(f"{header(model.name)} is many names and can have no alias")
            elif "*" in alias:
                yield at.problem(
                    f"{quoted(alias)}: an alias is one name; for a glob write a table "
                    f"{header(alias)}"
                )
            elif alias in models:
                yield at.problem(f"{quoted(alias)} is a model itself, so the alias is dead")
            elif alias in first:
                whose = "this model" if first[alias] == model.name else header(first[alias])
                yield at.problem(f"{quoted(alias)} is an alias of {whose} already")
            first.setdefault(alias, model.name)
