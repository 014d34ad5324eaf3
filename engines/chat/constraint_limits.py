"""Refuses constraints that are too large to be worth a compiler's time.

The compiler (llguidance) counts its own steps and gives up in time on most
hostile input. What is left is quadratic in the number of properties and
alternatives, and exponential in nested repetitions: those are bounded here,
before anything is compiled, by reading each constraint once.
"""

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

from engines.chat.json_scan import MAX_DEPTH
from engines.errors import RequestRefused

MAX_SCHEMA_CHARS = 128 * 1024
MAX_SCHEMA_DEPTH = 64
MAX_PROPERTIES = 1000
MAX_ENUM_VALUES = 5000
MAX_MULTIPLES = 100_000
"""States of the automata for `multipleOf`, one for each remainder; zeros at the end need none."""

MAX_CHOICES = 5000
MAX_CHOICE_CHARS = 64 * 1024
MAX_REGEX_CHARS = 8 * 1024
MAX_GRAMMAR_CHARS = 32 * 1024
MAX_REPETITION = 20_000
"""How long a regular expression may be with its counted repetitions written out."""

LEAST_NUMBER = -(2.0**63)
"""Numbers have to be greater: llguidance (1.9.1) takes the sign off the least 64-bit integer, which
leaves it as it is, again and again until the process ends."""

_JSON_INSIDE = re.compile(r"%json\s*")
_COMBINING = frozenset({"allOf", "anyOf", "oneOf", "$ref"})
_PLAIN_ATOM = re.compile(r"\\.|\{(\d+)(,?)(\d*)\}|[()]|[^\\{()]", re.DOTALL)
_ATOM = re.compile(rf"\[\^?\]?(?:[^\]\\]|\\.)*\]|{_PLAIN_ATOM.pattern}", re.DOTALL)


def check_schema(schema: object, param: str) -> str:
    """Return the schema as JSON, if it is not too large to compile."""
    counts = _Counts()
    waiting: list[tuple[object, int]] = [(schema, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_SCHEMA_DEPTH:
            raise _refused(f"the schema nests deeper than {MAX_SCHEMA_DEPTH} levels", param)
        if isinstance(value, Mapping):
            held = cast("Mapping[str, Any]", value)
            counts.add(held)
            _check_patterns(held, param)
            waiting += [(part, depth + 1) for part in held.values()]
        elif isinstance(value, list | tuple):
            waiting += [(part, depth + 1) for part in cast("list[Any]", value)]
        elif isinstance(value, int | float):
            _check_number(value, param)
    counts.check(param)
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
    for at in _JSON_INSIDE.finditer(grammar):
        check_schema(_schema_at(grammar, at.end(), param), param)


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
    atoms = _ATOM.finditer(pattern)
    while (atom := next(atoms, None)) is not None:
        text = atom[0]
        if text == "[":  # one that nothing closes: nor is there any other, and each would be sought
            atoms = _PLAIN_ATOM.finditer(pattern, atom.end())
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


class _Counts:
    """What a schema has, wherever it has it, of that which is slow to compile in numbers."""

    def __init__(self) -> None:
        self._num_properties = 0
        self._num_values = 0
        self._multiples: set[Decimal] = set()
        self._combines = False

    def add(self, schema: Mapping[str, Any]) -> None:
        self._num_properties += _num_items(schema.get("properties"))
        self._num_properties += _num_items(schema.get("patternProperties"))
        self._num_values += _num_items(schema.get("enum"))
        self._combines = self._combines or not _COMBINING.isdisjoint(schema)
        multiple = schema.get("multipleOf")
        if isinstance(multiple, int | float) and multiple and abs(multiple) <= sys.float_info.max:
            self._multiples.add(Decimal(repr(abs(float(multiple)))).normalize())

    def check(self, param: str) -> None:
        if self._num_properties > MAX_PROPERTIES:
            raise _refused(
                f"the schema has {self._num_properties} properties, over {MAX_PROPERTIES}", param
            )
        if self._num_values > MAX_ENUM_VALUES:
            raise _refused(
                f"the schema has {self._num_values} enum values, over {MAX_ENUM_VALUES}", param
            )
        if self._num_remainders() > MAX_MULTIPLES:
            raise _refused(
                "the schema's multipleOf is too slow to follow: without the zeros at their end, "
                f"such numbers may be {MAX_MULTIPLES} in all, and so may their common multiple",
                param,
            )

    def _num_remainders(self) -> int:
        num_states = sum(int(multiple.scaleb(-_exponent(multiple))) for multiple in self._multiples)
        if not self._combines or num_states > MAX_MULTIPLES:
            return num_states
        # Of a value that several of them hold for; which those are, only the compiler knows.
        least = min((_exponent(multiple) for multiple in self._multiples), default=0)
        common = math.lcm(*(int(multiple.scaleb(-least)) for multiple in self._multiples))
        while common and common % 10 == 0:
            common //= 10
        return max(num_states, common)


def _exponent(number: Decimal) -> int:
    return cast("int", number.as_tuple().exponent)


def _schema_at(grammar: str, start: int, param: str) -> object:
    """Read the schema that follows a `%json`, which takes the last of two equal keys, as serde."""
    try:
        return json.JSONDecoder().raw_decode(grammar, start)[0]
    except (ValueError, RecursionError):
        raise _refused("no JSON that can be read follows %json in the grammar", param) from None


def _check_number(number: float, param: str) -> None:
    try:
        is_small = float(number) <= LEAST_NUMBER  # as the compiler has it: -2**63 + 1 is no double
    except OverflowError:
        raise _refused("the schema has a number that is larger than any double", param) from None
    if is_small:
        raise _refused(
            f"the schema has the number {number}: only those over -2**63 are supported; "
            "a bound that low may be left out",
            param,
        )


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
