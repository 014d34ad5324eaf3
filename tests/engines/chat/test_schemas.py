"""What of JSON Schema is enforced, and what its numbers may be."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import RequestRefused
from engines.protocol import JsonSchema
from tests.engines.chat.vocabulary import new_compiler

COMPILER = new_compiler()


# Those that docs/api.md names.
@pytest.mark.parametrize("schema", [
    {"enum": ["a", "b"], "not": {"const": "a"}}, {"if": {"const": 1}, "then": {"const": 2}},
    {"oneOf": [{"type": "string"}, {"type": "string", "minLength": 2}]},
    {"type": "array", "uniqueItems": True}, {"type": "array", "contains": {"const": 1}},
    {"type": "object", "propertyNames": {"pattern": "a"}}, {"dependentRequired": {"a": ["b"]}},
    {"unevaluatedProperties": False}, {"$dynamicRef": "#a"}, {"type": "string", "format": "x"},
])  # fmt: skip
def test_what_cannot_be_enforced_is_refused_or_left_out_as_strict_says(schema: dict[str, object]):
    with pytest.raises(RequestRefused, match=r"Unimplemented|Unknown format|not supported"):
        COMPILER.compile(JsonSchema(schema=schema))

    assert COMPILER.compile(JsonSchema(schema=schema, strict=False))


_EDGES = [0, 5, 2**31, 2**32, 2**53, 2**63 - 1024, 2**63, 2**64, 10**20, 10**400]
_NUMBERS = (
    st.sampled_from(
        [sign * edge + more for edge in _EDGES for sign in (1, -1) for more in (-1, 0, 1)]
    )
    | st.integers()
    | st.floats(allow_nan=False)
)
_KEYWORDS = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "const",
    "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
)  # fmt: skip


@given(
    st.sampled_from(["integer", "number", "string", "array", "object"]),
    st.dictionaries(st.sampled_from(_KEYWORDS), _NUMBERS, max_size=3),
    st.booleans(),
)
def test_no_number_in_a_schema_ends_the_process(kind: str, numbers: dict[str, float], strict: bool):
    schema = {"type": kind, "allOf": [{name: value} for name, value in numbers.items()]}

    with contextlib.suppress(RequestRefused):
        COMPILER.compile(JsonSchema(schema=schema, strict=strict))
