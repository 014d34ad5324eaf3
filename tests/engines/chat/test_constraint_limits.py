import pytest

from engines.chat.constraint_limits import (
    MAX_CHOICES,
    MAX_GRAMMAR_CHARS,
    MAX_PROPERTIES,
    MAX_REGEX_CHARS,
    MAX_REPETITION,
    check_choices,
    check_grammar,
    check_regex,
    check_schema,
    repeated_size,
)
from engines.errors import RequestRefused


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("abc", 3),
        ("a{3}", 3),
        ("(ab){3}", 6),
        ("(a{3}b){2,4}", 16),
        ("a{2,}", 2),
        ("[abc]{5}", 5),
        (r"\{3}", 3),
        (r"\(a{2}\)", 4),
        ("[](]{2}", 2),
        ("(a{1000}){1000}", 1_000_000),
        ("((a)", 1),
        ("a)b", 3),
        ("a{99999999999999999999}", 999_999_999),
        ("[a{3}[", 5),
        (r"[[a{3}\]", 6),
    ],
)
def test_the_written_out_size_is_about_right(pattern: str, size: int):
    assert repeated_size(pattern) == size


def test_deep_brackets_are_too_large_at_once():
    assert repeated_size("(" * 5000) > MAX_REPETITION


@pytest.mark.parametrize("pattern", ["a" * (MAX_REGEX_CHARS + 1), "((a{50}){50}){50}"])
def test_a_large_pattern_is_refused(pattern: str):
    with pytest.raises(RequestRefused) as refused:
        check_regex(pattern, "guided_regex")

    assert refused.value.param == "guided_regex"


def test_a_large_grammar_is_refused():
    with pytest.raises(RequestRefused, match=f"over {MAX_GRAMMAR_CHARS}"):
        check_grammar("x" * (MAX_GRAMMAR_CHARS + 1), "grammar")
    with pytest.raises(RequestRefused, match="repetitions inside repetitions"):
        check_grammar("start: /(a{1000}){1000}/", "grammar")


def test_choices_are_bounded_on_both_sides():
    check_choices(["a"] * MAX_CHOICES, "choice")
    with pytest.raises(RequestRefused, match="at least one"):
        check_choices([], "choice")
    with pytest.raises(RequestRefused, match=f"over {MAX_CHOICES}"):
        check_choices(["a"] * (MAX_CHOICES + 1), "choice")
    with pytest.raises(RequestRefused, match="characters"):
        check_choices(["a" * 100_000], "choice")


def test_a_schema_comes_back_as_json():
    assert check_schema({"type": "object", "maxProperties": 10**30}, "x") == (
        '{"type": "object", "maxProperties": 1000000000000000000000000000000}'
    )


def test_properties_are_counted_wherever_they_are():
    half = {"properties": {f"p{at}": True for at in range(MAX_PROPERTIES // 2 + 1)}}

    check_schema({"items": half}, "x")
    with pytest.raises(RequestRefused, match=f"properties, over {MAX_PROPERTIES}"):
        check_schema({"anyOf": [half, {"not": half}]}, "x")


def test_a_property_may_be_called_like_a_keyword():
    schema = {"properties": {"enum": {"type": "string"}, "pattern": {"properties": {}}}}

    assert check_schema(schema, "x")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"pattern": "(a{999}){999}"}, "pattern '.*' repeats too much"),
        ({"patternProperties": {"(a{999}){999}": {}}}, "repeats too much"),
        ({"const": "x" * 200_000}, "characters of JSON"),
        ({"const": float("inf")}, "not JSON"),
        ({"const": object()}, "not JSON"),
        ({"x-guidance": {}}, "not allowed"),
        ({"const": -(2**63)}, "number -9223372036854775808: only those over -2"),
        ({"properties": {"a": {"enum": [1, [-(2**63) + 1.0]]}}}, "only those over -2"),
        ({"minimum": -1e300}, "only those over -2"),
        ({"multipleOf": 1000003}, "multipleOf is too slow"),
        ({"multipleOf": -1000003}, "multipleOf is too slow"),
        ({"multipleOf": 10**400}, "larger than any double"),
        ({"allOf": [{"multipleOf": 997}, {"items": {"multipleOf": 991}}]}, "common multiple"),
        ({"allOf": [{"multipleOf": 997}, {"anyOf": [{"multipleOf": 0.991}]}]}, "common multiple"),
        ({"items": [{"multipleOf": 10_007 + at} for at in range(20)]}, "multipleOf is too slow"),
        ({"const": 10**400}, "larger than any double"),
        ({"const": -(10**400)}, "larger than any double"),
    ],
)
def test_these_schemas_are_refused(schema: dict[str, object], message: str):
    with pytest.raises(RequestRefused, match=message):
        check_schema(schema, "x")


@pytest.mark.parametrize("number", ["-9223372036854775808", "-9.3e18", "-1e999"])
def test_a_schema_inside_a_grammar_may_not_hold_the_numbers_that_no_schema_may(number: str):
    with pytest.raises(RequestRefused, match="only those over -2"):
        check_grammar(f'start: %json {{"const": {number}}}', "x")


def test_other_numbers_may_be_anywhere():
    check_grammar('start: %json {"enum": [-9223372036854774784, 1e308, -3]}', "x")
    check_grammar('start: "-9223372036854775808"', "x")


@pytest.mark.parametrize("schema", [
    {"multipleOf": 0.01, "allOf": [{"multipleOf": 5_000_000}, {"multipleOf": 86_400}]},
    {"items": [{"multipleOf": 997}, {"multipleOf": 991}, {"multipleOf": 65_536}]},
    {"multipleOf": 0}, {"multipleOf": "x"}, {"properties": {"multipleOf": {"type": "string"}}},
])  # fmt: skip
def test_multiples_that_are_quick_to_follow_are_not_refused(schema: dict[str, object]):
    assert check_schema(schema, "x")


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ('%json {"multipleOf": 1000003}', "multipleOf is too slow"),
        ('%json\n  {"multipleO\\u0066": 1000003}', "multipleOf is too slow"),
        ("%json start", "no JSON that can be read follows %json"),
        ("%json " + "[" * 30_000, "no JSON that can be read follows %json"),
        ('%json {"a": {"x-guidance": {}}} b: %json {"x-guidance": {}}', "not allowed"),
    ],
)
def test_a_schema_inside_a_grammar_is_held_to_the_same(inside: str, message: str):
    with pytest.raises(RequestRefused, match=message):
        check_grammar(f"start: {inside}", "x")
