"""Refuses constraints that are too large to be worth a compiler's time.

The compiler (llguidance) counts its own steps and gives up in time on most
hostile input. What is left is quadratic in the number of properties and
alternatives, and exponential in nested repetitions: those are bounded here,
before anything is compiled, by reading each constraint once.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from engines.chat.json_scan import MAX_DEPTH
from engines.errors import RequestRefused

MAX_SCHEMA_CHARS = 128 * 1024
MAX_SCHEMA_DEPTH = 64
MAX_PROPERTIES = 1000
MAX_ENUM_VALUES = 5000
MAX_CHOICES = 5000
MAX_CHOICE_CHARS = 64 * 1024
MAX_REGEX_CHARS = 8 * 1024
MAX_GRAMMAR_CHARS = 32 * 1024
MAX_REPETITION = 20_000
"""How long a regular expression may be with its counted repetitions written out."""

_ATOM = re.compile(r"\\.|\[\^?\]?(?:[^\]\\]|\\.)*\]|\{(\d+)(,?)(\d*)\}|[()]|[^\\\[{()]", re.DOTALL)


def check_schema(schema: object, param: str) -> str:
    """Return the schema as JSON, if it is not too large to compile."""
    num_properties = num_values = 0
    waiting: list[tuple[object, int]] = [(schema, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_SCHEMA_DEPTH:
            raise _refused(f"the schema nests deeper than {MAX_SCHEMA_DEPTH} levels", param)
        if isinstance(value, Mapping):
            held = cast("Mapping[str, Any]", value)
            num_properties += _num_items(held.get("properties"))
            num_properties += _num_items(held.get("patternProperties"))
            num_values += _num_items(held.get("enum"))
            _check_patterns(held, param)
            waiting += [(part, depth + 1) for part in held.values()]
        elif isinstance(value, list | tuple):
            waiting += [(part, depth + 1) for part in cast("list[Any]", value)]
    if num_properties > MAX_PROPERTIES:
        raise _refused(f"the schema has {num_properties} properties, over {MAX_PROPERTIES}", param)
    if num_values > MAX_ENUM_VALUES:
        raise _refused(f"the schema has {num_values} enum values, over {MAX_ENUM_VALUES}", param)
    if isinstance(schema, Mapping) and "x-guidance" in schema:
        raise _refused('the schema has the key "x-guidance", which is not allowed here', param)
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise _refused(f"the schema is not JSON: {error}", param) from None
    if len(text) > MAX_SCHEMA_CHARS:
        raise _refused(
            f"the schema has {len(text)} characters of JSON, over {MAX_SCHEMA_CHARS}", param
        )
    return text


def check_regex(pattern: str, param: str, *, what: str = "the regular expression") -> None:
    """Refuse a pattern that is long, or would be with its repetitions written out."""
    if len(pattern) > MAX_REGEX_CHARS:
        raise _refused(f"{what} has {len(pattern)} characters, over {MAX_REGEX_CHARS}", param)
    size = repeated_size(pattern)
    if size > MAX_REPETITION:
        raise _refused(f"{what} repeats too much: written out it is over {MAX_REPETITION}", param)


def check_grammar(grammar: str, param: str) -> None:
    """Refuse a grammar that is long, or has large repetitions inside each other."""
    if len(grammar) > MAX_GRAMMAR_CHARS:
        raise _refused(
            f"the grammar has {len(grammar)} characters, over {MAX_GRAMMAR_CHARS}", param
        )
    # A grammar's terminals look enough like regular expressions for this.
    if repeated_size(grammar) > MAX_REPETITION + MAX_GRAMMAR_CHARS:
        raise _refused("the grammar has repetitions inside repetitions: it is too large", param)


def check_choices(choices: Sequence[str], param: str) -> None:
    """Refuse no choices, and too many."""
    if not choices:
        raise _refused("there is nothing to choose from: give at least one choice", param)
    if len(choices) > MAX_CHOICES:
        raise _refused(f"there are {len(choices)} choices, over {MAX_CHOICES}", param)
    num_chars = sum(map(len, choices))
    if num_chars > MAX_CHOICE_CHARS:
        raise _refused(f"the choices have {num_chars} characters, over {MAX_CHOICE_CHARS}", param)


def repeated_size(pattern: str) -> int:
    """Say about how long `pattern` is with every `{m,n}` written out; never fails."""
    sizes = [0]  # of each open group
    last = 0
    for atom in _ATOM.finditer(pattern):
        text = atom[0]
        if text == "(":
            if len(sizes) > MAX_DEPTH:
                return MAX_REPETITION * MAX_DEPTH
            sizes.append(0)
            last = 0
        elif text == ")" and len(sizes) > 1:
            last = sizes.pop()
            sizes[-1] += last
        elif atom[1] is not None:
            count = int((atom[3] or atom[1])[:9])
            sizes[-1] += last * max(count - 1, 0)
            last *= max(count, 1)
        else:
            last = 1
            sizes[-1] += 1
    return sum(sizes)


def _check_patterns(schema: Mapping[str, Any], param: str) -> None:
    patterns = [schema.get("pattern")]
    by_pattern = schema.get("patternProperties")
    if isinstance(by_pattern, Mapping):
        patterns += list(cast("Mapping[str, Any]", by_pattern))
    for pattern in patterns:
        if isinstance(pattern, str):
            check_regex(pattern, param, what=f"the schema's pattern {pattern[:40]!r}")


def _num_items(value: object) -> int:
    return len(cast("list[Any]", value)) if isinstance(value, Mapping | list) else 0


def _refused(message: str, param: str) -> RequestRefused:
    return RequestRefused(message, param=param)
