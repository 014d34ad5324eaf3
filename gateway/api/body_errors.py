"""Says what is wrong with a decoded body: which field, what it is, what it may be.

msgspec names the place and the fault. Here they become our words, and what the
endpoint's Struct allows at that place is added: the nearest field name for an
unknown one, the values for a wrong one.
"""

import difflib
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import inspect as shape

from gateway.errors import BadRequest

_PLACE = re.compile(r" - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>.*)`$")
_TYPE = re.compile(r"^Expected `(?P<expected>[^`]*)`, got `(?P<got>[^`]*)`$")
_VALUE = re.compile(r"^Invalid (?:enum )?value (?P<value>.*)$", re.DOTALL)
_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[[^\]]*\]")

_WORDS = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_GOT = {**_WORDS, "bool": "a boolean"}
MAX_SHOWN = 100


def named(error: msgspec.ValidationError, body: type[Any]) -> BadRequest:
    """The refusal that tells a caller what to change; `param` is the path of the field."""
    message = str(error)
    place = _PLACE.search(message)
    path = place["path"].lstrip(".") if place else ""
    fault = message[: place.start()] if place else message
    if (found := _UNKNOWN.match(fault)) is not None:
        return _unknown_field(path, found["name"], body)
    if (found := _MISSING.match(fault)) is not None:
        field = _join(path, found["name"])
        return BadRequest(f"{field} is missing", param=field)
    if (found := _TYPE.match(fault)) is not None:
        expected = " or ".join(_WORDS.get(w, w) for w in found["expected"].split(" | "))
        what = f"{'a key of ' if place and place['key'] else ''}{path or 'the body'}"
        got = _GOT.get(found["got"], found["got"])
        return BadRequest(f"{what} must be {expected}, not {got}", param=path or None)
    if (found := _VALUE.match(fault)) is not None:
        return _wrong_value(path, found["value"], body)
    return BadRequest(f"{path or 'the body'}: {lowered(fault)}", param=path or None)


def _unknown_field(path: str, name: str, body: type[Any]) -> BadRequest:
    shown = shortened(name)
    field = _join(path, shown)
    known = {entry.encode_name for entry in _structs_at(body, path) for entry in entry.fields}
    nearest = difflib.get_close_matches(name[:MAX_SHOWN], known, n=1, cutoff=0.6)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "; docs/api.md lists what is"
    return BadRequest(f"{field} is not a field of this request{hint}", param=field)


def _wrong_value(path: str, value: str, body: type[Any]) -> BadRequest:
    allowed = sorted(_values_at(body, path))
    hint = f"; it must be one of {', '.join(allowed)}" if allowed else ""
    return BadRequest(f"{path} is {shortened(value)}{hint}", param=path or None)


def lowered(text: str) -> str:
    """A library's sentence as part of ours: its first letter small, unless an acronym's."""
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def shortened(text: str) -> str:
    """`text`, or its beginning where a caller sent a novel."""
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


@lru_cache(maxsize=64)
def _shape_of(body: type[Any]) -> shape.Type:
    return shape.type_info(body)


def _structs_at(body: type[Any], path: str) -> list[shape.StructType]:
    return [entry for entry in _types_at(body, path) if isinstance(entry, shape.StructType)]


def _values_at(body: type[Any], path: str) -> set[str]:
    parent, _, name = path.rpartition(".")
    values: set[str] = set()
    for entry in _types_at(body, path):
        if isinstance(entry, shape.LiteralType):
            values.update(str(value) for value in entry.values)
    for entry in _structs_at(body, parent):
        if entry.tag_field == name:
            values.add(str(entry.tag))
    return values


def _types_at(body: type[Any], path: str) -> list[shape.Type]:
    """Every type that the Structs allow at `path`; a union allows several."""
    types = list(_members(_shape_of(body)))
    for step in _STEP.finditer("." + path if path and path[0] != "[" else path):
        types = [m for entry in types for m in _inside(entry, step["name"])]
    return types


def _inside(entry: shape.Type, name: str | None) -> Iterator[shape.Type]:
    if isinstance(entry, shape.DictType):
        yield from _members(entry.value_type)
    elif isinstance(entry, shape.ListType) and name is None:
        yield from _members(entry.item_type)
    elif isinstance(entry, shape.StructType):
        for field in entry.fields:
            if field.encode_name == name:
                yield from _members(field.type)


def _members(entry: shape.Type) -> Iterable[shape.Type]:
    return entry.types if isinstance(entry, shape.UnionType) else (entry,)
