"""JSON with one meaning: no key twice, no NaN, no nesting that ends the interpreter."""

import json
from typing import Any, cast


def strict_object(text: bytes | str) -> dict[str, Any]:
    """The JSON object in `text`. Raises `ValueError` for anything else, and for a double key."""
    try:
        found = json.loads(text, object_pairs_hook=_once_each, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return cast(dict[str, Any], found)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
