"""What one policy says otherwise than another, line by line, for whoever changed it.

models.toml: [chat-small] targets[0].weight: 95 -> 90
teams.toml: [search] added
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec

from gateway.policy.problems import header, shown
from gateway.policy.schema import EnginePolicy, Policy

# Fields of a policy that are no file of tables of their own.
_NOT_TABLES = frozenset(("directory", "digest", "plugins", "aliases"))
_FILES: Mapping[str, str] = {"tables": "gateway.toml"}
_GONE = object()


def changes_of(old: Policy, new: Policy) -> Sequence[str]:
    """Each difference; nothing if only comments, spacing or order were changed."""
    lines = list(_plugin_changes(old.plugins, new.plugins))
    for field in Policy.__struct_fields__:
        if field in _NOT_TABLES:
            continue
        file = _FILES.get(field, f"{field}.toml")
        lines += _table_changes(file, getattr(old, field), getattr(new, field))
    return lines


def _plugin_changes(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    for name in new:
        if name not in old:
            yield f'gateway.toml: plugins: "{name}" added'
    for name in old:
        if name not in new:
            yield f'gateway.toml: plugins: "{name}" removed'
    if [name for name in old if name in new] != [name for name in new if name in old]:
        yield f"gateway.toml: plugins: now in the order {', '.join(new)}"


def _table_changes(file: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        place = f"{file}: {header(name)}"
        if name not in new:
            yield f"{place} removed"
        elif name not in old:
            yield f"{place} added"
        elif old[name] != new[name]:
            found = list(_value_changes("", _plain(old[name]), _plain(new[name])))
            yield from (f"{place} {line}" for line in found or ["changed"])


def _plain(value: Any) -> Any:
    if isinstance(value, EnginePolicy):
        return {"kind": value.kind, **_plain(value.config)}
    # A secret's place is shown, as a policy writes it; the secret itself is not in it.
    return msgspec.to_builtins(value, enc_hook=str)


def _value_changes(path: str, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        before, after = cast(dict[str, Any], old), cast(dict[str, Any], new)
        for key in sorted({*before, *after}):
            inner = f"{path}.{key}" if path else key
            yield from _value_changes(inner, before.get(key, _GONE), after.get(key, _GONE))
    elif isinstance(old, list) and isinstance(new, list):
        yield from _list_changes(path, cast(list[Any], old), cast(list[Any], new))
    else:
        yield f"{path}: {_shown(old)} -> {_shown(new)}"


def _list_changes(path: str, old: list[Any], new: list[Any]) -> Iterator[str]:
    if all(isinstance(item, str) for item in (*old, *new)):
        yield f"{path}: {_shown(old)} -> {_shown(new)}"
        return
    for index in range(max(len(old), len(new))):
        before = old[index] if index < len(old) else _GONE
        after = new[index] if index < len(new) else _GONE
        yield from _value_changes(f"{path}[{index}]", before, after)


def _shown(value: Any) -> str:
    if value is _GONE:
        return "nothing"
    if value is None:
        return "unset"
    if isinstance(value, list):
        return "[" + ", ".join(shown(item) for item in cast(list[Any], value)) + "]"
    if isinstance(value, dict):
        inner = cast(dict[str, Any], value)
        said = [f"{key} = {_shown(item)}" for key, item in inner.items() if item not in (None, [])]
        return "{ " + ", ".join(said) + " }"
    return shown(value)
